"""Which version under a name is the right one, and how the others came there.

See I4, I5 in docs/invariants.md.

The vault writes a name once. A second version is a repeated PUT of the same bytes, the statement
of another writer that raced for a number of the ledger, or an attacker's attempt to hide the
first. Versions are judged by size first, then by the checksum that the store states, then by
their bytes.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum, auto
from functools import partial

from vault.crypto.keys import VerifyKey
from vault.custody.needs import Need, Needs
from vault.errors import (
    IntegrityError,
    ObjectNotFoundError,
    StorageError,
    StorageUnavailableError,
)
from vault.ledger import pages
from vault.ledger.authority import Authority
from vault.ledger.chain import Ledger
from vault.ledger.envelope import Envelope, Statement, parse_envelope, parse_statement
from vault.ledger.remarks import distrusted_of
from vault.ledger.statements import RootBody, StatementType
from vault.model import Digest
from vault.repository.ledgerobjects import MAX_ENVELOPE, may_be_statement
from vault.repository.objects import MAX_EVIDENCE
from vault.repository.repository import Repository
from vault.storage.base import ObjectStore, ObjectVersion
from vault.storage.double_check import ask_twice
from vault.storage.names import (
    LEDGER,
    PAGES,
    PROBES,
    claimed_digest,
    is_written,
    parse_ledger_name,
    parse_page_name,
)

_PIECE = 8 << 20  # bytes read at a time to be hashed


class VersionKind(Enum):
    """The judgement of one version."""

    RIGHT = auto()  # pinned and of the right size, or the right bytes by digest
    OTHER = auto()  # other bytes than its name, or the inventory that pins it, says
    MARKER = auto()
    UNSEEN = auto()  # the only version of its name, which no snapshot needs; not read
    UNREADABLE = auto()  # the store refuses to show it
    LOST_RACE = auto()  # a statement that came second
    UNLISTED = auto()  # a statement that came first, by a key not listed then
    FORK = auto()  # a statement of a known key that follows another history
    BEYOND = auto()  # a statement of a known key after the head
    DISTRUSTED = auto()  # a statement, not in the chain, of a key that is distrusted by then
    FOREIGN = auto()  # a name that the vault never writes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One version and its judgement."""

    version: ObjectVersion
    kind: VersionKind
    digest: Digest | None = None  # of the PAE, of statements; else of the bytes, where known
    key_id: str = ""  # of a distrusted key's statement: that key


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NameView:
    """All versions of one name, oldest first."""

    name: str
    judged: tuple[Judged, ...]

    def right(self, pinned: str) -> ObjectVersion | None:
        """The pinned version if it may be right, else the oldest one that is."""
        rights = [each.version for each in self.judged if each.kind is VersionKind.RIGHT]
        exact = (version for version in rights if version.version == pinned)
        return next(exact, rights[0] if rights else None)

    @property
    def may_be_right(self) -> bool:
        """Whether the store refused to show a version that may have the right bytes."""
        return any(each.kind is VersionKind.UNREADABLE for each in self.judged)

    def harmful(self, *, needed: bool) -> Iterator[Judged]:
        """Versions that an audit calls an error; `heal` says the same (docs/design.md "Heal").

        A marker or other bytes do harm if they are newer than every right version of a needed
        name: a plain read returns them. Junk at a number of the ledger without a statement does,
        too: each reader must fetch it. So do signed statements beside the chain: they show that
        an attacker may have a key; those of a distrusted key show no more than is known.
        """
        rights = [i for i, each in enumerate(self.judged) if each.kind is VersionKind.RIGHT]
        last = rights[-1] if rights else -1
        for number, each in enumerate(self.judged):
            match each.kind:
                case VersionKind.FORK | VersionKind.UNLISTED:
                    yield each
                case VersionKind.OTHER if needed or self.name.startswith((LEDGER, PAGES)):
                    if number > last:
                        yield each
                case VersionKind.MARKER | VersionKind.DISTRUSTED if needed and number > last:
                    yield each
                case _:
                    pass

    @property
    def shown(self) -> Judged | None:
        """The version that a plain read of the name returns: the newest."""
        return self.judged[-1] if self.judged else None


def groups(store: ObjectStore) -> Iterator[tuple[str, list[ObjectVersion]]]:
    """The whole store in one listing: names with their versions, oldest first."""
    listed = (item for item in store.versions("") if not item.name.startswith(PROBES))
    for name, versions in itertools.groupby(listed, key=lambda item: item.name):
        yield name, list(versions)


class Inspector:
    """Judges the versions of names; reads, and changes nothing. Thread-safe.

    Args:
        repository: Read up to its head.
        needs: All objects that must exist.
    """

    def __init__(self, repository: Repository, needs: Needs) -> None:
        self._store = repository.store
        self._needs = needs
        self._ledger = repository.ledger
        self._keys = known_keys(repository.ledger)
        self._distrusted = repository.ledger.distrusted

    def inspect(self, name: str, versions: Sequence[ObjectVersion]) -> NameView:
        """Judge each version of a name."""
        return NameView(name=name, judged=tuple(self._judge(name, versions)))

    def look(self, name: str) -> NameView:
        """Judge the versions that the store lists now."""
        return self.inspect(name, self._store.versions_of(name))

    def _judge(self, name: str, versions: Sequence[ObjectVersion]) -> Iterator[Judged]:
        if not is_written(name):
            for version in versions:
                yield Judged(version=version, kind=_marker_or(version, VersionKind.FOREIGN))
        elif (seq := parse_ledger_name(name)) is not None:
            yield from self._judge_statements(seq, versions)
        elif (page := parse_page_name(name)) is not None:
            for version in versions:
                yield ask_twice(
                    name,
                    partial(self._judge_page, page, version),
                    lambda answer: answer.kind is not VersionKind.OTHER,
                )
        else:
            yield from self._judge_objects(name, versions)

    # --- objects named by their digest ---

    def _judge_objects(self, name: str, versions: Sequence[ObjectVersion]) -> Iterator[Judged]:
        digest = claimed_digest(name)
        assert digest is not None
        needs = self._needs.of(name)
        for version in versions:
            if version.marker:
                yield Judged(version=version, kind=VersionKind.MARKER)
            elif needs:
                yield self._judge_needed(version, needs, digest)
            elif len(versions) == 1:
                yield Judged(version=version, kind=VersionKind.UNSEEN)
            else:
                yield self._judge_bytes(version, digest)

    def _judge_needed(
        self, version: ObjectVersion, needs: Sequence[Need], digest: Digest
    ) -> Judged:
        size = needs[0].size
        if size is None:
            if version.size > MAX_EVIDENCE:
                return Judged(version=version, kind=VersionKind.OTHER)
            return self._judge_bytes(version, digest)
        if version.size != size:
            return Judged(version=version, kind=VersionKind.OTHER)
        if any(need.version == version.version for need in needs):
            return Judged(version=version, kind=VersionKind.RIGHT)
        return self._judge_bytes(version, digest)

    def _judge_bytes(self, version: ObjectVersion, digest: Digest) -> Judged:
        try:
            found = ask_twice(
                version.name,
                lambda: stated_or_read(self._store, version),
                lambda answer: answer == digest,
            )
        except ObjectNotFoundError:
            return Judged(version=version, kind=VersionKind.OTHER)
        except StorageUnavailableError:
            raise
        except StorageError:
            return Judged(version=version, kind=VersionKind.UNREADABLE)
        kind = VersionKind.RIGHT if found == digest else VersionKind.OTHER
        return Judged(version=version, kind=kind, digest=found)

    # --- the ledger ---

    def _judge_statements(self, seq: int, versions: Sequence[ObjectVersion]) -> Iterator[Judged]:
        owned = False
        for version in versions:
            judged = ask_twice(
                version.name,
                partial(self._judge_statement, seq, version, owned=owned),
                lambda answer: answer.kind is not VersionKind.OTHER,
            )
            owned = owned or judged.kind is VersionKind.RIGHT
            yield judged

    def _judge_statement(self, seq: int, version: ObjectVersion, *, owned: bool) -> Judged:
        if version.marker:
            return Judged(version=version, kind=VersionKind.MARKER)
        read = self._statement(version)
        if read is None:
            return Judged(version=version, kind=VersionKind.OTHER)
        envelope, statement = read
        digest = envelope.digest
        if digest == self._ledger.digest_at(seq):
            kind = VersionKind.RIGHT
        elif not self._is_signed(envelope, statement, seq):
            kind = VersionKind.OTHER
        elif key_id := distrusted_of(statement.by, seq, self._distrusted):
            kind = VersionKind.DISTRUSTED
            return Judged(version=version, kind=kind, digest=digest, key_id=key_id)
        else:
            kind = self._stray(statement, seq, owned=owned)
        return Judged(version=version, kind=kind, digest=digest)

    def _stray(self, statement: Statement, seq: int, *, owned: bool) -> VersionKind:
        """The kind of a statement that is signed by a key once listed, but not in the chain."""
        assert self._ledger.head is not None
        if seq > self._ledger.head.seq:
            return VersionKind.BEYOND
        if statement.prev != self._ledger.digest_at(seq - 1):
            return VersionKind.FORK
        return VersionKind.LOST_RACE if owned else VersionKind.UNLISTED

    def _statement(self, version: ObjectVersion) -> tuple[Envelope, Statement] | None:
        if not may_be_statement(version.size):
            return None
        try:
            data = self._store.get(version.name, version.version, length=MAX_ENVELOPE)
            envelope = parse_envelope(data)
            return envelope, parse_statement(envelope.payload)
        except (ObjectNotFoundError, IntegrityError):
            return None

    def _is_signed(self, envelope: Envelope, statement: Statement, seq: int) -> bool:
        return (
            statement.seq == seq
            and statement.repository == self._ledger.repository_id
            and bool(envelope.signed_by(self._keys))
        )

    def _is_page(self, number: int, data: bytes) -> bool:
        """Whether these are the statements of that page, as the chain has them."""
        lines = pages.split_page(data)
        start = number * pages.PAGE_LENGTH
        try:
            return lines is not None and all(
                parse_envelope(line).digest == self._ledger.digest_at(seq)
                for seq, line in enumerate(lines, start)
            )
        except IntegrityError:
            return False

    def _judge_page(self, number: int, version: ObjectVersion) -> Judged:
        if version.marker:
            return Judged(version=version, kind=VersionKind.MARKER)
        try:
            is_right = version.size <= pages.MAX_PAGE and self._is_page(
                number, self._store.get(version.name, version.version, length=pages.MAX_PAGE)
            )
        except ObjectNotFoundError:
            is_right = False
        return Judged(version=version, kind=VersionKind.RIGHT if is_right else VersionKind.OTHER)


# --- bytes ---


def stated_or_read(store: ObjectStore, version: ObjectVersion) -> Digest:
    """The SHA-256 that the store states, else of the bytes as they are.

    Raises:
        ObjectNotFoundError: The version is gone.
        StorageError: It may not be looked at.
    """
    stated = store.status(version.name, version.version).sha256
    return Digest(stated) if stated is not None else hash_version(store, version)


def hash_version(store: ObjectStore, version: ObjectVersion) -> Digest:
    """The SHA-256 of a version's bytes, read in pieces: junk has any size.

    Raises:
        ObjectNotFoundError: The version is gone.
        StorageError: It may not be read.
    """
    digest = hashlib.sha256()
    for offset in range(0, version.size, _PIECE):
        length = min(_PIECE, version.size - offset)
        digest.update(store.get(version.name, version.version, offset=offset, length=length))
    return Digest(digest.digest())


def known_keys(ledger: Ledger) -> Mapping[str, VerifyKey]:
    """Every key that the chain ever listed, revoked and retired ones too."""
    keys = {key_id: writer.key for key_id, writer in ledger.writers.items()}
    for record in ledger.valid(StatementType.ROOT):
        assert isinstance(record.body, RootBody)
        keys |= Authority.of(record.body).keys
    return keys


def _marker_or(version: ObjectVersion, kind: VersionKind) -> VersionKind:
    return VersionKind.MARKER if version.marker else kind
