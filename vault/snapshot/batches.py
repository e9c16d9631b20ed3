"""Items on their way from the walk to the tree; files are read in batches."""

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
    record: ListRecord | None = None  # the one of last time, if it is unchanged
    state: bytes = b""  # `links.state_of`, if the file has several names
    is_link: bool = False  # a file in that state was met before
    to_read: bool = False
    in_pieces: bool = False


@dataclasses.dataclass(slots=True)
class ReadBatch:
    """Consecutive slots; those to be read are read together."""

    slots: list[Slot] = dataclasses.field(default_factory=list)
    size: int = 0
    small: list[ToRead] = dataclasses.field(default_factory=list)
    middling: list[ToRead] = dataclasses.field(default_factory=list)  # read ahead by a thread
    reading: PendingRead | None = None  # the reading of small ones
    future: Future[PendingRead] | None = None  # the reading of middling ones

    @property
    def is_done(self) -> bool:
        """Whether its contents can be had without waiting."""
        return (self.reading is None or self.reading.ready) and (
            self.future is None or self.future.done()
        )


def reading_of(batch: ReadBatch) -> PendingRead | None:
    """The middling files, once a thread has read them; None if there are none."""
    return None if batch.future is None else batch.future.result()


def contents_in(reading: PendingRead | None) -> "contextlib.AbstractContextManager[BatchContents]":
    """The contents of files that were read; empty without a reading."""
    return contextlib.nullcontext(()) if reading is None else reading.contents()


def in_order_of_slots(
    batch: ReadBatch, small: BatchContents, middling: BatchContents
) -> BatchContents:
    """The contents of the files of a batch, in the order of its slots."""
    if not middling:
        return small
    parts = {True: iter(small), False: iter(middling)}
    return [
        next(parts[slot.item.stat.st_size <= SMALL_FILE])  # type: ignore[union-attr]  # was met
        for slot in batch.slots
        if slot.to_read and not slot.in_pieces
    ]
