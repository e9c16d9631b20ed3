"""Substitutes: other packs that now hold the chunks of a bad pack.

See I7 in docs/invariants.md.

A reader finds the chunks there by itself, but only while those packs are locked. So the host
that stores a substitute locks it for as long as any snapshot needs the bad pack.
"""

import dataclasses
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Self

from vault.crypto.key_files import DomainSecrets
from vault.errors import IntegrityError
from vault.format.inventory import Resolver
from vault.machine.chunk_cache import Cache
from vault.repository.domain_packs import indexed_packs, snapshots_of
from vault.repository.repository import Repository

_LOOKED_UP: Final = 4_096  # chunks in one look-up
_KEPT = struct.Struct("<?QQ")  # done, need, through; then the chunk ids
_ID: Final = 32


@dataclasses.dataclass(frozen=True, slots=True)
class _Known:
    """What this host knows of a bad pack; kept in its cache."""

    done: bool  # all its chunks are in packs with long enough locks
    need: int  # end of the need of snapshots for it, seconds since 1970
    through: int  # seq of the head when `need` was looked up
    ids: bytes  # ids of its chunks; empty if no index object lists them

    def encode(self) -> bytes:
        return _KEPT.pack(self.done, self.need, self.through) + self.ids

    @classmethod
    def decode(cls, data: bytes) -> Self | None:
        """The decoded value; None if the bytes are damaged, as a cache may be."""
        if len(data) < _KEPT.size or (len(data) - _KEPT.size) % _ID:
            return None
        done, need, through = _KEPT.unpack_from(data)
        return cls(done, need, through, data[_KEPT.size :])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mending:
    """The packs to lock so that snapshots can do without a bad pack."""

    pack: bytes  # id of the bad pack
    until: datetime  # when the last of these snapshots may go
    numbers: frozenset[int]  # numbers of packs that hold its chunks
    is_whole: bool  # they hold all of its chunks


class Mender:
    """Finds substitutes of bad packs, and remembers for which packs that is done.

    Args:
        repository: Read up to its head.
        secrets: Those of the domain.
        cache: The chunk map of the domain, without the bad packs.
        bad: Hex ids of the bad packs.
    """

    def __init__(
        self, repository: Repository, secrets: DomainSecrets, cache: Cache, bad: Collection[str]
    ) -> None:
        self._repository = repository
        self._secrets = secrets
        self._cache = cache
        self._known = self._recall(bad)

    def plan(self) -> list[Mending]:
        """The packs to lock, and until when; nothing for bad packs that are done."""
        open_ones = {pack: known for pack, known in self._known.items() if not known.done}
        if not open_ones:
            return []
        self._look_up_needs(open_ones)
        now = self._repository.clock()
        return [
            self._mending(pack, known)
            for pack, known in self._known.items()
            if pack in open_ones and known.ids and known.need > now.timestamp()
        ]

    def done(self, mendings: Iterable[Mending]) -> None:
        """Note that the packs of these mendings are locked for as long as they are needed."""
        for each in mendings:
            if each.is_whole:
                self._keep(each.pack, dataclasses.replace(self._known[each.pack], done=True))

    def _recall(self, bad: Collection[str]) -> dict[bytes, _Known]:
        packs = [bytes.fromhex(pack) for pack in sorted(bad)]
        found = {pack: _Known.decode(self._cache.left_out(pack) or b"") for pack in packs}
        new = {pack for pack, known in found.items() if known is None}
        known = {pack: each for pack, each in found.items() if each is not None}
        if new:
            known |= {pack: _Known(done=False, need=0, through=0, ids=b"") for pack in new}
            for entry in indexed_packs(self._repository, self._secrets):
                if entry.pack_id in new:
                    pack = bytes(entry.pack_id)
                    known[pack] = dataclasses.replace(known[pack], ids=entry.directory.ids)
        return known

    def _look_up_needs(self, packs: Mapping[bytes, _Known]) -> None:
        """Look up until when any snapshot of the domain needs these packs."""
        head = self._repository.head.seq
        needs = {pack: known.need for pack, known in packs.items()}
        first = min(known.through for known in packs.values())
        resolver = Resolver(self._repository.read)
        for record in snapshots_of(self._repository.ledger, self._secrets.name):
            if record.seq <= first:
                continue
            until = int(self._repository.ledger.effective_until(record).timestamp())
            try:
                objects = resolver.resolve(self._repository.inventory_ref(record)).objects
            except IntegrityError:
                continue  # it can't be restored anyway
            for pack in needs.keys() & {bytes(ref.sha256) for ref in objects}:
                needs[pack] = max(needs[pack], until)
        for pack, known in packs.items():
            self._keep(pack, dataclasses.replace(known, need=needs[pack], through=head))

    def _keep(self, pack: bytes, known: _Known) -> None:
        self._known[pack] = known
        self._cache.keep_left_out(pack, known.encode())

    def _mending(self, pack: bytes, known: _Known) -> Mending:
        numbers: set[int] = set()
        is_whole = True
        for ids in _batches(known.ids):
            found = self._cache.find_all(ids)
            is_whole = is_whole and None not in found
            numbers.update(location.pack for location in found if location is not None)
        return Mending(
            pack=pack,
            until=datetime.fromtimestamp(known.need, UTC),
            numbers=frozenset(numbers),
            is_whole=is_whole,
        )


def _batches(ids: bytes) -> Iterable[Sequence[bytes]]:
    size = _LOOKED_UP * _ID
    for start in range(0, len(ids), size):
        batch = ids[start : start + size]
        yield [batch[at : at + _ID] for at in range(0, len(batch), _ID)]
