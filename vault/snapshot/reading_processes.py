"""Reads files of a snapshot whole, in this process and in helping processes (ADR 0012).

Otherwise one thread would do the Python work for all files, however many processors there are.
A helping process leaves the bytes in memory that both processes have mapped.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeAlias

import msgspec

from vault.machine.processes import Helper, start
from vault.snapshot.file_reader import SMALL_FILE, FileReader, ReadContent, ReadOutcome, ToRead
from vault.snapshot.list_records import ListRecord
from vault.snapshot.pieces import split_pieces

BATCH_SIZE = 4 * 1_048_576  # bytes of files in one batch, before its last file
_ROOMS = 3  # kept to be used again, as the kernel zeroes fresh memory
ROOM = BATCH_SIZE + SMALL_FILE + 1  # bytes for a batch; one more shows the end of the last file

BatchContents: TypeAlias = Sequence[ReadContent | None]
_Helper: TypeAlias = Helper[bytes, bytes]  # lists of `ToRead`; of `_Sent`


class _Sent(msgspec.Struct, array_like=True, gc=False):
    """`ReadContent` for sending: ids in one string, and lengths instead of pieces."""

    outcome: ReadOutcome
    record: ListRecord | None
    size: int
    state: bytes
    lost: Sequence[str]
    altered: Sequence[str]
    ids: bytes
    lengths: Sequence[int]
    problem: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_Sent | None]).decode
_decode_request = msgspec.msgpack.Decoder(list[ToRead]).decode


class WholeFiles:
    """Hands each batch to an idle helper, or reads it here.

    Args:
        reader: Reads files.
        helpers: Processes that `sharing` began; may be empty.
    """

    def __init__(self, reader: FileReader, helpers: "Sequence[_Helper]") -> None:
        self._reader = reader
        self._helpers = helpers
        self._rooms: deque[bytearray] = deque(maxlen=_ROOMS)  # to be used again

    def begin(self, items: Sequence[ToRead]) -> "PendingRead":
        """Begin to read a batch; take batches in the order in which they were begun."""
        request = _encode(items) if self._helpers else b""
        for helper in self._helpers:
            if helper.offer(request):
                return _Elsewhere(helper)
        return self.read(items)

    def read(self, items: Sequence[ToRead]) -> "PendingRead":
        """Read a batch at once, in the calling thread."""
        size = sum(item.st_size for item in items) + 1  # one more shows the end of the last file
        try:
            room = self._rooms.popleft()  # several threads take rooms
        except IndexError:
            room = bytearray()
        if len(room) < size:
            room = bytearray(size)
        contents = self._reader.read_batch(items, memoryview(room))
        return _Here(contents, lambda: self._rooms.append(room))


class PendingRead(Protocol):
    """A batch of files that is being read, or has been."""

    @property
    def ready(self) -> bool:
        """Whether `contents` returns at once."""

    def contents(self) -> "contextlib.AbstractContextManager[BatchContents]":
        """Each file's content, in order; None for one that has grown. Valid within the block."""


class _Here:
    """A batch that this process has read."""

    ready = True

    def __init__(self, contents: BatchContents, free: Callable[[], None]) -> None:
        self._contents = contents
        self._free = free

    @contextlib.contextmanager
    def contents(self) -> Iterator[BatchContents]:
        """See `PendingRead.contents`."""
        yield self._contents
        self._free()


class _Elsewhere:
    """A batch that a helper reads."""

    def __init__(self, helper: _Helper) -> None:
        self._helper = helper

    @property
    def ready(self) -> bool:
        """See `PendingRead`."""
        return self._helper.ready

    @contextlib.contextmanager
    def contents(self) -> Iterator[BatchContents]:
        """See `PendingRead.contents`."""
        with self._helper.answer() as (answer, room):
            yield list(_received(answer, room))


@contextlib.contextmanager
def sharing(reader: FileReader, processes: int) -> Iterator[WholeFiles]:
    """Begin as many processes as wanted, or as the system allows; they end with the block.

    Enter it while the workers have no work (`vault.machine.processes.declare_quiet`).
    """
    with contextlib.ExitStack() as stack:
        yield WholeFiles(reader, start(stack, processes, _starter(reader)))


def _starter(reader: FileReader) -> Callable[[], _Helper]:
    def work(request: bytes, room: memoryview) -> bytes:
        items = _decode_request(request)
        return _encode([_sent(content) for content in reader.read_batch(items, room)])

    return lambda: Helper(work, lambda: None, room=ROOM)


def _sent(content: ReadContent | None) -> _Sent | None:
    if content is None:
        return None
    outcome, record, size, state, lost, altered, ids, pieces, problem = content
    lengths = [len(piece) for piece in pieces]
    return _Sent(outcome, record, size, state, lost, altered, b"".join(ids), lengths, problem)


def _received(answer: bytes, room: memoryview) -> Iterator[ReadContent | None]:
    at = 0
    for sent in _decode(answer):
        if sent is None:
            yield None
            continue
        ids = sent.ids
        if len(sent.lengths) > 1:
            names: Sequence[bytes] = [ids[i : i + 32] for i in range(0, len(ids), 32)]
            pieces: Sequence[memoryview] = split_pieces(room[at : at + sent.size], sent.lengths)
        elif sent.size:
            names, pieces = (ids,), (room[at : at + sent.size],)
        else:
            names = pieces = ()
        at += sent.size
        yield ReadContent(
            sent.outcome,
            sent.record,
            sent.size,
            sent.state,
            sent.lost,
            sent.altered,
            names,
            pieces,
            sent.problem,
        )
