"""Objects of a ledger, fetched from a store in few rounds: envelopes, and lines of pages.

What they mean is for `history` and `vault.ledger` to say.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from vault.errors import ObjectNotFoundError
from vault.ledger import pages
from vault.ledger.envelope import MAX_ROOT_PAE, max_envelope
from vault.machine.workers import AtOnce
from vault.storage.base import ObjectStore, ObjectVersion
from vault.storage.names import PAGES, page_name

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

MAX_ENVELOPE: Final = max_envelope(MAX_ROOT_PAE)  # bytes; docs/format.md 2.1
_MIN_ENVELOPE: Final = 200  # bytes: what the frozen grammar demands, in base64, takes more
AT_ONCE: Final = 32  # requests that are under way at the same time


def may_be_statement(size: int) -> bool:
    """Whether an object of so many bytes is worth reading as one: anybody may plant thousands."""
    return _MIN_ENVELOPE <= size <= MAX_ENVELOPE


def plausible(versions: Sequence[ObjectVersion]) -> list[ObjectVersion]:
    """Those that are worth reading, oldest first."""
    return [each for each in versions if not each.marker and may_be_statement(each.size)]


def at_once() -> AtOnce:
    """Threads for `fetch`; they serve a whole reading."""
    return AtOnce(AT_ONCE)


def fetch(
    store: ObjectStore, versions: Sequence[ObjectVersion], threads: AtOnce
) -> list[bytes | None]:
    """The bytes of versions, asked for at the same time; None where one is gone.

    Args:
        store: Where they are.
        versions: At most `AT_ONCE`.
        threads: From `at_once`.

    Raises:
        StorageError: The store did not answer.
    """

    def get(version: ObjectVersion) -> bytes | None:
        try:
            return store.get(version.name, version.version, length=MAX_ENVELOPE)
        except ObjectNotFoundError:
            return None

    if len(versions) < 2:
        return [get(version) for version in versions]
    return threads.map(get, versions)


def by_name(versions: Iterator[ObjectVersion]) -> Iterator[tuple[str, list[ObjectVersion]]]:
    """Group a listing by name, oldest version first."""
    group: list[ObjectVersion] = []
    for version in versions:
        if group and group[0].name != version.name:
            yield group[0].name, group
            group = []
        group.append(version)
    if group:
        yield group[0].name, group


def batches(items: Iterator[_T], size: int) -> Iterator[list[_T]]:
    """Lists of so many, the last one shorter."""
    batch: list[_T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


class PageLines:
    """Lines of pages by the number of their statement; a page is fetched when it is first asked.

    A line is a copy of bytes and proves nothing by itself: it stands for an object only where
    the store's list says that the object has the same bytes (`stands_for`), or where the
    statement after it names its digest.

    Args:
        store: Whose list has the MD5 of objects.
        most: So many pages from the first may be used; None: all.
        for_checkpoint: Whether lines may be taken that a checkpoint is to vouch for, where the
            list can't compare them.
    """

    def __init__(
        self, store: ObjectStore, most: int | None = None, *, for_checkpoint: bool = False
    ) -> None:
        self.for_checkpoint = for_checkpoint
        self._store = store
        self._most = most if store.traits.lists_md5 else 0
        self._listed: dict[str, list[ObjectVersion]] | None = None
        self._page: tuple[int, list[bytes]] = (-1, [])

    def line(self, seq: int) -> bytes | None:
        """The line of a statement, unverified; None if there is no page with one."""
        number, place = divmod(seq, pages.PAGE_LENGTH)
        if self._most is not None and number >= self._most:
            return None
        if self._page[0] != number:
            self._page = (number, self._fetch(number))
        lines = self._page[1]
        return lines[place] if place < len(lines) else None

    def _fetch(self, number: int) -> list[bytes]:
        if self._listed is None:
            self._listed = dict(by_name(self._store.versions(PAGES)))
        for version in self._listed.get(page_name(number), ()):
            if version.marker or version.size > pages.MAX_PAGE:
                continue
            try:
                data = self._store.get(version.name, version.version, length=pages.MAX_PAGE)
            except ObjectNotFoundError:
                continue
            lines = pages.split_page(data)
            if lines is not None:
                return lines
            _log.debug("%s is not used: it has not %d lines", version.name, pages.PAGE_LENGTH)
        return []


def stands_for(line: bytes, version: ObjectVersion) -> bool:
    """Whether the store's list says that this version has the bytes of that line."""
    md5 = hashlib.md5(line, usedforsecurity=False).hexdigest()
    return version.size == len(line) and version.etag == md5
