"""A thief's signed snapshot beyond a hole: what fresh hosts say, and that a revocation ends it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from vault.clock import utc_now
from vault.crypto.key_files import load_writer
from vault.ledger.envelope import Head, build_statement, seal_envelope
from vault.ledger.statements import StatementType
from vault.model import Digest, replace_body
from vault.repository.repository import Repository, snapshot_body
from vault.storage.choose_store import open_store
from vault.storage.names import ledger_name

Vault: TypeAlias = Callable[..., tuple[int, str, str]]
Fresh: TypeAlias = Callable[[], None]


@pytest.fixture
def thief(
    vault: Vault, repository: Path, source: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The id of a host's key; a snapshot that it signed stands two numbers beyond the head."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    root = json.loads((home / "config/vault/writer.key").read_bytes())["repository"]
    there = ["--repo", root["url"], "--trust", f"0:{root['root']}"]
    with monkeypatch.context() as patch:
        patch.setenv("VAULT_KEYS", str(home / "stolen"))
        wish = ["--name", "thief", "--dataset", "data", "--out", "thief.request"]
        code, _, err = vault(*there, "key", "request", *wish)
        assert code == 0, err
    key = load_writer(home / "stolen/writer.key").signing
    add = ["key", "add", "thief.request", "--key", key.public.id, "--share-datasets", "first"]
    code, _, err = vault(*add)
    assert code == 0, err
    opened = Repository.open(open_store(str(repository)), Digest.parse(root["root"]), clock=utc_now)
    (taken,) = opened.ledger.valid(StatementType.SNAPSHOT)
    seq = opened.head.seq + 2
    payload = build_statement(
        type="snapshot",
        repository=opened.ledger.repository_id,
        seq=seq,
        prev=Head(seq=seq - 1, digest=Digest(bytes(32))),
        time=utc_now(),
        tool="thief",
        subject=[("inventory", Digest(bytes(32)))],
        body=replace_body(snapshot_body(taken), previous=taken.seq),
        by=[key.public.id],
    )
    (repository / ledger_name(seq)).write_bytes(seal_envelope(payload, [key]))
    return key.public.id


@pytest.fixture
def fresh(home: Path, monkeypatch: pytest.MonkeyPatch) -> Fresh:
    """What was remembered is lost."""
    numbers: Iterator[int] = iter(range(100))
    return lambda: monkeypatch.setenv("XDG_STATE_HOME", str(home / f"state-{next(numbers)}"))


@pytest.mark.parametrize("distrust", [[], ["--distrust-from", "4"]])
def test_a_revocation_ends_what_a_thief_beyond_a_hole_costs(
    vault: Vault, thief: str, fresh: Fresh, source: Path, distrust: list[str]
) -> None:
    """Until then a host without memory refuses to append and names the option; a restore asks."""
    target = source.parent / "back"
    backup = ["snapshot", source, "--name", "data"]
    for _ in range(2):
        fresh()
        code, _, err = vault(*backup)
        assert (code, "does not follow the head" in err) == (4, True)
        assert "revoking a thief's key ends this" in err
        code, _, err = vault("restore", "data", target)
        assert (code, "stands beyond a hole" in err) == (2, True)
        assert vault("list")[0] == 0
        assert not target.exists()
    fresh()
    code, _, err = vault("key", "revoke", thief, *distrust, "--reason", "stolen")
    assert code == 0, err
    fresh()
    code, _, err = vault(*backup)
    assert code == 0, err
    fresh()
    assert vault("restore", "data", target)[0] == 0
    assert (target / "readme").read_bytes() == (source / "readme").read_bytes()
    code, out, _ = vault("audit")
    assert code == (0 if distrust else 4), out
