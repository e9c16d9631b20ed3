"""What is backed up: made or fetched once into the cache, changed in place, then left alone.

A data set lies in ``CACHE/data/NAME``. ``live`` is what the programs are given; other versions
of it stand beside it and are renamed into its place, so that their files are as old as they were.
``ready.json`` says what it holds; its time is that of the last change to a file.
"""

import dataclasses
import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.bench.prepared import UnavailableError, run

SETTLED = 61  # seconds: files changed more recently are read again (design section 6)
MIB = 1 << 20
MARK = b"\n# changed\n"
SYSTEM = ("/usr/share", "/usr/include", "/usr/lib/python3", "/usr/lib/x86_64-linux-gnu")
LINUX = ("linux-source-6.1", "linux-source-6.12")


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """A change between two snapshots."""

    name: str
    apply: Callable[[Path], bool]  # of the set's directory; True: files changed just now


@dataclasses.dataclass(frozen=True, slots=True)
class DataSet:
    """One data set and the changes that are applied to it, in order."""

    name: str
    title: str
    make: Callable[[Path, int], list[str]]  # (directory, n): only an n-th of it; gives notes
    steps: tuple[Step, ...]
    start: Callable[[Path], bool] = lambda _: False  # back to where the steps begin
    runs: int = 3
    stream: bool = False  # the one file in ``live`` is given on standard input

    def prepare(self, data: Path, part: int) -> Path:
        """The set's directory, made if it is not there.

        Raises: UnavailableError.
        """
        place = data / self.name
        if not (place / "ready.json").exists():
            print(f"{self.name}: preparing {place}", flush=True)
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            notes = self.make(place, part)
            files, size = count(place / "live")
            about = {"title": self.title, "files": files, "bytes": size, "notes": notes}
            (place / "ready.json").write_text(json.dumps(about, indent=1))
        return place


def about(place: Path) -> dict[str, Any]:
    """What a prepared data set holds."""
    described: dict[str, Any] = json.loads((place / "ready.json").read_text())
    return described


def touch(place: Path) -> None:
    """Note that files of the data set were changed just now."""
    os.utime(place / "ready.json")


def settle(place: Path) -> None:
    """Wait until the last change is old enough."""
    left = (place / "ready.json").stat().st_mtime + SETTLED - time.time()
    if left > 0:
        time.sleep(left)


def count(tree: Path) -> tuple[int, int]:
    """Regular files, and bytes in them; a hard link counts as a file."""
    sizes = [size for _, size in _files(tree)]
    return len(sizes), sum(sizes)


def warm(tree: Path) -> None:
    """Read everything, so that every program finds it in the page cache."""
    for path, _ in _files(tree):
        with path.open("rb", buffering=0) as file:
            while file.read(MIB):
                pass


def _files(tree: Path) -> Iterator[tuple[Path, int]]:
    for directory, names, files in os.walk(tree):
        names.sort()
        for name in sorted(files):
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                yield path, path.stat().st_size


# Changes


def swap(version: str) -> Callable[[Path], bool]:
    """Put this version in the place of ``live``."""

    def apply(place: Path) -> bool:
        current, wanted = place / "current", place / version
        if wanted.exists():
            if (place / "live").exists():
                (place / "live").rename(place / current.read_text())
            current.write_text(version)
            wanted.rename(place / "live")
        return False

    return apply


def change_some(place: Path) -> bool:
    """Every 100th file gets a line more, or loses the one it got last time."""
    for number, (path, size) in enumerate(_files(place / "live")):
        if number % 100 == 50:
            with path.open("r+b") as file:
                file.seek(max(0, size - len(MARK)))
                if file.read() == MARK:
                    file.truncate(size - len(MARK))
                else:
                    file.write(MARK)
    touch(place)
    return True


def _versions(place: Path, first: str) -> None:
    """All versions stand in ``place``: the first of them becomes ``live``."""
    (place / "current").write_text(first)
    (place / first).rename(place / "live")


# Contents


def make_linux(place: Path, part: int) -> list[str]:
    """Two versions of the Linux source, from Debian's packages."""
    notes = [_unpack_source(package, place / package) for package in LINUX]
    _versions(place, LINUX[0])
    return notes


def _unpack_source(package: str, target: Path) -> str:
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        scratch = Path(name)
        try:
            run(["apt-get", "download", package], cwd=scratch)
        except UnavailableError:
            run(["apt-get", "update", "-qq"])  # the lists of a fresh machine are empty
            run(["apt-get", "download", package], cwd=scratch)
        archive = next(scratch.glob("*.deb"))
        version = run(["dpkg-deb", "--field", str(archive), "Version"])
        run(["dpkg-deb", "--extract", str(archive), str(scratch / "deb")])
        archive.unlink()
        tarball = next(scratch.glob("deb/usr/src/*.tar.xz"))
        target.mkdir()
        run(["tar", "-C", str(target), "--strip-components=1", "-xf", str(tarball)])
    return f"{package} {version}"


def make_system(place: Path, part: int) -> list[str]:
    """A copy of this machine's shared files and libraries."""
    live = place / "live"
    live.mkdir()
    sources = SYSTEM if part == 1 else SYSTEM[1:3]
    for source in filter(os.path.isdir, sources):
        run(["cp", "-a", source, str(live)])
    return [" ".join(sources)]


def make_image(place: Path, part: int) -> list[str]:
    """A disk image of 4 GiB, the same with 2 % changed in place, and with 1 MiB before it."""
    size = 4096 // part * MIB
    rng = random.Random(1)
    text = _text(rng, 8 * MIB)
    for version in ("base", "changed", "shifted"):
        (place / version).mkdir()
    base, changed, shifted = (place / v / "disk.img" for v in ("base", "changed", "shifted"))
    with base.open("wb") as file:
        for _ in range(size // EXTENT):
            file.write(_extent(rng, text))
    shutil.copyfile(base, changed)
    with changed.open("r+b") as file:
        for number in rng.sample(range(size // EXTENT), size // EXTENT // 50):
            file.seek(number * EXTENT)
            file.write(_extent(rng, text))
    with shifted.open("wb") as file, base.open("rb") as source:
        file.write(rng.randbytes(MIB))
        shutil.copyfileobj(source, file, MIB)
    _versions(place, "base")
    return ["extents of 64 KiB: a third zeros, a third text, a third incompressible"]


EXTENT = 64 << 10


def _extent(rng: random.Random, text: bytes) -> bytes:
    kind = rng.randrange(3)
    if kind == 0:
        return bytes(EXTENT)
    if kind == 1:
        return rng.randbytes(EXTENT)
    pieces = EXTENT // 1024
    starts = [rng.randrange(len(text) - 1024) for _ in range(pieces)]
    return b"".join(text[start : start + 1024] for start in starts)


def _text(rng: random.Random, size: int) -> bytes:
    """Words as often as they are in prose: the n-th is n times rarer than the first."""
    words = [rng.randbytes(rng.randint(1, 5)).hex().encode() for _ in range(20_000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    return b" ".join(rng.choices(words, weights, k=size // 4))[:size]


def make_many(place: Path, part: int) -> list[str]:
    """A million small files of text, a hundred in a directory."""
    rng = random.Random(2)
    text = _text(rng, 8 * MIB)
    for directory in range(10_000 // part):
        path = place / "live" / f"{directory // 100:03}" / f"{directory % 100:03}"
        path.mkdir(parents=True)
        for number in range(100):
            start = rng.randrange(len(text) - 2048)
            content = b"%d/%d\n" % (directory, number)
            content += text[start : start + rng.randrange(100, 2000)]
            (path / f"{number:02}.txt").write_bytes(content)
    return ["100 to 2000 bytes of text in each file"]


def make_random(place: Path, part: int) -> list[str]:
    """Files that no one can compress or deduplicate."""
    rng = random.Random(3)
    (place / "live").mkdir()
    for number in range(max(1, 200 // part)):
        (place / "live" / f"{number:03}.bin").write_bytes(rng.randbytes(8 * MIB))
    return ["random bytes in files of 8 MiB"]


def make_postgres(place: Path, part: int) -> list[str]:
    """Two dumps of a pgbench database, with transactions between them."""
    script = Path(__file__).with_name("pgdump.sh")
    version = run([str(script), str(place), str(max(1, 50 // part))])
    _versions(place, "before")
    return [version]


DATA_SETS = (
    DataSet(
        "linux",
        "Linux source: 6.1, then 6.12 in its place, then back",
        make_linux,
        (Step("6.12 on top", swap(LINUX[1])), Step("back to 6.1", swap(LINUX[0]))),
        start=swap(LINUX[0]),
    ),
    DataSet(
        "system",
        "system files and libraries",
        make_system,
        (Step("1 % of files changed", change_some),),
    ),
    DataSet(
        "image",
        "one disk image of 4 GiB",
        make_image,
        (Step("2 % changed in place", swap("changed")), Step("1 MiB inserted", swap("shifted"))),
        start=swap("base"),
        runs=1,
    ),
    DataSet(
        "many",
        "1,000,000 small files in 10,000 directories",
        make_many,
        (Step("1 % of files changed", change_some),),
        runs=1,
    ),
    DataSet(
        "random",
        "incompressible files",
        make_random,
        (Step("1 % of files changed", change_some),),
    ),
    DataSet(
        "postgres",
        "a PostgreSQL dump as a stream",
        make_postgres,
        (Step("after transactions", swap("after")),),
        start=swap("before"),
        stream=True,
    ),
)
