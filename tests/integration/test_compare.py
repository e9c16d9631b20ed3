"""A restored tree compared by tools that know nothing of the vault, and a repository likewise."""

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.lab import Clock, Lab, MakeRepository
from vault.errors import IntegrityError
from vault.format import inventory
from vault.format.entry import Entry
from vault.ledger.records import Record
from vault.machine.workers import make_workers
from vault.model import EntryType, LockMode, Severity
from vault.repository.enrolment import revoke_writer
from vault.repository.hosts import find_writer
from vault.repository.reader import Reader
from vault.restore import RestoreOutcome, RestoreReport
from vault.storage.local import LocalStore

VERIFIER = Path(__file__).parents[1] / "independent" / "verify_ledger.py"
LARGE = 9 << 20  # bytes; read in pieces


pytestmark = pytest.mark.usefixtures("no_syncfs")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The standard library of this interpreter, and what no sane person would make."""
    top = tmp_path_factory.mktemp("compare") / "source"
    shutil.copytree(
        sysconfig.get_path("stdlib"),
        top / "library",
        symlinks=True,
        ignore=shutil.ignore_patterns("site-packages", "test", "dist-packages", "__pycache__"),
    )
    _plant_odd(os.fsencode(top / "odd"))
    return top


_CLOSED = 0 if os.geteuid() == 0 else 0o400  # a file that only root can read is his to back up


def _plant_odd(top: bytes) -> None:
    os.mkdir(top)  # noqa: PTH102 - names are bytes
    names = [b"-rf", b"a\nb", b"\xff\xfe", b"\x1b[2J", b" ", b"*", b"x" * 255, b"back\\slash", b"'"]
    for number, name in enumerate(names):
        path = Path(os.fsdecode(top + b"/" + name))
        path.write_bytes(os.urandom(number * 700))
        path.chmod([0o644, 0o4755, 0o2711, 0o444, _CLOSED][number % 5])
        os.utime(path, ns=(0, [-1, 1, 10**18 + 7, -(10**18)][number % 4]))
    folder = Path(os.fsdecode(top))
    (folder / "large").write_bytes(os.urandom(4096) * (LARGE // 4096 + 1))
    (folder / "deep/er/and/deeper").mkdir(parents=True)
    (folder / "deep/er/hard").hardlink_to(folder / "-rf")
    (folder / "dangling").symlink_to("/nowhere/at all")
    (folder / "absolute").symlink_to("/etc/passwd")
    os.mkfifo(folder / "fifo", 0o600)
    (folder / "empty").mkdir(mode=0o1777)
    (folder / "deep").chmod(0o500)
    with contextlib.suppress(OSError):  # not every file system holds them
        os.setxattr(folder / "large", "user.colour", b"\0blue\xff")


def run(lab: Lab, record: Record, target: Path) -> RestoreReport:
    """A restore with threads."""
    with make_workers(2) as workers:
        return lab.restore(record, target, workers=workers)


@pytest.fixture
def lab(make_repository: MakeRepository) -> Lab:
    """With the chunk sizes that repositories have by default."""
    return make_repository(
        data_chunk=(262_144, 1_048_576, 4_194_304),
        tree_chunk=(4_096, 16_384, 65_536),
        block_size=1_048_576,
        pack_size=33_554_432,
    )


@pytest.fixture
def record(lab: Lab, source: Path) -> Record:
    """A snapshot of it."""
    with make_workers(2) as workers:
        return lab.snapshot(source, workers=workers).record


@pytest.fixture
def restored(lab: Lab, record: Record, tmp_path: Path) -> Path:
    """What came back, proven."""
    target = tmp_path / "restored"
    assert run(lab, record, target).outcome is RestoreOutcome.RECOVERED
    return target


def test_rsync_finds_no_difference(source: Path, restored: Path) -> None:
    """Content by checksum, all attributes, hard links, nanoseconds, and nothing besides."""
    if shutil.which("rsync") is None:
        pytest.skip("rsync is not installed")
    command = ["rsync", "-aHXn", "--checksum", "--modify-window=-1", "--delete", "-i"]
    done = subprocess.run(
        [*command, f"{source}/", f"{restored}/"], capture_output=True, check=True, text=True
    )
    assert done.stdout == ""
    (restored / "library/os.py").touch()  # that it does see something
    done = subprocess.run(
        [*command, f"{source}/", f"{restored}/"], capture_output=True, check=True, text=True
    )
    assert done.stdout == ".f..t...... library/os.py\n"


def test_sha256sum_agrees(lab: Lab, record: Record, restored: Path) -> None:
    """Lines made from the signed tree pass in the restored one; one changed byte does not."""
    lines = b"".join(_checksum_line(entry) for entry in _files(lab, record))
    assert lines.count(b"\n") > 500
    check = ["sha256sum", "-c", "--quiet", "--strict"]
    done = subprocess.run(check, input=lines, cwd=restored, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
    with (restored / "odd/large").open("r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))
    done = subprocess.run(check, input=lines, cwd=restored, capture_output=True, check=False)
    assert done.returncode != 0
    assert b"odd/large: FAILED" in done.stdout


def _files(lab: Lab, record: Record) -> Iterator[Entry]:
    scratch = lab.base / "reading"
    scratch.mkdir()
    reader = Reader(lab.open(), lab.recovery.recipient, record, scratch=scratch)
    reader.load_packs()
    for entry, _ in reader.tree():
        if entry.type is EntryType.FILE:
            yield entry
    reader.close()


def _checksum_line(entry: Entry) -> bytes:
    """As sha256sum itself writes it: a backslash in front tells of escapes in the name."""
    assert entry.sha256 is not None
    name = entry.path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"\\" if name != entry.path else b""
    return b"%b%b  ./%b\n" % (mark, entry.sha256.hex().encode(), name)


# --- the repository, by the second reading of docs/format.md ---


@pytest.fixture(scope="module")
def findings() -> Callable[[Path, str], list[str]]:
    """`verify` of the independent verifier."""
    spec = importlib.util.spec_from_file_location("independent_verifier", VERIFIER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[Path, str], list[str]] = module.verify
    return found


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where the repository is."""
    return tmp_path / "repository"


@pytest.fixture
def lived_in(
    make_repository: MakeRepository,
    directory: Path,
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Lab:
    """Several snapshots, two more hosts, a revocation, a delta inventory, restores."""
    store = LocalStore.create(directory, clock=clock)
    lab = make_repository(LockMode.NONE, name="local", store=store, pack_size=2048)
    monkeypatch.setattr(inventory, "DELTA_FROM", 4)
    top = tmp_path / "top"
    top.mkdir()
    for number in range(30):
        (top / f"file{number:02}").write_bytes(os.urandom(3_000))
    lab.snapshot(top)
    (top / "file00").write_bytes(b"changed")
    clock.advance(hours=1)
    second = lab.snapshot(top)
    assert lab.open().inventory(second.record).bases
    for name, share in (("other", None), ("third", "default")):
        lab.with_host(lab.enrol(name, domain=share)).snapshot(top, dataset=name)
    repository = lab.open()
    writer = find_writer(repository.ledger, "third")
    revoke_writer(
        repository,
        lab.root_key.enroller,
        writer,
        distrust_from=None,
        reason="gone",
        tool="vault test",
    )
    lab.snapshot(top, retention=timedelta(days=60))
    assert run(lab, second.record, tmp_path / "out").outcome is RestoreOutcome.RECOVERED
    return lab


def test_independent_verifier_finds_nothing(
    lived_in: Lab, directory: Path, findings: Callable[[Path, str], list[str]]
) -> None:
    """Two readings of the format agree on a repository that the library made."""
    assert findings(directory, str(lived_in.root)) == []


def _assert_told(lab: Lab) -> None:
    """Opening refuses the ledger, or reads up to the hole and says that there is one."""
    try:
        repository = lab.open()
    except IntegrityError:
        return
    assert any(each.severity is Severity.ERROR for each in repository.findings)


def test_independent_verifier_finds_tampering(
    lived_in: Lab, directory: Path, tmp_path: Path, findings: Callable[[Path, str], list[str]]
) -> None:
    """Every kind of object, changed, cut and taken away."""
    for kind in ("packs", "inventory", "domains", "evidence", "ledger"):
        for harm in ("changed", "cut", "missing"):
            copy = Path(shutil.copytree(directory, tmp_path / f"{kind} {harm}"))
            files = sorted(path for path in (copy / kind).rglob("*") if path.is_file())
            _harm(files[len(files) // 2], harm)
            assert findings(copy, str(lived_in.root)) != [], (kind, harm)
            if kind == "ledger":
                _assert_told(lived_in.with_store(LocalStore(copy, clock=lived_in.clock)))


def _harm(path: Path, harm: str) -> None:
    data = path.read_bytes()
    path.unlink()
    if harm == "changed":
        path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    elif harm == "cut":
        path.write_bytes(data[:-1])


def test_names_are_digests(lived_in: Lab, directory: Path) -> None:
    """`sha256sum` alone can check every object that names its digest."""
    checked = 0
    for kind in ("packs", "inventory", "domains", "evidence", "index"):
        for path in (directory / kind).rglob("*"):
            if path.is_file():
                assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name.partition("~")[0]
                checked += 1
    assert checked > 30
