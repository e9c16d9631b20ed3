"""Verification: what is owed is there, is right, opens; and what is not is told, all of it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vault.errors import DigestMismatchError
from vault.ledger import Record
from vault.model import ObjectRef
from vault.reader import Reader
from vault.sampling import NONCE_SIZE, draw
from vault.tree import Entry, encode_entry, replace_entry
from vault.verify import VerifyReport, verify
from vault.workers import make_workers

if TYPE_CHECKING:
    from tests.conftest import Lab, MakeRepository, MakeSource


@pytest.fixture
def lab(make_repository: "MakeRepository") -> "Lab":
    """An empty repository."""
    made: Lab = make_repository()
    return made


@pytest.fixture
def record(lab: "Lab", make_source: "MakeSource") -> Record:
    """A snapshot of several packs."""
    return lab.snapshot(make_source(files=10)).record


def _share(
    lab: "Lab", share: float, *, keys: bool = False, nonce: bytes = bytes(NONCE_SIZE)
) -> VerifyReport:
    scratch = lab.base / "scratch"
    scratch.mkdir(exist_ok=True)
    repository = lab.open()
    with make_workers(2) as workers:
        return verify(
            repository,
            repository.ledger.snapshots(),
            sample=draw(share, ledger=repository.ledger, nonce=nonce),
            recovery=lab.recovery if keys else None,
            scratch=scratch,
            workers=workers,
        )


def _packs(lab: "Lab", record: Record) -> list[ObjectRef]:
    objects = lab.open().inventory(record).objects
    return [ref for ref in objects if ref.name.startswith("packs/")]


def test_sound_snapshot(lab: "Lab", record: Record) -> None:
    """Passed only if everything was read; chunks and entries are counted with the key."""
    objects = lab.open().inventory(record).objects
    report = lab.verify(record)
    assert report.passed
    assert report.verdict == "passed"
    assert report.objects == report.objects_read == len(objects) + 1  # and the inventory
    assert report.bytes_read == report.bytes
    assert report.chunks > 10
    assert report.entries == 15
    assert report.findings == ()
    without = lab.verify(record, keys=False)
    assert (without.verdict, without.chunks, without.entries) == ("passed", 0, 0)


def test_a_file_that_is_one_hole_is_sound(lab: "Lab", tmp_path: Path) -> None:
    """It has no chunk, so none is missing; a file of data and holes is as sound."""
    top = tmp_path / "sparse"
    top.mkdir()
    for name, data in (("hole", b""), ("both", b"data"), ("empty", b"")):
        with (top / name).open("wb") as file:
            file.write(data)
            file.truncate(1_000_000 if name != "empty" else 0)
    report = lab.verify(lab.snapshot(top).record)
    assert report.verdict == "passed"
    assert not report.findings


def test_a_sample_is_partial_and_drawn_by_a_nonce(lab: "Lab", record: Record) -> None:
    """So many packs as asked for, and all that is no pack; another nonce draws others."""
    first = _share(lab, 0.3)
    assert first.verdict == "partial"
    assert 0 < first.objects_read < first.objects
    assert first.sample.seed == f"{bytes(NONCE_SIZE).hex()}@{lab.open().head.seq}"
    assert _share(lab, 0.3).bytes_read == first.bytes_read
    others = [_share(lab, 0.3, nonce=bytes([n]) * NONCE_SIZE).bytes_read for n in range(1, 9)]
    assert set(others) != {first.bytes_read}
    nothing = _share(lab, 0)
    assert nothing.objects_read == nothing.objects - len(_packs(lab, record)) > 0
    assert nothing.verdict == "partial"
    assert record.seq in nothing.snapshots


@pytest.mark.parametrize("harm", ["missing", "changed", "cut", "longer"])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_every_damaged_object_is_told(lab: "Lab", record: Record, harm: str, share: float) -> None:
    """Never only the first; a changed byte needs reading, the rest does not."""
    damaged = _packs(lab, record)[:3]
    for ref in damaged:
        data = lab.store.get(ref.name, ref.version)
        if harm == "missing":
            lab.store.remove(ref.name, ref.version)
        elif harm == "changed":
            lab.store.corrupt(ref.name, ref.version, data[:-1] + bytes([data[-1] ^ 1]))
        else:
            lab.store.corrupt(ref.name, ref.version, data[:-1] if harm == "cut" else data + b"\0")
    report = _share(lab, share)
    found = {finding.subject for finding in report.findings}
    expected = set() if harm == "changed" and not share else {ref.name for ref in damaged}
    assert found == expected
    assert report.passed is (not expected)
    assert _share(lab, 1, keys=True).verdict == "failed"


def test_relocated_objects_are_told_and_pass(lab: "Lab", record: Record) -> None:
    """The right bytes at another version: a warning, no failure."""
    ref = _packs(lab, record)[0]
    data = lab.store.get(ref.name, ref.version)
    lab.store.plant(ref.name, data)
    lab.store.remove(ref.name, ref.version)
    report = lab.verify(record)
    assert report.verdict == "passed"
    assert {finding.subject for finding in report.findings} == {ref.name}


@pytest.mark.parametrize("kind", ["inventory", "domain"])
def test_missing_bases_of_everything(lab: "Lab", record: Record, kind: str) -> None:
    """Without inventory or domain object there is a finding, no exception."""
    repository = lab.open()
    if kind == "inventory":
        ref = repository.inventory_ref(record)
    else:
        (ref,) = (
            each for each in repository.inventory(record).objects if each.name.startswith("dom")
        )
    lab.store.remove(ref.name, ref.version)
    assert lab.verify(record).verdict == "failed"
    assert lab.verify(record, keys=False).verdict == "failed"


def test_what_opens_is_looked_at_by_the_key_only(
    lab: "Lab", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that names a chunk it never stored: ciphertext is sound, the tree is not."""
    top = tmp_path / "top"
    top.mkdir()
    (top / "file").write_bytes(os.urandom(500))

    def lying(entry: Entry) -> tuple[bytes, bytes]:
        is_file = entry.path == b"file"
        return encode_entry(replace_entry(entry, sha256=bytes(32)) if is_file else entry)

    monkeypatch.setattr("vault.snapshot.records.encode_entry", lying)
    record = lab.snapshot(top).record
    assert lab.verify(record, keys=False).passed
    report = lab.verify(record)
    assert report.verdict == "failed"
    assert "in no pack" in report.findings[0].problem


def test_a_tree_that_did_not_change_is_gone_through_once(
    lab: "Lab", make_source: "MakeSource", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snapshots of the same tree and the same packs; what is wrong is told of each."""
    source = make_source(files=10)
    records = [lab.snapshot(source).record for _ in range(3)]
    alone = lab.verify(records[0])
    walked = []
    tree = Reader.tree

    def counted(reader: Reader, flaws: Any) -> Any:
        walked.append(reader.record.seq)
        return tree(reader, flaws)

    monkeypatch.setattr(Reader, "tree", counted)
    report = _share(lab, 1, keys=True)
    assert report.passed
    assert report.entries == 3 * alone.entries
    assert walked == [records[0].seq]
    monkeypatch.setattr(Reader, "tree", lambda reader, _: iter([_fail(reader)]))
    report = _share(lab, 1, keys=True)
    assert [finding.subject for finding in report.findings] == [
        f"ledger {record.seq}" for record in records
    ]


def _fail(_: Reader) -> Any:
    raise DigestMismatchError("not the tree")


def test_details_fit_an_attestation(lab: "Lab", record: Record) -> None:
    """Counts and object names: bounded, and no names of files."""
    for ref in _packs(lab, record):
        lab.store.remove(ref.name, ref.version)
    details = lab.verify(record).details()
    assert details["finding_count"] == len(_packs(lab, record)) + 1
    assert all(len(line) <= 200 for line in details["findings"])
    assert "file0" not in str(details)
