"""What every object store must do: `vault.storage.base`, sentence by sentence."""

import dataclasses
import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.stores import StoreUnderTest
from vault.errors import (
    ConfigError,
    DigestMismatchError,
    NameTakenError,
    ObjectNotFoundError,
    RetentionError,
    VaultError,
)
from vault.model import Buffer, LockMode, Retention
from vault.storage.base import ObjectStore, ObjectVersion, is_on_server

NAME = "packs/ab/" + "ab" * 32
DAY = timedelta(days=1)
WRONG = hashlib.sha256(b"something else").digest()


def put(
    store: ObjectStore, name: str, data: Buffer, retention: Retention | None = None
) -> ObjectVersion:
    """Store with the right digest."""
    return store.put(name, data, sha256=hashlib.sha256(data).digest(), retention=retention)


def lock(store: ObjectStore, days: int, mode: LockMode = LockMode.GOVERNANCE) -> Retention:
    """A lock of so many days by the store's clock."""
    return Retention(mode=mode, until=store.now().replace(microsecond=0) + days * DAY)


def listed(store: ObjectStore, prefix: str, after: str = "") -> list[tuple[str, str]]:
    """Names and version ids, in the order of the listing."""
    return [(each.name, each.version) for each in store.versions(prefix, after=after)]


# --- put, get, status ---


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 5000])
def test_get_returns_what_was_put(store: ObjectStore, data: bytes) -> None:
    """By version id and as the newest alike."""
    version = put(store, NAME, data)
    assert store.get(NAME, version.version) == data
    assert store.get(NAME) == data


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_put_takes_any_buffer(store: ObjectStore, kind: type[bytearray | memoryview]) -> None:
    """And keeps the bytes of the moment, whatever the caller does to the buffer after."""
    buffer = bytearray(b"some bytes")
    version = put(store, NAME, kind(buffer))
    buffer[:] = b"otherbytes"
    assert store.get(NAME, version.version) == b"some bytes"


def test_put_states_what_the_listing_states(store: ObjectStore) -> None:
    """Name, version and size of the answer are those of the listing, the time about it."""
    for name in (NAME, "ledger/0000000000000000"):
        version = put(store, name, b"data")
        (found,) = store.versions(name)
        assert dataclasses.replace(found, modified=version.modified) == version
        assert abs(found.modified - version.modified) < timedelta(minutes=5)
        assert version.size == 4
        assert not version.marker
        assert abs(version.modified - store.now()) < timedelta(minutes=5)
        assert version.modified.utcoffset() == timedelta(0)


def test_put_with_wrong_digest_stores_nothing(store: ObjectStore) -> None:
    """A transfer error must not become an object."""
    with pytest.raises(DigestMismatchError):
        store.put(NAME, b"data", sha256=WRONG)
    assert listed(store, "") == []


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "../a", "a/../b", "A", "a~2", "a\0", "ä"])
def test_put_refuses_names_the_vault_does_not_write(store: ObjectStore, name: str) -> None:
    """Above all those that lead out of the store."""
    with pytest.raises(ConfigError):
        put(store, name, b"data")


def test_put_to_a_taken_name_makes_the_next_version(store: ObjectStore) -> None:
    """Nothing is overwritten; the list has them oldest first."""
    versions = [put(store, NAME, b"%d" % i) for i in range(12)]
    assert listed(store, NAME) == [(NAME, each.version) for each in versions]
    assert len({each.version for each in versions}) == 12
    assert [store.get(NAME, each.version) for each in versions] == [b"%d" % i for i in range(12)]
    assert store.get(NAME) == b"11"


def test_put_of_the_same_bytes_makes_a_version_of_its_own(store: ObjectStore) -> None:
    """A repeated PUT is harmless, and seen."""
    assert put(store, NAME, b"data").version != put(store, NAME, b"data").version


def test_an_exclusive_put_meets_no_visible_version(under_test: StoreUnderTest) -> None:
    """A taken name is refused, unless only a delete marker shows at it.

    A server that can't refuse keeps both versions in their order, so the first one owns the name.
    """
    store = under_test.store

    def exclusive(data: bytes) -> ObjectVersion:
        return store.put(NAME, data, sha256=hashlib.sha256(data).digest(), exclusive=True)

    first = exclusive(b"first")
    try:
        second = exclusive(b"second")
    except NameTakenError:
        assert listed(store, NAME) == [(NAME, first.version)]
    else:
        assert is_on_server(store), "a taken name was taken again"
        assert listed(store, NAME) == [(NAME, first.version), (NAME, second.version)]
    if under_test.put_marker:
        under_test.put_marker(NAME)
        exclusive(b"third")


def test_concurrent_puts_of_one_name_make_distinct_versions(store: ObjectStore) -> None:
    """No PUT is lost and none replaces another."""
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(put, store, NAME, b"%d" % i) for i in range(40)]
        versions = [future.result() for future in futures]
    assert len({each.version for each in versions}) == 40
    assert {version for _, version in listed(store, NAME)} == {each.version for each in versions}
    assert [store.get(NAME, each.version) for each in versions] == [b"%d" % i for i in range(40)]


def test_concurrent_puts_of_many_names(store: ObjectStore) -> None:
    """Threads may share a store."""
    names = [f"packs/{i % 7:02x}/{i:064x}" for i in range(60)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: put(store, name, name.encode()), names))
    assert [name for name, _ in listed(store, "packs/")] == sorted(names)


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, None, b"0123456789"),
        (3, None, b"3456789"),
        (0, 4, b"0123"),
        (3, 4, b"3456"),
        (8, 9, b"89"),
        (10, 5, b""),
        (99, None, b""),
        (4, 0, b""),
    ],
)
def test_get_returns_ranges(
    store: ObjectStore, offset: int, length: int | None, expected: bytes
) -> None:
    """What lies past the end is cut off."""
    version = put(store, NAME, b"0123456789")
    assert store.get(NAME, version.version, offset=offset, length=length) == expected


@pytest.mark.parametrize(
    "name",
    ["packs/ab/absent", "packs", NAME + "/x", "", ".", "..", "/etc/passwd", "a\0b", "\udcff"],
)
def test_what_is_not_there_is_not_found(store: ObjectStore, name: str) -> None:
    """Also under names that no object could have."""
    version = put(store, NAME, b"data").version
    with pytest.raises(ObjectNotFoundError):
        store.get(name)
    with pytest.raises(ObjectNotFoundError):
        store.status(name, version)
    with pytest.raises(ObjectNotFoundError):
        store.delete(name, version)


@pytest.mark.parametrize(
    "version", ["", "0", "2-" + "0" * 64, "1-x", "../1", "null", "9" * 2000, "ä"]
)
def test_unknown_versions_are_not_found(store: ObjectStore, version: str) -> None:
    """Version ids come from records: they may be anything."""
    put(store, NAME, b"data")
    calls = (
        lambda: store.get(NAME, version),
        lambda: store.status(NAME, version),
        lambda: store.extend(NAME, version, lock(store, 9)),
        lambda: store.set_legal_hold(NAME, version, on=True),
        lambda: store.delete(NAME, version),
    )
    for call in calls:
        with pytest.raises(ObjectNotFoundError):
            call()
    assert store.get(NAME) == b"data"


def test_status_of_an_unlocked_version(store: ObjectStore) -> None:
    """Size; the checksum where the store keeps one; no lock, no hold."""
    version = put(store, NAME, b"data")
    status = store.status(NAME, version.version)
    assert status.size == 4
    assert status.sha256 in {None, hashlib.sha256(b"data").digest()}
    assert status.retention is None
    assert not status.legal_hold


# --- versions ---

TREE = ["a/b", "a.b", "a0", "a/0/1", "a/b.c", "a/b/c", "ab/x", "b", "a-b/c", "a/b0", "a/0.1"]


def test_listing_is_sorted_bytewise_by_full_name(store: ObjectStore) -> None:
    """A slash is a byte like the others: `a.b` comes before `a/b`, which comes before `a0`."""
    names = [name for name in TREE if name != "a/b"]
    for name in reversed(names):
        put(store, name, b"1")
        put(store, name, b"2")
    assert [name for name, _ in listed(store, "")] == sorted(names * 2)


@pytest.mark.parametrize(
    "prefix", ["", "a", "a/", "a/b", "a/b/", "a/b/c", "a/0", "b", "zz", "a/zz/"]
)
@pytest.mark.parametrize(
    "after", ["", "a", "a-", "a-b/c", "a/", "a/0", "a/0/1", "a/b", "a/b/c", "zz"]
)
def test_listing_honours_prefix_and_after(store: ObjectStore, prefix: str, after: str) -> None:
    """Both are compared with the full name, bytewise."""
    names = [name for name in TREE if name != "a/b"]
    for name in names:
        put(store, name, b"data")
    expected = sorted(each for each in names if each.startswith(prefix) and each > after)
    assert [name for name, _ in listed(store, prefix, after)] == expected


@pytest.mark.parametrize("prefix", ["../", "/", "//", "./", "a/../", "a\0/", "\udcff/"])
def test_listing_a_strange_prefix_is_empty(store: ObjectStore, prefix: str) -> None:
    """It is not a way out of the store."""
    put(store, "a/b", b"data")
    assert listed(store, prefix) == []


@pytest.mark.parametrize("name", ["packs/ÄÖ", "packs/a b\n", "packs/~2", "packs/x~1", "packs/UP"])
def test_names_the_vault_never_writes_are_listed(under_test: StoreUnderTest, name: str) -> None:
    """An audit wants to see junk, and to go on after it."""
    store = under_test.store
    put(store, NAME, b"data")
    under_test.plant(name, b"junk")
    assert [found for found, _ in listed(store, "packs/")] == sorted([name, NAME])
    version = dict(listed(store, "packs/"))[name]
    assert store.get(name, version) == b"junk"


@pytest.mark.parametrize(
    "name", [*TREE, "a", "a/", "a/0", "", "zz", "zz/a", "../a/b", "a\0", "a~2"]
)
def test_the_versions_of_one_name_are_what_the_listing_has_of_it(
    store: ObjectStore, name: str
) -> None:
    """In its order; of names that begin alike there is none among them."""
    for each in (item for item in TREE if item != "a/b"):
        put(store, each, b"1")
        put(store, each, b"22")
    every = [each for each in store.versions("") if each.name == name]
    assert store.versions_of(name) == every
    assert len(every) == (2 if name in TREE and name != "a/b" else 0)


def test_the_versions_of_one_name_are_those_that_are_left(store: ObjectStore) -> None:
    """Whichever was deleted; oldest first."""
    versions = [put(store, NAME, b"%d" % i) for i in range(4)]
    for gone in (versions[0], versions[2]):
        store.delete(NAME, gone.version)
    left = [each.version for each in store.versions_of(NAME)]
    assert left == [versions[1].version, versions[3].version]
    for gone in (versions[3], versions[1]):
        store.delete(NAME, gone.version)
    assert store.versions_of(NAME) == []


def test_the_versions_of_one_name_have_its_markers_among_them(with_markers: StoreUnderTest) -> None:
    """Where the store has them, in their place."""
    assert with_markers.put_marker is not None
    put(with_markers.store, NAME, b"data")
    with_markers.put_marker(NAME)
    assert [each.marker for each in with_markers.store.versions_of(NAME)] == [False, True]


def test_a_name_that_the_vault_never_writes_can_be_asked_for(under_test: StoreUnderTest) -> None:
    """An audit looks again at whatever it met."""
    for name in ("packs/a b~1", "packs/ÄÖ", "packs/UP"):
        under_test.plant(name, b"junk")
        assert [each.name for each in under_test.store.versions_of(name)] == [name]


def test_a_delete_marker_hides_from_plain_reads_only(with_markers: StoreUnderTest) -> None:
    """It is listed, has no bytes, can't be locked, and can be deleted."""
    assert with_markers.put_marker is not None
    store = with_markers.store
    version = put(store, NAME, b"data", lock(store, 9))
    with_markers.put_marker(NAME)
    real, marker = store.versions(NAME)
    assert (real.marker, marker.marker) == (False, True)
    assert store.get(NAME, version.version) == b"data"
    for call in (
        lambda: store.get(NAME),
        lambda: store.get(NAME, marker.version),
        lambda: store.status(NAME, marker.version),
        lambda: store.extend(NAME, marker.version, lock(store, 9)),
        lambda: store.set_legal_hold(NAME, marker.version, on=True),
    ):
        with pytest.raises(ObjectNotFoundError):
            call()
    store.delete(NAME, marker.version)
    assert store.get(NAME) == b"data"


# --- retention, holds, deletion ---

MODES = [LockMode.GOVERNANCE, LockMode.COMPLIANCE]


def test_an_unlocked_version_can_be_deleted(store: ObjectStore) -> None:
    """For ever, and no other version with it."""
    first, second, third = (put(store, NAME, b"%d" % i) for i in range(3))
    store.delete(NAME, second.version)
    assert listed(store, NAME) == [(NAME, first.version), (NAME, third.version)]
    with pytest.raises(ObjectNotFoundError):
        store.get(NAME, second.version)
    with pytest.raises(ObjectNotFoundError):
        store.delete(NAME, second.version)
    store.delete(NAME, third.version)
    assert store.get(NAME) == b"0"
    store.delete(NAME, first.version)
    assert listed(store, "") == []


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_put_after_a_deletion_is_still_the_newest(store: ObjectStore, gone: int) -> None:
    """The list is in the order of the PUTs, whatever was deleted meanwhile."""
    versions = [put(store, NAME, b"%d" % i).version for i in range(3)]
    store.delete(NAME, versions.pop(gone))
    versions.append(put(store, NAME, b"new").version)
    assert listed(store, NAME) == [(NAME, version) for version in versions]
    assert store.get(NAME) == b"new"


@pytest.mark.parametrize("mode", MODES)
def test_a_lock_of_the_put_is_in_force_and_ends(under_test: StoreUnderTest, mode: LockMode) -> None:
    """Deletion is refused to the last second and granted after."""
    store = under_test.store
    retention = lock(store, 9, mode)
    version = put(store, NAME, b"data", retention).version
    assert store.status(NAME, version).retention == retention
    with pytest.raises(RetentionError):
        store.delete(NAME, version)
    under_test.advance(9 * DAY - timedelta(seconds=1))
    with pytest.raises(RetentionError):
        store.delete(NAME, version)
    assert store.get(NAME, version) == b"data"
    under_test.advance(timedelta(seconds=1))
    store.delete(NAME, version)
    assert listed(store, "") == []


@pytest.mark.parametrize("mode", MODES)
def test_extend_locks_an_unlocked_version(store: ObjectStore, mode: LockMode) -> None:
    """And says until when."""
    version = put(store, NAME, b"data").version
    retention = lock(store, 9, mode)
    assert store.extend(NAME, version, retention) == retention.until
    assert store.status(NAME, version).retention == retention
    with pytest.raises(RetentionError):
        store.delete(NAME, version)


@pytest.mark.parametrize("mode", MODES)
def test_extend_lengthens_and_never_shortens(store: ObjectStore, mode: LockMode) -> None:
    """Asked for less, it answers with what is in force."""
    version = put(store, NAME, b"data", lock(store, 9, mode)).version
    longer = lock(store, 20, mode)
    assert store.extend(NAME, version, longer) == longer.until
    assert store.extend(NAME, version, lock(store, 5, mode)) == longer.until
    assert store.extend(NAME, version, longer) == longer.until
    assert store.status(NAME, version).retention == longer


def test_extend_touches_no_other_version(store: ObjectStore) -> None:
    """An attacker's newer version must not catch the lock."""
    first = put(store, NAME, b"1").version
    second = put(store, NAME, b"2").version
    store.extend(NAME, first, lock(store, 9))
    assert store.status(NAME, second).retention is None
    store.delete(NAME, second)
    with pytest.raises(RetentionError):
        store.delete(NAME, first)


def test_compliance_is_not_downgraded(store: ObjectStore) -> None:
    """Not even by an extend that would last longer."""
    retention = lock(store, 9, LockMode.COMPLIANCE)
    version = put(store, NAME, b"data", retention).version
    with pytest.raises(RetentionError):
        store.extend(NAME, version, lock(store, 20, LockMode.GOVERNANCE))
    same = dataclasses.replace(retention, mode=LockMode.GOVERNANCE)
    assert store.extend(NAME, version, same) == retention.until
    assert store.extend(NAME, version, lock(store, 2, LockMode.GOVERNANCE)) == retention.until
    assert store.status(NAME, version).retention == retention


def test_governance_can_become_compliance(store: ObjectStore) -> None:
    """With the same end or a later one; a store that refuses says so and keeps the lock."""
    before = lock(store, 9)
    version = put(store, NAME, b"data", before).version
    for retention in (
        dataclasses.replace(before, mode=LockMode.COMPLIANCE),
        lock(store, 12, LockMode.COMPLIANCE),
    ):
        try:
            assert store.extend(NAME, version, retention) == retention.until
        except RetentionError:
            assert store.status(NAME, version).retention == before
        else:
            assert store.status(NAME, version).retention == retention


def test_an_expired_lock_can_be_set_anew(under_test: StoreUnderTest) -> None:
    """In any mode; its past counts for nothing."""
    store = under_test.store
    version = put(store, NAME, b"data", lock(store, 9, LockMode.COMPLIANCE)).version
    under_test.advance(10 * DAY)
    retention = lock(store, 1)
    assert store.extend(NAME, version, retention) == retention.until
    with pytest.raises(RetentionError):
        store.delete(NAME, version)


def test_a_lock_in_the_past_is_refused(store: ObjectStore) -> None:
    """It would be no lock."""
    version = put(store, NAME, b"data").version
    with pytest.raises(RetentionError):
        store.extend(NAME, version, lock(store, -1))
    with pytest.raises(RetentionError):
        put(store, "other", b"data", lock(store, -1))
    assert listed(store, "") == [(NAME, version)]


@pytest.mark.parametrize(
    "retention",
    [
        Retention(mode=LockMode.NONE, until=datetime(2050, 1, 1, tzinfo=UTC)),
        Retention(mode=LockMode.GOVERNANCE, until=datetime(2050, 1, 1)),  # noqa: DTZ001 - the point
        Retention(mode=LockMode.GOVERNANCE, until=datetime(2050, 1, 1, 0, 0, 0, 5, tzinfo=UTC)),
    ],
)
def test_a_lock_no_store_can_keep_is_refused(store: ObjectStore, retention: Retention) -> None:
    """Without mode or zone, or with fractions that a store would cut off."""
    version = put(store, NAME, b"data").version
    with pytest.raises(VaultError):
        store.extend(NAME, version, retention)
    with pytest.raises(VaultError):
        put(store, "other", b"data", retention)


def test_concurrent_extends_end_with_the_longest(store: ObjectStore) -> None:
    """And each answer is at least what was asked."""
    version = put(store, NAME, b"data").version
    asked = [lock(store, 5 + (7 * i) % 40) for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda each: store.extend(NAME, version, each), asked))
    assert all(answer >= each.until for answer, each in zip(answers, asked, strict=True))
    assert store.status(NAME, version).retention == max(asked, key=lambda each: each.until)


def test_a_legal_hold_outlasts_every_lock(under_test: StoreUnderTest) -> None:
    """Until it is cleared."""
    store = under_test.store
    version = put(store, NAME, b"data", lock(store, 9)).version
    store.set_legal_hold(NAME, version, on=True)
    store.set_legal_hold(NAME, version, on=True)
    assert store.status(NAME, version).legal_hold
    under_test.advance(3650 * DAY)
    with pytest.raises(RetentionError):
        store.delete(NAME, version)
    store.set_legal_hold(NAME, version, on=False)
    assert not store.status(NAME, version).legal_hold
    store.delete(NAME, version)


def test_hold_and_retention_do_not_disturb_each_other(store: ObjectStore) -> None:
    """A hold needs no retention; clearing it leaves the retention."""
    version = put(store, NAME, b"data").version
    store.set_legal_hold(NAME, version, on=True)
    with pytest.raises(RetentionError):
        store.delete(NAME, version)
    retention = lock(store, 9)
    store.extend(NAME, version, retention)
    assert store.status(NAME, version).legal_hold
    store.set_legal_hold(NAME, version, on=False)
    assert store.status(NAME, version).retention == retention


def test_a_new_version_of_a_deleted_one_has_no_old_lock(under_test: StoreUnderTest) -> None:
    """Locks belong to versions, not to names."""
    store = under_test.store
    version = put(store, NAME, b"data", lock(store, 9)).version
    under_test.advance(10 * DAY)
    store.delete(NAME, version)
    again = put(store, NAME, b"data").version
    assert store.status(NAME, again).retention is None
