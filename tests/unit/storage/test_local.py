"""What `LocalStore` keeps beyond the contract: durability, kills, junk, failing disks."""

import contextlib
import errno
import fcntl
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from vault.errors import (
    ConfigError,
    FormatError,
    ObjectNotFoundError,
    RepositoryNotFoundError,
    RetentionError,
    StorageError,
    StorageUnavailableError,
    VaultError,
)
from vault.model import LockMode, Retention
from vault.storage import local_readback
from vault.storage.base import ObjectVersion
from vault.storage.choose_store import open_store
from vault.storage.local import LocalStore

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
NAME = "ledger/0000000000000007"
LOCK = Retention(mode=LockMode.GOVERNANCE, until=NOW + timedelta(days=9))
SHA = hashlib.sha256(b"data").hexdigest()


class Clock:
    """A clock that stands still until told."""

    now = NOW

    def __call__(self) -> datetime:
        """The time it was told."""
        return self.now


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """Where the repository goes; immutable files are thawed at the end."""
    yield tmp_path / "repository"
    subprocess.run(["chattr", "-R", "-f", "-i", str(tmp_path)], check=False)


@pytest.fixture
def clock() -> Clock:
    """The store's clock."""
    return Clock()


@pytest.fixture
def store(root: Path, clock: Clock) -> LocalStore:
    """An empty store."""
    return LocalStore.create(root, clock=clock)


def put(
    store: LocalStore, data: bytes = b"data", name: str = NAME, retention: Retention | None = None
) -> ObjectVersion:
    """Store with the right digest."""
    return store.put(name, data, sha256=hashlib.sha256(data).digest(), retention=retention)


def files(root: Path) -> set[str]:
    """Every file below the root, except the targets of flock."""
    found = {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}
    return {path for path in found if not path.startswith(".lock/")}


# --- the directory itself ---


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize(
    ("top", "directory", "lock", "stored"),
    [
        (0o755, 0o755, 0o644, 0o444),
        (0o700, 0o700, 0o600, 0o400),
        (0o2770, 0o2770, 0o660, 0o440),
        (0o750, 0o750, 0o640, 0o440),
    ],
)
def test_all_in_a_store_has_the_mode_of_its_top(
    root: Path, *, mask: int, top: int, directory: int, lock: int, stored: int
) -> None:
    """Whatever the umask; a missing top is never writable for others."""
    before = os.umask(mask)
    try:
        LocalStore.create(root / "missing")
        assert (root / "missing").stat().st_mode & 0o7777 == 0o755 & ~mask
        shutil.rmtree(root)
        root.mkdir()
        root.chmod(top)
        store = LocalStore.create(root)
        until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
        put(store, retention=Retention(mode=LockMode.GOVERNANCE, until=until))
    finally:
        os.umask(before)
    below = {path: path.stat().st_mode & 0o7777 for path in root.rglob("*")}
    assert {mode for path, mode in below.items() if path.is_dir()} == {directory}
    assert {below[path] for path in (root / ".lock").iterdir()} == {lock}
    assert below[root / NAME] == stored


_AS_ANOTHER = """
import hashlib, os, sys
from pathlib import Path
from vault.storage.local import LocalStore
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[3]))
store = LocalStore(Path(sys.argv[1]))
data = sys.argv[3].encode()
store.put(sys.argv[4], data, sha256=hashlib.sha256(data).digest())
for each in store.versions("ledger/"):
    store.get(each.name, each.version)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="runs as several users")
@pytest.mark.parametrize(("mode", "works"), [(0o2770, True), (0o2750, False)])
def test_users_of_one_group_share_a_store(
    mode: int,
    works: bool,  # noqa: FBT001
) -> None:
    """Also where they lock the same name; where the top is not theirs to write, it is said."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o755)
        top = Path(place) / "store"
        top.mkdir()
        os.chown(top, 0, 54321)
        top.chmod(mode)
        LocalStore.create(top)
        results = [
            subprocess.run(
                [sys.executable, "-c", _AS_ANOTHER, str(top), "54321", user, NAME],
                check=False,
                capture_output=True,
                text=True,
                umask=0o077,
            )
            for user in ("60001", "60002", "60001")
        ]
    if works:
        assert [(each.returncode, each.stderr) for each in results] == [(0, "")] * 3
    else:
        assert all("Permission denied" in each.stderr for each in results)


@pytest.mark.parametrize("lacks", ["link", "fsync", "flock"])
@pytest.mark.parametrize("code", [errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP])
@pytest.mark.parametrize("there", [False, True])
def test_a_file_system_that_lacks_what_a_store_needs_is_refused(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    lacks: str,
    code: int,
    there: bool,  # noqa: FBT001
) -> None:
    """When the store is made, with what is needed; nothing is left but what was there."""
    if there:
        root.mkdir()

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(fcntl if lacks == "flock" else os, lacks, refuse)
        with pytest.raises(ConfigError, match="hard links, flock, and fsync"):
            LocalStore.create(root / "a" / "b")
    assert list(root.parent.rglob("*")) == ([root] if there else [])
    LocalStore.create(root / "a" / "b")
    assert files(root) == set()


# --- layout ---


def test_an_object_is_the_file_of_its_name(store: LocalStore, root: Path) -> None:
    """Later versions have their number at the end; nothing else is left behind."""
    versions = [put(store, data).version for data in (b"data", b"two", b"data")]
    assert files(root) == {NAME, NAME + "~2", NAME + "~3"}
    assert (root / NAME).read_bytes() == b"data"
    assert (root / (NAME + "~2")).read_bytes() == b"two"
    assert versions[0] == f"1-{SHA}"
    assert versions[2] == f"3-{SHA}"
    assert (root / NAME).stat().st_mode & 0o222 == 0


def test_a_digest_in_the_name_is_the_one_in_the_version_id(store: LocalStore) -> None:
    """So that listing packs reads none of them."""
    name = "packs/ab/" + SHA
    assert put(store, name=name).version == f"1-{SHA}"
    assert [each.version for each in store.versions("packs/")] == [f"1-{SHA}"]


def test_listing_does_not_open_content_addressed_objects(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it enter directories that the prefix rules out."""
    for name in ("packs/ab/" + SHA, "index/default/" + SHA, "packs/cd/" + SHA):
        put(store, name=name)
    opened: list[str] = []
    real = os.open

    def watch(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        opened.append(Path(path).name)
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", watch)
    assert len(list(store.versions("packs/a"))) == 1
    assert len(list(store.versions("", after="packs/b"))) == 1
    assert opened == [root.name, "packs", "ab", root.name, "packs", "cd"]


def test_versions_of_one_name_are_found_without_searching_its_directory(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one was deleted; the name of no object costs no more than its directory."""
    for number in range(50):
        put(store, name=f"packs/ab/{number:064x}")
    name = f"packs/ab/{7:064x}"
    put(store, name=name)
    third = put(store, name=name)
    store.delete(name, put(store, name=name).version)
    store.delete(name, store.versions_of(name)[0].version)
    searched: list[object] = []
    real = os.scandir

    def noted(directory: Any) -> Any:
        searched.append(directory)
        return real(directory)

    monkeypatch.setattr(os, "scandir", noted)
    assert [each.version for each in store.versions_of(name)][1:] == [third.version]
    assert not searched
    assert store.versions_of(f"packs/ab/{99:064x}") == store.versions_of("packs/cd/" + SHA) == []
    assert len(searched) == 1


def test_a_first_version_that_other_hands_removed_hides_no_later_one(
    store: LocalStore, root: Path
) -> None:
    """What the program deletes leaves its number; after `rm` the directory is searched."""
    put(store, b"1")
    second, third = put(store, b"2"), put(store, b"3")
    (root / NAME).unlink()
    assert [each.version for each in store.versions_of(NAME)] == [second.version, third.version]


def test_the_lock_of_a_version_lies_under_its_path(store: LocalStore, root: Path) -> None:
    """As text that an operator can read."""
    put(store, retention=LOCK)
    version = put(store).version
    store.set_legal_hold(NAME, version, on=True)
    assert (root / ".retention" / NAME).read_text() == (
        '{"hold":false,"mode":"governance","until":"2026-03-10T12:00:00Z"}'
    )
    assert (root / ".retention" / (NAME + "~2")).read_text() == (
        '{"hold":true,"mode":null,"until":null}'
    )


def test_a_number_is_not_given_out_again(store: LocalStore, root: Path) -> None:
    """A later PUT must not be listed before an earlier one."""
    first, _ = put(store, b"1"), put(store, b"2")
    store.delete(NAME, first.version)
    third = put(store, b"3")
    assert third.version.startswith("3-")
    assert [store.get(NAME, each.version) for each in store.versions("")] == [b"2", b"3"]
    with pytest.raises(ObjectNotFoundError):
        store.get(NAME, first.version)


def test_modified_is_the_time_of_the_stores_clock(store: LocalStore, clock: Clock) -> None:
    """To the microsecond, and after a reopening."""
    clock.now = NOW + timedelta(microseconds=123_457)
    assert put(store).modified == clock.now
    assert next(store.versions("")).modified == clock.now


# --- durability ---


def test_a_put_is_durable_before_it_is_visible_and_before_it_returns(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes, then lock, then name, then directory; new directories with their parents."""
    events: list[str] = []

    def watch(name: str, label: Callable[..., str]) -> None:
        real = getattr(os, name)

        def watched(*args: object, **kwargs: object) -> object:
            events.append(label(*args, **kwargs))
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, watched)

    def target(fd: int) -> str:
        path = str(Path(f"/proc/self/fd/{fd}").readlink()).removeprefix(store.url)
        return "file" if path.startswith("/.tmp/") else path or "/"

    watch("fsync", lambda fd: f"fsync {target(fd)}")
    watch("link", lambda source, name, **_: f"link {name}")
    watch("rename", lambda source, name, **_: f"rename {name}")
    put(store, retention=LOCK)
    name = NAME.rpartition("/")[2]
    assert events == [
        "fsync file",
        "fsync /",  # ledger/ is new
        "fsync file",  # the lock
        "fsync /",  # .retention/ is new
        "fsync /.retention",  # .retention/ledger/ is new
        f"rename {name}",
        "fsync /.retention/ledger",
        f"link {name}",
        "fsync /ledger",
    ]
    events.clear()
    put(store)
    assert events == ["fsync file", f"link {name}~2", "fsync /ledger"]


@pytest.mark.parametrize("call", ["write", "fsync", "link", "utime"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_failing_disk_leaves_no_trace(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    """No object, no leftover, an error that says what to do; and the next PUT works."""
    put(store, name="ledger/first")  # directories are there

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StorageError) as caught:
            put(store)
    assert caught.value.hint
    assert files(root) == {"ledger/first"}
    put(store)
    assert store.get(NAME) == b"data"


def test_short_writes_and_reads_are_continued(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may take or give less than asked."""
    write, pread = os.write, os.pread
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 4), offset))
    put(store, b"0123456789")
    assert store.get(NAME) == b"0123456789"
    assert store.get(NAME, offset=2, length=7) == b"2345678"


def test_transient_errors_are_worth_a_retry(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file server that went away may come back."""

    def fail(*args: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageUnavailableError):
        put(store)


_CHILD = """
import hashlib, random, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from vault.model import LockMode, Retention
from vault.storage.local import LocalStore
store, number = LocalStore(Path(sys.argv[1])), random.Random(int(sys.argv[2]))
while True:
    data = number.randbytes(number.randrange(300_000))
    digest = hashlib.sha256(data).digest()
    version = store.put("packs/%02x/%s" % (digest[0] % 4, digest.hex()), data, sha256=digest)
    print(version.name, version.version, flush=True)
    store.put("ledger/0", digest, sha256=hashlib.sha256(digest).digest())
"""


def test_after_kills_every_visible_object_is_whole(store: LocalStore, root: Path) -> None:
    """Two writers at a time, killed at random moments; what they acknowledged is there."""
    moment = random.Random(5)
    acknowledged: list[str] = []
    for seed in range(6):
        children = [
            subprocess.Popen(
                [sys.executable, "-c", _CHILD, str(root), f"{seed}{i}"],
                stdout=subprocess.PIPE,
                text=True,
            )
            for i in range(2)
        ]
        for child in children:
            assert child.stdout
            acknowledged.append(child.stdout.readline())  # it is at work
        time.sleep(moment.random() / 20)
        for child in children:
            child.kill()
            acknowledged += child.communicate()[0].splitlines(keepends=True)
    listed = {(each.name, each.version) for each in store.versions("")}
    whole = [line.split() for line in acknowledged if line.endswith("\n")]
    assert len(whole) >= 12
    assert {(name, version) for name, version in whole} <= listed
    for name, version in listed:
        data = store.get(name, version)
        if name.startswith("packs/"):
            assert name.endswith(hashlib.sha256(data).hexdigest())
        else:
            assert len(data) == 32
    put(store)  # nobody holds a lock any more


def test_processes_that_race_for_a_name_get_versions_of_their_own(
    store: LocalStore, root: Path
) -> None:
    """None replaces the other's bytes."""
    code = """
import hashlib, sys
from pathlib import Path
from vault.storage.local import LocalStore
store = LocalStore(Path(sys.argv[1]))
for i in range(50):
    data = f"{sys.argv[2]} {i}".encode()
    print(store.put("ledger/0", data, sha256=hashlib.sha256(data).digest()).version)
"""
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(root), who], stdout=subprocess.PIPE)
        for who in ("one", "two")
    ]
    answers = [child.communicate()[0].decode().split() for child in children]
    versions = [each.version for each in store.versions("ledger/0")]
    assert sorted(answers[0] + answers[1]) == sorted(versions)
    assert len({store.get("ledger/0", version) for version in versions}) == 100
    assert [int(version.split("-")[0]) for version in versions] == list(range(1, 101))


def test_leftovers_of_killed_runs_are_swept_after_a_day(store: LocalStore, root: Path) -> None:
    """By the next writer; younger ones may belong to a run at work."""
    put(store)
    for name, age in (("old", timedelta(days=1, seconds=1)), ("young", timedelta(hours=23))):
        leftover = root / ".tmp" / name
        leftover.write_bytes(b"part of")
        os.utime(leftover, times=((NOW - age).timestamp(),) * 2)
    put(LocalStore(root, clock=lambda: NOW))
    assert files(root) == {NAME, NAME + "~2", ".tmp/young"}


def test_the_lock_of_a_put_that_was_killed_does_not_bind_the_next(
    store: LocalStore, root: Path
) -> None:
    """It wrote its lock, and never the object."""
    put(store, name="ledger/first", retention=LOCK)
    (root / ".retention" / "ledger" / "first").rename(root / ".retention" / NAME)
    version = put(store).version
    assert store.status(NAME, version).retention is None
    store.delete(NAME, version)


# --- locks ---


def test_locks_survive_the_process(store: LocalStore, root: Path, clock: Clock) -> None:
    """They are on disk, and in force for every later run."""
    version = put(store, retention=LOCK).version
    again = LocalStore(root, clock=clock)
    assert again.status(NAME, version).retention == LOCK
    with pytest.raises(RetentionError):
        again.delete(NAME, version)


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b'{"hold":false,"mode":"none","until":"2026-03-10T12:00:00Z"}',
        b'{"hold":false,"mode":"governance","until":null}',
        b'{"hold":false,"mode":"governance","until":"soon"}',
        b'{"hold":0,"mode":null,"until":null}',
        b" " * 10_000,
    ],
)
def test_an_unreadable_lock_forbids_everything(
    store: LocalStore, root: Path, clock: Clock, junk: bytes
) -> None:
    """A damaged lock file is no leave to delete."""
    version = put(store, retention=LOCK).version
    (root / ".retention" / NAME).write_bytes(junk)
    clock.now += timedelta(days=5000)
    for call in (
        lambda: store.status(NAME, version),
        lambda: store.extend(NAME, version, LOCK),
        lambda: store.set_legal_hold(NAME, version, on=False),
        lambda: store.delete(NAME, version),
    ):
        with pytest.raises(FormatError, match=NAME):
            call()
    assert store.get(NAME, version) == b"data"


def test_a_lock_directory_that_became_a_symlink_forbids_deletion(
    store: LocalStore, root: Path, tmp_path: Path
) -> None:
    """Else an empty directory elsewhere would unlock all."""
    version = put(store, retention=LOCK).version
    (root / ".retention").rename(root / "away")
    (tmp_path / "empty").mkdir()
    (root / ".retention").symlink_to(tmp_path / "empty")
    with pytest.raises(StorageError):
        store.delete(NAME, version)
    assert store.get(NAME, version) == b"data"


def frozen(path: Path) -> bool:
    """Whether the kernel's immutable flag is set."""
    listing = subprocess.run(
        ["lsattr", "-d", str(path)], capture_output=True, text=True, check=False
    )
    return "i" in listing.stdout.partition(" ")[0]


@pytest.fixture
def can_freeze(tmp_path: Path) -> None:
    """Skips where file system or rights do not allow the immutable flag."""
    probe = tmp_path / "probe"
    probe.touch()
    if subprocess.run(["chattr", "+i", str(probe)], capture_output=True, check=False).returncode:
        pytest.skip("no immutable flag here")
    subprocess.run(["chattr", "-i", str(probe)], check=True)


def test_locked_objects_are_immutable_to_the_kernel(
    can_freeze: None, store: LocalStore, root: Path, clock: Clock
) -> None:
    """From the PUT or the extend on, until the program deletes it after the lock."""
    locked = put(store, retention=LOCK).version
    later = put(store).version
    assert frozen(root / NAME)
    assert not frozen(root / (NAME + "~2"))
    store.extend(NAME, later, LOCK)
    assert frozen(root / (NAME + "~2"))
    with pytest.raises(PermissionError):
        (root / NAME).unlink()
    clock.now += timedelta(days=9)
    store.delete(NAME, later)
    store.delete(NAME, locked)
    assert files(root) == set()


def test_a_refused_deletion_does_not_thaw(can_freeze: None, store: LocalStore, root: Path) -> None:
    """The flag goes only after the lock ran out."""
    version = put(store, retention=LOCK).version
    with pytest.raises(RetentionError):
        store.delete(NAME, version)
    assert frozen(root / NAME)


def test_releasing_a_hold_thaws_what_has_no_other_lock(
    can_freeze: None, store: LocalStore, root: Path
) -> None:
    """A retention keeps the flag."""
    version = put(store).version
    store.set_legal_hold(NAME, version, on=True)
    assert frozen(root / NAME)
    store.set_legal_hold(NAME, version, on=False)
    assert not frozen(root / NAME)


def test_without_the_flag_locks_hold_all_the_same(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a second line, where it may be set at all."""

    def refuse(*args: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("fcntl.ioctl", refuse)
    version = put(store, retention=LOCK).version
    with pytest.raises(RetentionError):
        store.delete(NAME, version)


# --- what others put there ---


def test_symlinks_and_special_files_are_no_objects(
    store: LocalStore, root: Path, tmp_path: Path
) -> None:
    """Neither listed nor followed nor waited for."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    put(store)
    (root / "ledger" / "link").symlink_to(outside / "secret")
    (root / "evidence").symlink_to(outside)
    os.mkfifo(root / "ledger" / "fifo")
    (root / "ledger" / "directory").mkdir()
    assert [each.name for each in store.versions("")] == [NAME]
    assert list(store.versions("evidence/")) == []
    for name in ("ledger/link", "ledger/fifo", "ledger/directory", "evidence/secret"):
        with pytest.raises(ObjectNotFoundError):
            store.get(name)
        with pytest.raises(ObjectNotFoundError):
            store.delete(name, f"1-{SHA}")
    with pytest.raises(StorageError):
        put(store, name="evidence/new")
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_names_that_are_not_text_are_listed_escaped(store: LocalStore, root: Path) -> None:
    """Whoever prints a listing must not stumble over it."""
    put(store)
    Path(os.fsdecode(os.fsencode(root) + b"/ledger/\xff")).write_bytes(b"junk")
    names = [each.name for each in store.versions("ledger/")]
    assert names == [NAME, "ledger/\\xff"]
    assert "".join(names).encode()


def test_strange_times_are_listed(store: LocalStore, root: Path) -> None:
    """A file time may lie outside of every calendar."""
    put(store)
    for moment in (-(2**31), 2**33):
        os.utime(root / NAME, times=(moment, moment))
        assert next(store.versions("")).modified.tzinfo is UTC


def test_reserved_directories_are_out_of_reach(store: LocalStore, root: Path) -> None:
    """They hold no objects."""
    put(store, retention=LOCK)
    assert [each.name for each in store.versions("")] == [NAME]
    assert list(store.versions(".retention/")) == []
    assert list(store.versions(".ret")) == []
    with pytest.raises(ObjectNotFoundError):
        store.delete(".retention/" + NAME, f"1-{SHA}")


def test_a_later_version_is_not_an_object_of_its_own(store: LocalStore) -> None:
    """Else its lock would have two names."""
    put(store), put(store, retention=LOCK)
    with pytest.raises(ObjectNotFoundError):
        store.delete(NAME + "~2", f"1-{SHA}")


def test_deep_trees_do_not_break_the_listing(store: LocalStore, root: Path) -> None:
    """A planted tree must exhaust neither stack nor descriptors."""
    put(store)
    fd = os.open(root, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=fd)
        child = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = child
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    assert [each.name for each in store.versions("")] == [NAME]
    with pytest.raises(ConfigError):
        put(store, name="d/" * 64 + "x")


def test_names_at_the_limits_are_objects_and_those_beyond_are_refused(store: LocalStore) -> None:
    """64 parts, and 240 bytes of each: what is written is listed."""
    names = ["d/" * 63 + "x", "n" * 240]
    for name in names:
        put(store, name=name)
    assert sorted(each.name for each in store.versions("")) == sorted(names)
    for name in ("d/" * 64 + "x", "n" * 241):
        with pytest.raises(ConfigError, match="does not fit"):
            put(store, name=name)


def test_what_is_planted_beyond_the_deepest_name_is_not_listed(
    store: LocalStore, root: Path
) -> None:
    """64 directories deep it is, 65 deep it is not."""
    inner = root.joinpath(*"d" * 64)
    (inner / "d").mkdir(parents=True)
    (inner / "seen").touch()
    (inner / "d/unseen").touch()
    assert [each.name for each in store.versions("")] == ["d/" * 64 + "seen"]


def test_huge_junk_is_not_read_by_the_listing(store: LocalStore, root: Path) -> None:
    """A sparse file of a terabyte costs nothing to plant."""
    put(store)
    with (root / "ledger" / "junk").open("wb") as junk:
        junk.truncate(1 << 40)
    assert [each.version for each in store.versions("ledger/j")] == ["1-" + "0" * 64]


def test_abandoned_listings_and_errors_leak_no_descriptors(store: LocalStore) -> None:
    """A service lists for months."""
    for i in range(3):
        put(store, name=f"a/{i}")

    def opened() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = opened()
    for _ in range(20):
        next(store.versions(""))
        for call in (lambda: store.get("a/9"), lambda: put(store, name="a/0/b")):
            with pytest.raises(VaultError):
                call()
    assert opened() == before


# --- opening ---


def test_a_missing_root_is_no_repository(store: LocalStore, root: Path) -> None:
    """As when its file system is not mounted; nothing is made in its place."""
    root.rename(root.with_name("elsewhere"))
    for call in (lambda: put(store), lambda: store.get(NAME), lambda: list(store.versions(""))):
        with pytest.raises(RepositoryNotFoundError):
            call()
    assert not root.exists()


def test_open_store_finds_paths_and_file_urls(tmp_path: Path) -> None:
    """The URL of a store opens it again."""
    path = tmp_path / "with space"
    store = open_store(str(path), create=True)
    assert open_store(store.url).url == str(path)
    assert open_store(f"file://{tmp_path}/with%20space").url == str(path)


def test_open_store_refuses_what_is_not_there(tmp_path: Path) -> None:
    """Unless it was told to make it, with parents."""
    path = tmp_path / "a" / "b"
    with pytest.raises(RepositoryNotFoundError):
        open_store(str(path))
    open_store(str(path), create=True)
    assert path.is_dir()
    (path / "file").touch()
    for create in (True, False):
        with pytest.raises(ConfigError):
            open_store(str(path / "file"), create=create)
    with pytest.raises(ConfigError):
        open_store(str(path / "file" / "below"), create=True)


@pytest.mark.parametrize(
    "url", ["", "ftp://host/path", "file://host/path", "file:///a?b", "file://"]
)
def test_open_store_names_what_it_supports(url: str) -> None:
    """A URL that no store understands is a usage error."""
    with pytest.raises(ConfigError, match="file"):
        open_store(url)


def test_a_local_store_has_no_endpoint(tmp_path: Path) -> None:
    """It would be ignored, and the user would not know."""
    with pytest.raises(ConfigError):
        open_store(str(tmp_path), endpoint="https://example.org")


# --- what reached the disk ---


@contextlib.contextmanager
def writable(fd: int) -> Iterator[None]:
    """Whatever the file's mode, which binds all but root."""
    mode = os.fstat(fd).st_mode & 0o7777
    os.fchmod(fd, 0o600)
    yield
    os.fchmod(fd, mode)


def flip(fd: int) -> None:
    """Change a bit of a file behind the program's back."""
    with writable(fd), Path(f"/proc/self/fd/{fd}").open("r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))


def lose_the_end(fd: int) -> None:
    """Cut a file short behind the program's back."""
    with writable(fd):
        os.truncate(f"/proc/self/fd/{fd}", os.fstat(fd).st_size - 1)


@pytest.mark.parametrize("spoil", [flip, lose_the_end])
@pytest.mark.parametrize("size", [1, 4096, 5_000_000])
@pytest.mark.parametrize("direct", [True, False])
def test_what_the_disk_changed_is_not_published(  # noqa: PLR0917 - parameters
    store: LocalStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[int], None],
    size: int,
    direct: bool,  # noqa: FBT001 - as above
) -> None:
    """It is read back before its name is given, past the page cache where that can be had."""
    sync = os.fsync

    def spoiled(fd: int) -> None:
        if Path(f"/proc/self/fd/{fd}").is_file():
            spoil(fd)
        sync(fd)

    if not direct:
        monkeypatch.setattr(local_readback, "set_direct", lambda _: False)
    monkeypatch.setattr(os, "fsync", spoiled)
    with pytest.raises(StorageError, match="does not give back what was written"):
        put(store, os.urandom(size))
    assert not files(root)
    monkeypatch.undo()
    assert put(store, b"data").version == f"1-{SHA}"


@pytest.mark.parametrize("size", [0, 1, 4096, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_what_the_disk_kept_is_published(store: LocalStore, size: int) -> None:
    """Of every size, beside pages, blocks and pieces too: the control."""
    data = os.urandom(size)
    assert store.get(NAME, put(store, data).version) == data


def test_what_is_read_back_comes_past_the_page_cache(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By direct input; where the file system has none, the page cache is emptied first."""
    asked: list[str] = []

    def noted(name: str, answer: bool) -> Callable[..., bool]:  # noqa: FBT001 - as above
        def call(*_: object) -> bool:
            asked.append(name)
            return answer

        return call

    monkeypatch.setattr(local_readback, "evict", noted("evict", answer=True))
    put(store)
    assert not asked
    monkeypatch.setattr(local_readback, "set_direct", noted("set_direct", answer=False))
    put(store, name="ledger/0000000000000008")
    assert asked == ["set_direct", "evict"]
