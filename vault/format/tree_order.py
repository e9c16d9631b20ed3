"""The rules between entries of a tree: their order, and the directories that they lie in."""

from array import array
from bisect import bisect_left

from vault.model import sort_key


class PathSet:
    """A set of paths, kept as 64-bit hashes with a key of this process: 8 bytes each."""

    _RUN = 65_536

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._runs: list[array[int]] = []  # each sorted

    def add(self, path: bytes) -> None:
        """Add a path."""
        self._recent.add(hash(path))
        if len(self._recent) == self._RUN:
            self._runs.append(array("q", sorted(self._recent)))
            self._recent.clear()

    def __contains__(self, path: bytes | None) -> bool:
        wanted = hash(path)
        if wanted in self._recent:
            return True
        positions = ((run, bisect_left(run, wanted)) for run in self._runs)
        return any(at < len(run) and run[at] == wanted for run, at in positions)


class TreeOrder:
    """The rules between entries of a tree: strictly ascending, each in a directory before it.

    Readers and writers both use it. It holds the open directories. A refused entry changes
    nothing: entries after it are judged as if it were not there.
    """

    def __init__(self) -> None:
        self._open: list[bytes] = []  # paths of the directories that may still get members
        self.last_path = b""

    @property
    def has_top(self) -> bool:
        """Whether the top directory has come."""
        return bool(self._open)

    def flaw(self, path: bytes, *, is_directory: bool) -> str:
        """Why an entry can't come next, in words that follow "the entry …"; "": it is accepted."""
        opened = self._open
        parent = path.rpartition(b"/")[0]
        if opened and opened[-1] == parent:  # nearly always: after this directory, or in it after
            if path <= self.last_path:  # not a member of it, so compare the names
                return "is out of order"
        elif flaw := self._leave_for(path, parent, is_directory=is_directory):
            return flaw
        self.last_path = path
        if is_directory:
            opened.append(path)
        return ""

    def _leave_for(self, path: bytes, parent: bytes, *, is_directory: bool) -> str:
        """The flaw of an entry that is not in the innermost directory."""
        if not self._open:
            return "comes before the top directory" if path or not is_directory else ""
        if not self.may_come(path):
            return "is out of order"
        around = self.depth(parent)
        if not around:
            return "has no directory to be in"
        del self._open[around:]  # directories that it leaves get no more members
        return ""

    def depth(self, directory: bytes) -> int:
        """How many open directories there are up to this one; 0 if it is not open."""
        at = bisect_left(self._open, len(directory), key=len)  # each lies in the one before
        return at + 1 if self._open[at : at + 1] == [directory] else 0

    def may_come(self, path: bytes) -> bool:
        """Whether a path comes after all paths so far."""
        return not self._open or sort_key(path) > sort_key(self.last_path)
