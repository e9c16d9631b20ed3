"""A stream as a source: standard input, or the output of a command.

See docs/design.md "Snapshot".

A command's exit status decides: if it fails, is killed or runs out of time, nothing is
published.
"""

import contextlib
import dataclasses
import hashlib
import os
import select
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import IO, Protocol, Self

from vault.errors import ConfigError, LocalError, SourceCommandError
from vault.format.chunker import ChunkSizes
from vault.machine.child_processes import Family
from vault.snapshot.file_reader import FileReader
from vault.snapshot.pieces import PIECE, Part, Pieces

MAX_STREAM_NAME = 255  # bytes
_PATIENCE = 0.2  # seconds; so often a silent stream checks if the consumer has stopped


class Stream(Protocol):
    """A source of bytes that are read once."""

    def fileno(self) -> int:
        """The descriptor to read, up to its end."""

    def finish(self) -> None:
        """Check, after the end, whether what was read may be kept.

        Raises:
            SourceCommandError: It may not.
        """


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NamedStream:
    """A stream and the name of the file that it becomes.

    Raises:
        ConfigError: A file can't have that name.
    """

    name: str
    stream: Stream

    def __post_init__(self) -> None:
        """Check the name."""
        name = os.fsencode(self.name)
        if (
            name in {b"", b".", b".."}
            or b"/" in name
            or b"\0" in name
            or len(name) > MAX_STREAM_NAME
        ):
            raise ConfigError("a stream needs a plain file name", found=repr(self.name[:80]))


def check_not_empty(named: NamedStream, size: int) -> None:
    """Refuse a stream without a byte: what writes it has probably failed.

    Raises:
        ConfigError: ``size``, in bytes, is 0.
    """
    if not size:
        raise ConfigError(
            f"the stream {named.name} is empty",
            hint="--allow-empty takes the snapshot all the same",
        )


class StandardInput:
    """Standard input; the exit status of the program that writes it can't be known."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def fileno(self) -> int:
        """See `Stream.fileno`."""
        return self._file.fileno()

    def finish(self) -> None:
        """See `Stream.finish`."""


class Command:
    """The standard output of a command. Use as a context manager: it leaves no process behind.

    Args:
        arguments: Program and arguments; no shell is involved.
        timeout: Seconds that it may run.

    Raises:
        SourceCommandError: It can't be started.
    """

    def __init__(self, arguments: Sequence[str], *, timeout: float | None = None) -> None:
        self._name = arguments[0]
        self._timed_out = threading.Event()
        try:
            self._family = Family(arguments)
        except OSError as error:
            raise SourceCommandError(
                f"command {self._name!r} can't be started", found=error.strerror
            ) from error
        self._timer = threading.Timer(timeout or 0, self._time_out)
        self._timer.daemon = True
        if timeout is not None:
            self._timer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._family.output.close()
        self._family.end()

    def fileno(self) -> int:
        """See `Stream.fileno`."""
        return self._family.output.fileno()

    def finish(self) -> None:
        """See `Stream.finish`."""
        status = self._family.wait()
        self._timer.cancel()
        if self._timed_out.is_set():
            raise SourceCommandError(f"command {self._name!r} ran out of time; nothing is kept")
        if status < 0:
            name = signal.Signals(-status).name
            raise SourceCommandError(
                f"command {self._name!r} was killed; nothing is kept", found=name
            )
        if status:
            raise SourceCommandError(
                f"command {self._name!r} failed; nothing is kept",
                expected="exit status 0",
                found=status,
            )

    def _time_out(self) -> None:
        self._timed_out.set()
        with contextlib.suppress(LocalError):  # what is left is reported at the end
            self._family.end()


class StreamFile(Pieces):
    """Cuts a stream into chunks."""

    def __init__(self, reader: FileReader, stream: Stream, sizes: ChunkSizes) -> None:
        self._fd = stream.fileno()
        self.size = 0  # bytes read
        super().__init__(sizes, reader.chunk_id, reader.buffers, PIECE, hashlib.sha256())

    def _read(self) -> Iterator[Part]:
        """See `Pieces`."""
        is_last = False
        while not is_last:
            buffer = self._take()
            if buffer is None:
                return
            room = buffer[self._room : self._room + self._piece]
            filled = 0
            while filled < len(room) and (got := self._receive(room[filled:])):
                filled += got
            self.size += filled
            is_last = filled < len(room)
            yield Part(buffer, filled, is_last, is_last)
            self._hash.update(room[:filled])

    def _receive(self, room: memoryview) -> int:
        """Bytes received; 0 at the end of the stream, or after the consumer has stopped."""
        while not select.select([self._fd], (), (), _PATIENCE)[0]:
            if self._is_closed:
                return 0
        return os.readv(self._fd, [room])
