"""Sealing the seeds of older sessions to a later recipient, without a pack rewritten.

See docs/format.md 6.1. The holder of an older recipient's key reads the header of each pack once;
what it can't open is reported, and the rest is resealed.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from vault.crypto.keys import RecipientKey, Signer, recipient_id
from vault.crypto.sealed import Header, Opener, header_length
from vault.encoding import b64decode_strict
from vault.errors import (
    ConfigError,
    IntegrityError,
    ObjectNotFoundError,
    WrongKeyError,
)
from vault.format.inventory import Resolver
from vault.format.seed_tables import MAX_SEEDS, seal_rows
from vault.ledger.chain import Ledger
from vault.ledger.records import Record
from vault.ledger.statements import Recipient, ResealBody, SeedTable, StatementType
from vault.ledger.warrants import Request
from vault.machine.workers import AtOnce
from vault.model import Digest, Id, ObjectRef
from vault.progress import NO_PROGRESS, Progress
from vault.repository.agreements import Intent, require_agreed, require_unasked, rest_on
from vault.repository.append_statements import Draft
from vault.repository.ledgerobjects import AT_ONCE, batches
from vault.repository.objects import Stored
from vault.repository.repository import Repository, domain_ref
from vault.storage.names import DOMAINS, PACKS, seed_table_name

TABLES_IN_STATEMENT: Final = 8
_HEAD: Final = 4096  # bytes: a header with three recipients
_BATCH: Final = 1024  # headers


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LaterRecipient:
    """The recipient that old sessions are to be sealed to."""

    name: str
    public: bytes = dataclasses.field(repr=False)  # raw

    @property
    def id(self) -> Id:
        """How headers and tables name it."""
        return recipient_id(self.public)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The seeds that a recipient lacks."""

    target: LaterRecipient
    through: int  # seq of the head when it was read
    seeds: Mapping[bytes, bytes] = dataclasses.field(repr=False)  # by session key
    objects: int  # packs and domain objects that were looked at
    sealed: int  # of these, sealed to the recipient already
    unopened: Sequence[str]  # names of those that could not be opened
    unread: Sequence[int]  # snapshots whose inventory can't be used


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Resealed:
    """What was stored and signed."""

    gathered: Gathered
    tables: Sequence[Stored]
    records: Sequence[Record]  # statements; empty where nothing was lacking


def find_recipient(ledger: Ledger, name: str) -> LaterRecipient:
    """The recipient of the root in force with that name, or with an id that begins so.

    Raises:
        ConfigError: There is none, or there are several.
    """
    listed = [_target(each) for each in ledger.root.recipients]
    found = [each for each in listed if each.name == name]
    if not found and len(name) >= 16:
        found = [each for each in listed if str(each.id).startswith(name)]
    if len(found) != 1:
        many = "more than one" if found else "no"
        raise ConfigError(
            f"the root in force lists {many} recipient {name[:80]}",
            expected=", ".join(f"{each.name} {str(each.id)[:16]}" for each in listed),
            hint="a new root must list a new recipient first: 'vault key root propose'",
        )
    return found[0]


def _target(listed: Recipient) -> LaterRecipient:
    return LaterRecipient(name=listed.name, public=b64decode_strict(listed.public))


def gather_seeds(
    repository: Repository,
    recovery: RecipientKey,
    target: LaterRecipient,
    *,
    since: int = 0,
    through: int | None = None,
    progress: Progress = NO_PROGRESS,
) -> Gathered:
    """The seeds of all sessions that a recipient can't open, as far as another one can.

    Args:
        repository: Read up to its head.
        recovery: The key of an older recipient.
        target: The recipient that lacks them.
        since: The first snapshot whose packs are looked at.
        through: The last one; None for the newest.
        progress: Receives the number of objects.

    Raises:
        ConfigError: ``recovery`` is the target's own key.
        StorageError: The store failed.
    """
    if recovery.id == target.id:
        raise ConfigError(
            f"{target.name} can't reseal to itself",
            hint="an older recipient's recovery.key opens what this one can't",
        )
    head = repository.head.seq
    through = head if through is None else min(through, head)
    unread: list[int] = []
    refs = _sealed_refs(repository, range(since, through + 1), unread)
    run = _Gathering(repository, recovery, target)
    progress.stage("reading headers")
    with AtOnce(AT_ONCE) as at_once:
        for batch in batches(refs, _BATCH):
            for ref, header in zip(batch, at_once.map(run.header_of, batch), strict=True):
                run.take(ref, header)
            progress.advance(files=len(batch))
    return Gathered(
        target=target,
        through=through,
        seeds=run.seeds,
        objects=run.objects,
        sealed=run.sealed,
        unopened=run.unopened,
        unread=unread,
    )


class _Gathering:
    """Seeds by session key, and what could not be opened."""

    def __init__(
        self, repository: Repository, recovery: RecipientKey, target: LaterRecipient
    ) -> None:
        self._repository = repository
        self._recovery = recovery
        self._target = target.id
        self.seeds: dict[bytes, bytes] = {}
        self.objects = 0
        self.sealed = 0
        self.unopened: list[str] = []

    def header_of(self, ref: ObjectRef) -> Header | None:
        """The header of an object, unverified; None if no version has one. In any thread."""
        try:
            return self._read(ref)
        except (IntegrityError, ObjectNotFoundError):
            pass
        for version in self._repository.store.versions_of(ref.name):
            if version.marker or version.size != ref.size or version.version == ref.version:
                continue
            try:
                return self._read(dataclasses.replace(ref, version=version.version))
            except (IntegrityError, ObjectNotFoundError):
                continue
        return None

    def _read(self, ref: ObjectRef) -> Header:
        head = self._repository.read_range(ref, 0, min(_HEAD, ref.size))
        length = header_length(head)
        if length > len(head):
            head = self._repository.read_range(ref, 0, min(length, ref.size))
        return Header.parse(head)

    def take(self, ref: ObjectRef, header: Header | None) -> None:
        """Note the seed that opens an object, if the target lacks it and it proves itself."""
        self.objects += 1
        if header is None:
            self.unopened.append(ref.name)
            return
        if self._target in dict(header.sealed):
            self.sealed += 1
            return
        if header.session_key in self.seeds:
            return
        try:
            seed = self._repository.seeds.seed_of(header, self._recovery)
            Opener(header, seed, self._repository.id)
        except (IntegrityError, WrongKeyError):
            self.unopened.append(ref.name)
            return
        self.seeds[header.session_key] = seed


def _sealed_refs(repository: Repository, of: range, unread: list[int]) -> Iterator[ObjectRef]:
    """Every pack and domain object that snapshots need, each name once."""
    seen: set[bytes] = set()
    resolver = Resolver(repository.read)
    for record in repository.ledger.snapshots():
        if record.seq not in of:
            continue
        domain = repository.ledger.writer_for(record).domain
        own = [] if domain is None else [domain_ref(domain)]
        try:
            listed = resolver.resolve(repository.inventory_ref(record)).objects
        except IntegrityError:
            unread.append(record.seq)
            listed = ()
        for ref in itertools.chain(own, listed):
            if ref.name.startswith((PACKS, DOMAINS)) and ref.sha256 not in seen:
                seen.add(ref.sha256)
                yield ref


def store_seeds(
    repository: Repository,
    gathered: Gathered,
    restorer: Signer,
    *,
    tool: str,
    agreed: Request | None = None,
) -> Resealed:
    """Store tables of seeds, and append the statements that name them.

    Args:
        repository: Read up to its head.
        gathered: The seeds.
        restorer: Signs.
        tool: Goes into the statements.
        agreed: What people agreed to.

    Raises:
        ConfigError: The root in force does not list the recipient any more, or people have not
            agreed to it; then nothing is stored.
        SignatureError: The key may not sign it.
        StorageError: The store failed.
    """
    if gathered.seeds:
        _require_agreement(repository, gathered, restorer, agreed)
    tables: list[Stored] = []
    records: list[Record] = []
    rows = iter(gathered.seeds.items())
    while part := dict(itertools.islice(rows, MAX_SEEDS * TABLES_IN_STATEMENT)):
        stored = _store_tables(repository, gathered.target, part)
        tables += stored
        body = _body(gathered, stored, len(part))
        intent = Intent(kind=StatementType.RESEAL, body=body, by=(restorer.public.id,))
        warrant = rest_on(repository, intent, agreed, restorer, tool=tool)
        draft = _draft(gathered.target, body, warrant)
        records.append(repository.append(draft, [restorer], tool=tool))
    return Resealed(gathered=gathered, tables=tables, records=records)


def _store_tables(
    repository: Repository, target: LaterRecipient, seeds: Mapping[bytes, bytes]
) -> list[Stored]:
    need = repository.objects.ledger_need()
    stored = []
    rows = iter(seeds.items())
    while part := dict(itertools.islice(rows, MAX_SEEDS)):
        data = seal_rows(part, repository.id, target.public)
        digest = Digest.of(data)
        stored.append(repository.put(seed_table_name(target.id, digest), data, need, digest=digest))
    return stored


def _require_agreement(
    repository: Repository, gathered: Gathered, restorer: Signer, agreed: Request | None
) -> None:
    """Pass if the statement would count, before anything is stored and locked.

    Raises:
        ConfigError: The root wants people to approve it and they have not, or for other values.
    """
    body = reseal_to_approve(gathered.target, gathered.through)
    if agreed is None:
        require_unasked(repository.ledger, StatementType.RESEAL, body)
        return
    if len(gathered.seeds) > MAX_SEEDS * TABLES_IN_STATEMENT:
        raise ConfigError(
            "a request is good for one statement, and so many sessions take more",
            expected=MAX_SEEDS * TABLES_IN_STATEMENT,
            found=len(gathered.seeds),
            hint="ask for fewer snapshots at a time with --through",
        )
    intent = Intent(kind=StatementType.RESEAL, body=body, by=(restorer.public.id,))
    require_agreed(repository.ledger, intent, agreed, now=repository.clock())


def reseal_to_approve(target: LaterRecipient, through: int) -> ResealBody:
    """The statement as far as people can agree to it: its tables are made afterwards."""
    zero = Digest(bytes(32))
    name = seed_table_name(target.id, zero)
    later = SeedTable(name=name, sha256=str(zero), size=0, version="later")
    return ResealBody(recipient=str(target.id), objects=(later,), sessions=0, through=through)


def _body(gathered: Gathered, stored: Sequence[Stored], sessions: int) -> ResealBody:
    return ResealBody(
        recipient=str(gathered.target.id),
        objects=tuple(map(_named, stored)),
        sessions=sessions,
        through=gathered.through,
    )


def _draft(
    target: LaterRecipient, body: ResealBody, warrant: int | None
) -> Callable[[Ledger], Draft]:
    """The statement, for every ledger that still lists the recipient."""
    subject = [(each.name, Digest.parse(each.sha256)) for each in body.objects]

    def draft(ledger: Ledger) -> Draft:
        if target.public not in ledger.recipients:
            raise ConfigError(f"the root in force does not list {target.name} any more")
        return Draft(type=StatementType.RESEAL, subject=subject, body=body, warrant=warrant)

    return draft


def _named(stored: Stored) -> SeedTable:
    ref = stored.ref
    return SeedTable(name=ref.name, sha256=str(ref.sha256), size=ref.size, version=ref.version)
