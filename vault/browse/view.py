"""One snapshot as it can be looked at: its verified tree and the content of its files."""

import hashlib
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Self, TypeVar

from vault.browse.files import MAX_CACHED, Blocks, FileContent
from vault.browse.treeindex import TreeIndex
from vault.crypto.keyfiles import RecoveryKey
from vault.errors import DigestMismatchError
from vault.format.tree import Entry, Flaws
from vault.format.treehash import TreeHash
from vault.ledger.chain import Record
from vault.repository.reader import Reader, StaleIndexError
from vault.repository.repository import Repository, snapshot_body

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

PIECE: Final = 1 << 20  # bytes that `View.stream` gives at once

_Belief = tuple[bool, bool]  # use_index and by_digest of a `Reader`
_FROM_THE_START: Final[Sequence[_Belief]] = ((True, False), (False, False), (False, True))
_AT_RANDOM: Final[Sequence[_Belief]] = ((True, True), (False, True))


@contextmanager
def open_reader(
    repository: Repository,
    recovery: RecoveryKey,
    record: Record,
    *,
    scratch: Path,
    use_index: bool = True,
    by_digest: bool = False,
) -> Iterator[Reader]:
    """A `Reader` that knows where all chunks lie, with its scratch files for the while.

    Raises:
        WrongKeyError: The snapshot is not sealed to this key.
        IntegrityError: What leads to its packs is missing or wrong.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        reader = Reader(
            repository,
            recovery.recipient,
            record,
            scratch=Path(directory),
            use_index=use_index,
            by_digest=by_digest,
        )
        try:
            reader.load_packs()
            yield reader
        finally:
            reader.close()


class View:
    """A snapshot for the holder of a recovery key. Use as a context manager.

    Where chunks lie is believed without proof first, as that costs least. What turns
    out wrong is believed no more, and what was being read is read again. An entry that
    breaks a rule, and what lies behind the end of a damaged tree, is in `flaws`.

    Args:
        repository: Read up to its head.
        recovery: Opens it.
        record: The snapshot.
        scratch: Directory on local disk for temporary files.
        random_access: Files will be read elsewhere than from their beginning on; lengths
            of chunks are then taken from nothing that the store could have made up.
        max_cached: Bytes of open blocks to keep.

    Raises:
        VaultError: On entering: nothing of the tree can be read, or it is not what was signed.
    """

    def __init__(
        self,
        repository: Repository,
        recovery: RecoveryKey,
        record: Record,
        *,
        scratch: Path,
        random_access: bool = False,
        max_cached: int = MAX_CACHED,
    ) -> None:
        self._repository = repository
        self._recovery = recovery
        self.record = record
        self._scratch = scratch
        self._max_cached = max_cached
        self._beliefs = iter(_AT_RANDOM if random_access else _FROM_THE_START)
        self._reading = ExitStack()
        self._tree = ExitStack()
        self.tree: TreeIndex
        self.flaws: Flaws  # what the tree has and can't be given
        self.blocks: Blocks

    def __enter__(self) -> Self:
        try:
            self._open(next(self._beliefs))
            self.retrying(self._read_tree)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._reading.close()
        self._tree.close()

    def _open(self, belief: _Belief) -> None:
        use_index, by_digest = belief
        reader = self._reading.enter_context(
            open_reader(
                self._repository,
                self._recovery,
                self.record,
                scratch=self._scratch,
                use_index=use_index,
                by_digest=by_digest,
            )
        )
        self.blocks = Blocks(reader, max_cached=self._max_cached)

    def _read_tree(self) -> None:
        self._tree.close()
        self.tree = self._tree.enter_context(TreeIndex(self._scratch))
        self.flaws = self.tree.sift(self.blocks.reader.tree)

    def retrying(self, work: Callable[[], _T]) -> _T:
        """What ``work`` gives, believing less each time that a belief turns out wrong.

        Raises:
            IntegrityError: What is left to believe was hashed, and is not enough.
        """
        while True:
            try:
                return work()
            except StaleIndexError as error:
                belief = next(self._beliefs, None)
                if belief is None:
                    raise
                _log.warning("reading again: %s", error)
                self._reading.close()
                self._open(belief)

    @property
    def size(self) -> int:
        """Bytes of content, as the manifest says."""
        return snapshot_body(self.record).counts.size

    def open(self, entry: Entry) -> "OpenFile":
        """The content of a file.

        Raises:
            IntegrityError: Its chunks are nowhere, or don't add up to it.
        """
        return OpenFile(self, entry)

    def stream(self, entry: Entry) -> Iterator[bytes]:
        """A file from its beginning to its end; each piece is verified before it is given.

        Raises:
            IntegrityError: What follows is missing or damaged.
        """
        file = self.open(entry)
        whole = hashlib.sha256() if entry.tree_hash is None else TreeHash()
        expected = entry.sha256 if entry.tree_hash is None else entry.tree_hash
        for offset in range(0, entry.size, PIECE):
            piece = file.read(offset, PIECE)
            whole.update(piece)
            yield piece
        if whole.digest() != expected:
            raise DigestMismatchError(
                f"{entry.path[:200]!r} has the wrong bytes, each chunk being right",
                expected=expected.hex() if expected else None,
                found=whole.digest().hex(),
            )


class OpenFile:
    """A file of a view."""

    def __init__(self, view: View, entry: Entry) -> None:
        self._view = view
        self._entry = entry
        self._content: FileContent | None = None
        view.retrying(self._current)

    def read(self, offset: int, size: int) -> bytes:
        """See `FileContent.read`."""
        return self._view.retrying(lambda: self._current().read(offset, size))

    def _current(self) -> FileContent:
        """By the reader that the view has now."""
        if self._content is None or self._content.blocks is not self._view.blocks:
            self._content = FileContent(self._view.blocks, self._entry)
        return self._content
