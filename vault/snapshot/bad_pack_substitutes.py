"""Substitutes: what older snapshots need of a bad pack lies in other packs now.

See I7 in docs/invariants.md.

A reader finds it there by itself. It stays there only while those packs are locked, so
whoever stores a substitute locks it for as long as any snapshot that needs the bad pack.
"""

import dataclasses
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Self

from vault.crypto.keyfiles import DomainSecrets
from vault.errors import IntegrityError
from vault.format.inventory import Resolver
from vault.machine.chunkcache import Cache
from vault.repository.domainpacks import indexed_packs, snapshots_of
from vault.repository.repository import Repository

_LOOKED_UP: Final = 4_096  # chunks at once
_KEPT = struct.Struct("<?QQ")  # done, need, through; then the chunk ids
_ID: Final = 32


@dataclasses.dataclass(frozen=True, slots=True)
class _Known:
    """What this host knows of a bad pack; kept in its cache."""

    done: bool  # all of it is in packs that are locked for long enough
    need: int  # until when snapshots need it, seconds since 1970
    through: int  # seq of the head when that was looked up
    ids: bytes  # of its chunks; none where no index object says

    def encode(self) -> bytes:
        return _KEPT.pack(self.done, self.need, self.through) + self.ids

    @classmethod
    def decode(cls, data: bytes) -> Self | None:
        """None of what is none: a cache may be damaged."""
        if len(data) < _KEPT.size or (len(data) - _KEPT.size) % _ID:
            return None
        done, need, through = _KEPT.unpack_from(data)
        return cls(done, need, through, data[_KEPT.size :])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mending:
    """What it takes to have snapshots do without a bad pack."""

    pack: bytes  # id
    until: datetime  # when the last of them may go
    numbers: frozenset[int]  # of packs that hold its chunks
    is_whole: bool  # all of its chunks


class Mender:
    """Finds substitutes of bad packs, and remembers which need no more looking for.

    Args:
        repository: Read up to its head.
        secrets: Of the domain.
        cache: Its chunk map, without the bad packs.
        bad: Hex ids of these.
    """

    def __init__(
        self, repository: Repository, secrets: DomainSecrets, cache: Cache, bad: Collection[str]
    ) -> None:
        self._repository = repository
        self._secrets = secrets
        self._cache = cache
        self._known = self._recall(bad)

    def plan(self) -> list[Mending]:
        """What to lock, and until when; nothing for packs that were dealt with."""
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
        """Whatever these hold is locked for as long as it is needed."""
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
        """Until when any snapshot of the domain needs them."""
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
                continue  # nothing restores it
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
