"""Opens, with a recovery key, the domain, packs and tree of a snapshot.

`Reader` gives a snapshot's tree and the blocks of its packs. It looks up chunks in index objects
first. Tags and chunk ids must prove what an index object says; if they do not, the directory in
the pack itself is read (docs/format.md 5).
"""

import hmac
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar, overload

from vault.crypto.key_files import DomainSecrets
from vault.crypto.keys import RecipientKey, chunk_id
from vault.crypto.sealed import Header, Opener
from vault.errors import (
    DigestMismatchError,
    FormatError,
    IntegrityError,
    MissingObjectError,
    VaultError,
    WrongKeyError,
)
from vault.format import extents
from vault.format.content_root import ContentRoot, commitment
from vault.format.domain_secrets import open_domain
from vault.format.entry import Entry, is_sparse
from vault.format.inventory import Inventory
from vault.format.tree import Flaws, TreeHeader, TreeParser
from vault.format.tree_levels import expand_levels, split_ids
from vault.ledger.records import Record
from vault.ledger.statements import SnapshotBody
from vault.machine.chunk_cache import Cache, ChunkPlace
from vault.machine.lru import Recent
from vault.model import ObjectRef, ObjectType, PackId
from vault.repository.candidate_packs import index_entries, other_packs
from vault.repository.chunk_fallbacks import Substitutes, row_of
from vault.repository.pack_reader import (
    RECENT_PACKS,
    UNREADABLE,
    PackDirectories,
    PackReader,
    PackSession,
    StaleIndexError,
)
from vault.repository.repository import Repository, read_domain, snapshot_body
from vault.repository.tree_blocks import TreeBlocks
from vault.storage.names import is_pack

_log = logging.getLogger(__name__)

_V = TypeVar("_V")

LOOKED_UP = 512  # chunks in one look-up


class Located(NamedTuple):
    """A chunk of a file, and where it lies."""

    id: bytes
    pack: int  # its number, for `Reader.pack`
    length: int  # bytes


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
        self._sessions: dict[tuple[bytes, object], PackSession] = {}
        self._readers: dict[int, PackReader] = {}  # by number; substitutes too
        self._own: dict[int, PackReader] = {}
        self._giving_up = threading.Lock()
        self.unreadable: dict[str, VaultError] = {}  # packs by name
        self.bad: dict[str, IntegrityError] = {}  # packs by name: read twice, and wrong
        self.replaced: set[str] = set()  # names of packs for which substitutes are sought
        self.substitutes: dict[str, ObjectRef] = {}  # those used, by name
        self.openers: Recent[bytes, Opener] = Recent(RECENT_PACKS)
        self._tree_blocks = TreeBlocks()
        self.secrets = _open_domain(repository, record, recipient)
        self.directories = PackDirectories(scratch)
        self._chunks = Cache.open(
            scratch / "chunks", repository_id=repository.id, domain=self.secrets.name
        )
        self._others = Substitutes(
            scratch / "others",
            repository_id=repository.id,
            domain=self.secrets.name,
            packs=lambda: other_packs(self, repository, record, self.inventory, self.secrets),
        )

    def close(self) -> None:
        """Close the maps of chunks; the scratch directory is the caller's to remove."""
        self._chunks.close()
        self._others.close()
        self.directories.close()

    # --- keys ---

    def opener_for(self, header: Header) -> Opener:
        """The opener of a pack."""
        return Opener(header, self.session_of(header).seed, self.repository.id)

    def session_of(self, header: Header) -> PackSession:
        """The session of a pack; the seed of each is opened once."""
        key = (header.session_id, header.sealed)
        session = self._sessions.get(key)
        if session is None:
            seed = self.repository.seeds.seed_of(header, self._recipient)
            session = PackSession(id=header.session_id, sealed=header.sealed, seed=seed)
            self._sessions[key] = session
        return session

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
        indexed = index_entries(self.repository, self.inventory, self.secrets.index_key)
        for entry in indexed if self._use_index else ():
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
        except UNREADABLE as error:
            _log.warning("%s is read again: %s", ref.name, error)
        try:
            return PackReader(self, ref, self.secrets.id_key)
        except UNREADABLE as error:
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
            except UNREADABLE:
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
                    raise self.doubt(_missing_chunk(self, name))
                if self._chunks.find(name) is None:
                    self._enter(other)  # all of it, as neighbours are often wanted too
                    self.substitutes[other.ref.name] = other.ref
        return self._chunks.find_all(chunk_ids)

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
            _require_commitment(self.record, self.body, header, root)

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
        except UNREADABLE as error:
            if flaws is None or not parser.has_entries:
                raise
            parser.end(flaws, error)

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
        return self._tree_blocks.chunk(number, pack, chunk_id)


def _open_domain(repository: Repository, record: Record, recipient: RecipientKey) -> DomainSecrets:
    writer = repository.ledger.writer_for(record)
    assert writer.domain is not None
    data = read_domain(repository, writer.domain)
    return open_domain(
        data,
        repository.id,
        lambda header: repository.seeds.seed_of(header, recipient),
        writer.domain.name,
    )


def _require_commitment(
    record: Record, body: SnapshotBody, header: TreeHeader, root: ContentRoot
) -> None:
    signed = body.tree.commitment
    found = commitment(header.key, root.digest()).hex()
    if not hmac.compare_digest(found, signed):
        raise DigestMismatchError(
            f"the tree of snapshot {record.seq} is not the one that was signed",
            expected=signed,
            found=found,
        )


def _missing_chunk(reader: Reader, name: bytes) -> MissingObjectError:
    """The error that no pack holds a chunk; it names a pack that can't be read."""
    problem = f"chunk {name.hex()} is in no pack that snapshot {reader.record.seq} needs"
    for pack, error in reader.unreadable.items():
        return MissingObjectError(
            f"{problem} and that can be read", found=f"{pack} can't be read: {error}"
        )
    return MissingObjectError(problem)
