"""The proof: compare the staged tree, read back from the disk, with the signed one.

See docs/design.md "Restore".

Flush, read everything back (`vault.restore.read_back`), and compare each canonical entry with
the expected one and all of them with the signed content root.
"""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import Executor
from typing import Final

from vault.format.content_root import ContentRoot
from vault.format.entry import Entry
from vault.format.entry_encoding import encode_canonical
from vault.ledger.statements import Verdict
from vault.machine import metadata
from vault.model import EntryType, sort_key
from vault.progress import NO_PROGRESS, Progress
from vault.restore.changed_since_proof import Stillness
from vault.restore.read_back import Disk, Evidence, OnDisk, entry_of
from vault.restore.stage import DEVICES, may_be_omitted
from vault.restore.syscalls import Fs, local_error

_MAX_MISMATCHES: Final = 100  # named in a report; all are counted


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """One thing that is not as signed."""

    path: bytes
    field: str  # "missing", "unexpected", "type", "content", "mode", "xattr user.x", …
    expected: str = ""
    found: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProofReport:
    """The tree on the disk compared with the signed one."""

    verdict: Verdict
    entries: int  # found on disk
    files: int  # read back; without hard links
    size: int  # bytes read back
    disk_root: bytes  # content root of the tree on the disk
    expected_root: bytes  # content root of the expected entries
    root_matches: bool  # the content root is the one that the snapshot's commitment signs
    evidence: dict[Evidence, int]  # number of files read at each level; empty files not counted
    mismatches: tuple[Mismatch, ...]  # the first ones
    mismatch_count: int
    left_out: dict[str, int]  # omissions found on the disk
    skipped: int  # expected entries that were not asked for

    @property
    def weakest(self) -> Evidence:
        """The weakest evidence among all files that were read."""
        return min(self.evidence, default=Evidence.EVICTED)


def prove(
    staging: int,
    expected: Iterable[tuple[Entry | None, bytes]],
    *,
    check_root: Callable[[bytes], bool],
    left_out: Iterable[str] = (),
    executor: Executor,
    fs: Fs,
    progress: Progress = NO_PROGRESS,
    processes: int = 0,
    still: Stillness | None = None,
    vast: Container[bytes] = (),
) -> ProofReport:
    """Read the staged tree back from the disk and compare it with what was signed.

    Args:
        staging: Descriptor of the staging directory.
        expected: Every entry of the snapshot in order, with its canonical bytes
            as they were in the tree. None in place of an entry that was not asked
            for; a changed one where it was restored as something else (a hard
            link without its file as that file's copy).
        check_root: Returns whether a content root is the signed one.
        left_out: Omissions that staging reported: a difference that they explain
            makes the verdict partial instead of failed.
        executor: Reads and hashes large files.
        fs: System calls.
        progress: Called with files and bytes read.
        processes: Number of processes that may be forked to read small files.
        still: Receives each entry's ctime, for the look right before the exchange.
        vast: Paths of files whose entries have a tree hash.

    Raises:
        LocalError: The disk failed, or lost writes; or a process was killed.
    """
    try:
        fs.syncfs(staging)
        disk = Disk(staging, fs, executor, progress, still=still, vast=vast)
        comparison = _Comparison(frozenset(left_out))
        with contextlib.closing(disk.entries(processes)) as entries:
            comparison.run(entries, iter(expected))
        for path, links, seen in disk.foreign_links():
            comparison.mismatch(path, "links", f"{seen}", f"{links}, some outside the tree")
    except OSError as error:
        raise local_error("read back", b"the staged tree", error) from error
    return comparison.report(disk, check_root)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReadBack:
    """A tree as read from the disk, before any comparison."""

    root: bytes  # content root; equals `ProofReport.disk_root` if nothing changed since
    entries: int
    size: int  # bytes read
    evidence: dict[Evidence, int]
    foreign_links: int  # files with names outside the tree


def read_back(
    staging: int,
    *,
    executor: Executor,
    fs: Fs,
    vast: Container[bytes] = (),
) -> ReadBack:
    """Read a tree back from the disk, without comparing it.

    Args:
        staging: Descriptor of the top.
        executor: Reads and hashes large files.
        fs: System calls.
        vast: Paths of files whose entries have a tree hash.

    Raises:
        LocalError: The disk failed.
    """
    root, entries = ContentRoot(), 0
    try:
        fs.syncfs(staging)
        disk = Disk(staging, fs, executor, NO_PROGRESS, vast=vast)
        for _, _, canonical in disk.entries():
            root.update(canonical)
            entries += 1
    except OSError as error:
        raise local_error("read back", b"the staged tree", error) from error
    return ReadBack(
        root=root.digest(),
        entries=entries,
        size=disk.size,
        evidence=dict(disk.evidence),
        foreign_links=sum(1 for _ in disk.foreign_links()),
    )


# --- comparing ---


class _Comparison:
    """Merges two sorted streams of entries and counts what differs."""

    def __init__(self, left_out: frozenset[str]) -> None:
        self._allowed = left_out
        self._disk_root = ContentRoot()
        self._expected_root = ContentRoot()
        self._mismatches: list[Mismatch] = []
        self._mismatch_count = 0
        self._left_out: Counter[str] = Counter()
        self._skipped = 0
        self._entries = 0
        self._exact = True  # every entry, byte by byte

    def run(self, disk: "Iterator[OnDisk]", expected: Iterator[tuple[Entry | None, bytes]]) -> None:
        """Compare both to their ends."""
        wanted = self._next_wanted(expected)
        for found, content, canonical in disk:
            self._entries += 1
            self._disk_root.update(canonical)
            if wanted is None or wanted[1] != canonical:  # equal bytes include the path
                wanted = self._pass_missing(wanted, expected, found.path)
                if wanted is None or wanted[0].path != found.path:
                    self.mismatch(found.path, "unexpected", "nothing", _type_name(found.type))
                    continue
                self._compare(*wanted, entry_of(found, content))
            wanted = self._next_wanted(expected)
        while wanted is not None:
            self._missing(wanted[0])
            wanted = self._next_wanted(expected)

    def _pass_missing(
        self,
        wanted: tuple[Entry, bytes] | None,
        expected: Iterator[tuple[Entry | None, bytes]],
        path: bytes,
    ) -> tuple[Entry, bytes] | None:
        """Report expected entries that sort before the path just found: they are missing."""
        key = sort_key(path)
        while wanted is not None and sort_key(wanted[0].path) < key:
            self._missing(wanted[0])
            wanted = self._next_wanted(expected)
        return wanted

    def mismatch(self, path: bytes, field: str, expected: str, found: str) -> None:
        """Count a difference that no omission explains."""
        self._mismatch_count += 1
        if len(self._mismatches) < _MAX_MISMATCHES:
            self._mismatches.append(
                Mismatch(path=path, field=field, expected=expected, found=found)
            )

    def report(self, disk: "Disk", check_root: Callable[[bytes], bool]) -> ProofReport:
        """The result: all right, right except for omissions, or wrong."""
        expected_root = self._expected_root.digest()
        root_matches = check_root(expected_root)
        verdict = Verdict.FAILED
        if root_matches and not self._mismatch_count:
            verdict = Verdict.PASSED if self._exact else Verdict.PARTIAL
        return ProofReport(
            verdict=verdict,
            entries=self._entries,
            files=disk.files,
            size=disk.size,
            disk_root=self._disk_root.digest(),
            expected_root=expected_root,
            root_matches=root_matches,
            evidence=dict(disk.evidence),
            mismatches=tuple(self._mismatches),
            mismatch_count=self._mismatch_count,
            left_out=dict(sorted(self._left_out.items())),
            skipped=self._skipped,
        )

    def _next_wanted(
        self, expected: Iterator[tuple[Entry | None, bytes]]
    ) -> tuple[Entry, bytes] | None:
        for entry, canonical in expected:
            self._expected_root.update(canonical)
            if entry is not None:
                return entry, canonical
            self._skipped += 1
            self._exact = False
        return None

    def _missing(self, wanted: Entry) -> None:
        if DEVICES in self._allowed and may_be_omitted(wanted.type):
            self._omit({DEVICES})
        else:
            self.mismatch(wanted.path, "missing", _type_name(wanted.type), "nothing")

    def _omit(self, omissions: Iterable[str]) -> None:
        self._left_out.update(omissions)
        self._exact = False

    def _compare(self, wanted: Entry, canonical: bytes, found: Entry) -> None:
        if encode_canonical(found) == canonical:
            return
        found = _without_kernel_labels(found, wanted)
        if encode_canonical(found) == canonical:
            return
        self._exact = False
        if wanted.type is not found.type:
            self.mismatch(found.path, "type", _type_name(wanted.type), _type_name(found.type))
            return
        for field, expected, there in _content_differences(wanted, found):
            self.mismatch(found.path, field, expected, there)
        for difference in metadata.differences(wanted, found):
            if difference.omissions <= self._allowed:
                self._omit(difference.omissions)
            else:
                self.mismatch(found.path, difference.field, difference.expected, difference.found)


def _without_kernel_labels(found: Entry, wanted: Entry) -> Entry:
    xattrs = metadata.without_kernel_labels(found.xattrs, wanted.xattrs)
    if xattrs == found.xattrs:
        return found
    fields = {name: getattr(found, name) for name in found.__struct_fields__}
    return Entry(**(fields | {"xattrs": xattrs}))


def _content_differences(wanted: Entry, found: Entry) -> Iterator[tuple[str, str, str]]:
    if wanted.size != found.size:
        yield "size", str(wanted.size), str(found.size)
    elif _digest(wanted) != _digest(found):
        yield "content", _hex(_digest(wanted)), _hex(_digest(found))
    if wanted.link != found.link:
        yield "link", repr(wanted.link), repr(found.link)
    if wanted.device != found.device:
        yield "device", str(wanted.device), str(found.device)


def _type_name(kind: EntryType) -> str:
    return kind.name.lower().replace("_", " ")


def _digest(entry: Entry) -> bytes | None:
    return entry.sha256 if entry.tree_hash is None else entry.tree_hash


def _hex(digest: bytes | None) -> str:
    return "none" if digest is None else digest.hex()
