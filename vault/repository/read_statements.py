"""The statements in a store, read and linked: `vault.ledger` decides what they mean.

`read_ledger` gives the `StoredLedger` of a repository. A name belongs to its oldest link-valid
version (I4); what else stands there is a finding. So are signed statements beyond a hole, after a
second look: no thief with one key keeps others from reading. Statements are appended by
`append_statements`.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from vault.errors import (
    FormatError,
    IntegrityError,
    MissingObjectError,
    RepositoryNotFoundError,
    RollbackError,
    SignatureError,
)
from vault.ledger import pages
from vault.ledger.beyond import Beyond, findings_of, require_no_word
from vault.ledger.chain import Ledger
from vault.ledger.envelope import Head, parse_envelope, parse_statement
from vault.ledger.records import Record
from vault.ledger.remembered import Remembered
from vault.model import Code, Digest, Finding, Severity
from vault.repository.ledgerobjects import (
    AT_ONCE,
    PageLines,
    at_once,
    batches,
    by_name,
    fetch,
    plausible,
    stands_for,
)
from vault.storage.base import ObjectStore, ObjectVersion
from vault.storage.double_check import ask_twice
from vault.storage.names import LEDGER, ledger_name, parse_ledger_name

_log = logging.getLogger(__name__)

MAX_BEYOND: Final = 1_000  # names beyond the head that are looked at; the rest are counted
_LATEST: Final = datetime.max.replace(tzinfo=UTC)
MAX_JUNK_TOLD: Final = 100  # versions of junk that get a finding each

Vouched = Callable[[Ledger], int]  # statements of a ledger that a checkpoint vouches for

_Group = tuple[str, list[ObjectVersion]]


class StoredLedger:
    """The statements of one repository, as far as they were read from its store and link.

    Args:
        store: Where they are.
        ledger: Verified from its root as far as it was read; `refresh` links what follows.
        tolerant: For an audit: everything beyond the head is looked at, and nothing appended.
        findings: What was seen beside the statements that were read before.
        lines: Lines of pages that may stand for objects.
    """

    def __init__(
        self,
        store: ObjectStore,
        ledger: Ledger,
        *,
        tolerant: bool = False,
        findings: Sequence[Finding] = (),
        lines: PageLines | None = None,
    ) -> None:
        self.ledger = ledger
        self.tolerant = tolerant
        self.beyond: tuple[Beyond, ...] = ()  # signed, and in no chain
        self.by_line: int | None = None  # seq of the first statement that only a page still has
        self.knows_head = False  # a head that the ledger has is remembered here, or was given
        self.chosen: Head | None = None  # the history was chosen by this head, against the order
        self._store = store
        self._lines = lines or PageLines(store, 0)
        self._threads = at_once()
        self._paged = False  # whether a line was taken
        self._no_md5 = False  # the list's ETags are none: lines await what a checkpoint says
        self._unproven: dict[int, ObjectVersion] = {}  # by seq: what such a line stands for
        self._settled = list(findings)  # beside statements that are linked
        self._open: list[Finding] = []  # after the head
        self._left: Counter[str] = Counter()  # statements there, by the distrusted key
        self._named: set[Digest] = set()  # predecessors that the number behind a hole names

    @property
    def head(self) -> Head:
        """The newest statement."""
        assert self.ledger.head is not None
        return self.ledger.head

    @property
    def findings(self) -> list[Finding]:
        """What stands beside the statements in the store and should not."""
        return [*self._settled, *self._open]

    @property
    def used_pages(self) -> bool:
        """Whether lines of pages stand for objects in it."""
        return self._paged

    @property
    def unproven(self) -> int:
        """So many statements from the first rest on lines that nothing was compared with."""
        return max(self._unproven, default=-1) + 1

    def are_lines_right(self) -> bool:
        """Whether the objects are what such lines say: each is read."""
        records = self.ledger.records
        with self._threads:
            for batch in batches(iter(self._unproven.items()), AT_ONCE):
                read = fetch(self._store, [version for _, version in batch], self._threads)
                lines = [records[seq].envelope for seq, _ in batch]
                if read != lines:
                    return False
        return True

    def on(self, store: ObjectStore) -> "StoredLedger":
        """The same history, read on from another view of the same store."""
        other = StoredLedger(store, self.ledger, tolerant=self.tolerant, findings=self._settled)
        other._open = self._open
        other.beyond, other.by_line = self.beyond, self.by_line
        other.knows_head, other.chosen = self.knows_head, self.chosen
        return other

    def require_appending(self, kind: str) -> None:
        """Pass if a statement of that type may be appended to this history.

        Raises:
            RollbackError: A hole, or a history that was chosen, forbids it.
        """
        if self.chosen is not None:
            raise RollbackError(
                "nothing is appended to a history that --trust chose against the store's order",
                expected=self.chosen,
                hint="restore what you need from it; another history goes on at the store",
            )
        require_no_word(
            self.ledger, self.beyond, kind, knows_head=self.knows_head, by_line=self.by_line
        )

    def refresh(self) -> None:
        """Read and verify every statement that follows the head.

        A name belongs to its oldest link-valid version (I4); anything else at it
        is junk or a lost race, and reported. What looks like a hole, or no ledger at
        all, is looked at twice; then a page is asked for what is missing.

        Raises:
            ConfigError: A statement about keys is not understood.
        """
        known = len(self._settled)

        def follow() -> bool:
            if self.ledger.head is None:
                del self._settled[known:]
            self.beyond = tuple(self._follow())
            return not self.beyond and not self._named and self.ledger.head is not None

        with self._threads:
            ask_twice("ledger", follow, bool, is_list=True)
            while self._cross_hole():
                self.beyond = tuple(self._follow())
        self.ledger.left_beyond = dict(self._left)
        self._open += findings_of(self.ledger, self.beyond)

    # --- following the head ---

    def _follow(self) -> Iterator[Beyond]:
        """Link what the store lists after the head; then, what is signed and does not link."""
        self._open = []
        self._left.clear()
        self._named.clear()
        head = self.ledger.head
        listed = self._store.versions(LEDGER, after=ledger_name(head.seq) if head else "")
        looked_at = uncounted = size = 0
        for batch in batches(by_name(listed), AT_ONCE):
            first = self._fetch_first(batch) if looked_at < MAX_BEYOND or self.tolerant else {}
            for name, versions in batch:
                if name == ledger_name(self._next_seq()) and self._link_oldest(
                    name, versions, first.get(name)
                ):
                    continue
                looked_at += 1
                if looked_at > MAX_BEYOND and not self.tolerant:
                    uncounted += 1
                    size += sum(version.size for version in versions)
                    continue
                yield from self._look_beyond(name, versions, first.get(name))
        if uncounted:
            self._open.append(
                _junk("ledger", f"{uncounted} more names beyond the head", f"{size} bytes")
            )

    def _next_seq(self) -> int:
        return self.ledger.head.seq + 1 if self.ledger.head else 0

    def _fetch_first(self, batch: Sequence[_Group]) -> dict[str, bytes | None]:
        """The oldest version of each name that may be a statement, by name.

        A page's line stands for it where the list says that the bytes are the same; never the
        last one of a page, so that each page's end is read from an object.
        """
        found: dict[str, bytes | None] = {}
        wanted: list[ObjectVersion] = []
        expected = self._next_seq()
        for name, versions in batch:
            readable = plausible(versions)
            if not readable:
                continue
            line = self._line(expected) if name == ledger_name(expected) else None
            if line is not None and self._may_take(expected, line, readable):
                found[name] = line
                self._paged = True
            else:
                wanted.append(readable[0])
            expected += 1
        read = fetch(self._store, wanted, self._threads)
        return found | {each.name: data for each, data in zip(wanted, read, strict=True)}

    def _may_take(self, seq: int, line: bytes, readable: Sequence[ObjectVersion]) -> bool:
        """Whether a line stands for the oldest version that may be a statement.

        Where the list compares, it decides. Where its ETags are no MD5, which the pinned root
        shows, a line is taken for an only version of its length: a checkpoint must vouch for it.
        """
        if stands_for(line, readable[0]):
            return True
        is_alike = len(readable) == 1 and readable[0].size == len(line)
        if seq == 0 and is_alike and self._lines.for_checkpoint:
            self._no_md5 = digest_of(line) == self.ledger.pinned
        if not (is_alike and self._no_md5):
            return False
        self._unproven[seq] = readable[0]
        return True

    def _line(self, seq: int) -> bytes | None:
        is_last = (seq + 1) % pages.PAGE_LENGTH == 0
        return None if is_last else self._lines.line(seq)

    def _link_oldest(
        self, name: str, versions: Sequence[ObjectVersion], first: bytes | None
    ) -> bool:
        """Link the oldest link-valid version; False if there is none.

        Args:
            name: The next one of the ledger.
            versions: Of that name, oldest first.
            first: The bytes of the oldest one that may be a statement.
        """
        readable = plausible(versions)
        for batch in batches(iter(readable), AT_ONCE):
            data = [first] if batch[0] is readable[0] else []
            again: list[bytes | None] | None = None  # a bit may flip on the way
            for place, version in enumerate(batch):
                if place >= len(data):
                    data += fetch(self._store, batch[len(data) :], self._threads)
                if self._link(data[place], version):
                    self._tell_passed(name, versions, version)
                    return True
                again = again or fetch(self._store, batch, self._threads)
                if again[place] != data[place] and self._link(again[place], version):
                    self._tell_passed(name, versions, version)
                    return True
        return False

    def _link(self, envelope: bytes | None, version: ObjectVersion) -> bool:
        """Link the next statement; False if this is none."""
        if envelope is None:
            return False
        try:
            self.take(self._next_seq(), envelope, version)
        except IntegrityError as error:
            _log.debug("%s is not link-valid: %s", version.name, error)
            return False
        return True

    def _tell_passed(
        self, name: str, versions: Sequence[ObjectVersion], linked: ObjectVersion
    ) -> None:
        """Report the versions before the one that owns the name."""
        passed = versions[: versions.index(linked)]
        self._settled += _junk_findings(name, "junk version at a ledger name", passed)

    # --- holes ---

    def _look_beyond(
        self, name: str, versions: Sequence[ObjectVersion], first: bytes | None
    ) -> Iterator[Beyond]:
        """What of an unlinked name is signed; the rest is reported as junk."""
        seq = parse_ledger_name(name)
        readable = plausible(versions)
        signed: list[ObjectVersion] = []
        # any version at the next name may show that something before it was replaced, and any one
        # behind a hole what is missing
        is_near = seq is not None and seq <= self._next_seq() + 1
        count = len(readable) if self.tolerant or is_near else 1
        for batch in batches(iter(readable[:count]), AT_ONCE):
            data = [first] if batch == readable[:1] else fetch(self._store, batch, self._threads)
            for version, envelope in zip(batch, data, strict=True):
                if seq is None or envelope is None:
                    continue
                if seq == self._next_seq() + 1:
                    self._named |= _predecessors(envelope)
                candidate = self.ledger.signed_for(envelope, seq)
                if candidate is None:
                    distrusted = self.ledger.distrusted_signer(envelope, seq)
                    if distrusted is not None:
                        signed.append(version)
                        self._left[distrusted] += 1
                else:
                    signed.append(version)
                    yield Beyond(
                        name=name,
                        version=version.version,
                        modified=version.modified,
                        candidate=candidate,
                    )
        rest = [version for version in versions if version not in signed]
        self._open += _junk_findings(name, "junk at a ledger name", rest)

    def _cross_hole(self) -> bool:
        """Link the page's line of the missing number, if the statement after it names its digest.

        That a line stands in a page says nothing: it must link, and be named. Who signed the
        statement behind the hole may have been enrolled by the missing one.
        """
        seq = self._next_seq()
        line = PageLines(self._store).line(seq) if self._named else None
        if line is None or digest_of(line) not in self._named:
            return False
        try:
            self.take(seq, line, None)
        except IntegrityError as error:
            _log.debug("the line of statement %d does not link: %s", seq, error)
            return False
        return True

    def take(self, seq: int, envelope: bytes, version: ObjectVersion | None) -> None:
        """Link the next statement from what is known to be its bytes.

        Args:
            seq: The next one.
            envelope: Its bytes.
            version: Where they are; None where only a page has them.

        Raises:
            IntegrityError: It does not link.
        """
        if version is not None:
            self.ledger.link(
                envelope,
                version=version.version,
                modified=version.modified,
                is_dated=not version.in_parts,
            )
            return
        # what follows it says when it was stored at the latest
        self.ledger.link(envelope, version="", modified=_LATEST, is_dated=False)
        self.by_line = seq if self.by_line is None else self.by_line
        self._settled.append(
            Finding(
                severity=Severity.ERROR,
                subject=ledger_name(seq),
                problem="the statement is missing from the store; a page still has it",
                code=Code.MISSING,
            )
        )

    def find_owner(self, seq: int) -> tuple[Digest, str]:
        """The statement that owns a number in this store now, and its version: the oldest to link.

        Raises:
            MissingObjectError: Nothing that the store lists links there.
        """
        name, before = ledger_name(seq), self.ledger.up_to(seq)

        def ask() -> tuple[Digest, str] | None:
            for batch in batches(iter(plausible(self._store.versions_of(name))), AT_ONCE):
                read = fetch(self._store, batch, self._threads)
                for version, envelope in zip(batch, read, strict=True):
                    digest = _links(before, envelope)
                    if digest is not None:
                        return digest, version.version
            return None

        with self._threads:
            found = ask_twice(name, ask, bool)
        if found is None:
            raise MissingObjectError(f"{name} is missing", expected="a statement that links")
        return found

    def find_statement(self, record: Record) -> tuple[str, bytes]:
        """Where a statement is in this store, and its envelope there.

        Raises:
            MissingObjectError: Nowhere; nothing may be built on it.
        """
        name = ledger_name(record.seq)

        def ask() -> tuple[str, bytes] | None:
            for batch in batches(iter(plausible(self._store.versions_of(name))), AT_ONCE):
                read = fetch(self._store, batch, self._threads)
                for version, envelope in zip(batch, read, strict=True):
                    if envelope is not None and digest_of(envelope) == record.digest:
                        return version.version, envelope
            return None

        with self._threads:
            found = ask_twice(name, ask, bool)
        if found is None:
            raise MissingObjectError(f"{name} is missing", expected=f"version {record.version}")
        return found


def read_ledger(
    store: ObjectStore,
    root_digest: Digest,
    *,
    remembered: Remembered | None = None,
    tolerant: bool = False,
    vouched: Vouched | None = None,
) -> StoredLedger:
    """Every statement in the store, verified from the pinned root.

    Args:
        store: Where they are.
        root_digest: The pinned digest of statement 0.
        remembered: The ledger as it was verified here before: only what is new is read,
            if the store still has all of it.
        tolerant: As for `StoredLedger`; every statement is then read from its own object.
        vouched: How many statements of a ledger a checkpoint vouches for; asked only where pages
            are there and the store's list can't compare them.

    Raises:
        RepositoryNotFoundError: The store holds no ledger.
        IntegrityError: The ledger does not chain from the pinned root.
        VaultError: This program must not read the ledger.
    """
    history = None
    if remembered is not None:
        history = _resume(store, root_digest, remembered, tolerant=tolerant)
    if history is None:
        history = _read_all(store, root_digest, tolerant=tolerant, vouched=vouched)
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
    except IntegrityError as error:
        _log.info("the remembered ledger is not used: %s", error)
        return None
    if history.ledger.digest_at(head.seq) == head.digest and _has_version(history, head):
        return history
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


def _read_all(
    store: ObjectStore, root_digest: Digest, *, tolerant: bool, vouched: Vouched | None
) -> StoredLedger:
    """All statements, by pages where the list says that these have the objects' bytes.

    Where the list can't say, by pages whose statements a checkpoint vouches for.

    Two statements of one signer may have one MD5, so that a page shows the one and the object is
    the other: then the next line does not follow, and that page is not used.
    """
    most = 0 if tolerant else None  # an audit looks at every statement's object
    while True:
        ledger = Ledger(root_digest)
        lines = PageLines(store, most, for_checkpoint=vouched is not None)
        history = StoredLedger(store, ledger, tolerant=tolerant, lines=lines)
        history.refresh()
        is_whole = not history.beyond and history.by_line is None
        if history.unproven and vouched is not None:
            is_proven = vouched(ledger) >= history.unproven or history.are_lines_right()
            if is_whole and is_proven:
                return history
            most = 0
            continue
        if is_whole or not history.used_pages:
            return history
        ends = history.by_line if history.by_line is not None else len(ledger.records)
        most = max(ends - 1, 0) // pages.PAGE_LENGTH if most is None else 0


def _no_root(store: ObjectStore, root_digest: Digest) -> Exception:
    if not store.versions_of(ledger_name(0)):
        later = next(iter(store.names(LEDGER)), None)
        if later is not None:
            return MissingObjectError(
                f"statement 0 is missing from {store.url}",
                expected=f"0:{root_digest}",
                found=f"{later}, which nothing can be checked without it",
                hint="find out who removed it; put it back from a second copy, make nothing anew",
            )
        return RepositoryNotFoundError(
            f"no repository at {store.url}", hint="make one with 'vault init'"
        )
    return SignatureError(
        "the ledger does not begin with the pinned root",
        expected=f"0:{root_digest}",
        hint="this is another repository, or its first statement was replaced",
    )


def _junk_findings(name: str, problem: str, versions: Sequence[ObjectVersion]) -> Iterator[Finding]:
    """One for each of the first versions, one for all the others."""
    for version in versions[:MAX_JUNK_TOLD]:
        yield _junk(name, problem, version.version)
    rest = versions[MAX_JUNK_TOLD:]
    if rest:
        size = sum(version.size for version in rest)
        yield _junk(name, f"{problem}: {len(rest)} more versions", f"{size} bytes")


def _junk(subject: str, problem: str, found: str) -> Finding:
    return Finding(
        severity=Severity.WARNING,
        subject=subject,
        problem=problem,
        found=found,
        code=Code.JUNK_STATEMENT,
    )


def _links(before: Ledger, envelope: bytes | None) -> Digest | None:
    """The digest of a statement that links next; None of anything else."""
    try:
        return before.check(envelope).digest if envelope is not None else None
    except IntegrityError:
        return None


def _predecessors(envelope: bytes) -> set[Digest]:
    """The digest that a statement names as that of the one before it, if this is a statement."""
    try:
        prev = parse_statement(parse_envelope(envelope).payload).prev
    except FormatError:
        return set()
    return set() if prev is None else {prev}


def digest_of(envelope: bytes) -> Digest | None:
    """The identity of a statement; None of what is none."""
    try:
        return parse_envelope(envelope).digest
    except FormatError:
        return None
