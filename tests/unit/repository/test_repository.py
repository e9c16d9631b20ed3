"""A repository is bound to what was read: opening reads it, and reads hand findings back."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Lab
from vault.errors import DigestMismatchError, MissingObjectError
from vault.model import Code, ObjectRef
from vault.repository.objects import Sightings
from vault.repository.read_statements import read_ledger
from vault.repository.repository import Repository
from vault.storage.base import ObjectVersion
from vault.storage.names import ledger_name


class Refusing:
    """A store that may not be asked for anything."""

    def __getattr__(self, name: str) -> object:
        """No answer."""
        pytest.fail(f"the store was asked for {name}")


@pytest.fixture
def ref(lab: Lab, make_source: Callable[..., Path]) -> ObjectRef:
    """A pack of a snapshot."""
    objects = lab.open().inventory(lab.snapshot(make_source()).record).objects
    return next(ref for ref in objects if ref.name.startswith("packs/"))


def test_binding_a_repository_asks_the_store_for_nothing(lab: Lab) -> None:
    """What `Repository.open` reads is handed to the constructor, which only keeps it."""
    history = read_ledger(lab.store, lab.root)
    store: Any = Refusing()
    sightings = Sightings()
    bound = Repository(store, history, clock=lab.clock, pause=time.sleep, sightings=sightings)
    assert bound.head == lab.open().head
    assert bound.store is store


def test_what_a_read_meets_goes_where_the_caller_said(lab: Lab, ref: ObjectRef) -> None:
    """The pinned version is damaged and another one is right: the caller gets the finding."""
    sightings = Sightings()
    repository = Repository.open(lab.store, lab.root, clock=lab.clock, sightings=sightings)
    data = repository.read(ref)
    assert sightings.all() == ()
    lab.store.plant(ref.name, data)
    lab.store.corrupt(ref.name, ref.version, data[:-1] + b"\0")
    assert repository.read(ref) == data
    (found,) = sightings.all()
    assert (found.code, found.subject) == (Code.RELOCATED, ref.name)
    assert repository.findings == [found]


def test_a_finding_of_a_thread_outlives_a_second_look_at_the_ledger(
    lab: Lab,
    ref: ObjectRef,
    make_source: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A list that lags behind looks like a hole; meanwhile a worker reads a relocated pack."""
    repository = lab.open()
    late = ledger_name(lab.snapshot(make_source("a")).record.seq)
    lab.snapshot(make_source("b"))
    data = repository.read(ref)
    lab.store.plant(ref.name, data)
    lab.store.corrupt(ref.name, ref.version, data[:-1] + b"\0")
    versions: Callable[..., Iterator[ObjectVersion]] = lab.store.versions
    asked: list[str] = []

    def listing(prefix: str, **options: Any) -> Iterator[ObjectVersion]:
        asked.append(prefix)
        if len(asked) > 1:
            return versions(prefix, **options)
        worker = threading.Thread(target=repository.read, args=(ref,))
        worker.start()
        worker.join()
        return (each for each in versions(prefix, **options) if each.name != late)

    monkeypatch.setattr(lab.store, "versions", listing)
    repository.refresh()
    assert asked == ["ledger/", "ledger/"]
    assert [found.code for found in repository.findings] == [Code.RELOCATED]


def test_the_right_version_may_be_asked_for_beside_the_pinned_one(lab: Lab, ref: ObjectRef) -> None:
    """A copy counts; the pinned version itself, or other bytes of that size, do not."""
    objects = lab.open().objects
    assert objects.right_version(ref).version == ref.version
    with pytest.raises(MissingObjectError):
        objects.right_version(ref, pinned=False)
    data = lab.store.get(ref.name, ref.version)
    lab.store.plant(ref.name, data[:-1] + b"\0")
    with pytest.raises(MissingObjectError):
        objects.right_version(ref, pinned=False)
    lab.store.plant(ref.name, data)
    other = objects.right_version(ref, pinned=False)
    assert (other.data, other.version == ref.version) == (data, False)
    lab.store.corrupt(ref.name, ref.version, b"")
    assert objects.right_version(ref) == other
    lab.store.corrupt(ref.name, other.version, data[::-1])
    with pytest.raises(DigestMismatchError):
        objects.right_version(ref)
