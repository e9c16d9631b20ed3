"""A view of one snapshot: its verified tree and the content of its files."""

import hashlib
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Self, TypeVar

from vault.browse.files import MAX_CACHED, Blocks, FileContent
from vault.browse.tree_index import TreeIndex
from vault.crypto.key_files import RecoveryKey
from vault.encoding import shown_path
from vault.errors import DigestMismatchError
from vault.format.entry import Entry
from vault.format.tree import Flaws
from vault.format.tree_hash import TreeHash
from vault.ledger.records import Record
from vault.repository.pack_reader import StaleIndexError
from vault.repository.reader import Reader
from vault.repository.repository import Repository, snapshot_body

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

STREAM_PIECE: Final = 1 << 20  # bytes that `View.stream` gives at once

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
    """A `Reader` with the location of every chunk; its scratch files last as long as the block.

    Raises:
        WrongKeyError: The snapshot is not sealed to this key.
        IntegrityError: The inventory, or another object that leads to its packs, is missing or
            wrong.
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

    At first the view believes index objects about the place of chunks, as that costs least. If
    one turns out wrong, it stops believing it and reads again. `flaws` has the entries that
    break a rule, and the end of a damaged tree.

    Args:
        repository: Read up to its head.
        recovery: Opens it.
        record: The snapshot.
        scratch: Directory on local disk for temporary files.
        random_access: Files will be read at any offset; lengths of chunks then come from signed
            or hashed data only, as the store could have made up others.
        max_cached: Bytes of open blocks to keep.

    Raises:
        VaultError: On entering: no part of the tree can be read, or it differs from the signed one.
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
        self.flaws: Flaws  # bad entries of the tree
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
        """Run ``work``; on `StaleIndexError` reopen the reader and run it again.

        Each time the reader believes less: first no index objects, at last only packs that it
        hashed in full.

        Raises:
            IntegrityError: It still fails although every pack was hashed.
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
            IntegrityError: A chunk is in no pack, or the chunks don't add up to the file's size.
        """
        return OpenFile(self, entry)

    def stream(self, entry: Entry) -> Iterator[bytes]:
        """A file from its beginning to its end; each piece is verified before it is given.

        Raises:
            IntegrityError: The next piece is missing or damaged.
        """
        file = self.open(entry)
        whole = hashlib.sha256() if entry.tree_hash is None else TreeHash()
        expected = entry.sha256 if entry.tree_hash is None else entry.tree_hash
        for offset in range(0, entry.size, STREAM_PIECE):
            piece = file.read(offset, STREAM_PIECE)
            whole.update(piece)
            yield piece
        if whole.digest() != expected:
            raise DigestMismatchError(
                f"{shown_path(entry.path)} has the wrong bytes, each chunk being right",
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
        """The content, opened anew if the view has changed its reader."""
        if self._content is None or self._content.blocks is not self._view.blocks:
            self._content = FileContent(self._view.blocks, self._entry)
        return self._content
