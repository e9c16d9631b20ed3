"""A repository that was copied file by file: every time of the store is that of the copying."""

import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import PASSPHRASE, Clock, Lab, make_lab
from tests.support.trees import files_of
from vault.clock import to_rfc3339, utc_now
from vault.model import LockMode
from vault.storage.local import LocalStore
from vault.storage.names import ledger_name

Vault = Callable[..., tuple[int, str, str]]
VaultJson = Callable[..., Any]

COPY = "by the hosts' own clocks: this store is a copy"


@pytest.fixture
def lab(home: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Of three days ago, with snapshots 2 and 3 an hour apart; files have the times of then."""
    clock = Clock(utc_now().replace(microsecond=0) - timedelta(days=3))
    store = LocalStore.create(home / "first", clock=clock)
    lab = make_lab(home / "lab", clock, LockMode.NONE, store=store)
    source = home / "data"
    source.mkdir()
    for text in ("before", "after"):
        clock.advance(hours=1)
        (source / "file").write_text(text)
        lab.snapshot(source)
    for record in lab.open().ledger.records:
        assert record.time is not None
        moment = record.time.timestamp()
        os.utime(home / "first" / ledger_name(record.seq), (moment, moment))
    monkeypatch.setenv("VAULT_KEYS", str(lab.base / "keys"))
    (home / "passphrase").write_bytes(PASSPHRASE + b"\n")
    return lab


@pytest.fixture
def copied(lab: Lab, home: Path) -> Path:
    """All files copied to another directory, by a tool that keeps no times."""
    return Path(shutil.copytree(home / "first", home / "copy", copy_function=shutil.copyfile))


def shown(vault: Vault, place: Path, spec: object) -> tuple[str, str]:
    """The content of a snapshot's file, and what was said."""
    code, out, err = vault("--repo", place, "cat", spec, "file")
    assert code == 0, err
    return out, " ".join(err.split())


def test_a_time_goes_by_the_hosts_clocks_and_that_is_said(
    vault: Vault, lab: Lab, copied: Path, home: Path
) -> None:
    """The first snapshot by the time between the two; by number nothing needs to be said."""
    between = f"data@{to_rfc3339(lab.clock() - timedelta(minutes=30))}"
    assert shown(vault, home / "first", between) == ("before", ""), "the control: by the store's"
    content, said = shown(vault, copied, between)
    assert content == "before"
    assert COPY in said
    code, _, err = vault("--repo", copied, "restore", between, home / "target")
    assert code == 0
    assert COPY in " ".join(err.split())
    assert files_of(home / "target") == {"file": b"before"}


@pytest.mark.parametrize(("number", "content"), [(2, b"before"), (3, b"after")])
def test_a_number_is_the_sure_way(
    vault: Vault, copied: Path, home: Path, number: int, content: bytes
) -> None:
    """It is restored as from the first repository."""
    code, _, err = vault("--repo", copied, "restore", number, home / "target")
    assert code == 0, err
    assert files_of(home / "target") == {"file": content}
    assert "copy" not in err


def test_appends_go_on_in_a_copy(
    vault: Vault, vault_json: VaultJson, lab: Lab, copied: Path, home: Path
) -> None:
    """Snapshots are what they were, with what was promised; a new one is taken and restored."""

    def listed(place: Path) -> dict[int, Any]:
        rows = vault_json("--repo", place, "list")["snapshots"]
        return {each.pop("seq"): each for each in rows if each.pop("stored")}

    before = listed(home / "first")
    (home / "data/file").write_text("later")
    made = vault_json("--repo", copied, "snapshot", home / "data", "--name", "data")
    assert made["snapshot"]["seq"] == 4
    assert {seq: row for seq, row in listed(copied).items() if seq < 4} == before
    assert shown(vault, copied, "data")[0] == "later"
    between = f"data@{to_rfc3339(lab.clock() - timedelta(minutes=30))}"
    content, said = shown(vault, copied, between)
    assert content == "before"
    assert COPY in said, "it is a copy still"


def test_an_audit_of_a_copy_finds_nothing_odd_in_times(
    vault_json: VaultJson, lab: Lab, copied: Path
) -> None:
    """All objects are of today, and all claims of three days ago: no finding says so."""

    def codes() -> set[str]:
        found = vault_json("--repo", copied, "audit")["audit"]["findings"]
        return {each["code"] for each in found if each["severity"] != "info"}

    assert codes() == set()
    first = lab.open().ledger.records[0].time
    assert first is not None
    os.utime(copied / ledger_name(0), (first.timestamp(), first.timestamp()))
    assert codes() == {"time-skew"}, "the control: a root of then says that it is no copy"
