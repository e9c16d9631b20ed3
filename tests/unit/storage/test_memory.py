"""What `MemoryStore` offers beyond the contract: faults, tampering, copies, order."""

import hashlib
import threading
from datetime import UTC, datetime, timedelta

import pytest

from vault.errors import ObjectNotFoundError, StorageUnavailableError
from vault.model import LockMode, Retention
from vault.storage.base import ObjectVersion
from vault.storage.memory import FaultPoint, MemoryStore

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def put(
    store: MemoryStore, name: str, data: bytes, retention: Retention | None = None
) -> ObjectVersion:
    """Store with the right digest."""
    return store.put(name, data, sha256=hashlib.sha256(data).digest(), retention=retention)


def test_faults_see_every_call_and_phase() -> None:
    """Counted over all operations, so that a sweep can strike at the n-th call."""
    seen: list[FaultPoint] = []
    store = MemoryStore(fault=seen.append)
    version = put(store, "a", b"1")
    store.get("a", version.version)
    list(store.versions("pre"))
    assert [(each.count, each.operation, each.name, each.phase) for each in seen] == [
        (1, "put", "a", "before"),
        (1, "put", "a", "after"),
        (2, "get", "a", "before"),
        (2, "get", "a", "after"),
        (3, "versions", "pre", "before"),
        (3, "versions", "pre", "after"),
    ]


@pytest.mark.parametrize(("phase", "stored"), [("before", 0), ("after", 1)])
def test_a_fault_fails_the_call_or_loses_its_reply(phase: str, stored: int) -> None:
    """Raised before, nothing happened; raised after, it did."""

    def strike(point: FaultPoint) -> None:
        if point.operation == "put" and point.phase == phase:
            raise StorageUnavailableError("no answer")

    store = MemoryStore(fault=strike)
    with pytest.raises(StorageUnavailableError):
        put(store, "a", b"1")
    assert len(list(store.versions(""))) == stored


@pytest.mark.parametrize(
    ("by_commit", "order"), [(True, [b"fast", b"slow"]), (False, [b"slow", b"fast"])]
)
def test_a_stalled_put_is_listed_by_commit_or_by_arrival(
    by_commit: bool,  # noqa: FBT001 - a parameter of the test
    order: list[bytes],
) -> None:
    """The second kind of store lets the loser of a race turn up in first place."""
    arrived, go_on = threading.Event(), threading.Event()

    def stall(point: FaultPoint) -> None:
        if point.count == 1 and point.phase == "before":
            arrived.set()
            assert go_on.wait(10)

    store = MemoryStore(fault=stall, orders_versions_by_commit=by_commit)
    slow = threading.Thread(target=put, args=(store, "a", b"slow"))
    slow.start()
    assert arrived.wait(10)
    put(store, "a", b"fast")
    go_on.set()
    slow.join()
    assert [store.get("a", each.version) for each in store.versions("a")] == order
    assert store.traits.orders_versions_by_commit is by_commit


def test_corrupt_changes_bytes_and_leaves_the_rest() -> None:
    """The checksum that the store keeps still says what it was."""
    store = MemoryStore()
    version = put(store, "a", b"good").version
    store.corrupt("a", version, b"evil")
    assert store.get("a", version) == b"evil"
    assert store.status("a", version).sha256 == hashlib.sha256(b"good").digest()


def test_remove_heeds_no_lock() -> None:
    """That is what thieves are like."""
    store = MemoryStore(clock=lambda: NOW)
    until = NOW + timedelta(days=9)
    version = put(store, "a", b"x", Retention(mode=LockMode.COMPLIANCE, until=until)).version
    store.remove("a", version)
    with pytest.raises(ObjectNotFoundError):
        store.get("a", version)
    assert list(store.versions("")) == []


def test_copies_are_independent() -> None:
    """Neither bytes, locks nor versions of one show in the other."""
    store = MemoryStore(clock=lambda: NOW)
    version = put(store, "a", b"1").version
    twin = store.copy()
    twin.corrupt("a", version, b"2")
    twin.set_legal_hold("a", version, on=True)
    added = put(twin, "a", b"3").version
    put(store, "b", b"4")
    assert store.get("a", version) == b"1"
    assert not store.status("a", version).legal_hold
    assert [each.version for each in twin.versions("")] == [version, added]


def test_version_ids_are_in_no_order() -> None:
    """A caller that sorts them finds out here, not on a server."""
    store = MemoryStore()
    ids = [put(store, "a", b"x").version for _ in range(20)]
    assert ids != sorted(ids)
    assert ids != sorted(ids, reverse=True)
