"""Opens, with a recovery key, the domain, packs and tree of a snapshot.

`Reader` gives a snapshot's tree and the blocks of its packs. It looks up chunks in index objects
first. Tags and chunk ids must prove what an index object says; if they do not, the directory in
the pack itself is read (docs/format.md 5).
"""

import hmac
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar, overload

from vault.crypto.keyfiles import DomainSecrets
from vault.crypto.keys import RecipientKey, chunk_id
from vault.crypto.sealed import MAX_HEADER, Header, Opener, open_seed
from vault.errors import (
    DigestMismatchError,
    FormatError,
    IntegrityError,
    LocalError,
    MissingObjectError,
    VaultError,
    WrongKeyError,
)
from vault.format import extents, packindex
from vault.format.content_root import ContentRoot, commitment
from vault.format.domainsecrets import open_domain
from vault.format.entry import Entry, is_sparse
from vault.format.inventory import Inventory, Resolver
from vault.format.pack import BlockPlace as Place
from vault.format.pack import Directory, open_block, read_directory
from vault.format.packindex import IndexEntry
from vault.format.tree import Flaws, TreeHeader, TreeParser
from vault.format.tree_levels import expand_levels, split_ids
from vault.ledger.records import Record
from vault.machine.chunkcache import Cache, ChunkPlace
from vault.machine.lru import Recent
from vault.model import Buffer, Digest, ObjectRef, ObjectType, PackId
from vault.repository.domainpacks import indexed_packs, snapshots_of
from vault.repository.repository import Repository, read_domain, snapshot_body
from vault.repository.substitutes import Substitutes, row_of
from vault.storage.names import is_pack, pack_name

_log = logging.getLogger(__name__)

_V = TypeVar("_V")

_UNREADABLE = (IntegrityError, WrongKeyError)  # a damaged header may seem to name other keys

TREE_BLOCKS = 16  # open blocks of tree packs: at most 16 × 8 MiB
LOOKED_UP = 512  # chunks in one look-up
RECENT_PACKS = 64  # packs whose directories and keys are kept in memory
WHOLE_PACK = 0.5  # if more of a pack is wanted, one GET of all of it is cheaper


class Located(NamedTuple):
    """A chunk of a file, and where it lies."""

    id: bytes
    pack: int  # its number, for `Reader.pack`
    length: int  # bytes


class PackDirectories:
    """Directories of packs, kept in an unnamed file so that memory does not grow with them.

    Any number of threads may read once all are added.

    Args:
        scratch: A directory on local disk.

    Raises:
        LocalError: The file can't be made.
    """

    def __init__(self, scratch: Path) -> None:
        try:
            self._file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - closed by `close`
        except OSError as error:
            raise LocalError(f"can't write in {scratch}", found=error.strerror) from error
        self._end = 0
        self._recent: Recent[tuple[int, int], Directory] = Recent(RECENT_PACKS)

    def close(self) -> None:
        """Close the file, which frees its space."""
        self._file.close()

    def add(self, directory: Directory) -> tuple[int, int]:
        """Add a directory to the file; returns its place there.

        Raises:
            LocalError: The disk is full or failed.
        """
        encoded = directory.encode()
        try:
            self._file.write(encoded)
            self._file.flush()
        except OSError as error:
            raise LocalError("can't keep directories of packs", found=error.strerror) from error
        kept = (self._end, len(encoded))
        self._end += len(encoded)
        return kept

    def read(self, kept: tuple[int, int], header_length: int) -> Directory:
        """A directory that `add` put into the file.

        Raises:
            LocalError: The disk failed.
        """
        found = self._recent.get(kept)
        if found is None:
            try:
                encoded = os.pread(self._file.fileno(), kept[1], kept[0])
                found = Directory.decode(encoded, header_length)
            except OSError as error:
                raise LocalError("can't read directories of packs", found=error.strerror) from error
            self._recent.put(kept, found)
        return found


class PackReader:
    """One pack: its directory and its blocks, each checked as it is opened.

    Args:
        reader: The reader of the snapshot, which opens seeds.
        ref: The pack, as a signed inventory names it.
        id_key: That of the domain; every chunk id is checked with it.
        entry: The entry of an index object about the pack, if there is one.
    """

    def __init__(
        self,
        reader: "Reader",
        ref: ObjectRef,
        id_key: bytes,
        *,
        entry: IndexEntry | None = None,
    ) -> None:
        self._reader = reader
        self._id_key = id_key
        self._kept: tuple[int, int] | None = None
        self.is_given_up = False
        self.ref = ref
        if entry is not None:
            self._directory: Directory | None = entry.directory
            self.header_length = entry.header_length
            self.kind = entry.type
        else:
            self._read_own_directory()

    @property
    def directory(self) -> Directory:
        """The blocks and chunks of the pack."""
        if self._directory is not None:
            return self._directory
        assert self._kept is not None
        return self._reader.directories.read(self._kept, self.header_length)

    def put_aside(self) -> None:
        """Move the directory to local disk, as those of all packs together are large."""
        if self._directory is None:
            return
        self._kept = self._reader.directories.add(self._directory)
        self._directory = None

    def _opener(self, header: Callable[[], Buffer]) -> Opener:
        """The opener of its blocks; ``header`` gives the pack's first bytes if it is not cached."""
        opener = self._reader.openers.get(self.ref.sha256)
        if opener is None:
            opener = self._reader.opener_for(Header.parse(header()))
            self._reader.openers.put(self.ref.sha256, opener)
        return opener

    def _read_own_directory(self) -> None:
        """Read the directory from the pack, proven by its seal or, in doubt, by the digest."""
        try:
            if self._reader.by_digest:
                found = self._whole()[1]
            else:
                found = read_directory(self._range, self.ref.size, self._reader.opener_for)
        except _UNREADABLE:  # another version may have the bytes
            found = self._whole()[1]
        header, opener, self._directory = found
        self._reader.openers.put(self.ref.sha256, opener)
        self.header_length = header.length
        self.kind = header.type

    def _whole(self) -> tuple[memoryview, tuple[Header, Opener, Directory]]:
        """All bytes of the pack, checked by its digest; with header, key and directory."""
        whole = memoryview(self._reader.repository.read(self.ref))
        return whole, read_directory(
            lambda at, n: bytes(whole[at : at + n]), len(whole), self._reader.opener_for
        )

    def _range(self, offset: int, length: int) -> bytes:
        return self._reader.repository.read_range(self.ref, offset, length)

    def as_entry(self) -> IndexEntry:
        """The entry of this pack for an index object."""
        return IndexEntry(
            pack_id=PackId(self.ref.sha256),
            size=self.ref.size,
            type=self.kind,
            version=self.ref.version,
            header_length=self.header_length,
            directory=self.directory,
        )

    def blocks(self, wanted: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Raw bytes of blocks, each with its number; tags and chunk ids are checked.

        Raises:
            StaleIndexError: The pack is not as an index object described it.
            IntegrityError: No version of the pack gives them.
        """
        pending = list(wanted)
        try:
            for number, stored in self._fetch(wanted):
                raw = self._open(number, stored)
                pending.remove(number)
                yield number, raw
        except _UNREADABLE as error:
            _log.warning("%s is read again: %s", self.ref.name, error)
            try:
                yield from self._blocks_of_whole(pending)
            except StaleIndexError:
                raise
            except _UNREADABLE as again:
                self._reader.give_up(self, again)
                raise

    def faulty_blocks(self) -> list[int]:
        """Numbers of the blocks that do not open in the pinned version, which is read once.

        Raises:
            StorageError: The store failed.
        """
        numbers = range(len(self.directory.blocks))
        try:
            stored = dict(self._cut(memoryview(self._range(0, self.ref.size)), numbers))
        except _UNREADABLE:
            return list(numbers)
        return [number for number in numbers if not self._opens(number, stored[number])]

    def _opens(self, number: int, stored: memoryview) -> bool:
        try:
            self._open(number, stored)
        except _UNREADABLE:
            return False
        return True

    def _fetch(self, wanted: Sequence[int]) -> Iterator[tuple[int, memoryview]]:
        """Stored bytes of blocks, unverified, in few calls to the store."""
        blocks = self.directory.blocks
        if sum(blocks[number].stored for number in wanted) >= WHOLE_PACK * self.ref.size:
            yield from self._cut(memoryview(self._range(0, self.ref.size)), wanted)
            return
        for run in _consecutive(wanted):
            start = blocks[run[0]].offset
            end = blocks[run[-1]].offset + blocks[run[-1]].stored
            data = memoryview(self._range(start, end - start))
            for number in run:
                at = blocks[number].offset - start
                yield number, data[at : at + blocks[number].stored]

    def _cut(self, whole: memoryview, wanted: Sequence[int]) -> Iterator[tuple[int, memoryview]]:
        self._opener(lambda: whole[:MAX_HEADER])
        for number in wanted:
            block = self.directory.blocks[number]
            yield number, whole[block.offset : block.offset + block.stored]

    def _open(self, number: int, stored: memoryview) -> bytes:
        return open_block(
            self._opener(lambda: self._range(0, min(MAX_HEADER, self.ref.size))),
            self.directory,
            number,
            stored,
            id_key=self._id_key,
        )

    def _blocks_of_whole(self, pending: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Blocks from all bytes of a right version, which proves whether pack or index is wrong."""
        whole, (header, opener, directory) = self._whole()
        self._reader.openers.put(self.ref.sha256, opener)
        if (header.type, directory) != (self.kind, self.directory):
            raise StaleIndexError(f"{self.ref.name} holds other chunks than was believed")
        for number, stored in self._cut(whole, pending):
            yield number, self._open(number, stored)


class StaleIndexError(IntegrityError):
    """Unproven information may be wrong; the caller starts again and relies on less of it (I10)."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem, hint="run 'vault index rebuild'")


class Reader:
    """Opens one snapshot for the holder of a recovery key.

    Args:
        repository: Read up to its head.
        recipient: The key of one of the recipients.
        record: The snapshot.
        scratch: An empty directory on local disk, for the map of chunks.
        use_index: Whether index objects may say where chunks lie.
        by_digest: Believe a pack's directory only after all bytes of the pack were hashed. An
            attacker who replaces a pinned version can seal a directory of his own, as base
            mode of HPKE names no sender.

    Raises:
        WrongKeyError: The snapshot is not sealed to this key.
        IntegrityError: The inventory or the domain object is missing or wrong.
    """

    def __init__(
        self,
        repository: Repository,
        recipient: RecipientKey,
        record: Record,
        *,
        scratch: Path,
        use_index: bool = True,
        by_digest: bool = False,
    ) -> None:
        self.repository = repository
        self.record = record
        self.body = snapshot_body(record)
        self.inventory: Inventory = repository.inventory(record)
        self._recipient = recipient
        self.by_digest = by_digest
        self.scratch = scratch
        self._hashed = by_digest and not use_index  # all of each pack was hashed
        self._use_index = use_index
        self._seeds: dict[tuple[bytes, object], bytes] = {}
        self._readers: dict[int, PackReader] = {}  # by number; substitutes too
        self._own: dict[int, PackReader] = {}
        self._giving_up = threading.Lock()
        self.unreadable: dict[str, VaultError] = {}  # packs by name
        self.bad: dict[str, IntegrityError] = {}  # packs by name: read twice, and wrong
        self.replaced: set[str] = set()  # names of packs for which substitutes are sought
        self.substitutes: dict[str, ObjectRef] = {}  # those used, by name
        self.openers: Recent[bytes, Opener] = Recent(RECENT_PACKS)
        self._tree_blocks: Recent[tuple[int, int], bytes] = Recent(TREE_BLOCKS)
        self._places: Recent[int, dict[bytes, Place]] = Recent(TREE_BLOCKS)  # of tree chunks
        self.secrets = self._open_domain()
        self.directories = PackDirectories(scratch)
        self._chunks = Cache.open(
            scratch / "chunks", repository_id=repository.id, domain=self.secrets.name
        )
        self._others = Substitutes(
            scratch / "others",
            repository_id=repository.id,
            domain=self.secrets.name,
            packs=self._other_packs,
        )

    def close(self) -> None:
        """Close the maps of chunks; the scratch directory is the caller's to remove."""
        self._chunks.close()
        self._others.close()
        self.directories.close()

    # --- keys ---

    def _open_domain(self) -> DomainSecrets:
        writer = self.repository.ledger.writer_for(self.record)
        assert writer.domain is not None
        data = read_domain(self.repository, writer.domain)
        return open_domain(data, self.repository.id, self._recipient, writer.domain.name)

    def opener_for(self, header: Header) -> Opener:
        """The opener of a pack; the seed of each session is opened once."""
        session = (header.session_id, header.sealed)
        seed = self._seeds.get(session)
        if seed is None:
            seed = open_seed(header, self.repository.id, self._recipient)
            self._seeds[session] = seed
        return Opener(header, seed, self.repository.id)

    # --- where chunks lie ---

    def load_packs(self, *, missing: Collection[str] = ()) -> None:
        """Learn the directory of every pack needed; call once, before `find`.

        A pack whose directory can't be read is skipped and noted in `unreadable`; the chunks in
        other packs can be had without it. Chunks of a pack that the ledger calls bad are
        looked for in other packs of the domain first.

        Args:
            missing: Names of packs that a list shows with another size, or not at all.

        Raises:
            WrongKeyError: Every one of several packs is sealed to other keys.
            StorageError: The store failed.
        """
        doubted = self.repository.ledger.bad_packs()
        last: list[PackReader] = []
        for pack in self._needed_packs(missing):
            if pack.ref.sha256.hex() in doubted:
                last.append(pack)
            else:
                self._own[self._enter(pack)] = pack
        for pack in last:
            self._own[self._substitute(pack)] = pack
        self._refuse_other_keys()

    def _needed_packs(self, missing: Collection[str]) -> Iterator[PackReader]:
        """The needed packs that can be read, each with its entry in an index object, if any."""
        packs = (ref for ref in self.inventory.objects if is_pack(ref.name))
        needed = {
            PackId(ref.sha256): ref
            for ref in packs
            if ref.name not in missing or not self._is_wrong(ref)
        }
        for entry in self._indexed() if self._use_index else ():
            found = needed.get(entry.pack_id)
            if found is not None and found.size == entry.size:
                yield PackReader(self, found, self.secrets.id_key, entry=entry)
                del needed[entry.pack_id]
        for ref in needed.values():
            read = self._read_directory(ref)
            if read is not None:
                yield read

    def _read_directory(self, ref: ObjectRef) -> PackReader | None:
        """A needed pack; None if two attempts to read it fail, which is noted."""
        try:
            return PackReader(self, ref, self.secrets.id_key)
        except _UNREADABLE as error:
            _log.warning("%s is read again: %s", ref.name, error)
        try:
            return PackReader(self, ref, self.secrets.id_key)
        except _UNREADABLE as error:
            self._note(ref, error)
        return None

    def _is_wrong(self, ref: ObjectRef) -> bool:
        """Whether a pack that a list shows wrong or not at all can't be read either."""
        try:
            self.repository.read(ref)
        except IntegrityError as error:
            self._note(ref, error)
            return True
        return False

    def _note(self, ref: ObjectRef, error: VaultError) -> None:
        _log.warning("%s is left out: %s", ref.name, error)
        self.unreadable[ref.name] = error
        self.replaced.add(ref.name)
        if isinstance(error, IntegrityError):
            self.bad[ref.name] = error

    def _refuse_other_keys(self) -> None:
        """Raise WrongKeyError if every pack is sealed to other keys, as that is not damage."""
        errors = list(self.unreadable.values())
        if errors and not self._readers and all(isinstance(e, WrongKeyError) for e in errors):
            raise errors[0]

    def _indexed(self) -> Iterator[IndexEntry]:
        """The entries of index objects, one object at a time; a damaged object is skipped."""
        for ref in self.inventory.index:
            try:
                data = self.repository.read(ref)
                entries = packindex.open_index(data, self.secrets.index_key, self.repository.id)
            except IntegrityError as error:
                _log.warning("%s is ignored: %s", ref.name, error)
                continue
            yield from entries

    def _enter(
        self, pack: PackReader, ids: bytes | None = None, lengths: Sequence[int] = ()
    ) -> int:
        """Enter a pack, or some of its chunks, into the map; chunks already there stay put."""
        if ids is None:
            ids, lengths = pack.directory.ids, pack.directory.lengths
        number = self._chunks.reserve_pack()
        self._chunks.add_pack(number, row_of(pack), ids, lengths)
        pack.put_aside()
        self._readers[number] = pack
        return number

    # --- substitutes ---

    def give_up(self, pack: PackReader, error: VaultError) -> None:
        """Look for the chunks of an unreadable pack in other packs; any thread may call this.

        Chunks that lie nowhere else are still found in this pack.
        """
        with self._giving_up:
            if pack.is_given_up:
                return
            pack.is_given_up = True
            if isinstance(error, IntegrityError):
                self.bad[pack.ref.name] = error
            numbers = [number for number, known in self._readers.items() if known is pack]
            self._chunks.drop_packs(numbers)
            if pack.ref.name in self.substitutes:
                self._others.give_up(pack)
            self._substitute(pack)

    def _substitute(self, pack: PackReader) -> int:
        """Enter other packs that hold chunks of a pack, and then the pack itself for the rest."""
        self.replaced.add(pack.ref.name)
        held: dict[int, tuple[PackReader, bytearray, list[int]]] = {}
        names = list(pack.directory.iter_ids())
        lengths = pack.directory.lengths
        for name, length, other in zip(names, lengths, self._others.find(names), strict=True):
            if other is not None and other is not pack:
                _, into, of = held.setdefault(id(other), (other, bytearray(), []))
                into += name
                of.append(length)
        for other, into, of in held.values():
            self._enter(other, bytes(into), of)
            self.substitutes[other.ref.name] = other.ref
        return self._enter(pack)

    def _other_packs(self) -> Iterator[PackReader]:
        """Packs of the domain that the snapshot does not need; those called bad come last."""
        own = {ref.name for ref in self.inventory.objects}
        doubted = self.repository.ledger.bad_packs()
        last: list[PackReader] = []
        seen: set[bytes] = set()
        for entry in indexed_packs(self.repository, self.secrets):
            ref = _ref_of(entry)
            if ref.name in own or entry.pack_id in seen:
                continue
            seen.add(entry.pack_id)
            pack = PackReader(self, ref, self.secrets.id_key, entry=entry)
            if ref.sha256.hex() in doubted:
                last.append(pack)
            else:
                yield pack
        yield from self._unindexed_packs(own, seen, doubted)
        yield from last

    def _unindexed_packs(
        self, own: Collection[str], seen: Collection[bytes], doubted: Collection[str]
    ) -> Iterator[PackReader]:
        """Packs of later snapshots that are in no index object, as far as they can be read."""
        known = set(seen)
        resolver = Resolver(self.repository.read)
        for record in reversed(snapshots_of(self.repository.ledger, self.secrets.name)):
            if record.seq <= self.record.seq:
                return
            try:
                objects = resolver.resolve(self.repository.inventory_ref(record)).objects
            except IntegrityError as error:
                _log.warning("inventory of snapshot %d is unreadable: %s", record.seq, error)
                continue
            for ref in objects:
                if not is_pack(ref.name) or ref.name in own or ref.sha256 in known:
                    continue
                known.add(ref.sha256)
                if ref.sha256.hex() in doubted:
                    continue
                try:
                    yield PackReader(self, ref, self.secrets.id_key)
                except _UNREADABLE as error:
                    _log.warning("%s is no substitute: %s", ref.name, error)

    def find_again(self, chunk_ids: Sequence[bytes]) -> list[ChunkPlace] | None:
        """The places of chunks in packs not given up; None if a chunk lies in no such pack."""
        found = self._chunks.find_all(chunk_ids)
        if any(at is None or self._readers[at.pack].is_given_up for at in found):
            return None
        return [at for at in found if at is not None]

    def wherever(self, chunk_id: bytes, read: Callable[[bytes], _V]) -> _V:
        """The result of ``read`` for a chunk; from a substitute, if its pack is given up meanwhile.

        Raises:
            IntegrityError: ``read`` raised it, and the chunk lies in no other pack.
        """
        while True:
            try:
                return read(chunk_id)
            except StaleIndexError:
                raise
            except _UNREADABLE:
                if self.find_again([chunk_id]) is None:
                    raise

    # --- finding ---

    def find(self, chunk_id: bytes) -> ChunkPlace:
        """The number of the pack that holds a chunk, and the chunk's length.

        Raises:
            MissingObjectError: No pack that the snapshot needs holds it.
            StaleIndexError: The same, if some information was not proven by hashing.
        """
        return self.find_all([chunk_id])[0]

    def find_all(self, chunk_ids: Sequence[bytes]) -> list[ChunkPlace]:
        """`find` for many chunks at once, which is faster.

        Raises:
            MissingObjectError: No pack that the snapshot needs holds one of them.
            StaleIndexError: The same, if some information was not proven by hashing.
        """
        found = self._chunks.find_all(chunk_ids)
        if None in found:
            found = self._find_in_others(chunk_ids, found)
        return found  # type: ignore[return-value]  # none is missing

    def _find_in_others(
        self, chunk_ids: Sequence[bytes], found: Sequence[ChunkPlace | None]
    ) -> list[ChunkPlace | None]:
        """`find_all` if some chunks are in none of the packs known so far."""
        missing = [name for name, at in zip(chunk_ids, found, strict=True) if at is None]
        with self._giving_up:
            for name, other in zip(missing, self._others.find(missing), strict=True):
                if other is None:
                    raise self.doubt(self._missing(name))
                if self._chunks.find(name) is None:
                    self._enter(other)  # all of it, as neighbours are often wanted too
                    self.substitutes[other.ref.name] = other.ref
        return self._chunks.find_all(chunk_ids)

    def _missing(self, name: bytes) -> MissingObjectError:
        """The error that no pack holds a chunk; it names a pack that can't be read."""
        problem = f"chunk {name.hex()} is in no pack that snapshot {self.record.seq} needs"
        for pack, error in self.unreadable.items():
            return MissingObjectError(
                f"{problem} and that can be read", found=f"{pack} can't be read: {error}"
            )
        return MissingObjectError(problem)

    def doubt(self, error: IntegrityError) -> IntegrityError:
        """Choose the error to raise.

        If every pack used was hashed, the data is bad: return ``error``. Otherwise the index may
        have pointed to the wrong place: return `StaleIndexError`, and the caller tries again with
        more hashing. If no index is used, packs known to be bad explain the error too, and hashing
        all others would take long.
        """
        is_sure = self._hashed or (self.bad and not self._use_index)
        return error if is_sure else StaleIndexError(f"{error}, by what was believed")

    def chunks_of(self, entry: Entry) -> Iterator[Sequence[bytes]]:
        """Chunk ids of a file, in order; some at a time, as a giant file has very many.

        Raises:
            IntegrityError: The list of them is missing or broken.
        """
        if entry.chunk_list is not None:
            yield from extents.listed_ids(entry.chunk_list, self._fetch_tree)
        elif entry.chunks:
            yield split_ids(entry.chunks)
        elif entry.size and not is_sparse(entry):
            assert entry.sha256 is not None
            yield [chunk_id(self.secrets.id_key, ObjectType.DATA, entry.sha256)]

    def located(self, entry: Entry) -> Iterator[Located]:
        """The chunks of a file, in order, with their places; few are in memory at a time.

        Raises:
            IntegrityError: One is in no pack, or the list of them is missing or broken.
        """
        for ids in self.chunks_of(entry):
            for at in range(0, len(ids), LOOKED_UP):
                names = ids[at : at + LOOKED_UP]
                for name, (pack, length) in zip(names, self.find_all(names), strict=True):
                    yield Located(name, pack, length)

    def holes_of(self, entry: Entry) -> Iterator[tuple[int, int]]:
        """Holes of a file: (offset, length), ascending; few are in memory at a time.

        Raises:
            IntegrityError: The list of them is missing or broken.
        """
        return extents.holes_of(entry, self._fetch_tree)

    def pack(self, number: int) -> PackReader:
        """The reader of a pack by the number that `find` gave."""
        return self._readers[number]

    def packs(self) -> Mapping[int, PackReader]:
        """All packs that the snapshot needs, by number."""
        return self._own

    # --- the tree ---

    @overload
    def tree(self, flaws: None = None) -> Iterator[tuple[Entry, bytes]]: ...

    @overload
    def tree(
        self, flaws: Flaws, kept: Iterator[bool] | None = None
    ) -> Iterator[tuple[Entry | None, bytes]]: ...

    def tree(
        self, flaws: Flaws | None = None, kept: Iterator[bool] | None = None
    ) -> Iterator[tuple[Entry | None, bytes]]:
        """Entries with their canonical parts, in order; the signed commitment is checked last.

        Entries may be relied on only after the iterator has ended without an error.

        Args:
            flaws: Collects faults, which are stepped over. For an entry that breaks a rule,
                None is yielded. If no more of the tree can be read, it ends there; the
                entries before are right, as the ids of their chunks are proven by the signed
                id. Entries after a missing chunk are not searched for, as bytes that look
                like entries may be an attribute that a user wrote. None: the first fault is
                raised.
            kept: See `TreeParser`.

        Raises:
            IntegrityError: Nothing of the tree can be read, or its content root is not the
                one that was signed; without ``flaws``, any fault.
        """
        parser = TreeParser(flaws, kept)
        root = ContentRoot()
        for chunk in self._chunks_of_tree(parser, flaws):
            for entry, canonical in parser.feed(chunk):
                root.update(canonical)
                yield entry, canonical
        if flaws is None or flaws.end is None:
            parser.finish()
        header = parser.header
        assert header is not None
        self.tree_header = header
        if flaws is None or flaws.end is None:
            self._check_commitment(header, root)

    def _chunks_of_tree(self, parser: TreeParser, flaws: Flaws | None) -> Iterator[bytes]:
        """The bytes of the tree, up to the first chunk that can't be had."""
        ref = self.body.tree
        try:
            for chunk in expand_levels(bytes.fromhex(ref.id), ref.level, self._fetch_tree):
                yield chunk
                if flaws is not None and flaws.end is not None:
                    return
        except StaleIndexError:
            raise
        except _UNREADABLE as error:
            if flaws is None or not parser.has_entries:
                raise
            parser.end(flaws, error)

    def _check_commitment(self, header: TreeHeader, root: ContentRoot) -> None:
        found = commitment(header.key, root.digest()).hex()
        if not hmac.compare_digest(found, self.body.tree.commitment):
            raise DigestMismatchError(
                f"the tree of snapshot {self.record.seq} is not the one that was signed",
                expected=self.body.tree.commitment,
                found=found,
            )

    def _fetch_tree(self, chunk_id: bytes) -> bytes:
        """A tree chunk, from any pack that holds it."""
        return self.wherever(chunk_id, self._read_tree)

    def _read_tree(self, chunk_id: bytes) -> bytes:
        """A tree chunk from its place in the map; recent blocks stay open, as neighbours follow."""
        number = self.find(chunk_id).pack
        pack = self._readers[number]
        if pack.kind is not ObjectType.TREE:
            raise self.doubt(
                FormatError(f"{pack.ref.name} holds no tree chunks", found=pack.kind.name)
            )
        places = self._places.get(number)
        if places is None:
            places = {place.id: place for place in pack.directory.iter_chunks()}
            self._places.put(number, places)
        place = places[chunk_id]
        key = (number, place.block)
        block = self._tree_blocks.get(key)
        if block is None:
            ((_, block),) = pack.blocks([place.block])
            self._tree_blocks.put(key, block)
        return block[place.offset : place.offset + place.length]


def _ref_of(entry: IndexEntry) -> ObjectRef:
    return ObjectRef(
        name=pack_name(entry.pack_id),
        sha256=Digest(entry.pack_id),
        size=entry.size,
        version=entry.version,
    )


def _consecutive(numbers: Sequence[int]) -> Iterator[list[int]]:
    """Runs of neighbouring blocks, each to be read as one range."""
    run: list[int] = []
    for number in numbers:
        if run and number != run[-1] + 1:
            yield run
            run = []
        run.append(number)
    if run:
        yield run
