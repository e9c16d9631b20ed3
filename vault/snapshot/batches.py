"""Items on their way from the walk to the tree: what is to be read is read in batches."""

import contextlib
import dataclasses
from concurrent.futures import Future
from typing import NamedTuple

from vault.snapshot.file_reader import (
    SMALL_FILE,
    ToRead,
)
from vault.snapshot.list_records import ListRecord
from vault.snapshot.reading_processes import (
    BatchContents,
    PendingRead,
)
from vault.snapshot.walk import SourceItem


class Slot(NamedTuple):
    """One item on its way from the walk to the tree. A tuple, because there is one for each."""

    item: SourceItem
    record: ListRecord | None = None  # unchanged: everything is known
    state: bytes = b""  # of a file with several names, `links.state_of`
    is_link: bool = False  # one in that state was met before
    to_read: bool = False
    in_pieces: bool = False


@dataclasses.dataclass(slots=True)
class ReadBatch:
    """Consecutive slots; those to be read are read together."""

    slots: list[Slot] = dataclasses.field(default_factory=list)
    size: int = 0
    small: list[ToRead] = dataclasses.field(default_factory=list)
    middling: list[ToRead] = dataclasses.field(default_factory=list)  # read ahead by a thread
    reading: PendingRead | None = None  # of the small ones
    future: Future[PendingRead] | None = None  # of the middling ones

    @property
    def is_done(self) -> bool:
        """Whether nobody would have to wait for it."""
        return (self.reading is None or self.reading.ready) and (
            self.future is None or self.future.done()
        )


def reading_of(batch: ReadBatch) -> PendingRead | None:
    """What its middling files gave, once a thread has read them; None without any."""
    return None if batch.future is None else batch.future.result()


def contents_in(reading: PendingRead | None) -> "contextlib.AbstractContextManager[BatchContents]":
    """The contents of files that were read; none without a reading."""
    return contextlib.nullcontext(()) if reading is None else reading.contents()


def in_order_of_slots(
    batch: ReadBatch, small: BatchContents, middling: BatchContents
) -> BatchContents:
    """Of the files of a batch, as its slots have them."""
    if not middling:
        return small
    parts = {True: iter(small), False: iter(middling)}
    return [
        next(parts[slot.item.stat.st_size <= SMALL_FILE])  # type: ignore[union-attr]  # was met
        for slot in batch.slots
        if slot.to_read and not slot.in_pieces
    ]
