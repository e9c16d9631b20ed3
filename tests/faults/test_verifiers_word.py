"""The word of a verifier on packs: how far it reaches, and who takes it back.

A verifier reads without a decryption key, often on a machine that many use; what it says may cost
uploads, and must neither hide a restorer's word nor outlive its key.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli import called_bad
from tests.support.lab import Lab
from tests.support.trees import MakeSource
from tests.support.verifiers import distrust, list_verifier, say_bad
from vault.crypto.keys import Signer, SigningKey
from vault.ledger.envelope import build_statement, seal_envelope
from vault.ledger.records import Record, Status
from vault.ledger.statements import Role, StatementType, VerificationBody
from vault.model import Digest
from vault.repository import bad_packs, concerned_snapshots
from vault.storage.names import is_pack, ledger_name

OTHERS = [f"{number:064x}" for number in range(40)]  # packs that nothing needs


@pytest.fixture
def source(make_source: MakeSource) -> Path:
    """What is backed up."""
    return make_source(files=2)


@pytest.fixture
def first(lab: Lab, source: Path) -> Record:
    """A snapshot."""
    return lab.snapshot(source).record


@pytest.fixture
def verifier(lab: Lab, first: Record) -> SigningKey:
    """Its key; listed after the snapshot."""
    return list_verifier(lab.open(), lab.root_key)


def say(lab: Lab, key: Signer, first: Record, **said: Any) -> int:
    """Its word on packs; the number of the statement."""
    lab.clock.advance(minutes=1)
    return say_bad(lab.open(), key, lab.clock, [(first.seq, first.seq)], **said).seq


def words(lab: Lab) -> dict[str, int]:
    """Packs that are called bad, and by which statement."""
    return {pack: word.seq for pack, word in bad_packs.words(lab.open()).items()}


def packs_of(lab: Lab, record: Record) -> list[str]:
    """Ids of what a snapshot needs."""
    objects = lab.open().inventory(record).objects
    return sorted(str(ref.sha256) for ref in objects if is_pack(ref.name))


def test_of_a_verifier_only_the_names_in_its_statement_count(
    lab: Lab, first: Record, verifier: SigningKey
) -> None:
    """24 of 30; of a restorer those in its evidence, too."""
    seq = say(lab, verifier, first, bad=OTHERS[:30])
    assert words(lab) == dict.fromkeys(OTHERS[:24], seq)
    again = say(lab, lab.recovery.restorer, first, bad=OTHERS[:30])
    assert words(lab) == dict.fromkeys(OTHERS[:30], again)


def test_other_keys_take_no_room_of_a_restorers_evidence(
    lab: Lab, first: Record, verifier: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a verifier's statements that name too many, nor void ones of a writer."""
    monkeypatch.setattr(bad_packs, "MAX_READ", 1)
    say(lab, lab.recovery.restorer, first, bad=OTHERS[:30])
    say(lab, verifier, first, bad=OTHERS)
    lab.store.plant(*void_verification(lab))
    assert lab.open().ledger.records[-1].status is Status.VOID
    assert set(OTHERS[:30]) <= words(lab).keys()


def void_verification(lab: Lab) -> tuple[str, bytes]:
    """A writer's statement that names more bad packs than it holds."""
    repository = lab.open()
    (record, *_) = repository.ledger.valid(StatementType.VERIFICATION)
    assert isinstance(record.body, VerificationBody)
    key = lab.host.key.signing
    payload = build_statement(
        type=record.type,
        repository=repository.ledger.repository_id,
        seq=repository.head.seq + 1,
        prev=repository.head,
        time=lab.clock(),
        tool="thief",
        subject=[("evidence/x", Digest(bytes(32)))],
        body=record.body,
        by=[key.public.id],
    )
    return ledger_name(repository.head.seq + 1), seal_envelope(payload, [key])


def test_a_verifier_takes_no_restorers_word_back(
    lab: Lab, first: Record, verifier: SigningKey
) -> None:
    """Not by calling the pack right, and not by calling it wrong first."""
    pack, other = OTHERS[:2]
    seq = say(lab, lab.recovery.restorer, first, bad=[pack])
    say(lab, verifier, first, cleared=[pack])
    assert words(lab) == {pack: seq}
    own = say(lab, verifier, first, bad=[pack, other])
    assert words(lab) == {pack: seq, other: own}
    say(lab, verifier, first, cleared=[pack, other])
    assert words(lab) == {pack: seq}
    say(lab, lab.recovery.restorer, first, cleared=[pack])
    assert words(lab) == {}
    later = say(lab, verifier, first, bad=[pack])
    assert words(lab) == {pack: later}


def test_a_distrusted_verifiers_word_counts_no_more(
    lab: Lab, first: Record, verifier: SigningKey, source: Path
) -> None:
    """Neither what it called wrong nor what it took back; hosts build on the packs again."""
    packs = packs_of(lab, first)
    seq = say(lab, verifier, first, bad=packs)
    assert words(lab) == dict.fromkeys(packs, seq)
    say(lab, verifier, first, cleared=packs[:1])
    assert words(lab) == dict.fromkeys(packs[1:], seq)
    distrust(lab.open(), lab.root_key, verifier)
    assert words(lab) == {}
    assert set(packs_of(lab, lab.snapshot(source).record)) & set(packs)


def test_the_snapshots_that_a_word_concerns_are_named(
    lab: Lab, first: Record, verifier: SigningKey, source: Path, tmp_path: Path
) -> None:
    """Those that need one of the packs, and no others; whose word it is."""
    (tmp_path / "else").mkdir()
    (tmp_path / "else/file").write_bytes(b"other")
    other = lab.snapshot(tmp_path / "else", dataset="other").record
    second = lab.snapshot(source).record
    records = lab.open().ledger.snapshots()
    assert concerned_snapshots.concerned_snapshots(lab.open(), records).words == ()
    seq = say(lab, verifier, first, bad=[*packs_of(lab, first), OTHERS[0]])
    far = say(lab, lab.recovery.restorer, first, bad=OTHERS[1:2])
    found = concerned_snapshots.concerned_snapshots(lab.open(), records)
    by_verifier, by_restorer = found.words
    assert (by_verifier.seq, by_verifier.role) == (seq, Role.VERIFIER)
    assert by_verifier.key_id == verifier.public.id
    assert by_verifier.packs == len(packs_of(lab, first)) + 1
    assert by_verifier.snapshots == (first.seq, second.seq)
    assert (by_restorer.seq, by_restorer.role, by_restorer.snapshots) == (far, Role.RESTORER, ())
    assert (found.of(first.seq), found.of(other.seq), found.unlooked) == ([seq], [], 0)


def test_a_thousand_words_are_counted(
    lab: Lab, first: Record, verifier: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What concerns a snapshot comes first; the rest is a number."""
    monkeypatch.setattr(called_bad, "_SHOWN", 2)
    about = say(lab, verifier, first, bad=packs_of(lab, first)[:1])
    for pack in OTHERS[:3]:
        say(lab, verifier, first, bad=[pack])
    told: list[str] = []
    invocation: Any = SimpleNamespace(warn=told.append)
    found = concerned_snapshots.concerned_snapshots(lab.open(), [first])
    called_bad.warn_of_bad_words(invocation, found)
    assert len(told) == 3
    assert f"snapshot {first.seq} needs it (ledger {about})" in told[0]
    assert told[-1] == "and 2 more statements call packs wrong"


def test_how_many_inventories_are_read_is_bounded(
    lab: Lab,
    first: Record,
    verifier: SigningKey,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A verifier's word must not make every list read all of them; what is left out is counted."""
    monkeypatch.setattr(concerned_snapshots, "MAX_LOOKED_AT", 1)
    second = lab.snapshot(source).record
    say(lab, verifier, first, bad=packs_of(lab, first))
    found = concerned_snapshots.concerned_snapshots(lab.open(), [first, second])
    assert (found.words[0].snapshots, found.unlooked) == ((second.seq,), 1)
