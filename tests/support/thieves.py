"""Thieves as state machines: one with writer keys, and one who has the store in hand too.

Each acts between any two calls of the store while honest people append, read and revoke.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests.support.lab import Host, Lab
from tests.support.trees import files_of
from vault.audit import audit_repository
from vault.encoding import dumps, loads_strict
from vault.errors import LedgerMovedError, ObjectNotFoundError, RollbackError, VaultError
from vault.ledger import pages
from vault.ledger.envelope import Head, build_statement, parse_envelope, seal_envelope
from vault.ledger.records import Record, Status, WriterInfo
from vault.ledger.statements import HeartbeatBody
from vault.ledger.trust import HeadMemory
from vault.machine.workers import make_workers
from vault.model import Digest
from vault.repository.append_statements import Draft
from vault.repository.enrolment import revoke_writer
from vault.repository.opening import open_repository, open_to_audit
from vault.repository.repository import Repository
from vault.storage.base import ObjectStatus, ObjectVersion, names_of
from vault.storage.memory import FaultPoint, MemoryStore
from vault.storage.names import ledger_name, page_name, parse_ledger_name

LENGTH = 5  # statements of a page
ACTS = ("beyond", "next", "old", "fork", "page", "critical", "root", "junk")
OWNERS_ACTS = (*ACTS, "remove", "rot", "older", "older")


class Scene(RuleBasedStateMachine):
    """A repository, the thief's keys, and what the thief plants with them."""

    def __init__(self, lab: Lab, keys: int) -> None:
        super().__init__()
        self.lab = lab
        self.truth = lab.store  # in memory; what a thief shows may be less
        self.stolen = [lab.enrol(f"stolen{number}") for number in range(keys)]
        self.state = lab.base / "state"
        self.kept: list[Record] = []  # what honest people appended
        self.revoked: list[Host] = []

    def _opened(self, state: Path | None = None, *floors: Head) -> Repository:
        return open_repository(
            self.lab.store, self.lab.root, clock=self.lab.clock, state=state, floors=floors
        )

    def _beat(self, repository: Repository) -> Record:
        draft = Draft(
            type="heartbeat",
            subject=[("repository", self.lab.root)],
            body=HeartbeatBody(note="alive"),
        )
        return repository.append(lambda _: draft, [self.lab.host.key.signing], tool="t")

    def _revoke(self, repository: Repository, writer: WriterInfo) -> Record:
        return revoke_writer(
            repository,
            self.lab.root_key.enroller,
            writer,
            distrust_from=writer.added + 1,
            reason="stolen",
            tool="t",
        )

    def _between(self, honest: Callable[[], object], act: str, at: int, seed: int) -> None:
        """Run something honest; at one call of the store the thief acts first."""
        calls = 0

        def fault(point: FaultPoint) -> None:
            nonlocal calls
            calls += point.phase == "before"
            if point.phase == "before" and calls == at:
                self.truth.fault = None
                self._act(act, random.Random(seed))

        self.truth.fault = fault
        try:
            honest()
        finally:
            self.truth.fault = None

    def _act(self, act: str, draw: random.Random) -> None:
        repository = self.lab.open()
        key = draw.choice(self.stolen).key.signing
        head = repository.head
        if not head.seq:
            return  # there is nothing that a thief could follow
        wrong = Head(seq=head.seq, digest=Digest(bytes(32)))

        def says(seq: int, prev: Head, **changes: Any) -> bytes:
            payload = build_statement(
                type="heartbeat",
                repository=repository.ledger.repository_id,
                seq=seq,
                prev=prev,
                time=self.lab.clock(),
                tool="thief",
                subject=[("repository", self.lab.root)],
                body=HeartbeatBody(note=f"{draw.random()}"),
                by=[key.public.id],
            )
            fields = loads_strict(payload)
            fields["predicateType"] = changes.pop("kind", fields["predicateType"])
            fields["predicate"] |= changes
            return seal_envelope(dumps(fields), [key], limit=1 << 16)

        plant = self.truth.plant
        match act:
            case "beyond":
                seq = head.seq + draw.randint(1, 5)
                plant(ledger_name(seq), says(seq, wrong))
            case "next":
                plant(ledger_name(head.seq + 1), says(head.seq + 1, head))
            case "old":
                seq = draw.randint(1, head.seq)
                before = repository.ledger.records[seq - 1].head
                plant(ledger_name(seq), says(seq, before))
            case "critical":
                kind = "urn:vault:brick:v1"
                plant(ledger_name(head.seq + 1), says(head.seq + 1, head, kind=kind, critical=True))
            case "root":
                kind = draw.choice(["urn:vault:root:v2", "urn:vault:writer:v2"])
                plant(ledger_name(head.seq + 1), says(head.seq + 1, head, kind=kind))
            case "junk":
                seq = draw.randint(1, head.seq + 3)
                for _ in range(draw.randint(1, 40)):
                    plant(ledger_name(seq), draw.randbytes(draw.randint(1, 900)))
            case _:
                self._fork(repository, says, draw, with_objects=act == "fork")

    def _fork(
        self,
        repository: Repository,
        says: Callable[..., bytes],
        draw: random.Random,
        *,
        with_objects: bool,
    ) -> None:
        """Another history from some number on, in a page, and behind it as objects."""
        start = draw.randint(1, repository.head.seq)
        envelopes = [repository.log.envelope_of(each) for each in repository.ledger.records[:start]]
        prev = repository.ledger.records[start - 1].head
        while len(envelopes) % LENGTH or len(envelopes) <= start:
            envelopes.append(says(len(envelopes), prev))
            digest = parse_envelope(envelopes[-1]).digest
            prev = Head(seq=len(envelopes) - 1, digest=digest)
        number = len(envelopes) // LENGTH - 1
        page = pages.encode_page(envelopes[-LENGTH:])
        self.truth.plant(page_name(number), page)
        if with_objects:
            for seq in range(start, len(envelopes)):
                self.truth.plant(ledger_name(seq), envelopes[seq])
            following = len(envelopes)
            self.truth.plant(ledger_name(following), says(following, prev))


class Thief(Scene):
    """A thief of keys, and honest hosts with and without memory."""

    def __init__(self, lab: Lab, keys: int) -> None:
        super().__init__(lab, keys)
        self._note(self._opened(self.state))

    # --- honest people ---

    def _note(self, repository: Repository) -> None:
        self.known = repository.head

    @rule(act=st.sampled_from(ACTS), at=st.integers(1, 12), seed=st.integers(0, 999))
    def append(self, act: str, at: int, seed: int) -> None:
        """A host that remembers a head goes on, while the thief acts at some call."""

        def honest() -> None:
            repository = self._opened(self.state)
            try:
                self.kept.append(self._beat(repository))
            except LedgerMovedError:
                return  # the thief was quicker, forty times
            self._note(repository)

        self._between(honest, act, at, seed)
        self.check()

    @rule(act=st.sampled_from(ACTS), at=st.integers(1, 12), seed=st.integers(0, 999))
    def read(self, act: str, at: int, seed: int) -> None:
        """A reader without memory, while the thief acts."""
        self._between(lambda: self._opened().head, act, at, seed)
        self.check()

    @precondition(lambda self: len(self.revoked) < len(self.stolen))
    @rule(act=st.sampled_from(ACTS), at=st.integers(1, 12), seed=st.integers(0, 999))
    def revoke(self, act: str, at: int, seed: int) -> None:
        """The enroller, on a machine that remembers nothing."""
        host = self.stolen[len(self.revoked)]

        def honest() -> None:
            repository = self._opened()
            writer = repository.ledger.writers[host.key.signing.public.id]
            self.kept.append(self._revoke(repository, writer))

        self._between(honest, act, at, seed)
        self.revoked.append(host)
        self.check()

    # --- what must hold ---

    def check(self) -> None:
        """Cold and warm readers have all that honest people appended, and the known head."""
        for repository in (
            self._opened(),
            self._opened(self.state),
            self._opened(None, self.known),
        ):
            digests = [record.digest for record in repository.ledger.records]
            assert all(
                record.seq < len(digests) and digests[record.seq] == record.digest
                for record in self.kept
            )
            assert digests[self.known.seq] == self.known.digest
            repository.ledger.may_write("snapshot")
        if len(self.revoked) == len(self.stolen):
            fresh = self._opened()
            self.kept.append(self._beat(fresh))
            assert self.kept[-1].status is Status.VALID

    def teardown(self) -> None:
        """A head of a fork is never taken by who knows one."""
        real = self._opened()
        other = Head(seq=self.known.seq, digest=Digest(bytes(32)))
        with pytest.raises(RollbackError):
            self._opened(None, other)
        assert real.ledger.digest_at(self.known.seq) == self.known.digest


class Shown:
    """The store as its owner shows it: without the versions that are hidden."""

    def __init__(self, truth: MemoryStore) -> None:
        self._truth = truth
        self.hidden: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._truth, name)

    def _seen(self, listed: Iterable[ObjectVersion]) -> Iterator[ObjectVersion]:
        return iter([each for each in listed if each.version not in self.hidden])

    def versions(self, prefix: str, *, after: str = "") -> Iterator[ObjectVersion]:
        """See `ObjectStore`."""
        return self._seen(self._truth.versions(prefix, after=after))

    def versions_of(self, name: str) -> list[ObjectVersion]:
        """See `ObjectStore`."""
        return list(self._seen(self._truth.versions_of(name)))

    def names(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore`."""
        return names_of(self.versions(prefix))

    def get(self, name: str, version: str | None = None, **part: Any) -> bytes:
        """See `ObjectStore`."""
        self._require_shown(name, version)
        return self._truth.get(name, version, **part)

    def status(self, name: str, version: str) -> ObjectStatus:
        """See `ObjectStore`."""
        self._require_shown(name, version)
        return self._truth.status(name, version)

    def _require_shown(self, name: str, version: str | None) -> None:
        if version in self.hidden:
            raise ObjectNotFoundError(f"no object {name}", expected=version)


class StorageOwner(Scene):
    """A thief of keys in whose hands the store is: versions go, rot, or are not shown."""

    def __init__(self, lab: Lab, keys: int, source: Path) -> None:
        shown = Shown(lab.store)
        super().__init__(lab.with_store(shown), keys)
        self.truth = lab.store
        self.shown = shown
        self.source = source
        self.whole = 1_000_000  # statements below this number were left alone
        self.published = self.lab.snapshot(source).record
        self.kept.append(self.published)
        self._opened(self.state)

    # --- honest people ---

    @rule(act=st.sampled_from(OWNERS_ACTS), at=st.integers(1, 12), seed=st.integers(0, 999))
    def append(self, act: str, at: int, seed: int) -> None:
        """A host that remembers a head goes on, or refuses what its head is not in."""

        def honest() -> None:
            known = self._known()
            try:
                repository = self._opened(self.state)
                record = self._beat(repository)
            except LedgerMovedError:
                return  # the thief was quicker, forty times
            except VaultError:
                assert self.is_touched, "nothing was taken away or hidden"
                return
            assert repository.ledger.digest_at(known.seq) == known.digest
            if not self.is_touched:
                self.kept.append(record)

        self._between(honest, act, at, seed)
        self.check()

    @rule(act=st.sampled_from(OWNERS_ACTS), at=st.integers(1, 12), seed=st.integers(0, 999))
    def read(self, act: str, at: int, seed: int) -> None:
        """A reader without memory, while the thief acts."""
        self._between(lambda: self._opened().head, act, at, seed)
        self.check()

    @precondition(lambda self: len(self.revoked) < len(self.stolen))
    @rule(act=st.sampled_from(OWNERS_ACTS), at=st.integers(1, 12), seed=st.integers(0, 999))
    def revoke(self, act: str, at: int, seed: int) -> None:
        """The enroller, on a machine that remembers nothing: as far as its ledger has the host."""
        host = self.stolen[len(self.revoked)]

        def honest() -> None:
            repository = self._opened()
            writer = repository.ledger.writers.get(host.key.signing.public.id)
            if writer is None:
                assert self.is_touched
                return
            record = self._revoke(repository, writer)
            assert record.status is Status.VALID
            if not self.is_touched:
                self.kept.append(record)

        self._between(honest, act, at, seed)
        self.revoked.append(host)
        self.check()

    @rule()
    def show_all(self) -> None:
        """What was hidden is there again."""
        self.shown.hidden.clear()
        self.check()

    # --- what must hold ---

    @property
    def is_touched(self) -> bool:
        """Whether a version was ever taken away, changed or hidden."""
        return self.whole < 1_000_000

    def _known(self) -> Head:
        known = HeadMemory(self.state).recall(self.lab.root)
        assert known is not None
        return known

    def check(self) -> None:
        """What is there can be read; a reader who knows a head takes no other history."""
        cold = self._opened()
        digests = [record.digest for record in cold.ledger.records]
        for record in self.kept:
            if record.seq < self.whole:
                assert digests[record.seq] == record.digest
        known = self._known()
        for state, floors in ((self.state, ()), (None, (known,))):
            try:
                repository = self._opened(state, *floors)
            except RollbackError:
                assert self.is_touched
            else:
                assert repository.ledger.digest_at(known.seq) == known.digest
        audited, _ = open_to_audit(self.lab.store, self.lab.root, clock=self.lab.clock)
        with make_workers(0) as workers:
            audit_repository(audited, workers=workers)

    def teardown(self) -> None:
        """What was published before is restored, where its statement is still shown."""
        record = self.published
        if self._opened().ledger.digest_at(record.seq) == record.digest:
            target = self.lab.base / "target"
            self.lab.restore(record, target)
            assert files_of(target) == files_of(self.source)

    # --- the thief ---

    def _act(self, act: str, draw: random.Random) -> None:
        there = [each for each in self.truth.versions("ledger/") if each.name != ledger_name(0)]
        match act:
            case "remove" | "rot":
                taken = draw.choice(there)
                self._touch(parse_ledger_name(taken.name))
                if act == "remove":
                    self.truth.remove(taken.name, taken.version)
                else:
                    data = bytearray(self.truth.get(taken.name, taken.version))
                    data[draw.randrange(len(data))] ^= 1
                    self.truth.corrupt(taken.name, taken.version, bytes(data))
            case "older":
                last = draw.randint(1, len({each.name for each in there}))
                hidden = [each for each in there if each.name > ledger_name(last)]
                self.shown.hidden |= {each.version for each in hidden}
                for each in hidden:
                    self._touch(parse_ledger_name(each.name))
            case _:
                super()._act(act, draw)

    def _touch(self, seq: int | None) -> None:
        if seq is not None:
            self.whole = min(self.whole, seq)
