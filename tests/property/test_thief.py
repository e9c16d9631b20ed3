"""A thief with one or two writer keys, who acts between any two calls of the store.

Whatever is planted: every reader has what honest hosts published, a host that remembers a head goes
on, the keys are revoked, and a reader that knows a head takes no other history.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.support.lab import Host, Lab, MakeRepository
from vault.encoding import dumps, loads_strict
from vault.errors import LedgerMovedError, RollbackError, VaultError
from vault.ledger import pages
from vault.ledger.beyond import Beyond
from vault.ledger.envelope import Head, build_statement, parse_envelope, seal_envelope
from vault.ledger.keyring import Keyring
from vault.ledger.records import Record, Status
from vault.ledger.statements import HeartbeatBody
from vault.model import Digest, LockMode
from vault.repository import read_statements
from vault.repository.append_statements import Draft
from vault.repository.enrolment import revoke_writer
from vault.repository.ledgerobjects import plausible
from vault.repository.opening import open_repository
from vault.repository.read_statements import StoredLedger
from vault.repository.repository import Repository
from vault.storage.memory import FaultPoint
from vault.storage.names import ledger_name, page_name

LENGTH = 5  # statements of a page
MODEST = settings(deadline=None, max_examples=25, stateful_step_count=12, print_blob=True)
ACTS = ("beyond", "next", "old", "fork", "page", "critical", "root", "junk")


def _stop(*_: object) -> Iterator[Beyond]:
    raise RollbackError("a statement stands beyond a gap")


class Thief(RuleBasedStateMachine):
    """A repository, honest hosts with and without memory, and the thief."""

    def __init__(self, lab: Lab, keys: int) -> None:
        super().__init__()
        self.lab = lab
        self.stolen = [lab.enrol(f"stolen{number}") for number in range(keys)]
        self.state = lab.base / "state"
        self.kept: list[Record] = []  # what honest hosts appended
        self.revoked: list[Host] = []
        self._note(self._opened(self.state))

    # --- honest people ---

    def _opened(self, state: Path | None = None, *floors: Head) -> Repository:
        return open_repository(
            self.lab.store, self.lab.root, clock=self.lab.clock, state=state, floors=floors
        )

    def _note(self, repository: Repository) -> None:
        self.known = repository.head

    def _beat(self, repository: Repository) -> Record:
        draft = Draft(
            type="heartbeat",
            subject=[("repository", self.lab.root)],
            body=HeartbeatBody(note="alive"),
        )
        return repository.append(lambda _: draft, [self.lab.host.key.signing], tool="t")

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
            record = revoke_writer(
                repository,
                self.lab.root_key.enroller,
                writer,
                distrust_from=writer.added + 1,
                reason="stolen",
                tool="t",
            )
            self.kept.append(record)

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

    # --- the thief ---

    def _between(self, honest: Callable[[], object], act: str, at: int, seed: int) -> None:
        """Run something honest; at one call of the store the thief acts first."""
        calls = 0

        def fault(point: FaultPoint) -> None:
            nonlocal calls
            calls += point.phase == "before"
            if point.phase == "before" and calls == at:
                self.lab.store.fault = None
                self._act(act, random.Random(seed))

        self.lab.store.fault = fault
        try:
            honest()
        finally:
            self.lab.store.fault = None

    def _act(self, act: str, draw: random.Random) -> None:
        repository = self.lab.open()
        key = draw.choice(self.stolen).key.signing
        head = repository.head
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

        plant = self.lab.store.plant
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
        envelopes = [self.lab.store.get(ledger_name(n)) for n in range(start)]
        prev = repository.ledger.records[start - 1].head
        while len(envelopes) % LENGTH or len(envelopes) <= start:
            envelopes.append(says(len(envelopes), prev))
            digest = parse_envelope(envelopes[-1]).digest
            prev = Head(seq=len(envelopes) - 1, digest=digest)
        number = len(envelopes) // LENGTH - 1
        page = pages.encode_page(envelopes[-LENGTH:])
        self.lab.store.plant(page_name(number), page)
        if with_objects:
            for seq in range(start, len(envelopes)):
                self.lab.store.plant(ledger_name(seq), envelopes[seq])
            following = len(envelopes)
            self.lab.store.plant(ledger_name(following), says(following, prev))


@pytest.fixture
def run(make_repository: MakeRepository, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs the machine with a thief of so many keys."""
    monkeypatch.setattr(pages, "PAGE_LENGTH", LENGTH)
    count = iter(range(1_000_000))

    def start(keys: int, how: settings = MODEST) -> None:
        def machine() -> Thief:
            return Thief(make_repository(LockMode.NONE, name=f"lab{next(count)}"), keys)

        run_state_machine_as_test(machine, settings=how)  # type: ignore[arg-type]  # any factory

    return start


@pytest.mark.parametrize("keys", [1, 2])
def test_no_thief_of_writer_keys_stops_or_fools_anybody(
    run: Callable[..., None], keys: int
) -> None:
    """Whatever it plants, and whenever."""
    run(keys)


GUARDS: dict[str, tuple[object, str, object]] = {
    "critical counts from anybody": (Keyring, "governs", lambda *_: True),
    "a hole stops reading": (StoredLedger, "_look_beyond", _stop),
    "the newest version owns a name": (
        read_statements,
        "plausible",
        lambda each: plausible(each)[::-1],
    ),
}


@pytest.mark.parametrize("guard", GUARDS)
def test_without_a_guard_the_thief_is_found_out(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch, guard: str
) -> None:
    """The control: the same machine fails where one rule is taken out."""
    owner, name, instead = GUARDS[guard]
    monkeypatch.setattr(owner, name, instead)
    with pytest.raises((AssertionError, VaultError, BaseExceptionGroup)):
        run(1, settings(MODEST, phases=[Phase.generate], report_multiple_bugs=False))
