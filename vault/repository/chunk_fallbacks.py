"""Where else in its domain a chunk lies, for readers whose own packs are damaged.

Nothing here is believed: the reader of a substitute checks the ids of its chunks.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from vault.format.pack import Directory
from vault.machine.chunk_cache import Cache, PackRow
from vault.model import ObjectRef, ObjectType, PackId

_log = logging.getLogger(__name__)


class Held(Protocol):
    """A pack whose directory is known."""

    ref: ObjectRef
    kind: ObjectType

    @property
    def directory(self) -> Directory:
        """Its blocks and chunks."""

    def put_aside(self) -> None:
        """Move the directory to local disk."""


_P = TypeVar("_P", bound=Held)


class Substitutes(Generic[_P]):
    """The other packs of a domain; loaded when first asked for, as few readers need them.

    Args:
        directory: Place of the map of chunks, on local disk; need not exist.
        repository_id: The id of the repository.
        domain: The name of the domain.
        packs: Gives the packs, those first that are most likely undamaged.
    """

    def __init__(
        self,
        directory: Path,
        *,
        repository_id: bytes,
        domain: str,
        packs: Callable[[], Iterable[_P]],
    ) -> None:
        self._directory = directory
        self._repository_id = repository_id
        self._domain = domain
        self._packs = packs
        self._chunks: Cache | None = None
        self._known: dict[int, _P] = {}

    def close(self) -> None:
        """Close the map."""
        if self._chunks is not None:
            self._chunks.close()

    def find(self, chunk_ids: Sequence[bytes]) -> list[_P | None]:
        """For each chunk, a pack that holds it, or None.

        Raises:
            LocalError: The disk is full or failed.
            StorageError: The store failed.
        """
        chunks = self._loaded()
        found = (
            location and self._known.get(location.pack) for location in chunks.find_all(chunk_ids)
        )
        return list(found)

    def give_up(self, pack: _P) -> None:
        """Stop offering a pack; its chunks are looked for in the others from now on."""
        chunks = self._loaded()
        numbers = [number for number, known in self._known.items() if known is pack]
        chunks.drop_packs(numbers)
        for number in numbers:
            del self._known[number]
        for number, other in self._known.items():  # the map keeps only one place of each chunk
            _enter(chunks, number, other)

    def _loaded(self) -> Cache:
        if self._chunks is None:
            self._chunks = Cache.open(
                self._directory, repository_id=self._repository_id, domain=self._domain
            )
            for pack in self._packs():
                number = self._chunks.reserve_pack()
                _enter(self._chunks, number, pack)
                pack.put_aside()
                self._known[number] = pack
            _log.info("%d other packs of domain %s are known", len(self._known), self._domain)
        return self._chunks


def row_of(pack: Held) -> PackRow:
    """The row of a pack in a map of chunks."""
    return PackRow(
        pack_id=PackId(pack.ref.sha256),
        size=pack.ref.size,
        version=pack.ref.version,
        type=pack.kind,
    )


def _enter(chunks: Cache, number: int, pack: Held) -> None:
    directory = pack.directory
    chunks.add_pack(number, row_of(pack), directory.ids, directory.lengths)
