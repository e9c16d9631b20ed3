"""The ledger of a repository, to append to: statements are signed, stored in order, kept locked.

How the store's statements are read and linked is in `read_statements`; other objects are in
`objects`.
"""

import dataclasses
import logging
import random
from collections.abc import Callable, Sequence
from datetime import datetime

from vault.crypto.keys import Signer
from vault.errors import (
    ConfigError,
    LedgerMovedError,
    NameContestedError,
    NameTakenError,
    ObjectNotFoundError,
    StorageError,
    VaultError,
)
from vault.ledger import pages
from vault.ledger.chain import Ledger
from vault.ledger.envelope import (
    Head,
    build_statement,
    parse_envelope,
    parse_statement,
    seal_envelope,
)
from vault.ledger.records import Record
from vault.model import Body, Digest, Finding, LockMode
from vault.repository.objects import Objects
from vault.repository.read_statements import StoredLedger
from vault.repository.seed_locks import lock_tables
from vault.storage.names import PAGES, ledger_name, page_name

_log = logging.getLogger(__name__)

APPEND_ATTEMPTS = 40  # twenty writers racing need at most twenty rounds
INSISTING = 10_000  # attempts of a revocation: a thief near the store wins most numbers
_BACKOFF = (0.01, 1.0)  # seconds: first and longest pause between attempts


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A statement to be: what `Log.append` fills in with seq and prev."""

    type: str
    subject: Sequence[tuple[str, Digest]]
    body: Body
    warrant: int | None = None  # seq of the warrant that it rests on


class Log:
    """The ledger of a repository, to append to.

    Args:
        history: Its statements, read up to the head.
        objects: Of the same store; they store and lock.
        pause: Sleeps so many seconds between attempts to append; tests pass their own.
    """

    def __init__(
        self, history: StoredLedger, objects: Objects, *, pause: Callable[[float], None]
    ) -> None:
        self._history = history
        self._objects = objects
        self._pause = pause
        self._store = objects.store
        self._judged_head: Digest | None = None  # whose word on its predecessor was checked
        self._locks_lack = False

    @property
    def ledger(self) -> Ledger:
        """Verified up to `head`."""
        return self._history.ledger

    @property
    def head(self) -> Head:
        """The newest statement."""
        return self._history.head

    @property
    def history(self) -> StoredLedger:
        """How its statements were read, and what stands beyond them."""
        return self._history

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What stands beside the statements in the store and should not."""
        return tuple(self._history.findings)

    def refresh(self) -> None:
        """As `StoredLedger.refresh`."""
        self._history.refresh()

    def append(
        self,
        draft: Callable[[Ledger], Draft],
        signers: Sequence[Signer],
        *,
        tool: str,
        insist: Callable[[int], None] | None = None,
    ) -> Record:
        """Sign and append one statement; durable and owned on return.

        Args:
            draft: Called anew for every attempt with the ledger read up to the head that the
                attempt extends; re-checks there what must still hold (I4).
            signers: Who sign.
            tool: Goes into the statement.
            insist: For what a thief may want to prevent: 10,000 attempts without a pause.
                Called after each that was lost, with how many were.

        Raises:
            LedgerMovedError: Others won every attempt.
            SignatureError: The statement would be void.
            ConfigError: The clocks differ, or the repository was opened to be audited.
        """
        if self._history.tolerant:
            raise ConfigError("a repository opened to be audited takes no statements")
        self._objects.check_skew()
        attempts = APPEND_ATTEMPTS if insist is None else INSISTING
        for attempt in range(attempts):
            self.refresh()
            record = self._try_append(draft(self.ledger), signers, tool=tool)
            if record is not None:
                self._write_due_pages(record.seq)
                return record
            if insist is not None:
                insist(attempt + 1)
            else:
                self._pause(_backoff(attempt))
        thief = "take away the store credentials of the one who appends, then " if insist else ""
        raise LedgerMovedError(
            f"the ledger moved on {attempts} times while appending", hint=f"{thief}try again"
        )

    def _try_append(self, draft: Draft, signers: Sequence[Signer], *, tool: str) -> Record | None:
        head = self.head
        seq = head.seq + 1
        by = [key.public.id for key in signers]
        self._history.require_appending(draft.type)
        self.ledger.may_write(draft.type)
        time = self._objects.clock().replace(microsecond=0)  # as it is written
        self.ledger.require_role(by, draft.type, draft.body, warrant=draft.warrant, time=time)
        payload = build_statement(
            type=draft.type,
            repository=self.ledger.repository_id,
            seq=seq,
            prev=head,
            time=time,
            tool=tool,
            subject=list(draft.subject),
            body=draft.body,
            by=by,
            warrant=draft.warrant,
        )
        envelope = seal_envelope(payload, signers)
        digest = self.ledger.check(envelope).digest
        for missing in self.missing():
            self.put_back(missing)
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

    def missing(self) -> list[Record]:
        """Statements that only a page still has."""
        return [record for record in self.ledger.records if not record.version]

    def put_back(self, record: Record) -> None:
        """Store a missing statement again, locked as one, so that a thief can't take its number.

        Raises:
            LedgerMovedError: Another statement has taken the number meanwhile.
            MissingObjectError: The store lists nothing that links there.
        """
        name = ledger_name(record.seq)
        self._objects.put(name, record.envelope, self._objects.ledger_need())
        owner, version = self._history.find_owner(record.seq)
        if owner != record.digest:
            raise LedgerMovedError(f"{name} was taken meanwhile", hint="try again")
        self.ledger.records[record.seq] = dataclasses.replace(record, version=version)

    def _put_statement(self, seq: int, envelope: bytes) -> None:
        """Store a statement, unless its number is owned where a list can't settle that (I4)."""
        name, need = ledger_name(seq), self._objects.ledger_need()
        if not self._store.traits.orders_versions_by_commit:
            try:
                self._objects.put(name, envelope, need, exclusive=True)
            except NameContestedError:
                return  # the other statement can't be seen yet, and would be listed before ours
            except NameTakenError:
                self.refresh()
                if self.head.seq < seq:  # junk holds the name, and must not stop the chain
                    self._objects.put(name, envelope, need)
            return
        self._objects.put(name, envelope, need)

    def _write_due_pages(self, head: int) -> None:
        """As `write_pages`; the next run owes what fails, and the statement stands."""
        try:
            self.write_pages(head)
        except VaultError as error:
            _log.warning("statement %d is stored; a page of the ledger is not: %s", head, error)

    def write_pages(self, head: int) -> None:
        """Store pages that are whole and not there: this run's, or one that a killed run owes."""
        due = pages.pages_due(head)
        if not due or not self._store.traits.lists_md5:  # where no reader could use them
            return
        known = {version.name for version in self._store.versions(PAGES)}
        for number in range(due):
            if page_name(number) not in known:
                start = number * pages.PAGE_LENGTH
                whole = self.ledger.records[start : start + pages.PAGE_LENGTH]
                data = pages.encode_page([self.envelope_of(record) for record in whole])
                self._objects.put(page_name(number), data, self._objects.ledger_need())

    def _extend_predecessors(self) -> None:
        """Lock the head for the full term, older statements from half the term on (I2).

        Before its successor is stored, which needs them all: a run killed after that leaves
        nothing undone. Older ones once a quarter of the term, by the first run that appends in it;
        all of them at once where the head was copied here, perhaps without locks. Where locks
        are never extended the head keeps the one of its PUT, and an older statement is stored
        once more: the same bytes under a new lock.
        """
        if self._objects.parameters.lock_mode is LockMode.NONE:
            return
        term = self._objects.parameters.ledger_span
        now = self._objects.clock()
        *older, head = self.ledger.records
        is_copied = bool(older) and self._is_copied(head, older[-1], now + term / 2)
        for record in older:
            extended = self.ledger.records[record.seq + 1].modified
            quarter = (now - extended) // (term / 4)
            is_due = quarter >= 2 and quarter > (head.modified - extended) // (term / 4)
            if is_copied or is_due:
                self._lock_again(record, self._objects.ledger_need())
                lock_tables(record, self.ledger, self._objects)
        if self._objects.parameters.extend or is_copied:
            self._lock_again(head, self._objects.ledger_need())
            lock_tables(head, self.ledger, self._objects)

    def _is_copied(self, head: Record, before: Record, half: datetime) -> bool:
        """Whether the statements were copied here, and may lack their locks.

        The head names the version of its predecessor that its author saw. Where the list names
        another, one lock tells: a head that lies costs one request, once.
        """
        if _predecessor(head) == before.version:
            return False
        if self._judged_head != head.digest:
            self._judged_head = head.digest
            lock = self._store.status(ledger_name(before.seq), before.version).retention
            self._locks_lack = lock is None or lock.until < half
            if not self._locks_lack:
                _log.warning("ledger %d names a version that its predecessor has not", head.seq)
        return self._locks_lack

    def _lock_again(self, record: Record, need: datetime) -> None:
        name = ledger_name(record.seq)
        retention = self._objects.retention_for(Digest.of(self.envelope_of(record)), need)
        assert retention is not None
        if not self._objects.parameters.extend:  # a copy of the same bytes carries the new lock
            self._objects.put(name, self.envelope_of(record), need)
            return
        try:
            self._store.extend(name, record.version, retention)
        except ObjectNotFoundError:  # the version is gone, and another has the same bytes
            self._store.extend(name, self._history.find_statement(record)[0], retention)

    def envelope_of(self, record: Record) -> bytes:
        """A statement as stored.

        Raises:
            MissingObjectError: It is not remembered, and nowhere in the store.
        """
        return record.envelope or self._history.find_statement(record)[1]


def _predecessor(record: Record) -> str:
    """The version id of the statement before it, which its writer saw and locked."""
    return parse_statement(parse_envelope(record.envelope).payload).prev_version


def _backoff(attempt: int) -> float:
    first, longest = _BACKOFF
    return random.uniform(0, min(longest, first * 2**attempt))  # noqa: S311 - jitter, no secret
