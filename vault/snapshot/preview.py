"""What a snapshot would do, without reading or storing anything (`--dry-run`)."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path

from vault.model import EntryType
from vault.snapshot import safe_open, walk
from vault.snapshot.last_run import Joiner
from vault.snapshot.list_records import ListRecord
from vault.snapshot.packer import numbers_in
from vault.snapshot.unchanged import Grounds, is_unchanged
from vault.snapshot.walk import LeftOut, SourceItem


class PreviewAction(StrEnum):
    """What a snapshot would do with one thing."""

    READ = "read"
    UNCHANGED = "unchanged"  # since the last snapshot on this host
    STORED = "stored"  # a directory, a link: no content to read
    SKIPPED = "skipped"
    UNREADABLE = "unreadable"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One thing that the walk met, or left out."""

    path: bytes
    action: PreviewAction
    size: int = 0  # bytes of content that would be read, or are unchanged
    reason: str = ""


def preview(
    paths: Sequence[Path],
    rules: walk.Rules,
    last: Iterator[ListRecord],
    grounds: Grounds,
    usable: Callable[[int], bool],
) -> Iterator[Planned]:
    """Go through the source as a snapshot would.

    Args:
        paths: The sources.
        rules: What to leave out.
        last: The entry list of the run before, ascending.
        grounds: What that list proves.
        usable: Returns whether a pack may be relied on.

    Raises:
        ConfigError: The source is not as required.
    """
    skipped: list[Planned] = []

    def note(left_out: LeftOut) -> None:
        skipped.append(
            Planned(path=left_out.path, action=PreviewAction.SKIPPED, reason=left_out.detail)
        )

    joiner = Joiner(last)
    for item in walk.walk(paths, rules, skipped=note):
        yield from skipped
        skipped.clear()
        yield _planned(item, joiner, grounds, usable)
    yield from skipped


def _planned(
    item: SourceItem, joiner: Joiner, grounds: Grounds, usable: Callable[[int], bool]
) -> Planned:
    left_out = _left_out(item)
    if left_out is not None:
        return left_out
    assert item.stat is not None
    grounds.meet(item)
    device = item.stat.st_dev
    record = joiner.match(item.path)
    if item.type is not EntryType.FILE:
        return Planned(path=item.path, action=PreviewAction.STORED)
    reason = ""
    if record is not None and is_unchanged(item.stat, record, grounds.bounds[record.dev, device]):
        if all(map(usable, numbers_in(record.packs))):
            return Planned(path=item.path, action=PreviewAction.UNCHANGED, size=item.stat.st_size)
        reason = "unchanged, but its packs are damaged, gone or about to go"
    try:
        descriptor, found = safe_open.open_source(item.full, item.stat)
    except OSError as error:
        return Planned(path=item.path, action=PreviewAction.UNREADABLE, reason=error.strerror or "")
    os.close(descriptor)
    return Planned(path=item.path, action=PreviewAction.READ, size=found.st_size, reason=reason)


def _left_out(item: SourceItem) -> Planned | None:
    """What can't be in a snapshot, and why; None for the rest."""
    if item.vanished:
        return Planned(path=item.path, action=PreviewAction.SKIPPED, reason="vanished")
    if item.stat is None or item.error is not None:
        return Planned(path=item.path, action=PreviewAction.UNREADABLE, reason=item.error or "")
    if item.type is None:
        return Planned(path=item.path, action=PreviewAction.SKIPPED, reason="a socket")
    return None
