"""A PUT that stalls half-way; it shows in which order a server lists versions."""

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import Any


class PausingBody(io.BytesIO):
    """Bytes that stop once, half-way through being sent."""

    def __init__(self, data: bytes, pause: Callable[[], object]) -> None:
        super().__init__(data)
        self.is_sent = False
        self._pause = pause
        self._half = len(data) // 2
        self._paused = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Bytes; those up to the middle first, then the pause."""
        if self.is_sent and not self._paused:
            if self.tell() >= self._half:
                self._paused = True
                self._pause()
            else:
                size = self._half - self.tell()
        return super().read(size)


@contextlib.contextmanager
def stalled_body(client: Any, data: bytes, pause: Callable[[], object]) -> "Iterator[PausingBody]":
    """The body of the next PUT of a client, which stops half-way while ``pause`` runs."""
    body = PausingBody(data, pause)

    def begin(request: Any, **_: Any) -> None:
        if request.body is body:
            body.is_sent = True  # earlier reads only hashed it for the signature

    handler = f"pause-{id(body)}"
    client.meta.events.register("before-send.s3.PutObject", begin, unique_id=handler)
    try:
        yield body
    finally:
        client.meta.events.unregister("before-send.s3.PutObject", unique_id=handler)
