"""What is read: nobody who appends can choose a sample, and slices in turn reach every pack."""

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.clock import from_rfc3339
from vault.custody.sampling import (
    NO_PACKS,
    NONCE_SIZE,
    SLICES,
    WHOLE,
    Sample,
    choose_sample,
    coverage,
    draw,
    draw_again,
    next_slice,
    slice_of,
)
from vault.errors import ConfigError
from vault.ledger.chain import Ledger
from vault.ledger.records import Record, Status
from vault.ledger.statements import (
    Counts,
    HeartbeatBody,
    InventoryRef,
    SnapshotBody,
    TreeRef,
    VerificationBody,
)
from vault.ledger.succession import snapshot_ranges
from vault.model import Body, Digest, LockMode, replace_body

START = datetime(2030, 1, 1, tzinfo=UTC)
NONCE = bytes(range(NONCE_SIZE))
OTHERS = ["inventory/" + "ab" * 32, "domains/default/" + "cd" * 32]


def _pack(number: int) -> str:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return f"packs/{digest[:2]}/{digest}"


PACKS = [_pack(number) for number in range(2000)]


class History:
    """A ledger as it grows, without a store."""

    def __init__(self) -> None:
        self.ledger = Ledger(None)
        self.now = START
        self.heartbeat()

    def link(self, kind: str, body: Body) -> Record:
        """One more statement."""
        seq = len(self.ledger.records)
        record = Record(
            seq=seq,
            digest=Digest.of(f"{seq} {kind} {self.now}".encode()),
            type=kind,
            status=Status.VALID,
            reason="",
            body=body,
            by=(),
            key_id="",
            time=self.now,
            modified=self.now,
            version="v",
            envelope=b"",
            critical=False,
        )
        self.ledger.relink(record)
        return record

    def heartbeat(self) -> None:
        """What anybody who may append can append."""
        self.link("heartbeat", HeartbeatBody(note="alive"))

    def snapshot(self) -> Record:
        """One more snapshot that is owed for ever."""
        body = SnapshotBody(
            dataset="www",
            created=self.now,
            complete=True,
            counts=Counts(),
            tree=TreeRef(id="00" * 32, level=0, commitment="00" * 32),
            inventory=InventoryRef(sha256="00" * 32, size=1, version="v", objects=1, bytes=1),
            mode=LockMode.NONE,
            until=from_rfc3339("2099-01-01T00:00:00Z"),
        )
        return self.link("snapshot", body)

    def verify(
        self, records: Sequence[Record], sample: Sample, *, verdict: str = "partial", share: int = 1
    ) -> Record:
        """A verification of these snapshots, now."""
        body = VerificationBody(
            verdict=verdict,
            snapshots=snapshot_ranges(self.ledger.records, {record.seq for record in records}),
            started=self.now,
            finished=self.now,
            attestation="00" * 32,
            share=1_000_000 if sample.is_whole else share,
            slice=sample.slice,
            nonce=sample.nonce.hex(),
            opened=True,
            read=1,
            through=len(self.ledger.records) - 1,
        )
        return self.link("verification", body)

    @property
    def owed(self) -> list[Record]:
        """Every snapshot."""
        return self.ledger.snapshots()

    def run(self, verdict: str = "partial") -> int:
        """What cron does: verify the slice whose turn it is; returns which."""
        sample = next_slice(self.ledger, self.owed)
        assert sample.slice is not None
        self.verify(self.owed, sample, verdict=verdict)
        return sample.slice[0]

    def happen(self, event: str) -> None:
        """One of the things that others do meanwhile; nothing, if it is none of them."""
        newest = self.owed[-1:]
        drawn = draw(0.5, ledger=self.ledger, nonce=NONCE)
        events: dict[str, Callable[[], object]] = {
            "whole": lambda: self.verify(self.owed, WHOLE, verdict="passed"),
            "sample": lambda: self.verify(self.owed, drawn),
            "one": lambda: self.verify(newest, WHOLE),
            "one-slice": lambda: self.verify(newest, Sample(slice=(7, SLICES))),
            "failed": lambda: self.run("failed"),
            "snapshot": self.snapshot,
            "beat": self.heartbeat,
        }
        if event in events:
            events[event]()


# --- samples ---


def test_the_rule_of_the_format() -> None:
    """Lowest SHA-256 of domain, head, nonce and name; so many as the share asks for, rounded up."""
    head = Digest.of(b"head")

    def rank(name: str) -> bytes:
        return hashlib.sha256(b"vault/sample/v1" + head + NONCE + name.encode()).digest()

    expected = sorted(PACKS, key=rank)
    for share, count in [(0.05, 100), (0.0501, 101), (0.00001, 1), (1.0, 2000)]:
        chosen = choose_sample(PACKS, share, head=head, nonce=NONCE)
        assert set(chosen) == set(expected[:count])
    assert choose_sample([], 0.5, head=head, nonce=NONCE) == []


def test_what_is_no_pack_is_always_read() -> None:
    """Inventories, domain objects, and names that no honest writer gives."""
    history = History()
    names = [*PACKS, *OTHERS, "packs/zz/not-a-pack", "packs/ab"]
    part = Sample(slice=(3, SLICES))
    for sample in (draw(0.05, ledger=history.ledger, nonce=NONCE), NO_PACKS, part):
        chosen = sample.choose(names)
        assert chosen.issuperset(set(names) - set(PACKS))
        assert len(chosen) < len(names) / 5
    assert WHOLE.choose(names) == set(names)


def test_the_nonce_chooses_and_not_the_ledger_alone() -> None:
    """Same head, other nonce: another sample; the same of both: the same sample."""
    history = History()
    first = draw(0.05, ledger=history.ledger, nonce=NONCE)
    assert first.choose(PACKS) == draw(0.05, ledger=history.ledger, nonce=NONCE).choose(PACKS)
    other = draw(0.05, ledger=history.ledger, nonce=bytes(NONCE_SIZE))
    assert first.choose(PACKS) != other.choose(PACKS)
    history.heartbeat()
    assert first.choose(PACKS) != draw(0.05, ledger=history.ledger, nonce=NONCE).choose(PACKS)


def test_who_appends_cannot_grind_a_sample() -> None:
    """Heartbeats until a guessed nonce would miss the bad packs do not make the real one miss them.

    The control: with a nonce that he knows, some hundred heartbeats are enough.
    """
    bad = set(PACKS[:20])
    history = History()
    for _ in range(1000):
        history.heartbeat()
        if not bad & draw(0.05, ledger=history.ledger, nonce=NONCE).choose(PACKS):
            break
    else:
        pytest.fail("the control found no such head")
    nonces = [hashlib.sha256(bytes([n])).digest()[:NONCE_SIZE] for n in range(100)]
    seen = sum(
        bool(bad & draw(0.05, ledger=history.ledger, nonce=nonce).choose(PACKS)) for nonce in nonces
    )
    assert 45 <= seen <= 80  # 64 of 100 are to be expected


def test_a_seed_draws_the_same_again() -> None:
    """At a named head, at the head of a recorded verification of that nonce, else at this one."""
    history = History()
    records = [history.snapshot()]
    first = draw(0.05, ledger=history.ledger, nonce=NONCE)
    chosen = first.choose(PACKS)
    assert first.seed == f"{NONCE.hex()}@1"
    assert draw_again(0.05, ledger=history.ledger, seed=NONCE.hex()).choose(PACKS) == chosen
    history.verify(records, first)
    history.heartbeat()
    for seed in (NONCE.hex(), first.seed):
        assert draw_again(0.05, ledger=history.ledger, seed=seed).choose(PACKS) == chosen
    for bad in ("", "ab", "AB" * 16, f"{NONCE.hex()}@", f"{NONCE.hex()}@99", f"{NONCE.hex()}@01"):
        with pytest.raises(ConfigError):
            draw_again(0.05, ledger=history.ledger, seed=bad)


def test_all_is_not_drawn() -> None:
    """Nothing is left to chance, so there is no seed."""
    assert draw(1.0, ledger=History().ledger, nonce=NONCE) == WHOLE
    assert WHOLE.seed == NO_PACKS.seed == ""


# --- slices ---


def test_the_slice_of_a_pack() -> None:
    """The first four bytes of its id, big-endian, modulo N; all slices together are all packs."""
    assert slice_of("packs/00/0000001f" + "ff" * 28) == 1
    assert slice_of("packs/ff/ffffffff" + "00" * 28) == 0xFFFFFFFF % 30
    parts = [Sample(slice=(part, SLICES)).choose(PACKS) for part in range(SLICES)]
    assert sum(map(len, parts)) == len(PACKS)
    assert set().union(*parts) == set(PACKS)


@pytest.mark.parametrize("days", [1, 2, 3, 5, 7, 30])
def test_a_cron_of_any_period_reads_every_slice(days: int) -> None:
    """Thirty runs read all, also monthly; by the date a monthly run would see one for ever."""
    history = History()
    history.snapshot()
    seen = []
    for _ in range(2 * SLICES):
        history.now += timedelta(days=days)
        history.snapshot()
        seen.append(history.run())
    assert seen == [*range(SLICES), *range(SLICES)]
    state = coverage(history.ledger, history.owed)
    assert state.since == history.now - timedelta(days=days * (SLICES - 1))
    assert state.is_complete


@settings(max_examples=60, deadline=None)
@given(
    before=st.lists(
        st.sampled_from(["whole", "sample", "one", "one-slice", "failed", "snapshot", "beat"]),
        max_size=25,
    ),
    between=st.lists(
        st.sampled_from(["sample", "one", "one-slice", "snapshot", "beat", "none"]),
        min_size=SLICES,
        max_size=SLICES,
    ),
    verdicts=st.lists(st.sampled_from(["partial", "failed"]), min_size=SLICES, max_size=SLICES),
)
def test_thirty_runs_read_every_slice_whatever_else_happens(
    before: list[str], between: list[str], verdicts: list[str]
) -> None:
    """Other verifications, snapshots, failures: none of them makes a slice wait for ever."""
    history = History()
    history.snapshot()

    def happen(event: str) -> None:
        history.now += timedelta(hours=1)
        history.happen(event)

    for event in before:
        happen(event)
    history.snapshot()
    history.snapshot()  # one-slice is of one of several
    began = history.now
    seen = set()
    for event, verdict in zip(between, verdicts, strict=True):
        happen(event)
        seen.add(history.run(verdict))
    assert seen == set(range(SLICES))
    state = coverage(history.ledger, history.owed)
    assert state.since is not None
    assert state.since >= began


def test_a_damaged_slice_does_not_hold_up_the_others() -> None:
    """A pack that a lock keeps fails its slice for ever; the other slices must still be read."""
    history = History()
    history.snapshot()
    assert [history.run("failed") for _ in range(SLICES)] == list(range(SLICES))


# --- coverage ---


def test_coverage_says_since_when_and_up_to_which_snapshot() -> None:
    """Nothing while one slice was never read; then the oldest reading counts."""
    history = History()
    history.snapshot()
    assert coverage(history.ledger, history.owed).unread == SLICES
    for _ in range(SLICES - 1):
        history.now += timedelta(days=1)
        history.run()
    state = coverage(history.ledger, history.owed)
    assert (state.unread, state.since, state.through) == (1, None, None)
    history.now += timedelta(days=1)
    history.snapshot()
    history.run()
    state = coverage(history.ledger, history.owed)
    assert state.since == START + timedelta(days=1)
    assert state.through == 1  # the first slice was read before the second snapshot was there
    history.now += timedelta(days=1)
    history.verify(history.owed, WHOLE, verdict="passed")
    assert coverage(history.ledger, history.owed).since == history.now


def test_a_verification_of_one_snapshot_covers_no_others() -> None:
    """Nor does a sample, or a slice of another number, or a heal that read nothing."""
    history = History()
    first, second = history.snapshot(), history.snapshot()
    for part in range(SLICES):
        history.verify([second], Sample(slice=(part, SLICES)))
        history.verify([first, second], Sample(slice=(part, 31)))
    history.verify([second], WHOLE, verdict="passed")
    history.verify([first, second], draw(0.9, ledger=history.ledger, nonce=NONCE))
    history.verify([first, second], NO_PACKS, share=0)
    assert coverage(history.ledger, [first, second]).unread == SLICES
    assert coverage(history.ledger, [second]).is_complete


def test_a_claimed_time_is_never_later_than_the_stores() -> None:
    """A statement that says it was begun tomorrow covers no more than the store's time says."""
    history = History()
    history.snapshot()
    record = history.verify(history.owed, WHOLE, verdict="passed")
    assert isinstance(record.body, VerificationBody)
    tomorrow = history.now + timedelta(days=1)
    history.link("verification", replace_body(record.body, started=tomorrow, finished=tomorrow))
    assert coverage(history.ledger, history.owed).since == history.now


def test_what_is_not_borne_out_covers_nothing() -> None:
    """Of a slice the last verification that is believed counts."""
    history = History()
    history.snapshot()
    honest = history.verify(history.owed, WHOLE, verdict="passed")
    history.now += timedelta(days=5)
    history.verify(history.owed, WHOLE, verdict="passed")
    assert coverage(history.ledger, history.owed).since == history.now
    state = coverage(history.ledger, history.owed, lambda record: record is honest)
    assert state.since == START
    assert coverage(history.ledger, history.owed, lambda _: False).unread == SLICES
