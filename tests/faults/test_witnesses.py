"""Logs and witnesses against thieves: of the store, of the log's key, of one witness."""

import dataclasses
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Lab
from tests.support.trees import MakeSource
from tests.support.witnesses import Council, beat, cut, govern, make_council
from vault.crypto.keys import SigningKey, WitnessKey
from vault.errors import RollbackError, SignatureError
from vault.ledger.checkpoints import Standing
from vault.ledger.statements import HeartbeatBody
from vault.ledger.witness_policy import parse_witness_policy
from vault.model import Code, Digest
from vault.repository.checkpoints import MAX_JUNK
from vault.repository.opening import Acceptance, open_repository, open_to_audit
from vault.repository.repository import Repository
from vault.repository.sign_checkpoints import attach_cosignatures, sign_checkpoint
from vault.repository.vouching import WitnessWish
from vault.storage.memory import FaultPoint, MemoryStore
from vault.storage.names import CHECKPOINTS, checkpoint_name


@pytest.fixture
def council(lab: Lab) -> Council:
    """One log, one witness."""
    return make_council(lab)


@pytest.fixture
def two_of_three(lab: Lab) -> Council:
    """One log, three witnesses of whom two must cosign."""
    return make_council(lab, 3, quorum=2)


def opened(lab: Lab, **options: Any) -> Repository:
    """As a machine that knows the root alone; warnings are dropped."""
    return open_repository(
        lab.store, lab.root, clock=lab.clock, **{"warn": lambda _: None, **options}
    )


def standing(lab: Lab, **options: Any) -> Standing:
    """What checkpoints say of the ledger, to an auditor."""
    repository, _ = open_to_audit(lab.store, lab.root, clock=lab.clock, **options)
    return repository.witnessed.standing


def requests(lab: Lab) -> Counter[str]:
    """What one start asks of the store."""
    asked: Counter[str] = Counter()

    def note(point: FaultPoint) -> None:
        if point.phase == "before":
            asked[f"{point.operation} {point.name.partition('/')[0]}"] += 1

    store: MemoryStore = lab.store.copy(fault=note)
    opened(lab.with_store(store))
    return asked


# --- costs ---


def test_a_repository_without_witnesses_makes_no_request_more(lab: Lab) -> None:
    """Nothing is listed and nothing read; the control: with a witness, one list and one read."""
    plain = requests(lab)
    govern(lab, None)  # one more statement, no witness
    assert not [each for each in requests(lab) if "checkpoint" in each]
    council = make_council(lab)
    for _ in range(3):
        council.checkpoint()
        beat(lab)
    council.checkpoint()
    more = requests(lab)
    assert more.pop("versions checkpoint") == 1
    assert more.pop("get checkpoint") == 1
    assert set(more) == set(plain)


def test_a_warm_start_lists_from_the_last_size_that_counted(
    lab: Lab, council: Council, tmp_path: Path
) -> None:
    """Older checkpoints are not listed again."""
    council.checkpoint()
    beat(lab)
    newest = council.checkpoint()
    opened(lab, state=tmp_path)
    asked: list[str] = []
    store = lab.store.copy()
    listing = store.versions

    def versions(prefix: str, *, after: str = "") -> Any:
        asked.append(after)
        return listing(prefix, after=after)

    store.versions = versions
    opened(lab.with_store(store), state=tmp_path)
    assert asked[-1] == f"{CHECKPOINTS}{newest.size:016d}"


# --- what is concluded ---


def test_a_ledger_that_its_witnesses_have_seen_is_vouched_for(lab: Lab, council: Council) -> None:
    """Also what was appended since; by when, it says."""
    council.checkpoint()
    seen = lab.clock()
    lab.clock.advance(hours=1)
    beat(lab)
    found = opened(lab).witnessed
    assert (found.standing, found.vouches) == (Standing.VOUCHED, True)
    assert found.checkpoint is not None
    assert found.checkpoint.time == seen


def test_a_cut_history_is_truncated(lab: Lab, council: Council) -> None:
    """By a machine that knows the root alone; the control: without the checkpoint it goes on."""
    council.checkpoint()
    beat(lab)
    kept = lab.open().head
    note = council.checkpoint()
    cut(lab, 1)
    with pytest.raises(RollbackError, match="truncated"):
        opened(lab)
    assert standing(lab) is Standing.TRUNCATED
    (version,) = lab.store.versions_of(checkpoint_name(note.size, Digest.of(note.encode())))
    lab.store.remove(version.name, version.version)
    assert opened(lab).head.seq == kept.seq - 1


def test_a_log_s_note_of_a_longer_ledger_may_mean_that_it_was_cut(
    lab: Lab, council: Council
) -> None:
    """No key need be stolen for that; of as many statements, the note is of another history."""
    beat(lab)
    digests = [each.digest for each in lab.open().ledger.records]
    council.store(council.note(digests))
    cut(lab, 1)
    (longer,) = opened(lab).witnessed.stray()
    assert "more statements than the ledger has" in longer.problem
    assert "the ledger was cut, or the key may be stolen" in longer.problem
    assert longer.expected == f"at most {len(digests) - 1} statements"
    beat(lab, "forged")
    (other,) = opened(lab).witnessed.stray()
    assert "signed another history, and too few witnesses did: the key may be" in other.problem


def test_another_history_is_forked(lab: Lab, council: Council) -> None:
    """What a thief of the store and of a host's key puts in the place of the end."""
    beat(lab, "honest")
    council.checkpoint()
    cut(lab, 1)
    beat(lab, "forged")
    with pytest.raises(RollbackError, match="forked"):
        opened(lab)
    assert standing(lab) is Standing.FORKED


def test_a_history_that_no_witness_saw_lately_is_frozen(lab: Lab, council: Council) -> None:
    """One line for who opens it; it refuses nothing."""
    council.checkpoint()
    lab.clock.advance(hours=25)
    assert standing(lab) is Standing.VOUCHED
    lab.clock.advance(seconds=1)
    told: list[str] = []
    found = opened(lab, warn=told.append).witnessed
    assert found.standing is Standing.FROZEN
    assert len(told) == 1
    assert "frozen" in told[0]
    assert not found.vouches


def test_a_slow_clock_does_not_hide_that_a_history_is_frozen(lab: Lab, council: Council) -> None:
    """What the store dated later counts as well."""
    council.checkpoint()
    early = lab.clock()
    lab.clock.advance(hours=26)
    beat(lab)
    slow = open_repository(lab.store, lab.root, clock=lambda: early, warn=lambda _: None)
    assert slow.witnessed.standing is Standing.FROZEN


def test_what_no_witness_has_seen_is_unwitnessed(lab: Lab, council: Council) -> None:
    """A warning; a refusal where one is required."""
    council.store(council.note())
    told: list[str] = []
    assert opened(lab, warn=told.append).witnessed.standing is Standing.UNWITNESSED
    assert "unwitnessed" in told[0]
    with pytest.raises(RollbackError, match="unwitnessed"):
        opened(lab, witnesses=WitnessWish(required=True))


def test_a_root_without_witnesses_has_none_to_require(lab: Lab) -> None:
    """A client that requires one says so; others say nothing."""
    assert opened(lab).witnessed.standing is Standing.UNASKED
    with pytest.raises(RollbackError, match="lists no witness"):
        opened(lab, witnesses=WitnessWish(required=True))


def test_a_checkpoint_that_was_made_meanwhile_is_of_no_shorter_ledger(
    lab: Lab, council: Council
) -> None:
    """What was appended and logged between two questions is read before anything is said."""
    council.checkpoint()
    store = lab.store.copy()
    other = lab.with_store(store)

    def strike(point: FaultPoint) -> None:
        if (point.operation, point.name, point.phase) == ("versions", CHECKPOINTS, "before"):
            store.fault = None
            beat(other)
            dataclasses.replace(council, lab=other).checkpoint()

    store.fault = strike
    found = opened(other)
    assert found.witnessed.standing is Standing.VOUCHED
    assert found.head.seq == lab.open().head.seq + 1


# --- what counts ---


@pytest.mark.parametrize(("by", "vouched"), [((0,), False), ((0, 0), False), ((0, 2), True)])
def test_a_quorum_of_two_needs_two_witnesses(
    lab: Lab, two_of_three: Council, by: tuple[int, ...], *, vouched: bool
) -> None:
    """One that signs twice is one."""
    note = two_of_three.cosign(two_of_three.note(), by[0])
    late = lab.clock() + timedelta(minutes=1)
    two_of_three.store(two_of_three.cosign(note, *by, now=late))
    assert (standing(lab) is Standing.VOUCHED) is vouched


def test_lines_of_equal_text_are_united(lab: Lab, two_of_three: Council) -> None:
    """Each witness's answer may lie in an object of its own."""
    note = two_of_three.note()
    two_of_three.store(two_of_three.cosign(note, 0))
    assert standing(lab) is Standing.UNWITNESSED
    two_of_three.store(two_of_three.cosign(note, 1))
    assert standing(lab) is Standing.VOUCHED


def test_the_time_of_a_checkpoint_is_that_by_which_a_quorum_had_seen_it(
    lab: Lab, two_of_three: Council
) -> None:
    """One witness with a fast clock does not make it young."""
    start = lab.clock()
    note = two_of_three.cosign(two_of_three.note(), 0, now=start)
    note = two_of_three.cosign(note, 1, now=start + timedelta(hours=2))
    two_of_three.store(note)
    lab.clock.advance(hours=2)
    found = opened(lab).witnessed.checkpoint
    assert found is not None
    assert found.time == start
    two_of_three.store(two_of_three.cosign(note, 2, now=start + timedelta(hours=1)))
    found = opened(lab).witnessed.checkpoint
    assert found is not None
    assert found.time == start + timedelta(hours=1)


@pytest.mark.parametrize(("minutes", "vouched"), [(5, True), (6, False)])
def test_a_cosignature_from_the_future_does_not_count(
    lab: Lab, council: Council, minutes: int, *, vouched: bool
) -> None:
    """Over five minutes beyond the client's clock."""
    council.checkpoint(now=lab.clock() + timedelta(minutes=minutes))
    assert (standing(lab) is Standing.VOUCHED) is vouched


def test_keys_that_are_no_longer_listed_count_for_nothing(lab: Lab, council: Council) -> None:
    """The next root has another log and another witness: old checkpoints are junk."""
    council.checkpoint()
    new = make_council(lab)
    assert standing(lab) is Standing.UNWITNESSED
    new.checkpoint()
    assert standing(lab) is Standing.VOUCHED


def test_neither_log_nor_witness_may_be_of_another_root(lab: Lab, council: Council) -> None:
    """An old log's key with a new witness, a new log's with an old witness."""
    new = make_council(lab)
    for log, witnesses in ((council.log, new.witnesses), (new.log, council.witnesses)):
        mixed = Council(lab=lab, log=log, witnesses=witnesses)
        mixed.checkpoint()
        assert standing(lab) is Standing.UNWITNESSED


def test_a_pinned_policy_counts_in_place_of_the_root(lab: Lab, council: Council) -> None:
    """A root that drops its witnesses does not please who pinned them."""
    council.checkpoint()
    pinned = WitnessWish(pinned=parse_witness_policy(council.policy()))
    assert opened(lab, witnesses=pinned).witnessed.standing is Standing.VOUCHED
    cut_away = lab.fork(lab.base / "fork")
    govern(cut_away, None)
    assert standing(cut_away) is Standing.UNASKED
    with_log = parse_witness_policy(f"log {council.log_vkey}\n{council.policy()}")
    found = standing(cut_away, witnesses=WitnessWish(pinned=with_log))
    assert found is Standing.VOUCHED
    lab.clock.advance(days=2)
    found = standing(cut_away, witnesses=WitnessWish(pinned=with_log))
    assert found is Standing.FROZEN


# --- junk ---


def test_junk_is_passed_over_up_to_a_limit(lab: Lab, council: Council) -> None:
    """Ninety-nine objects that no log signed; with a hundred it is said, and nothing stops."""
    council.checkpoint()
    for number in range(MAX_JUNK - 1):
        data = b"junk %d" % number
        lab.store.plant(checkpoint_name(10**15 + number, Digest.of(data)), data)
    assert standing(lab) is Standing.VOUCHED
    lab.store.plant(checkpoint_name(10**15 + MAX_JUNK, Digest.of(b"more")), b"more")
    found = opened(lab).witnessed
    assert found.standing is Standing.UNWITNESSED
    assert "too much junk" in found.problem


def test_an_object_under_a_wrong_name_is_junk(lab: Lab, council: Council) -> None:
    """A note at the name of another size or digest, or at no name of a checkpoint."""
    note = council.cosign(council.note())
    data = note.encode()
    for name in (
        checkpoint_name(note.size + 1, Digest.of(data)),
        checkpoint_name(note.size, Digest.of(b"other")),
        f"{CHECKPOINTS}{note.size}/{Digest.of(data)}",
        f"{CHECKPOINTS}x",
    ):
        lab.store.plant(name, data)
    assert standing(lab) is Standing.UNWITNESSED
    council.store(note)
    assert standing(lab) is Standing.VOUCHED


def test_many_notes_of_a_stolen_log_key_hide_a_checkpoint_and_stop_nothing(
    lab: Lab, council: Council
) -> None:
    """They are read up to a limit, which the reader reports."""
    council.checkpoint()
    digests = [record.digest for record in lab.open().ledger.records]
    for extra in range(1, 40):
        council.store(council.note([*digests, *[Digest.of(b"x")] * extra]))
    found = opened(lab).witnessed
    assert found.standing is Standing.VOUCHED
    codes = [each.code for each in found.findings()]
    assert codes == [Code.CHECKPOINT] * 39


# --- thieves ---


def test_a_thief_of_the_log_s_key_alone_stops_nobody(lab: Lab, council: Council) -> None:
    """A note of another history is a finding; commands go on, and the root can be changed."""
    council.checkpoint()
    digests = [Digest.of(b"forged")] * 9
    council.store(council.note(digests))
    found = opened(lab).witnessed
    assert found.standing is Standing.VOUCHED
    assert [each.code for each in found.findings()] == [Code.CHECKPOINT]
    new = make_council(lab)
    assert standing(lab) is Standing.UNWITNESSED
    new.checkpoint()
    found = opened(lab).witnessed
    assert (found.standing, found.findings()) == (Standing.VOUCHED, [])


def test_one_lying_witness_stops_nobody(lab: Lab, two_of_three: Council) -> None:
    """It cosigns what no log signed, or what the stolen log key signed; one is no quorum."""
    digests = [Digest.of(b"forged")] * 9
    stranger = dataclasses.replace(two_of_three, log=SigningKey.generate())
    two_of_three.store(stranger.cosign(stranger.note(digests), 0))
    two_of_three.store(two_of_three.cosign(two_of_three.note(digests), 0))
    two_of_three.checkpoint(1, 2)
    assert opened(lab).witnessed.standing is Standing.VOUCHED


def test_a_stolen_log_key_with_a_blind_witness_is_ended_by_the_next_root(
    lab: Lab, council: Council, make_source: MakeSource, tmp_path: Path
) -> None:
    """All is readable with --accept-head, the root is changed, and the new log is cosigned."""
    lab.snapshot(make_source())
    council.checkpoint()
    forged = council.cosign(council.note([Digest.of(b"forged")] * 9))
    council.store(forged)
    with pytest.raises(RollbackError, match="truncated"):
        opened(lab)
    state = tmp_path / "state"
    told: list[str] = []
    wish = Acceptance(
        head=lab.open().head, writer=lambda _: lab.host.key.signing, tool="t", done=lambda: None
    )
    repository = opened(lab, state=state, acceptance=wish, warn=told.append)
    assert "accepted" in told[0]
    body = repository.ledger.records[-1].body
    assert isinstance(body, HeartbeatBody)
    digest = Digest.of(forged.encode())
    assert body.note.endswith(f"evidence/{digest}")
    assert repository.read_evidence(digest) == forged.encode()
    assert lab.contents(repository.ledger.snapshots()[0])
    opened(lab, state=state)  # it was accepted: this machine goes on
    with pytest.raises(RollbackError):
        opened(lab)  # the control: another machine asks anew
    new = make_council(lab)
    new.checkpoint()
    assert opened(lab).witnessed.standing is Standing.VOUCHED


def test_an_acceptance_holds_for_one_contradiction_only(
    lab: Lab, council: Council, tmp_path: Path
) -> None:
    """The next one is refused again."""
    council.store(council.cosign(council.note([Digest.of(b"forged")] * 9)))
    wish = Acceptance(
        head=lab.open().head, writer=lambda _: lab.host.key.signing, tool="t", done=lambda: None
    )
    opened(lab, state=tmp_path, acceptance=wish)
    opened(lab, state=tmp_path)
    council.store(council.cosign(council.note([Digest.of(b"forged")] * 10)))
    with pytest.raises(RollbackError):
        opened(lab, state=tmp_path)


# --- the log ---


def test_the_log_signs_what_may_be_remembered_and_stores_what_is_due(
    lab: Lab, council: Council
) -> None:
    """When the ledger grew, and when the last note is older than a quarter of the age."""
    first = sign_checkpoint(lab.open(), council.log, state=None)
    assert first.stored
    assert not sign_checkpoint(lab.open(), council.log, state=None).stored
    lab.clock.advance(seconds=90_000 // 4 - 1)
    assert not sign_checkpoint(lab.open(), council.log, state=None).stored
    lab.clock.advance(seconds=1)
    assert sign_checkpoint(lab.open(), council.log, state=None).stored == first.stored
    beat(lab)
    grown = sign_checkpoint(lab.open(), council.log, state=None)
    assert (grown.note.size, bool(grown.stored)) == (first.note.size + 1, True)


def test_a_note_over_a_head_that_loses_its_race_is_never_made(
    make_repository: Any, clock: Any
) -> None:
    """Where order is not settled, the head is signed ten minutes later, or with a successor."""
    store = MemoryStore(clock=clock, orders_versions_by_commit=False)
    lab = make_repository(store=store, name="unordered")
    council = make_council(lab)
    clock.advance(minutes=11)
    beat(lab, "may lose its race")
    head = lab.open().head
    signed = sign_checkpoint(lab.open(), council.log, state=None)
    assert signed.note.size == head.seq  # one less than the ledger has
    clock.advance(minutes=10)
    assert sign_checkpoint(lab.open(), council.log, state=None).note.size == head.seq + 1
    ordered = make_repository(name="ordered")
    council = make_council(ordered)
    beat(ordered)
    whole = sign_checkpoint(ordered.open(), council.log, state=None)
    assert whole.note.size == ordered.open().head.seq + 1  # the control: order is settled


def test_a_log_never_signs_two_histories(lab: Lab, council: Council) -> None:
    """Its own notes in the store tell, though no witness has cosigned them."""
    beat(lab, "honest")
    sign_checkpoint(lab.open(), council.log, state=None)
    cut(lab, 1)
    with pytest.raises(RollbackError, match="another history"):
        sign_checkpoint(lab.open(), council.log, state=None)
    beat(lab, "forged")
    with pytest.raises(RollbackError, match="another history"):
        sign_checkpoint(lab.open(), council.log, state=None)


def test_a_key_that_is_no_log_signs_no_note(lab: Lab, council: Council) -> None:
    """Of another role, and of the log before."""
    for key in (lab.root_key.root, lab.host.key.signing, SigningKey.generate()):
        with pytest.raises(SignatureError, match="role log"):
            sign_checkpoint(lab.open(), key, state=None)
    make_council(lab)
    with pytest.raises(SignatureError, match="role log"):
        sign_checkpoint(lab.open(), council.log, state=None)


def test_a_log_key_is_not_listed_for_linking(lab: Lab, council: Council) -> None:
    """It lies on a cron machine, and could fill the ledger."""
    assert council.log.public.id not in lab.open().ledger.keys


def test_what_witnesses_gave_back_is_stored_united(lab: Lab, two_of_three: Council) -> None:
    """Two files of two people; what is no line of theirs is left out."""
    signed = sign_checkpoint(lab.open(), two_of_three.log, state=None)
    stranger = dataclasses.replace(two_of_three, witnesses=(WitnessKey.generate(),))
    first = two_of_three.cosign(stranger.cosign(signed.note), 1)
    lab.clock.advance(minutes=1)
    assert not attach_cosignatures(lab.open(), first, state=None).counts
    second = two_of_three.cosign(signed.note, 2)
    lab.clock.advance(minutes=1)
    done = attach_cosignatures(lab.open(), second, state=None)
    assert (done.counts, sorted(done.cosigned)) == (True, ["w1", "w2"])
    assert len(done.note.signatures) == 3
    again = sign_checkpoint(lab.open(), two_of_three.log, state=None)
    assert again.cosigned_size == signed.note.size
    assert requests(lab)["get checkpoint"] == 1


@pytest.mark.parametrize("what", ["no log", "no witness", "other history", "longer"])
def test_only_cosigned_notes_of_this_ledger_are_attached(
    lab: Lab, council: Council, what: str
) -> None:
    """Else a reader would pay for what counts for nothing."""
    stranger = dataclasses.replace(council, log=SigningKey.generate())
    digests = [record.digest for record in lab.open().ledger.records]
    note = {
        "no log": stranger.cosign(stranger.note()),
        "no witness": council.note(),
        "other history": council.cosign(council.note([*digests[:-1], Digest.of(b"x")])),
        "longer": council.cosign(council.note([*digests, Digest.of(b"x")])),
    }[what]
    with pytest.raises((SignatureError, RollbackError)):
        attach_cosignatures(lab.open(), note, state=None)
    assert list(lab.store.versions(CHECKPOINTS)) == []


def test_the_tree_is_over_remembered_digests(lab: Lab, council: Council) -> None:
    """A ledger that was remembered gives the same root as one that was read anew."""
    for _ in range(70):
        beat(lab)
    note = council.checkpoint()
    warm = lab.warmed()
    warm.open()
    repository = warm.open()
    assert any(not record.envelope for record in repository.ledger.records)
    signed = sign_checkpoint(repository, council.log, state=None)
    assert signed.note.root == note.root


def test_a_fork_from_before_a_removal_is_told_by_a_pinned_policy(
    lab: Lab, council: Council
) -> None:
    """The old keys are listed there still; who pinned the new witnesses is not deceived."""
    beat(lab)
    old = lab.fork(lab.base / "old")
    new = make_council(lab)
    new.checkpoint()
    stolen = dataclasses.replace(council, lab=old)
    beat(old, "forged")
    stolen.checkpoint()
    assert standing(old) is Standing.VOUCHED
    pinned = WitnessWish(pinned=parse_witness_policy(new.policy()), required=True)
    with pytest.raises(RollbackError):
        opened(old, witnesses=pinned)
