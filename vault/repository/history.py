"""The statements in a store, read and linked: what they mean is decided by `vault.ledger`.

`read_ledger` gives the `StoredLedger` of a repository. A name belongs to its oldest link-valid
version (I4); what else stands there is a finding. Statements are appended by `log`.
"""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from functools import partial

from vault.errors import (
    FormatError,
    IntegrityError,
    MissingObjectError,
    ObjectNotFoundError,
    RepositoryNotFoundError,
    RollbackError,
    SignatureError,
)
from vault.ledger import pages
from vault.ledger.chain import Ledger
from vault.ledger.envelope import (
    MAX_ROOT_PAE,
    Head,
    max_envelope,
    parse_envelope,
)
from vault.ledger.records import Record
from vault.ledger.remembered import Remembered
from vault.ledger.statements import StatementType
from vault.ledger.trust import check_gap
from vault.model import Code, Digest, Finding, Severity
from vault.storage.base import ObjectStore, ObjectVersion
from vault.storage.double_check import ask_twice
from vault.storage.names import LEDGER, PAGES, ledger_name, page_name, parse_ledger_name

_log = logging.getLogger(__name__)

MAX_ENVELOPE = max_envelope(MAX_ROOT_PAE)  # bytes; docs/format.md 2.1
_MIN_ENVELOPE = 200  # bytes: what the frozen grammar demands, in base64, takes more


class StoredLedger:
    """The statements of one repository, as far as they were read from its store and link.

    Args:
        store: Where they are.
        ledger: Verified from its root as far as it was read; `refresh` links what follows.
        tolerant: Goes on with what links where the chain has a hole, for an audit to
            tell of.
        findings: What was seen beside the statements that were read before.
    """

    def __init__(
        self,
        store: ObjectStore,
        ledger: Ledger,
        *,
        tolerant: bool = False,
        findings: Sequence[Finding] = (),
    ) -> None:
        self.ledger = ledger
        self.tolerant = tolerant
        self.findings = list(findings)
        self._store = store

    @property
    def head(self) -> Head:
        """The newest statement."""
        assert self.ledger.head is not None
        return self.ledger.head

    def on(self, store: ObjectStore) -> "StoredLedger":
        """The same history, read on from another view of the same store."""
        return StoredLedger(store, self.ledger, tolerant=self.tolerant, findings=self.findings)

    def read_pages(self, most: int | None) -> int:
        """Link whole pages from the start, at most so many; returns how many."""
        used = 0
        if most == 0:
            return used
        listed = _Listed(_by_name(self._store.versions(LEDGER)))
        for name, versions in _by_name(self._store.versions(PAGES)):
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
            data = self._store.get(version.name, version.version, length=pages.MAX_PAGE)
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
        if item.statement.type == StatementType.ROOT or is_last or (versions and not is_plain):
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
        if gap is not None and not self.tolerant:
            raise gap

    def _follow(self) -> RollbackError | None:
        """Link what the store lists after the head; what proves a gap, if anything does."""
        head = self.ledger.head
        start = ledger_name(head.seq) if head else ""
        gap: RollbackError | None = None
        for name, versions in _by_name(self._store.versions(LEDGER, after=start)):
            expected = ledger_name(self._next_seq())
            if name == expected and self._link_oldest(name, versions):
                continue
            gap = gap or self._gap_at(name, versions)
            if gap is not None and not self.tolerant:
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
            return self._store.get(version.name, version.version, length=MAX_ENVELOPE)
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

    def find_statement(self, record: Record) -> tuple[str, bytes]:
        """Where a statement is in this store, and its envelope there.

        Raises:
            MissingObjectError: Nowhere; nothing may be built on it.
        """
        name = ledger_name(record.seq)

        def ask() -> tuple[str, bytes] | None:
            for version in self._store.versions_of(name):
                envelope = self._read_envelope(version)
                if envelope is not None and _digest_of(envelope) == record.digest:
                    return version.version, envelope
            return None

        found = ask_twice(name, ask, bool)
        if found is None:
            raise MissingObjectError(f"{name} is missing", expected=f"version {record.version}")
        return found

    def _note(self, severity: Severity, subject: str, problem: str, found: str, code: Code) -> None:
        self.findings.append(
            Finding(severity=severity, subject=subject, problem=problem, found=found, code=code)
        )


def read_ledger(
    store: ObjectStore,
    root_digest: Digest,
    *,
    remembered: Remembered | None = None,
    tolerant: bool = False,
) -> StoredLedger:
    """Every statement in the store, verified from the pinned root.

    Args:
        store: Where they are.
        root_digest: The pinned digest of statement 0.
        remembered: The ledger as it was verified here before: only what is new is read,
            if the store still has all of it.
        tolerant: As for `StoredLedger`.

    Raises:
        RepositoryNotFoundError: The store holds no ledger.
        IntegrityError: The ledger does not chain from the pinned root.
        VaultError: This program must not read the ledger.
    """
    history = None
    if remembered is not None:
        history = _resume(store, root_digest, remembered, tolerant=tolerant)
    if history is None:
        history = _read_all(store, root_digest, tolerant=tolerant)
    if history.ledger.head is None:
        raise _no_root(store, root_digest)
    history.ledger.may_read()
    return history


def _resume(
    store: ObjectStore, root_digest: Digest, remembered: Remembered, *, tolerant: bool
) -> StoredLedger | None:
    """Go on from a remembered ledger; None if the store shows anything but what follows it.

    Its head is read and verified again: as it names all before it, that is the same
    history. Whatever differs, and why, is for a reading from the start to say.
    """
    head = remembered.head
    if not _has_statements(store, head.seq):
        return None
    history = StoredLedger(
        store, Ledger(root_digest), tolerant=tolerant, findings=remembered.findings
    )
    try:
        remembered.replay(history.ledger)
        history.refresh()
        if history.ledger.digest_at(head.seq) == head.digest and _has_version(history, head):
            return history
    except IntegrityError as error:
        _log.info("the remembered ledger is not used: %s", error)
    return None


def _has_version(history: StoredLedger, head: Head) -> bool:
    """Whether this store names its version so; all versions of a copied bucket have other names."""
    return history.ledger.records[head.seq].version == head.version


def _has_statements(store: ObjectStore, last: int) -> bool:
    """Whether the store lists every statement up to ``last``."""
    seq = 0
    for name in store.names(LEDGER):
        if name == ledger_name(seq):
            seq += 1
            if seq > last:
                return True
    return False


def _read_all(store: ObjectStore, root_digest: Digest, *, tolerant: bool) -> StoredLedger:
    """All statements; pages are used as far as what follows vouches for them."""
    most = None if not tolerant else 0  # an audit looks at every statement's object
    while True:
        history = StoredLedger(store, Ledger(root_digest), tolerant=tolerant)
        used = history.read_pages(most)
        try:
            history.refresh()
        except RollbackError:
            if not used:
                raise
        else:
            if not used or _are_vouched_for(history.ledger, used * pages.PAGE_LENGTH):
                return history
        most = used - 1 if most is None else 0  # the last page may just be too young


def _are_vouched_for(ledger: Ledger, seq: int) -> bool:
    """Whether several keys signed statements from ``seq`` on."""
    keys = {record.key_id for record in ledger.records[seq:] if record.key_id}
    return len(keys) >= pages.MIN_VOUCHERS


def _no_root(store: ObjectStore, root_digest: Digest) -> Exception:
    if not store.versions_of(ledger_name(0)):
        return RepositoryNotFoundError(
            f"no repository at {store.url}", hint="make one with 'vault init'"
        )
    return SignatureError(
        "the ledger does not begin with the pinned root",
        expected=f"0:{root_digest}",
        hint="this is another repository, or its first statement was replaced",
    )


def may_be_statement(size: int) -> bool:
    """Whether an object of so many bytes is worth reading as one: anybody may plant thousands."""
    return _MIN_ENVELOPE <= size <= MAX_ENVELOPE


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


def _digest_of(envelope: bytes) -> Digest | None:
    """The identity of a statement; None of what is none."""
    try:
        return parse_envelope(envelope).digest
    except FormatError:
        return None
