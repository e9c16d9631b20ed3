"""What the ledger says of the newest snapshot of a dataset, and of no other."""

import dataclasses
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.errors import (
    DigestMismatchError,
    LocalError,
    MissingObjectError,
    RollbackError,
    StorageUnavailableError,
    WrongKeyError,
)
from vault.ledger.records import Record
from vault.ledger.statements import VerificationBody
from vault.model import Digest, replace_body
from vault.repository import attestations
from vault.repository.append_statements import Draft
from vault.repository.dataset_status import (
    Cited,
    DatasetStatus,
    Trouble,
    called_bad,
    sound,
    status_of,
)
from vault.repository.datasets import owed
from vault.repository.repository import Repository, snapshot_body


@pytest.fixture
def lab(make_repository: MakeRepository, make_source: MakeSource) -> Lab:
    """The same source twice as one dataset, once as another."""
    made: Lab = make_repository()
    source = make_source()
    made.snapshot(source)
    made.clock.advance(days=1)
    made.snapshot(source)
    made.snapshot(source, dataset="other")
    return made


def state_of(lab: Lab, dataset: str = "data") -> DatasetStatus:
    """How it stands now."""
    repository = lab.open()
    return status_of(repository.ledger, dataset, lab.clock(), Cited(repository))


def seqs(lab: Lab, dataset: str = "data") -> list[int]:
    """Its snapshots."""
    return [record.seq for record in lab.open().ledger.snapshots(dataset)]


def say(lab: Lab, *arguments: Any, **claims: Any) -> int:
    """Attest an event of one or several snapshots; gives its number."""
    return lab.say(*arguments, **claims)


def pack_of(lab: Lab, seq: int) -> str:
    """The id of a pack that a snapshot needs."""
    repository = lab.open()
    objects = repository.inventory(repository.ledger.records[seq]).objects
    return next(ref.name for ref in objects if ref.name.startswith("packs/")).rpartition("/")[2]


def test_status_of_a_dataset(lab: Lab) -> None:
    """Its newest complete snapshot and its age."""
    lab.clock.advance(hours=5)
    state = state_of(lab)
    assert (state.snapshots, state.owed, state.incomplete) == (2, 2, None)
    assert state.newest == lab.open().ledger.snapshots("data")[-1]
    assert state.age == timedelta(hours=5)
    assert state.verification is state.restore is None
    assert state.troubles() == set()


def test_an_incomplete_snapshot_is_not_the_newest(lab: Lab) -> None:
    """It is told beside the newest complete one, until a complete one follows."""
    source = lab.base.parent / "source"
    _incomplete(lab, source)
    state = state_of(lab)
    assert state.newest is not None
    assert state.incomplete is not None
    assert state.newest.seq < state.incomplete.seq
    assert state.troubles() == {Trouble.INCOMPLETE}
    lab.snapshot(source)
    assert state_of(lab).incomplete is None


def _incomplete(lab: Lab, source: Path) -> None:
    """A snapshot that says of itself that something could not be read."""
    real = Repository.append

    def append(self: Repository, draft: object, *arguments: object, **options: object) -> object:
        assert callable(draft)

        def flawed(ledger: object) -> object:
            made = draft(ledger)
            return dataclasses.replace(made, body=replace_body(made.body, complete=False))

        return real(self, flawed, *arguments, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Repository, "append", append)
        lab.snapshot(source)


def test_a_failed_check_of_an_incomplete_snapshot_counts(lab: Lab) -> None:
    """It is what a restore of the newest would take."""
    _incomplete(lab, lab.base.parent / "source")
    say(lab, "verification", seqs(lab)[-1], "failed")
    assert state_of(lab).troubles() == {Trouble.FAILED, Trouble.INCOMPLETE}


def test_a_dataset_without_snapshots_has_no_state(lab: Lab) -> None:
    """Nothing is made up; and nothing is no snapshot young enough."""
    state = state_of(lab, "nobody")
    assert (state.snapshots, state.newest, state.age) == (0, None, None)
    assert state.troubles(timedelta(days=1)) == {Trouble.OBJECTIVE}


def test_an_age_that_was_asked_for(lab: Lab) -> None:
    """Of the newest complete snapshot, to the second."""
    lab.clock.advance(hours=26)
    state = state_of(lab)
    assert state.troubles(timedelta(hours=26)) == set()
    assert state.troubles(timedelta(hours=26) - timedelta(seconds=1)) == {Trouble.OBJECTIVE}


def test_claims_beyond_what_is_allowed_buy_no_time(lab: Lab) -> None:
    """Who holds a writer key can neither be the youngest for good nor be owed for ever."""
    _publish(lab, created="2099-01-01T00:00:00Z", until="2099-01-01T00:00:00Z")
    ledger = lab.open().ledger
    forged = ledger.snapshots("data")[-1]
    lab.clock.advance(days=300)
    assert state_of(lab).age == timedelta(days=300)
    assert owed(ledger, [forged], lab.clock()) == [forged]
    lab.clock.advance(days=102)
    assert owed(ledger, [forged], lab.clock()) == []


def test_an_event_that_ends_in_the_future_ended_when_it_was_stored(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be the last proof for good."""
    monkeypatch.setattr(
        "vault.repository.attestations.to_rfc3339", lambda _: "2099-01-01T00:00:00Z"
    )
    say(lab, "drill", seqs(lab)[-1])
    state = state_of(lab)
    assert state.restore is not None
    assert state.restore.finished == lab.clock()


def _publish(lab: Lab, **changes: object) -> None:
    """The newest snapshot again, with another claim."""
    repository = lab.open()
    body = replace_body(snapshot_body(repository.ledger.snapshots("data")[-1]), **changes)
    draft = Draft(type="snapshot", subject=[("x", Digest(bytes(32)))], body=body)
    repository.append(lambda _: draft, [lab.host.key.signing], tool="t")


# --- about the newest, or it names which ---


def test_a_check_of_an_older_snapshot_says_nothing_of_the_newest(lab: Lab) -> None:
    """A failure of the newest stands whatever passes elsewhere afterwards."""
    old, new = seqs(lab)
    failed = [say(lab, "verification", new, "failed"), say(lab, "drill", new, "failed")]
    for kind in ("verification", "drill", "restore"):
        say(lab, kind, old)
    state = state_of(lab)
    assert state.verification is not None
    assert state.restore is not None
    assert [state.verification.seq, state.restore.seq] == failed
    assert [check.seq for check in state.failures] == failed
    assert state.troubles() == {Trouble.FAILED}


def test_where_nothing_is_said_of_the_newest_an_older_one_is_named(lab: Lab) -> None:
    """With its number; and its failure is not one of the newest."""
    old, _ = seqs(lab)
    say(lab, "verification", old, "failed")
    say(lab, "restore", old)
    state = state_of(lab)
    assert state.verification is not None
    assert state.restore is not None
    assert (state.verification.snapshot, state.verification.verdict) == (old, "failed")
    assert (state.restore.snapshot, state.restore.verdict) == (old, "passed")
    assert state.troubles() == set()


def test_events_of_one_dataset_say_nothing_of_another(lab: Lab) -> None:
    """Nor does one of everything say something of what was stored later."""
    say(lab, "drill", seqs(lab, "other")[-1])
    say(lab, "verification", [*seqs(lab), *seqs(lab, "other")])
    lab.snapshot(lab.base.parent / "source", dataset="late")
    assert state_of(lab).restore is None
    assert state_of(lab).verification is not None
    assert state_of(lab, "late").verification is None


# --- what takes what back ---


@pytest.mark.parametrize(
    ("later", "stands"),
    [
        ({"verdict": "passed"}, False),
        ({"verdict": "passed", "share": 999_999}, True),
        ({"verdict": "partial", "share": 50_000, "nonce": "0" * 32}, True),
        ({"verdict": "passed", "slice": (0, 30), "share": 1_000_000}, True),
        ({"verdict": "passed", "opened": False}, True),
        ({"verdict": "partial", "share": 0}, True),
    ],
)
def test_only_a_whole_pass_takes_a_failure_back(
    lab: Lab, *, later: dict[str, Any], stands: bool
) -> None:
    """Not a sample, not a slice, not one that only hashed ciphertext."""
    new = seqs(lab)[-1]
    say(lab, "verification", new, "failed")
    verdict = later.pop("verdict")
    say(lab, "verification", new, verdict, **later)
    assert (state_of(lab).troubles() == {Trouble.FAILED}) is stands


def test_a_sample_replaces_no_whole_check(lab: Lab) -> None:
    """What is shown is the whole one; a sample that finds something is a failure all the same."""
    new = seqs(lab)[-1]
    sample: dict[str, Any] = {"share": 50_000, "nonce": "0" * 32}
    first = say(lab, "verification", new, "partial", **sample)
    shown = state_of(lab).verification
    assert shown is not None
    assert (shown.seq, shown.share) == (first, 50_000)
    whole = say(lab, "verification", new)
    say(lab, "verification", new, "partial", **sample)
    shown = state_of(lab).verification
    assert shown is not None
    assert (shown.seq, shown.verdict) == (whole, "passed")
    bad = say(lab, "verification", new, "failed", **sample)
    shown = state_of(lab).verification
    assert shown is not None
    assert (shown.seq, shown.verdict) == (bad, "failed")


def test_hashing_takes_back_what_hashing_found(lab: Lab) -> None:
    """A failure without keys goes with a pass without keys."""
    new = seqs(lab)[-1]
    say(lab, "verification", new, "failed", opened=False)
    assert state_of(lab).troubles() == {Trouble.FAILED}
    say(lab, "verification", new, "passed", opened=False)
    assert state_of(lab).troubles() == set()


def test_a_restore_of_a_part_replaces_no_whole_one(lab: Lab) -> None:
    """Nor does it take back a failure."""
    new = seqs(lab)[-1]
    whole = say(lab, "restore", new)
    say(lab, "restore", new, "partial")
    shown = state_of(lab).restore
    assert shown is not None
    assert shown.seq == whole
    say(lab, "drill", new, "failed")
    say(lab, "restore", new, "partial")
    assert state_of(lab).troubles() == {Trouble.FAILED}
    say(lab, "restore", new)
    assert state_of(lab).troubles() == set()


@pytest.mark.parametrize("kind", ["restore", "drill"])
def test_what_says_nothing_of_the_snapshot_is_no_failure(lab: Lab, kind: str) -> None:
    """A full disk, a store that was away: the last proof stays what it was."""
    new = seqs(lab)[-1]
    say(lab, kind, new, "inconclusive")
    assert state_of(lab).restore is None
    passed = say(lab, kind, new)
    say(lab, kind, new, "inconclusive")
    shown = state_of(lab).restore
    assert shown is not None
    assert (shown.seq, shown.verdict) == (passed, "passed")


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (DigestMismatchError("wrong bytes"), "failed"),
        (MissingObjectError("missing"), "failed"),
        (LocalError("disk full"), "inconclusive"),
        (StorageUnavailableError("timed out"), "inconclusive"),
        (WrongKeyError("another key"), "inconclusive"),
        (RollbackError("older history"), "inconclusive"),
    ],
)
def test_which_failures_are_about_the_snapshot(error: Any, verdict: str) -> None:
    """Only what is not what was signed."""
    assert attestations.verdict_of(error) == verdict


# --- what an audit repeats ---


def _called_bad(lab: Lab) -> dict[int, tuple[int, str]]:
    """By snapshot, the check that stands against it and its kind."""
    repository = lab.open()
    found = called_bad(repository.ledger, repository.ledger.snapshots(), Cited(repository))
    return {seq: (check.seq, check.type) for seq, check in found.items()}


@pytest.mark.parametrize("kind", ["verification", "restore", "drill"])
@pytest.mark.parametrize(
    ("later", "stands"),
    [
        (("verification", "passed", {}), False),
        (("restore", "passed", {}), False),
        (("drill", "passed", {}), False),
        (("verification", "passed", {"opened": False}), True),
        (("verification", "passed", {"share": 999_999}), True),
        (("verification", "passed", {"slice": (0, 30)}), True),
        (("verification", "partial", {"share": 50_000, "nonce": "0" * 32}), True),
        (("verification", "inconclusive", {"share": 0, "opened": False}), True),
        (("restore", "partial", {}), True),
        (("restore", "inconclusive", {}), True),
    ],
)
def test_a_snapshot_that_a_check_found_wrong_is_so_until_all_of_it_was_opened_and_is_right(
    lab: Lab, *, kind: str, later: tuple[str, str, dict[str, Any]], stands: bool
) -> None:
    """By a restore, a drill or a verification: restorers sign them all. Control: one before."""
    new = seqs(lab)[-1]
    of, verdict, claims = later
    say(lab, of, new, verdict, **claims)
    assert _called_bad(lab) == {}
    failed = say(lab, kind, new, "failed")
    assert _called_bad(lab) == {new: (failed, kind)}
    say(lab, of, new, verdict, **claims)
    assert _called_bad(lab) == ({new: (failed, kind)} if stands else {})


def test_the_last_failure_is_the_one_that_stands(lab: Lab) -> None:
    """Of one snapshot; another one of the dataset takes nothing back."""
    old, new = seqs(lab)
    say(lab, "restore", new, "failed")
    last = say(lab, "verification", new, "failed")
    say(lab, "restore", old)
    assert _called_bad(lab) == {new: (last, "verification")}


# --- several snapshots at once ---


def test_a_failure_over_several_concerns_those_it_names(lab: Lab) -> None:
    """By the attestation's list of snapshots, else by the packs that it names."""
    everything = [*seqs(lab), *seqs(lab, "other")]
    hit = {"hits": [{"snapshot": seqs(lab, "other")[-1]}], "hit_count": 1}
    say(lab, "verification", everything, "failed", details=hit)
    assert state_of(lab).troubles() == set()
    assert state_of(lab, "other").troubles() == {Trouble.FAILED}


def test_a_failure_over_several_that_names_nothing_concerns_all(lab: Lab) -> None:
    """Where it can't be told, it does."""
    everything = [*seqs(lab), *seqs(lab, "other")]
    say(lab, "verification", everything, "failed", details={"hits": [], "hit_count": 2})
    assert state_of(lab).troubles() == state_of(lab, "other").troubles() == {Trouble.FAILED}


def test_a_bad_pack_concerns_every_snapshot_that_needs_it(
    lab: Lab, make_source: MakeSource
) -> None:
    """Also those taken afterwards, and whoever it was that found it; until it is read right."""
    lab.snapshot(make_source("third", seed=9), dataset="third")
    pack = pack_of(lab, seqs(lab)[0])
    say(lab, "restore", seqs(lab, "other")[-1], "failed", bad=[pack])
    lab.snapshot(lab.base.parent / "source")
    repository = lab.open()
    facts = Cited(repository)
    records = repository.ledger.records
    needing = [seq for seq in seqs(lab) if pack in _packs(lab, records[seq])]
    assert seqs(lab)[0] in needing
    for seq in seqs(lab):
        assert sound(repository.ledger, records[seq], facts) is (seq not in needing)
    assert state_of(lab, "third").troubles() == set()
    say(lab, "restore", seqs(lab, "other")[-1], "passed", cleared=[pack])
    repository = lab.open()
    assert sound(repository.ledger, repository.ledger.records[seqs(lab)[0]], Cited(repository))


def test_a_whole_pass_takes_back_more_bad_packs_than_a_statement_names(lab: Lab) -> None:
    """A statement clears 24; a later whole verification of the snapshot read them all."""
    new = seqs(lab)[-1]
    say(lab, "verification", new, "failed", bad=[pack_of(lab, new)])
    say(lab, "verification", new)
    assert pack_of(lab, new) in lab.open().ledger.bad_packs()
    assert state_of(lab).troubles() == set()


def _packs(lab: Lab, record: Record) -> set[str]:
    objects = lab.open().inventory(record).objects
    return {ref.name.rpartition("/")[2] for ref in objects if ref.name.startswith("packs/")}


# --- who is believed ---


def junk(lab: Lab, kind: str, about: int, verdict: str, data: bytes) -> int:
    """An event that cites bytes of no attestation."""
    from vault.ledger.statements import EventBody

    lab.clock.advance(minutes=1)
    repository = lab.open()
    digest = repository.put_evidence(data)
    now = lab.clock()
    body: Any
    if kind == "verification":
        body = VerificationBody(
            verdict=verdict,
            snapshots=((about, about),),
            started=now,
            finished=now,
            attestation=str(digest),
            share=1_000_000,
            opened=True,
            read=1,
            through=repository.head.seq,
        )
    else:
        body = EventBody(
            verdict=verdict,
            snapshot=about,
            started=now,
            finished=now,
            attestation=str(digest),
        )
    draft = Draft(type=kind, subject=[(f"evidence/{digest}", digest)], body=body)
    return repository.append(lambda _: draft, [lab.recovery.restorer], tool="test").seq


@pytest.mark.parametrize("kind", ["restore", "drill", "verification"])
@pytest.mark.parametrize("source", ["junk", "another", "missing"])
def test_an_event_whose_attestation_is_none_is_not_believed(
    lab: Lab, kind: str, source: str
) -> None:
    """Not as passed where nothing else is said, nor over a failure; why is told."""
    new = seqs(lab)[-1]
    failed = say(lab, kind, new, "failed")
    data = b"no envelope at all"
    if source == "another":  # a real one, of another event
        cited = Digest.parse(lab.open().ledger.records[failed].body.attestation)  # type: ignore[union-attr]
        data = lab.open().read_evidence(cited)
    forged = junk(lab, kind, new, "passed", data)
    if source == "missing":
        digest = Digest.of(data)
        for item in list(lab.store.versions(f"evidence/{digest}")):
            lab.store.remove(item.name, item.version)
    repository = lab.open()
    facts = Cited(repository)
    state = status_of(repository.ledger, "data", lab.clock(), facts)
    assert [check.seq for check in state.failures] == [failed]
    assert [finding.subject for finding in facts.findings] == [f"ledger {forged}"]


def test_a_forged_failure_stands_against_nothing(lab: Lab) -> None:
    """Whoever signs as restorer must attest what he says."""
    new = seqs(lab)[-1]
    passed = say(lab, "verification", new)
    junk(lab, "verification", new, "failed", b"junk")
    shown = state_of(lab).verification
    assert shown is not None
    assert (shown.seq, shown.verdict) == (passed, "passed")


def test_what_is_not_opened_any_more_is_not_believed_to_be_good(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of junk events buy no green screen."""
    monkeypatch.setattr("vault.repository.dataset_status.BUDGET", 3)
    new = seqs(lab)[-1]
    failed = say(lab, "verification", new, "failed")
    say(lab, "verification", new)
    for number in range(5):
        junk(lab, "verification", new, "passed", b"junk %d" % number)
    repository = lab.open()
    facts = Cited(repository)
    state = status_of(repository.ledger, "data", lab.clock(), facts)
    assert [check.seq for check in state.failures] == [failed]
    assert len(facts.findings) == 3
