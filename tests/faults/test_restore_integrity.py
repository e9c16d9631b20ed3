"""What is not as signed is never restored; what is right somewhere always is (I5, I6, I10)."""

# ruff: noqa: FBT001, PLR0917 - parameters of tests are named by pytest

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.support.lab import Lab
from vault.crypto import sealed as sealing
from vault.crypto.keys import RecipientKey, hpke_seal, recipient_id
from vault.crypto.sealed import Sealer, Session
from vault.errors import (
    ConfigError,
    DigestMismatchError,
    IntegrityError,
    MissingObjectError,
    WrongKeyError,
)
from vault.format import pack_index
from vault.format.pack import PackWriter
from vault.format.pack_index import IndexEntry
from vault.ledger.envelope import parse_envelope
from vault.ledger.records import Record
from vault.ledger.statements import EventBody
from vault.model import Digest, ObjectRef, ObjectType, replace_body
from vault.repository import attestations
from vault.repository.enrolment import revoke_writer
from vault.repository.repository import Repository, domain_ref
from vault.restore import RestoreOutcome, RestoreReport

MakeTarget: TypeAlias = Callable[[], Path]

KINDS = ("domain", "inventory", "data", "tree")


pytestmark = pytest.mark.usefixtures("no_syncfs")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Enough for several data packs of several blocks each, and a tree of several chunks."""
    top = tmp_path / "source"
    top.mkdir()
    for number in range(12):
        (top / f"file{number}").write_bytes(os.urandom(9_000))
    return top


@pytest.fixture
def make_target(tmp_path: Path) -> MakeTarget:
    """Makes places with something in them, each in a room of its own."""
    numbers = itertools.count()

    def make() -> Path:
        place = tmp_path / f"room{next(numbers)}" / "target"
        place.mkdir(parents=True)
        (place / "former").write_text("state")
        return place

    return make


@pytest.fixture
def target(make_target: MakeTarget) -> Path:
    """One such place."""
    return make_target()


def run(lab: Lab, record: Record, target: Path, **options: Any) -> RestoreReport:
    """A restore in place of what is there."""
    return lab.restore(record, target, replace=True, **options)


def needs(lab: Lab, record: Record) -> dict[str, list[ObjectRef]]:
    """Objects of the snapshot by kind; packs in the order of their size, largest first."""
    repository = lab.open()
    objects = repository.inventory(record).objects
    packs = sorted(
        (ref for ref in objects if ref.name.startswith("packs/")), key=lambda ref: -ref.size
    )
    kinds = {ref: lab.store.get(ref.name, ref.version)[14] for ref in packs}
    writer = repository.ledger.writer_for(record)
    assert writer.domain is not None
    return {
        "domain": [domain_ref(writer.domain)],
        "inventory": [repository.inventory_ref(record)],
        "data": [ref for ref in packs if kinds[ref] == ObjectType.DATA],
        "tree": [ref for ref in packs if kinds[ref] == ObjectType.TREE],
    }


def drop_index(lab: Lab, record: Record) -> None:
    """Lose the index objects: packs speak for themselves."""
    for ref in lab.open().inventory(record).index:
        lab.store.remove(ref.name, ref.version)


def assert_restored(target: Path, source: Path) -> None:
    """TARGET holds what the source does."""
    assert {p.name: p.read_bytes() for p in target.iterdir()} == {
        p.name: p.read_bytes() for p in source.iterdir()
    }


def assert_untouched(lab: Lab, target: Path) -> None:
    """As before, nothing beside it, and the failure is on record."""
    assert (target / "former").read_text() == "state"
    assert [path.name for path in target.parent.iterdir()] == ["target"]
    bodies = [each.body for each in lab.open().ledger.valid("restore")]
    assert [body.verdict for body in bodies if isinstance(body, EventBody)] == ["failed"]


def damages(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Every way to be wrong, at every region."""
    places = [*range(0, 130, 3), *range(130, len(data), max(len(data) // 25, 1)), len(data) - 1]
    for at in places:
        if at < len(data):
            yield f"flip {at}", data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    for cut in (0, 1, 11, len(data) // 2, len(data) - 1):
        yield f"cut {cut}", data[:cut]
    yield "longer", data + b"\0"
    half = len(data) // 2
    yield "spliced", data[half:] + data[:half]


@pytest.mark.parametrize("with_index", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_any_damage_is_found(
    lab: Lab, record: Record, source: Path, make_target: MakeTarget, kind: str, with_index: bool
) -> None:
    """Nothing is restored, TARGET is untouched, the failure is attested."""
    if not with_index:
        drop_index(lab, record)
    ref = needs(lab, record)[kind][0]
    good = lab.store.get(ref.name, ref.version)
    found = 0
    for what, bad in damages(good):
        own = lab.with_store(lab.store.copy())
        own.store.corrupt(ref.name, ref.version, bad)
        target = make_target()
        try:
            run(own, record, target)
        except IntegrityError:
            found += 1
            assert_untouched(own, target)
        else:  # only a pack's own directory may be left unread, where an index replaces it
            assert with_index, what
            assert kind in {"data", "tree"}, what
            assert_restored(target, source)
    assert found > 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("harm", ["deleted", "hidden", "changed", "cut"])
@pytest.mark.parametrize("with_index", [True, False])
def test_right_bytes_at_another_version(
    lab: Lab,
    record: Record,
    source: Path,
    target: Path,
    kind: str,
    harm: str,
    with_index: bool,
) -> None:
    """They are used, and that they were is told."""
    if not with_index:
        drop_index(lab, record)
    refs = needs(lab, record)[kind]
    for ref in refs:
        data = lab.store.get(ref.name, ref.version)
        lab.store.plant(ref.name, data)
        if harm == "deleted":
            lab.store.remove(ref.name, ref.version)
        elif harm == "hidden":
            lab.store.put_marker(ref.name)
            lab.store.remove(ref.name, ref.version)
        else:
            bad = data[: len(data) // 2]
            bad = bad if harm == "cut" else bad + bytes(len(data) - len(bad))
            lab.store.corrupt(ref.name, ref.version, bad)
    repository = lab.open()
    report = run(lab, record, target, repository=repository)
    assert report.outcome is RestoreOutcome.RECOVERED
    assert_restored(target, source)
    told = {finding.subject for finding in repository.findings}
    assert {ref.name for ref in refs} <= told


@pytest.mark.parametrize("with_index", [True, False])
@pytest.mark.parametrize("same_size", [True, False])
def test_packs_in_each_others_place(
    lab: Lab, source: Path, target: Path, same_size: bool, with_index: bool
) -> None:
    """Each is a sound pack of the snapshot, and neither is the one its name says.

    Packs of one size that speak for themselves give every chunk by its id: what they restore
    is proven and right. A verification compares their digests and finds both wrong.
    """
    for path in source.iterdir() if same_size else ():
        path.unlink()
    (source / "first").write_bytes(os.urandom(800))
    lab.snapshot(source)
    (source / "second").write_bytes(os.urandom(800 if same_size else 80_000))
    record = lab.snapshot(source).record
    if not with_index:
        drop_index(lab, record)
    first, second = needs(lab, record)["data"][:2]
    assert (first.size == second.size) is same_size
    one = lab.store.get(first.name, first.version)
    other = lab.store.get(second.name, second.version)
    lab.store.corrupt(first.name, first.version, other)
    lab.store.corrupt(second.name, second.version, one)
    assert not lab.verify(record).passed
    if same_size and not with_index:
        assert run(lab, record, target).outcome is RestoreOutcome.RECOVERED
        assert_restored(target, source)
        return
    with pytest.raises(IntegrityError):
        run(lab, record, target)
    assert_untouched(lab, target)


def test_missing_pack_is_told_before_anything_is_made(
    lab: Lab, record: Record, target: Path
) -> None:
    """Presence and size of all are looked at first."""
    ref = needs(lab, record)["data"][0]
    lab.store.remove(ref.name, ref.version)
    with pytest.raises(MissingObjectError, match="missing or cut short"):
        run(lab, record, target)
    assert_untouched(lab, target)


# --- what a member of the domain could say wrong ---


def _with(entry: IndexEntry, **changes: Any) -> IndexEntry:
    return dataclasses.replace(entry, **changes)


def _shift(entry: IndexEntry) -> IndexEntry:
    blocks = [block._replace(offset=block.offset + 1) for block in entry.directory.blocks]
    directory = dataclasses.replace(entry.directory, blocks=blocks)
    return _with(entry, header_length=entry.header_length + 1, directory=directory)


def _reverse_ids(entry: IndexEntry) -> IndexEntry:
    ids = [entry.directory.chunk_id(place) for place in range(len(entry.directory))]
    return _with(entry, directory=dataclasses.replace(entry.directory, ids=b"".join(reversed(ids))))


def _rename_ids(entry: IndexEntry) -> IndexEntry:
    ids = bytes(byte ^ 1 for byte in entry.directory.ids)
    return _with(entry, directory=dataclasses.replace(entry.directory, ids=ids))


def _first_block_only(entry: IndexEntry) -> IndexEntry:
    block = entry.directory.blocks[0]
    directory = dataclasses.replace(
        entry.directory,
        blocks=[block],
        lengths=entry.directory.lengths[: block.chunks],
        ids=entry.directory.ids[: block.chunks * 32],
    )
    return _with(entry, directory=directory)


def _other_lengths(entry: IndexEntry) -> IndexEntry:
    lengths = entry.directory.lengths[:]
    first = entry.directory.blocks[0].chunks
    if first > 1:
        lengths[0], lengths[1] = lengths[0] - 1, lengths[1] + 1
    return _with(entry, directory=dataclasses.replace(entry.directory, lengths=lengths))


def _other_type(entry: IndexEntry) -> IndexEntry:
    other = ObjectType.TREE if entry.type is ObjectType.DATA else ObjectType.DATA
    return _with(entry, type=other)


def _each(change: Callable[[IndexEntry], IndexEntry]) -> Callable[..., list[IndexEntry]]:
    return lambda entries: [change(entry) for entry in entries]


def _swapped(entries: Sequence[IndexEntry]) -> list[IndexEntry]:
    """Every pack with the directory of the next."""
    others = [*entries[1:], entries[0]]
    return [
        _with(entry, directory=other.directory, header_length=other.header_length)
        for entry, other in zip(entries, others, strict=True)
        if other.directory.stored_end < entry.size
    ]


POISONS: dict[str, Callable[[Sequence[IndexEntry]], list[IndexEntry]]] = {
    "shifted": _each(_shift),
    "ids reversed": _each(_reverse_ids),
    "ids of others": _each(_rename_ids),
    "blocks left out": _each(_first_block_only),
    "other lengths": _each(_other_lengths),
    "other type": _each(_other_type),
    "packs left out": lambda entries: list(entries[:1]),
    "directories swapped": _swapped,
    "empty": lambda _: [],
    "other version": _each(lambda entry: _with(entry, version="nowhere")),
    "other size": _each(lambda entry: _with(entry, size=entry.size + 1)),
}


@pytest.mark.parametrize("poison", POISONS)
def test_poisoned_index(
    lab: Lab, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch, poison: str
) -> None:
    """An index with a valid seal that lies costs time, never the restore (I10)."""
    seal = pack_index.seal_index
    monkeypatch.setattr(
        pack_index,
        "seal_index",
        lambda key, repo, entries: seal(key, repo, POISONS[poison](entries)),
    )
    record = lab.snapshot(source).record
    assert lab.open().inventory(record).index
    report = run(lab, record, target)
    assert report.outcome is RestoreOutcome.RECOVERED
    assert_restored(target, source)


def test_index_that_swaps_chunks_of_one_length(
    lab: Lab, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but the chunk ids can tell, and they do, before the proof has to."""
    top = tmp_path / "even"
    top.mkdir()
    for number in range(8):
        (top / f"file{number}").write_bytes(os.urandom(900))
    seal = pack_index.seal_index

    def lying(key: bytes, repository_id: bytes, entries: Sequence[IndexEntry]) -> bytes:
        return seal(key, repository_id, [
            _reverse_ids(entry) if entry.type is ObjectType.DATA else entry for entry in entries
        ])  # fmt: skip

    monkeypatch.setattr(pack_index, "seal_index", lying)
    report = run(lab, lab.snapshot(top).record, target)
    assert report.outcome is RestoreOutcome.RECOVERED
    assert_restored(target, top)


@pytest.mark.parametrize("with_index", [True, False])
def test_forged_pack_at_the_pinned_version(
    lab: Lab, record: Record, source: Path, target: Path, *, with_index: bool
) -> None:
    """Anyone can seal to the recipients; the right bytes elsewhere win by their digest."""
    if not with_index:
        drop_index(lab, record)
    repository = lab.open()
    for ref in needs(lab, record)["data"] + needs(lab, record)["tree"]:
        data = lab.store.get(ref.name, ref.version)
        kind = ObjectType(data[14])
        lab.store.plant(ref.name, data)
        forged = _forge(repository, kind, ref.size, data[16:32])
        lab.store.corrupt(ref.name, ref.version, forged)
    report = run(lab, record, target)
    assert report.outcome is RestoreOutcome.RECOVERED
    assert_restored(target, source)


def _forge(repository: Repository, kind: ObjectType, size: int, session_id: bytes) -> bytes:
    """A pack of that size and session id which opens with the recovery key, by somebody else."""
    seed = os.urandom(32)
    info = sealing._seed_info(repository.id, session_id)
    sealed = tuple(
        (recipient_id(key), hpke_seal(key, seed, info)) for key in repository.ledger.recipients
    )
    session = Session(id=session_id, seed=seed, sealed=sealed)
    raw = size // 2
    for _ in range(20):
        writer = PackWriter(Sealer.for_session(session, kind, repository.id), 3)
        ids = [os.urandom(32)]
        writer.add(writer.seal_block(writer.next_counter(), os.urandom(raw), ids, [raw]))
        data = bytes(writer.finish().data)
        if len(data) == size:
            return data
        raw += size - len(data)
    raise AssertionError("no pack of that size")


# --- keys and the ledger ---


def test_wrong_recovery_key(lab: Lab, record: Record, target: Path) -> None:
    """Not sealed to it: says so, and touches nothing."""
    stranger = dataclasses.replace(lab.recovery, recipient=RecipientKey.generate())
    other = dataclasses.replace(lab, recovery=stranger)
    with pytest.raises(WrongKeyError):
        run(other, record, target)
    assert (target / "former").exists()
    assert len(list(target.parent.iterdir())) == 1


def test_void_snapshot_is_not_restored(lab: Lab, source: Path, target: Path) -> None:
    """What a distrusted writer published does not count."""
    lab = lab.with_host(lab.enrol("other"))
    record = lab.snapshot(source).record
    repository = lab.open()
    writer = repository.ledger.writer_for(record)
    revoke_writer(
        repository,
        lab.root_key.enroller,
        writer,
        distrust_from=record.seq,
        reason="stolen",
        tool="t",
    )
    with pytest.raises(IntegrityError):
        run(lab, lab.open().ledger.records[record.seq], target)
    assert (target / "former").exists()


# --- attestations ---


def _attestation(lab: Lab, record: Record) -> tuple[bytes, attestations.Attestation]:
    repository = lab.open()
    assert isinstance(record.body, EventBody)
    data = repository.read_evidence(Digest.parse(record.body.attestation))
    return data, attestations.open_attestation(data, repository.ledger)


def test_success_is_attested(lab: Lab, record: Record, target: Path) -> None:
    """Signed, recorded, verifiable with public keys, and free of names."""
    report = run(lab, record, target)
    assert report.statement is not None
    data, attestation = _attestation(lab, report.statement)
    assert data == report.attestation
    assert (attestation.kind, attestation.verdict) == ("restore", "passed")
    assert (attestation.snapshot, attestation.manifest) == (record.seq, str(record.digest))
    assert attestation.details["files"] == 12
    assert attestation.details["root_matches"] is True
    assert b"file1" not in parse_envelope(data).payload
    assert "file1" not in str(attestation.details)
    assert attestations.is_recorded(lab.open(), data) == report.statement


def test_failure_is_attested_by_the_class_of_its_error(
    lab: Lab, record: Record, target: Path
) -> None:
    """Not by its message, which may name a file."""
    ref = needs(lab, record)["data"][0]
    data = lab.store.get(ref.name, ref.version)
    lab.store.corrupt(ref.name, ref.version, data[:-1] + b"?")
    drop_index(lab, record)
    with pytest.raises(DigestMismatchError):
        run(lab, record, target)
    (statement,) = lab.open().ledger.valid("restore")
    _, attestation = _attestation(lab, statement)
    assert attestation.verdict == "failed"
    key = lab.host.key.signing.public.id
    assert attestation.details == {
        "seconds": 0,
        "publisher": {"host": lab.host.key.name, "key": key},
        "error": "DigestMismatchError",
        "bad_packs": [ref.sha256.hex()],
    }
    assert statement.body.bad == (ref.sha256.hex(),)  # type: ignore[union-attr]


def test_dry_run_says_nothing_even_of_damage(lab: Lab, record: Record, target: Path) -> None:
    """It makes nothing: no file, no statement."""
    assert run(lab, record, target, dry_run=True).outcome is RestoreOutcome.PLANNED
    ref = needs(lab, record)["tree"][0]
    lab.store.remove(ref.name, ref.version)
    before = list(lab.store.versions(""))
    with pytest.raises(MissingObjectError):
        run(lab, record, target, dry_run=True)
    assert list(lab.store.versions("")) == before
    assert (target / "former").exists()
    assert len(list(target.parent.iterdir())) == 1


def test_other_peoples_attestations_are_refused(lab: Lab, record: Record, target: Path) -> None:
    """A writer's, a changed one, one of another repository."""
    report = run(lab, record, target)
    repository = lab.open()
    attestation = attestations.open_attestation(report.attestation, repository.ledger)
    with pytest.raises(IntegrityError):
        attestations.open_attestation(
            attestations.sign(attestation, lab.host.key.signing), repository.ledger
        )
    other = replace_body(attestation, repository="00" * 16)
    with pytest.raises(ConfigError):
        attestations.open_attestation(
            attestations.sign(other, lab.recovery.restorer), repository.ledger
        )
    with pytest.raises(IntegrityError):
        attestations.open_attestation(report.attestation[:-3], repository.ledger)
