"""A thief with one or two writer keys, who acts between any two calls of the store.

Whatever is planted: every reader has what honest hosts published, a host that remembers a head goes
on, the keys are revoked, and a reader that knows a head takes no other history.

With the store in the thief's hands, versions are taken away too, and older lists shown: what is
still there is read and restored, revocation and audit work, and who knows a head takes no fork.
"""

from collections.abc import Callable
from typing import NoReturn

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.support.lab import MakeRepository
from tests.support.thieves import LENGTH, StorageOwner, Thief
from tests.support.trees import MakeSource
from vault.errors import RollbackError, VaultError
from vault.ledger import pages
from vault.ledger.keyring import Keyring
from vault.model import LockMode
from vault.repository import opening, read_statements
from vault.repository.ledgerobjects import plausible
from vault.repository.read_statements import StoredLedger

MODEST = settings(deadline=None, max_examples=25, stateful_step_count=12, print_blob=True)


def _stop(*_: object) -> NoReturn:
    raise RollbackError("a statement stands beyond a gap")


@pytest.fixture
def run(make_repository: MakeRepository, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs the machine with a thief of so many keys."""
    monkeypatch.setattr(pages, "PAGE_LENGTH", LENGTH)
    count = iter(range(1_000_000))

    def start(keys: int, how: settings = MODEST) -> None:
        def machine() -> Thief:
            return Thief(make_repository(LockMode.NONE, name=f"lab{next(count)}"), keys)

        run_state_machine_as_test(machine, settings=how)  # type: ignore[arg-type]  # any factory

    return start


@pytest.fixture
def run_owner(
    make_repository: MakeRepository, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Runs the machine with the store in the hands of a thief of two keys."""
    monkeypatch.setattr(pages, "PAGE_LENGTH", LENGTH)
    source = make_source(files=1)
    count = iter(range(1_000_000))

    def start(how: settings) -> None:
        def machine() -> StorageOwner:
            lab = make_repository(LockMode.NONE, name=f"owned{next(count)}")
            return StorageOwner(lab, 2, source)

        run_state_machine_as_test(machine, settings=how)  # type: ignore[arg-type]  # any factory

    return start


@pytest.mark.parametrize("keys", [1, 2])
def test_no_thief_of_writer_keys_stops_or_fools_anybody(
    run: Callable[..., None], keys: int
) -> None:
    """Whatever it plants, and whenever."""
    run(keys)


GUARDS: dict[str, tuple[object, str, object]] = {
    "critical counts from anybody": (Keyring, "governs", lambda *_: True),
    "a hole stops reading": (StoredLedger, "_look_beyond", _stop),
    "the newest version owns a name": (
        read_statements,
        "plausible",
        lambda each: plausible(each)[::-1],
    ),
}


@pytest.mark.parametrize("guard", GUARDS)
def test_without_a_guard_the_thief_is_found_out(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch, guard: str
) -> None:
    """The control: the same machine fails where one rule is taken out."""
    owner, name, instead = GUARDS[guard]
    monkeypatch.setattr(owner, name, instead)
    with pytest.raises((AssertionError, VaultError, BaseExceptionGroup)):
        run(1, settings(MODEST, phases=[Phase.generate], report_multiple_bugs=False))


@pytest.mark.parametrize("count", [8, pytest.param(160, marks=pytest.mark.thorough)])
def test_no_owner_of_the_store_fools_who_knows_a_head(
    run_owner: Callable[..., None], count: int
) -> None:
    """Whatever goes, rots or is not shown; and what is still there is read and restored."""
    run_owner(settings(MODEST, max_examples=count))


OWNERS_GUARDS: dict[str, tuple[object, str, object]] = {
    "heads are not compared": (opening, "check_floor", lambda *_: None),
    "a hole stops reading": (StoredLedger, "_look_beyond", _stop),
    "a hole stops a revocation": (
        read_statements,
        "require_no_word",
        lambda _, beyond, *__, **___: _stop() if beyond else None,
    ),
}


@pytest.mark.parametrize("guard", OWNERS_GUARDS)
def test_without_a_guard_the_owner_is_found_out(
    run_owner: Callable[..., None], monkeypatch: pytest.MonkeyPatch, guard: str
) -> None:
    """The control: the same machine fails where one rule is taken out."""
    owner, name, instead = OWNERS_GUARDS[guard]
    monkeypatch.setattr(owner, name, instead)
    with pytest.raises((AssertionError, VaultError, BaseExceptionGroup)):
        run_owner(
            settings(MODEST, max_examples=25, phases=[Phase.generate], report_multiple_bugs=False)
        )
