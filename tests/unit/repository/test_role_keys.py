"""Key files by role: made, split off the joint one, and used again after a kill."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Lab
from vault.crypto import key_files
from vault.crypto.key_file_bytes import Argon2Cost
from vault.crypto.key_files import load_recovery, load_role, peek_role
from vault.crypto.public_keys import parse_public_file
from vault.encoding import b64encode
from vault.errors import ConfigError, SignatureError, WrongKeyError
from vault.ledger.statements import PolicyBody, Role, RootBody
from vault.machine import durable
from vault.repository.hosts import may_sign_as
from vault.repository.key_names import SPLIT_ROLES
from vault.repository.role_keys import Split, new_role_key, split_keys
from vault.repository.roots import apply_root, propose

CHEAP = Argon2Cost(memory=8, iterations=1, lanes=1)
SECRET = b"correct horse battery staple"


def _split(
    lab: Lab,
    directory: Path,
    *roles: Role,
    secret: bytes = SECRET,
    agree: Callable[[RootBody], None] = lambda _: None,
) -> Split:
    ledger, address = lab.open().ledger, lab.root_key.repository
    wanted = roles or SPLIT_ROLES
    return split_keys(ledger, address, directory, wanted, secret, agree=agree, cost=CHEAP)


def _apply(lab: Lab, made: Split) -> None:
    repository = lab.open()
    proposal = propose(repository.ledger, made.body)
    apply_root(repository, proposal, [lab.root_key.root], tool="vault test")


def test_split_gives_each_role_a_new_key_and_the_joint_ones_lose_it(
    lab: Lab, tmp_path: Path
) -> None:
    """Old enroller, policy and pruner may sign no more; the new ones may; the root's key stays."""
    made = _split(lab, tmp_path / "keys")
    assert {path.name for path in (tmp_path / "keys").iterdir()} == {
        f"{role}.key" for role in SPLIT_ROLES
    }
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in made.files.values())
    _apply(lab, made)
    ledger = lab.open().ledger
    old = lab.root_key
    for role, key in ((Role.ENROLLER, old.enroller), (Role.PRUNER, old.pruner)):
        assert not may_sign_as(ledger, key.public.id, role)
    for role, path in made.files.items():
        assert may_sign_as(ledger, load_role(path, SECRET).signing.public.id, role)
    assert may_sign_as(ledger, old.root.public.id, Role.ROOT)
    with pytest.raises(SignatureError, match="not link"):
        ledger.require_role(old.policy.public.id, "policy", PolicyBody(**POLICY))


POLICY: dict[str, Any] = {"name": "web", "sha256": "ab" * 32, "action": "apply"}


def test_a_split_that_was_killed_goes_on_with_the_keys_it_made(lab: Lab, tmp_path: Path) -> None:
    """No key is lost that a root may list; the passphrase must open them."""
    first = _split(lab, tmp_path)
    publics = {role: peek_role(path)[1].id for role, path in first.files.items()}
    (tmp_path / "pruner.key").unlink()
    again = _split(lab, tmp_path)
    found = {role: peek_role(path)[1].id for role, path in again.files.items()}
    assert {r for r in publics if publics[r] != found[r]} == {Role.PRUNER}
    with pytest.raises(WrongKeyError, match="wrong passphrase"):
        _split(lab, tmp_path, secret=b"another long passphrase")


def test_a_key_that_is_in_force_is_not_split_again(lab: Lab, tmp_path: Path) -> None:
    """Refused before anything is made; other roles can be split."""
    _apply(lab, _split(lab, tmp_path, Role.PRUNER))
    with pytest.raises(ConfigError, match="in force already"):
        _split(lab, tmp_path)
    assert [path.name for path in tmp_path.glob("*.key")] == ["pruner.key"]
    _apply(lab, _split(lab, tmp_path, Role.LOG))


def test_who_says_no_to_the_root_gets_no_files(lab: Lab, tmp_path: Path) -> None:
    """Asked before a file is made."""

    def refuse(_: RootBody) -> None:
        raise ConfigError("not confirmed")

    with pytest.raises(ConfigError, match="not confirmed"):
        _split(lab, tmp_path / "keys", agree=refuse)
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("role", [Role.ROOT, Role.LOG, Role.RESTORER])
def test_a_new_key_and_its_public_file_are_of_one_key(lab: Lab, tmp_path: Path, role: Role) -> None:
    """Listed nowhere yet; a restorer's comes with a recipient, as a recovery key."""
    path = tmp_path / "new.key"
    address = lab.root_key.repository
    text = new_role_key(path, address, role, SECRET, cost=CHEAP)
    found = parse_public_file(text, address.id)
    if role is Role.RESTORER:
        recovery = load_recovery(path, SECRET)
        assert found.key == recovery.restorer.public
        assert found.recipient == recovery.recipient.public_raw
    else:
        key = load_role(path, SECRET)
        assert (found.key, key.role, found.recipient) == (key.signing.public, role, None)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="never overwritten"):
        new_role_key(path, address, role, SECRET, cost=CHEAP)
    assert path.read_bytes() == before


@pytest.mark.parametrize("call", range(3))
def test_a_passphrase_change_that_is_killed_leaves_one_that_opens(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """Stopped before the n-th call that makes something durable; a retry goes through."""
    path = tmp_path / "log.key"
    new_role_key(path, lab.root_key.repository, Role.LOG, SECRET, cost=CHEAP)
    after = b"another long passphrase"
    left = call
    real = {name: getattr(durable, name) for name in ("create", "sync_directory")}

    def stopping(name: str) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return real[name](*args, **kwargs)

        return wrapper

    with monkeypatch.context() as patched:
        for name in real:
            patched.setattr(durable, name, stopping(name))
        with contextlib.suppress(KeyboardInterrupt):
            key_files.change_passphrase(path, SECRET, after, cost=CHEAP)
    opens = [secret for secret in (SECRET, after) if _opens(path, secret)]
    assert len(opens) == 1
    key_files.change_passphrase(path, opens[0], after, cost=CHEAP)
    assert _opens(path, after)
    assert not _opens(path, SECRET)
    assert [each.name for each in tmp_path.glob("log*")] == ["log.key"]


def _opens(path: Path, secret: bytes) -> bool:
    try:
        load_role(path, secret)
    except WrongKeyError:
        return False
    return True


def test_what_stands_at_the_name_of_the_new_form_is_left_alone(lab: Lab, tmp_path: Path) -> None:
    """Unless it is what an interrupted change of this very file left."""
    path = tmp_path / "log.key"
    new_role_key(path, lab.root_key.repository, Role.LOG, SECRET, cost=CHEAP)
    stranger = tmp_path / "log.key.new"
    stranger.write_bytes(b"mine")
    with pytest.raises(ConfigError, match="in the way"):
        key_files.change_passphrase(path, SECRET, b"another long passphrase", cost=CHEAP)
    assert stranger.read_bytes() == b"mine"
    stranger.unlink()
    stranger.write_bytes(path.read_bytes())
    key_files.change_passphrase(path, SECRET, b"another long passphrase", cost=CHEAP)
    assert not stranger.exists()


def test_a_key_file_that_names_another_public_key_does_not_open(lab: Lab, tmp_path: Path) -> None:
    """The clear members are bound to the sealed ones."""
    one, two = tmp_path / "one.key", tmp_path / "two.key"
    for path in (one, two):
        new_role_key(path, lab.root_key.repository, Role.LOG, SECRET, cost=CHEAP)
    publics = [peek_role(path)[1].der for path in (one, two)]
    swapped = one.read_bytes().replace(
        b64encode(publics[0]).encode(), b64encode(publics[1]).encode()
    )
    one.unlink()
    one.write_bytes(swapped)
    with pytest.raises(WrongKeyError, match="altered"):
        load_role(one, SECRET)


def test_a_host_s_key_has_no_passphrase_to_change(lab: Lab, tmp_path: Path) -> None:
    """Cron opens it."""
    path = tmp_path / "writer.key"
    key_files.save_writer(path, lab.host.key)
    with pytest.raises(WrongKeyError, match="no passphrase"):
        key_files.change_passphrase(path, SECRET, b"another long passphrase", cost=CHEAP)
