"""The objects in one store, read and written under the rules of docs/invariants.md.

`Repository` joins a store with the verified ledger. It decides nothing about
files: `vault.snapshot` and `vault.restore` stand above it. Everything it returns
was checked against a signed digest first (I5).
"""

import dataclasses
import hashlib
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from vault import retention as locking
from vault.crypto.keys import SigningKey
from vault.errors import (
    ConfigError,
    DigestMismatchError,
    FormatError,
    IntegrityError,
    LedgerMovedError,
    MissingObjectError,
    NameContestedError,
    NameTakenError,
    ObjectNotFoundError,
    RepositoryNotFoundError,
    RollbackError,
    SignatureError,
    StorageError,
    StorageUnavailableError,
    VaultError,
)
from vault.format import inventory
from vault.format.inventory import Inventory
from vault.ledger import pages
from vault.ledger.chain import Ledger, Record, Status
from vault.ledger.envelope import (
    MAX_ROOT_PAE,
    Head,
    build_statement,
    max_envelope,
    parse_envelope,
    parse_statement,
    seal_envelope,
)
from vault.ledger.remembered import Remembered
from vault.ledger.trust import check_gap
from vault.model import (
    Body,
    Code,
    Digest,
    DomainRef,
    Finding,
    LockMode,
    ObjectRef,
    Parameters,
    PruneBody,
    Retention,
    Severity,
    SnapshotBody,
    to_rfc3339,
)
from vault.storage import observing
from vault.storage.base import Buffer, ObjectStore, ObjectVersion
from vault.storage.lockrules import is_weaker
from vault.storage.names import (
    LEDGER,
    PAGES,
    evidence_name,
    inventory_name,
    ledger_name,
    page_name,
    parse_ledger_name,
)
from vault.storage.secondlook import ask_twice

_log = logging.getLogger(__name__)

Clock = Callable[[], datetime]
Plan = frozenset[tuple[str, str]]  # name and version of what is to be deleted

MAX_ENVELOPE = max_envelope(MAX_ROOT_PAE)  # bytes; docs/format.md 2.1
_MIN_ENVELOPE = 200  # bytes: what the frozen grammar demands, in base64, takes more
MAX_EVIDENCE = 4 * 1_048_576  # bytes; docs/format.md 2.4
APPEND_ATTEMPTS = 40  # twenty writers racing need at most twenty rounds
_BACKOFF = (0.01, 1.0)  # seconds: first and longest pause between attempts


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A statement to be: what `Repository.append` fills in with seq and prev."""

    type: str
    subject: Sequence[tuple[str, Digest]]
    body: Body


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An object this process has just stored, with the lock that its PUT set."""

    ref: ObjectRef
    locked_until: datetime | None  # None under lock mode none


def utc_now() -> datetime:
    """The wall clock: aware, UTC. Only the command line passes it on."""
    return datetime.now(UTC)


class Repository:
    """One repository: its store, its ledger, and verified access to its objects.

    Args:
        store: Where the objects are.
        root_digest: The pinned digest of statement 0.
        clock: The caller's clock; compared with the store's before writing (I9).
        pause: Sleeps between append attempts; tests pass their own.
        remembered: The ledger as it was verified here before: only what is new is read,
            if the store still has all of it.
        tolerant: Goes on with what links where the chain has a hole, for an audit to
            tell of; such a repository never appends.

    Raises:
        RepositoryNotFoundError: The store holds no ledger.
        IntegrityError: The ledger does not chain from the pinned root.
    """

    def __init__(
        self,
        store: ObjectStore,
        root_digest: Digest,
        *,
        clock: Clock,
        pause: Callable[[float], None] = time.sleep,
        remembered: Remembered | None = None,
        tolerant: bool = False,
    ) -> None:
        self.store = store
        self.clock = clock
        self.findings: list[Finding] = []
        self._pause = pause
        self._tolerant = tolerant
        self._known_plans: dict[int, Plan | VaultError] = {}  # by seq
        self.ledger = Ledger(root_digest)
        if remembered is None or not self._resume(remembered, root_digest):
            self._read_ledger(root_digest)
        if self.ledger.head is None:
            raise self._no_root(root_digest)
        self.ledger.may_read()
        self.store = observing(store, self.parameters)

    # --- what the root says ---

    @property
    def id(self) -> bytes:
        """The repository id: 16 bytes, part of every key derivation."""
        return bytes.fromhex(self.ledger.repository_id)

    @property
    def parameters(self) -> Parameters:
        """Of the root in force."""
        return self.ledger.root.parameters

    @property
    def head(self) -> Head:
        """The newest statement."""
        assert self.ledger.head is not None
        return self.ledger.head

    # --- ledger ---

    def _resume(self, remembered: Remembered, root_digest: Digest) -> bool:
        """Go on from a remembered ledger; False if the store shows anything but what follows it.

        Its head is read and verified again: as it names all before it, that is the same
        history. Whatever differs, and why, is for a reading from the start to say.
        """
        head = remembered.head
        if not self._has_statements(head.seq):
            return False
        try:
            remembered.replay(self.ledger)
            self.findings.extend(remembered.findings)
            self.refresh()
            if self.ledger.digest_at(head.seq) == head.digest and self._has_version(head):
                return True
        except IntegrityError as error:
            _log.info("the remembered ledger is not used: %s", error)
        self.findings.clear()
        self.ledger = Ledger(root_digest)
        return False

    def _has_version(self, head: Head) -> bool:
        """Whether this store names its version so; a copied bucket's are all others."""
        return self.ledger.records[head.seq].version == head.version

    def _has_statements(self, last: int) -> bool:
        """Whether the store lists every statement up to ``last``."""
        seq = 0
        for name in self.store.names(LEDGER):
            if name == ledger_name(seq):
                seq += 1
                if seq > last:
                    return True
        return False

    def _read_ledger(self, root_digest: Digest) -> None:
        """All statements; pages are used as far as what follows vouches for them."""
        most = None if not self._tolerant else 0  # an audit looks at every statement's object
        while True:
            self.ledger = Ledger(root_digest)
            used = self._read_pages(most)
            try:
                self.refresh()
            except RollbackError:
                if not used:
                    raise
            else:
                if not used or self._are_vouched_for(used * pages.PAGE_LENGTH):
                    return
            self.findings.clear()
            most = used - 1 if most is None else 0  # the last page may just be too young

    def _are_vouched_for(self, seq: int) -> bool:
        """Whether several keys signed statements from ``seq`` on."""
        keys = {record.key_id for record in self.ledger.records[seq:] if record.key_id}
        return len(keys) >= pages.MIN_VOUCHERS

    def _read_pages(self, most: int | None) -> int:
        """Link whole pages from the start, at most so many; returns how many."""
        used = 0
        if most == 0:
            return used
        listed = _Listed(_by_name(self.store.versions(LEDGER)))
        for name, versions in _by_name(self.store.versions(PAGES)):
            if name != page_name(used):
                continue
            if not any(self._link_page(used, version, listed) for version in versions):
                break
            used += 1
            if used == most:
                break
        return used

    def _link_page(self, number: int, version: ObjectVersion, listed: "_Listed") -> bool:
        """Link the statements of one version of a page; False if it can't be believed."""
        if version.marker or version.size > pages.MAX_PAGE:
            return False
        try:
            data = self.store.get(version.name, version.version, length=pages.MAX_PAGE)
            paged = pages.parse_page(data, number)
        except (ObjectNotFoundError, IntegrityError) as error:
            _log.debug("%s is not used: %s", version.name, error)
            return False
        if paged[0].statement.prev != (self.ledger.head.digest if self.ledger.head else None):
            return False
        last = paged[-1]
        return all(self._link_paged(item, version, listed, is_last=item is last) for item in paged)

    def _link_paged(
        self, item: pages.PagedStatement, page: ObjectVersion, listed: "_Listed", *, is_last: bool
    ) -> bool:
        """Link one statement of a page; version and time are those that the store lists.

        It is read from its own object where the list leaves a doubt which version that is.
        """
        name = ledger_name(item.statement.seq)
        versions = listed.take(name)
        is_plain = len(versions) == 1 and versions[0].size == len(item.envelope)
        if item.statement.type == "root" or is_last or (versions and not is_plain):
            return self._link_oldest(name, versions)
        shown = versions[0] if versions else dataclasses.replace(page, name=name)
        return self._link(item.envelope, shown)

    def refresh(self) -> None:
        """Read and verify every statement that follows the head.

        A name belongs to its oldest link-valid version (I4); anything else at it
        is junk or a lost race, and reported. What looks like a hole, or no ledger at
        all, is looked at twice.

        Raises:
            RollbackError: A statement signed by a known key stands beyond a gap.
        """
        known = len(self.findings)

        def follow() -> RollbackError | None:
            del self.findings[known:]
            return self._follow()

        def is_right(gap: RollbackError | None) -> bool:
            return gap is None and self.ledger.head is not None

        gap = ask_twice("ledger", follow, is_right, is_list=True)
        if gap is not None and not self._tolerant:
            raise gap

    def _follow(self) -> RollbackError | None:
        """Link what the store lists after the head; what proves a gap, if anything does."""
        head = self.ledger.head
        start = ledger_name(head.seq) if head else ""
        gap: RollbackError | None = None
        for name, versions in _by_name(self.store.versions(LEDGER, after=start)):
            expected = ledger_name(self._next_seq())
            if name == expected and self._link_oldest(name, versions):
                continue
            gap = gap or self._gap_at(name, versions)
            if gap is not None and not self._tolerant:
                break
        return gap

    def _next_seq(self) -> int:
        return self.ledger.head.seq + 1 if self.ledger.head else 0

    def _link_oldest(self, name: str, versions: Sequence[ObjectVersion]) -> bool:
        """Link the oldest link-valid version; False if there is none."""
        for version in versions:
            if ask_twice(name, partial(self._link_version, version), bool):
                return True
            self._note(
                Severity.WARNING,
                name,
                "junk version at a ledger name",
                version.version,
                Code.JUNK_STATEMENT,
            )
        return False

    def _link_version(self, version: ObjectVersion) -> bool:
        envelope = self._read_envelope(version)
        return envelope is not None and self._link(envelope, version)

    def _read_envelope(self, version: ObjectVersion) -> bytes | None:
        if version.marker or not may_be_statement(version.size):
            return None
        try:
            return self.store.get(version.name, version.version, length=MAX_ENVELOPE)
        except ObjectNotFoundError:
            return None

    def _link(self, envelope: bytes, version: ObjectVersion) -> bool:
        """Link the next statement; False if this is none."""
        try:
            self.ledger.link(
                envelope,
                version=version.version,
                modified=version.modified,
                is_dated=not version.in_parts,
            )
        except IntegrityError as error:
            _log.debug("%s is not link-valid: %s", version.name, error)
            return False
        return True

    def _gap_at(self, name: str, versions: Sequence[ObjectVersion]) -> RollbackError | None:
        """Report what stands beside the chain; a signed statement there is a broken chain."""
        seq = parse_ledger_name(name)
        for version in versions:
            envelope = self._read_envelope(version)
            self._note(
                Severity.WARNING,
                name,
                "junk at a ledger name",
                version.version,
                Code.JUNK_STATEMENT,
            )
            if seq is not None and envelope is not None:
                try:
                    check_gap(self.ledger, [(seq, envelope)])
                except RollbackError as error:
                    return error
        return None

    def _no_root(self, root_digest: Digest) -> Exception:
        if not self.store.versions_of(ledger_name(0)):
            return RepositoryNotFoundError(
                f"no repository at {self.store.url}", hint="make one with 'vault init'"
            )
        return SignatureError(
            "the ledger does not begin with the pinned root",
            expected=f"0:{root_digest}",
            hint="this is another repository, or its first statement was replaced",
        )

    def append(
        self, draft: Callable[[Ledger], Draft], signers: Sequence[SigningKey], *, tool: str
    ) -> Record:
        """Sign and append one statement; durable and owned on return.

        ``draft`` is called anew for every attempt with the ledger read up to the
        head that the attempt extends, and re-checks there what must still hold (I4).

        Raises:
            LedgerMovedError: Others won every attempt.
            SignatureError: The statement would be void.
            ConfigError: The clocks differ, or the repository was opened to be audited.
        """
        if self._tolerant:
            raise ConfigError("a repository opened to be audited takes no statements")
        self.check_skew()
        for attempt in range(APPEND_ATTEMPTS):
            self.refresh()
            self.ledger.may_write()
            record = self._try_append(draft(self.ledger), signers, tool=tool)
            if record is not None:
                self._write_due_pages(record.seq)
                return record
            self._pause(_backoff(attempt))
        raise LedgerMovedError(
            f"the ledger moved on {APPEND_ATTEMPTS} times while appending", hint="try again"
        )

    def _try_append(
        self, draft: Draft, signers: Sequence[SigningKey], *, tool: str
    ) -> Record | None:
        head = self.head
        seq = head.seq + 1
        self.ledger.require_role([key.public.id for key in signers], draft.type, draft.body)
        payload = build_statement(
            type=draft.type,
            repository=self.ledger.repository_id,
            seq=seq,
            prev=head,
            time=self.clock(),
            tool=tool,
            subject=list(draft.subject),
            body=draft.body,
        )
        envelope = seal_envelope(payload, signers)
        digest = self.ledger.check(envelope, seq).digest
        self._extend_predecessors()
        try:
            self._put_statement(seq, envelope)
            self.refresh()
        except StorageError as error:
            error.hint = (
                f"whether statement {seq} was stored is not known: 'vault list' shows it"
                + (f"; {error.hint}" if error.hint else "")
            )
            raise
        owner = self.ledger.records[seq] if len(self.ledger.records) > seq else None
        return owner if owner is not None and owner.digest == digest else None

    def _put_statement(self, seq: int, envelope: bytes) -> None:
        """Store a statement, unless its number is owned where a list can't settle that (I4)."""
        name, need = ledger_name(seq), self.ledger_need()
        if not self.store.traits.orders_versions_by_commit:
            try:
                self.put(name, envelope, need, exclusive=True)
            except NameContestedError:
                return  # whoever it is can't be seen yet, and would be listed before us
            except NameTakenError:
                self.refresh()
                if self.head.seq < seq:  # junk holds the name, and must not stop the chain
                    self.put(name, envelope, need)
            return
        self.put(name, envelope, need)

    def _write_due_pages(self, head: int) -> None:
        """As `_write_pages`; the next run owes what fails, and the statement stands."""
        try:
            self._write_pages(head)
        except VaultError as error:
            _log.warning("statement %d is stored; a page of the ledger is not: %s", head, error)

    def _write_pages(self, head: int) -> None:
        """Store pages that are whole and not there: this run's, or one that a killed run owes."""
        due = pages.pages_due(head)
        if not due:
            return
        known = {version.name for version in self.store.versions(PAGES)}
        for number in range(due):
            if page_name(number) not in known:
                start = number * pages.PAGE_LENGTH
                whole = self.ledger.records[start : start + pages.PAGE_LENGTH]
                data = pages.encode_page([self.envelope_of(record) for record in whole])
                self.put(page_name(number), data, self.ledger_need())

    def _extend_predecessors(self) -> None:
        """Lock the head for the full term, older statements from half the term on (I2).

        Before its successor is stored, which needs them all: a run killed after that leaves
        nothing undone. Older ones once a quarter of the term, by whoever appends first in it;
        all of them at once where the head was copied here, perhaps without locks. Where locks
        are never extended the head keeps the one of its PUT, and an older statement is stored
        once more: the same bytes under a new lock.
        """
        if self.parameters.lock_mode is LockMode.NONE:
            return
        term = self.parameters.ledger_span
        now = self.clock()
        *older, head = self.ledger.records
        is_copied = bool(older) and _predecessor(head) != older[-1].version
        for record in older:
            extended = self.ledger.records[record.seq + 1].modified
            quarter = (now - extended) // (term / 4)
            is_due = quarter >= 2 and quarter > (head.modified - extended) // (term / 4)
            if is_copied or is_due:
                self._lock_again(record, self.ledger_need())
        if self.parameters.extend or is_copied:
            self._lock_again(head, self.ledger_need())

    def _lock_again(self, record: Record, need: datetime) -> None:
        name = ledger_name(record.seq)
        retention = self.retention_for(Digest.of(self.envelope_of(record)), need)
        assert retention is not None
        if not self.parameters.extend:  # a copy of the same bytes carries the new lock
            self.put(name, self.envelope_of(record), need)
            return
        try:
            self.store.extend(name, record.version, retention)
        except ObjectNotFoundError:  # a page of a copied bucket tells the first one's versions
            self.store.extend(name, self._find_statement(record)[0], retention)

    def envelope_of(self, record: Record) -> bytes:
        """A statement as stored.

        Raises:
            MissingObjectError: It is not remembered, and nowhere in the store.
        """
        return record.envelope or self._find_statement(record)[1]

    def _find_statement(self, record: Record) -> tuple[str, bytes]:
        """Where a statement is in this store, and its envelope there.

        Raises:
            MissingObjectError: Nowhere; nothing may be built on it.
        """
        name = ledger_name(record.seq)

        def ask() -> tuple[str, bytes] | None:
            for version in self.store.versions_of(name):
                envelope = self._read_envelope(version)
                if envelope is not None and _digest_of(envelope) == record.digest:
                    return version.version, envelope
            return None

        found = ask_twice(name, ask, bool)
        if found is None:
            raise MissingObjectError(f"{name} is missing", expected=f"version {record.version}")
        return found

    def ledger_need(self) -> datetime:
        """`locking.ledger_until` for what is stored now."""
        return locking.ledger_until(self.clock(), self.parameters)

    def check_skew(self) -> None:
        """Refuse to write when the clocks differ by over five minutes (I9).

        Raises:
            VaultError: They do.
        """
        locking.check_skew(self.clock(), self.store.now())

    # --- objects ---

    def put(
        self,
        name: str,
        data: Buffer,
        need: datetime,
        *,
        digest: Digest | None = None,
        exclusive: bool = False,
    ) -> Stored:
        """Store one object, locked at least until ``need``; durable on return.

        Args:
            name: Of the object.
            data: Its bytes.
            need: When the lock may end.
            digest: Of ``data``, where the caller has it: the store checks it anyway.
            exclusive: See `ObjectStore.put`.

        Raises:
            NameTakenError: See `ObjectStore.put`.
            StorageError: Not stored.
        """
        digest = digest or Digest.of(data)
        retention = self.retention_for(digest, need)
        version = self.store.put(
            name, data, sha256=digest, retention=retention, exclusive=exclusive
        )
        ref = ObjectRef(name=name, sha256=digest, size=len(data), version=version.version)
        return Stored(ref=ref, locked_until=retention.until if retention else None)

    def retention_for(self, digest: bytes, need: datetime) -> Retention | None:
        """The lock on the grid that covers ``need``; None under lock mode none (I8)."""
        if self.parameters.lock_mode is LockMode.NONE:
            return None
        until = locking.lock_target(need, digest, self.parameters.lock_grid)
        return Retention(mode=self.parameters.lock_mode, until=until)

    def lock_until(self, ref: ObjectRef, need: datetime) -> datetime:
        """See that an object is locked at least until ``need``: the end of its lock afterwards.

        Raises:
            ObjectNotFoundError: It is not there, or its lock ends before and is never extended.
            RetentionError: The store keeps no such lock.
        """
        retention = self.retention_for(ref.sha256, need)
        assert retention is not None
        if self.parameters.extend:
            return self.store.extend(ref.name, ref.version, retention)
        found = self.store.status(ref.name, ref.version).retention
        if found is None or found.until < need or is_weaker(found.mode, retention.mode):
            raise ObjectNotFoundError(f"{ref.name} has no lock until {to_rfc3339(need)}")
        return found.until

    def put_evidence(self, data: bytes) -> Digest:
        """Store what a statement is about to cite, locked for the ledger term.

        Raises:
            ConfigError: No reader would take so much; nothing was stored.
        """
        if len(data) > MAX_EVIDENCE:
            raise ConfigError(
                "evidence is larger than any reader takes",
                expected=f"at most {MAX_EVIDENCE} bytes",
                found=f"{len(data)} bytes",
            )
        digest = Digest.of(data)
        self.put(evidence_name(digest), data, self.ledger_need(), digest=digest)
        return digest

    def read(self, ref: ObjectRef) -> bytes:
        """The bytes a signed record names, from whichever version has them (I5).

        Raises:
            MissingObjectError: No version of the name is left.
            DigestMismatchError: Versions are there, none has these bytes.
        """
        found = ask_twice(ref.name, lambda: self._find(ref), _is_found)
        if isinstance(found, IntegrityError):
            raise found
        return found

    def _find(self, ref: ObjectRef) -> bytes | IntegrityError:
        """The bytes, from whichever version has them, or what the store has instead."""
        data = self._read_version(ref, ref.version)
        if data is not None and _matches(data, ref):
            return data
        for version in self.other_versions(ref):
            other = self._read_version(ref, version.version)
            if other is not None and _matches(other, ref):
                self._note(
                    Severity.WARNING,
                    ref.name,
                    "read from another version",
                    version.version,
                    Code.RELOCATED,
                )
                return other
        return _unreadable(ref, data)

    def sizes(self, ref: ObjectRef) -> set[int]:
        """Of the versions of an object, as the store lists them; none: it is missing."""

        def ask() -> set[int]:
            return {each.size for each in self.store.versions_of(ref.name) if not each.marker}

        return ask_twice(ref.name, ask, lambda sizes: ref.size in sizes, is_list=True)

    def other_versions(self, ref: ObjectRef) -> Iterator[ObjectVersion]:
        """Versions of the object, other than the pinned one, that have its size."""
        for version in self.store.versions_of(ref.name):
            same = version.size == ref.size and not version.marker
            if same and version.version != ref.version:
                yield version

    def _read_version(self, ref: ObjectRef, version: str) -> bytes | None:
        try:
            return self.store.get(ref.name, version, length=ref.size + 1)
        except ObjectNotFoundError:
            return None

    def read_range(self, ref: ObjectRef, offset: int, length: int) -> bytes:
        """Part of the pinned version; NOT verified: the caller checks a tag or id.

        Raises:
            MissingObjectError: The pinned version is gone; `read` may find another.
        """
        try:
            return self.store.get(ref.name, ref.version, offset=offset, length=length)
        except ObjectNotFoundError as error:
            raise MissingObjectError(f"{ref.name} is missing", expected=ref.version) from error

    def read_evidence(self, digest: Digest) -> bytes:
        """What a statement cites.

        Raises:
            MissingObjectError: It is not in the store.
            DigestMismatchError: It is, with other bytes.
            FormatError: It is larger than evidence may be.
        """
        name = evidence_name(digest)
        found = ask_twice(name, lambda: self._find_evidence(name, digest), _is_found)
        if isinstance(found, IntegrityError):
            raise found
        return found

    def _find_evidence(self, name: str, digest: Digest) -> bytes | IntegrityError:
        sizes: list[int] = []
        for version in self.store.versions_of(name):
            if version.marker:
                continue
            sizes.append(version.size)
            data = self._evidence_version(version)
            if data is not None and hashlib.sha256(data).digest() == digest:
                return data
        if not sizes:
            return MissingObjectError(f"{name} is missing")
        if min(sizes) > MAX_EVIDENCE:
            limit = f"at most {MAX_EVIDENCE} bytes"
            return FormatError(f"{name} is too large", expected=limit, found=f"{min(sizes)} bytes")
        return DigestMismatchError(f"{name} has other bytes", expected=digest)

    def _evidence_version(self, version: ObjectVersion) -> bytes | None:
        """The bytes of one version; None if it is too large or gone."""
        if version.size > MAX_EVIDENCE:
            return None
        try:
            return self.store.get(version.name, version.version, length=MAX_EVIDENCE)
        except ObjectNotFoundError:
            return None

    # --- inventories and domains ---

    def inventory(self, record: Record) -> Inventory:
        """All objects that a snapshot needs, deltas resolved.

        Raises:
            IntegrityError: The inventory or a base is missing or wrong.
        """
        return inventory.resolve(self.inventory_ref(record), self.read)

    @staticmethod
    def inventory_ref(record: Record) -> ObjectRef:
        """The inventory object itself."""
        body = snapshot_body(record)
        sha256 = Digest.parse(body.inventory.sha256)
        return ObjectRef(
            name=inventory_name(sha256),
            sha256=sha256,
            size=body.inventory.size,
            version=body.inventory.version,
        )

    def planned_deletions(self) -> frozenset[tuple[str, str]]:
        """(name, version) of every object that a readable prune plan of any age names (I4)."""
        doomed: set[tuple[str, str]] = set()
        for plan in self._plans().values():
            doomed |= plan if isinstance(plan, frozenset) else set()
        return frozenset(doomed)

    def unreadable_plans(self) -> list[Finding]:
        """Prune plans that can't be read; while there is one, nothing says what it dooms.

        A writer then relies only on what it locked itself, and on nothing where no lock holds.
        """
        return [
            Finding(
                severity=Severity.ERROR,
                subject=f"ledger {seq}",
                problem="the prune plan can't be read, so it permits no deletion",
                found=str(plan),
                code=Code.UNREADABLE_PLAN,
            )
            for seq, plan in self._plans().items()
            if isinstance(plan, VaultError)
        ]

    def _plans(self) -> Mapping[int, Plan | VaultError]:
        """What each prune plan names, or why it can't be read; each is read once."""
        for record in self.ledger.prunes():
            assert isinstance(record.body, PruneBody)
            if record.body.phase == "plan" and record.seq not in self._known_plans:
                digest = Digest.parse(record.body.plan)
                self._known_plans[record.seq] = self._read_plan(digest)
        return self._known_plans

    def _read_plan(self, digest: Digest) -> Plan | VaultError:
        try:
            plan = inventory.parse_plan(self.read_evidence(digest))
        except StorageUnavailableError:
            raise  # that is the store's trouble, and not the plan's
        except (IntegrityError, StorageError) as error:
            return error
        return frozenset((ref.name, ref.version) for ref in plan)

    def _note(self, severity: Severity, subject: str, problem: str, found: str, code: Code) -> None:
        self.findings.append(
            Finding(severity=severity, subject=subject, problem=problem, found=found, code=code)
        )


def may_be_statement(size: int) -> bool:
    """Whether an object of so many bytes is worth reading as one: anybody may plant thousands."""
    return _MIN_ENVELOPE <= size <= MAX_ENVELOPE


def domain_ref(domain: DomainRef) -> ObjectRef:
    """The stored object of a domain's secrets."""
    return ObjectRef(
        name=domain.object,
        sha256=Digest.parse(domain.sha256),
        size=domain.size,
        version=domain.version,
    )


def snapshot_body(record: Record) -> SnapshotBody:
    """The manifest in a record.

    Raises:
        FormatError: The record is no valid snapshot.
    """
    if record.status is not Status.VALID or not isinstance(record.body, SnapshotBody):
        raise FormatError(f"ledger {record.seq} is not a valid snapshot", found=record.type)
    return record.body


def _by_name(
    versions: Iterator[ObjectVersion],
) -> Iterator[tuple[str, list[ObjectVersion]]]:
    """Group a listing by name, oldest version first."""
    group: list[ObjectVersion] = []
    for version in versions:
        if group and group[0].name != version.name:
            yield group[0].name, group
            group = []
        group.append(version)
    if group:
        yield group[0].name, group


class _Listed:
    """Versions of names that are asked for in the order of the list."""

    def __init__(self, groups: Iterator[tuple[str, list[ObjectVersion]]]) -> None:
        self._groups = groups
        self._next: tuple[str, list[ObjectVersion]] | None = ("", [])

    def take(self, name: str) -> list[ObjectVersion]:
        """Of that name, oldest first; none of names before it can be had any more."""
        while self._next is not None and self._next[0] < name:
            self._next = next(self._groups, None)
        return self._next[1] if self._next is not None and self._next[0] == name else []


def _predecessor(record: Record) -> str:
    """The version id that whoever appended a statement saw, and locked, of the one before it."""
    return parse_statement(parse_envelope(record.envelope).payload).prev_version


def _backoff(attempt: int) -> float:
    first, longest = _BACKOFF
    return random.uniform(0, min(longest, first * 2**attempt))  # noqa: S311 - jitter, no secret


def _digest_of(envelope: bytes) -> Digest | None:
    """The identity of a statement; None of what is none."""
    try:
        return parse_envelope(envelope).digest
    except FormatError:
        return None


def _is_found(answer: bytes | IntegrityError) -> bool:
    return isinstance(answer, bytes)


def _matches(data: bytes, ref: ObjectRef) -> bool:
    return len(data) == ref.size and hashlib.sha256(data).digest() == ref.sha256


def _unreadable(ref: ObjectRef, data: bytes | None) -> IntegrityError:
    if data is None:
        return MissingObjectError(f"{ref.name} is missing", expected=f"version {ref.version}")
    if len(data) != ref.size:
        found = "more bytes" if len(data) > ref.size else f"{len(data)} bytes"
        return DigestMismatchError(
            f"{ref.name} has the wrong size", expected=f"{ref.size} bytes", found=found
        )
    return DigestMismatchError(
        f"{ref.name} has the wrong bytes",
        expected=ref.sha256,
        found=hashlib.sha256(data).hexdigest(),
    )
