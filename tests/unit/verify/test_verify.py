"""Verification: what is owed is there, is right, opens; and what is not is told, all of it."""

import dataclasses
import hashlib
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Lab
from tests.support.trees import MakeSource
from vault.crypto.compression import compress
from vault.crypto.keys import RecipientKey
from vault.custody.sampling import NONCE_SIZE, draw
from vault.encoding import b64encode
from vault.errors import (
    DigestMismatchError,
    MissingObjectError,
    StorageError,
    StorageUnavailableError,
    WrongKeyError,
)
from vault.format.entry import Entry, replace_entry
from vault.format.entry_encoding import encode_entry
from vault.format.pack import DIRECTORY_COUNTER, Directory, FinishedPack, PackWriter
from vault.ledger.chain import Ledger
from vault.ledger.records import Record
from vault.ledger.statements import Recipient
from vault.machine.workers import make_workers
from vault.model import Digest, ObjectRef, ObjectType, PackId, Severity, replace_body
from vault.repository import attestations
from vault.repository.append_statements import Draft
from vault.repository.enrolment import revoke_writer
from vault.repository.reader import Reader
from vault.repository.repository import Repository
from vault.storage.base import ObjectVersion
from vault.verify import VerifyReport, verify_snapshots
from vault.verify.damage_found import KEPT_FINDINGS, NAMED_IN_HIT, Found


@pytest.fixture
def record(lab: Lab, make_source: MakeSource) -> Record:
    """A snapshot of several packs."""
    return lab.snapshot(make_source(files=10)).record


def _share(
    lab: Lab, share: float, *, keys: bool = False, nonce: bytes = bytes(NONCE_SIZE)
) -> VerifyReport:
    scratch = lab.base / "scratch"
    scratch.mkdir(exist_ok=True)
    repository = lab.open()
    with make_workers(2) as workers:
        return verify_snapshots(
            repository,
            repository.ledger.snapshots(),
            sample=draw(share, ledger=repository.ledger, nonce=nonce),
            recovery=lab.recovery if keys else None,
            scratch=scratch,
            workers=workers,
        )


def _packs(lab: Lab, record: Record) -> list[ObjectRef]:
    objects = lab.open().inventory(record).objects
    return [ref for ref in objects if ref.name.startswith("packs/")]


def test_sound_snapshot(lab: Lab, record: Record) -> None:
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


def test_what_a_thief_wrote_fails_no_verification_once_it_is_distrusted(
    lab: Lab, record: Record, make_source: MakeSource
) -> None:
    """It is a warning of the ledger, and verified no more: what is left passes."""
    thief = lab.enrol("stolen")
    first = lab.with_host(thief).snapshot(make_source("other"), dataset="other").record.seq
    repository = lab.open()
    (writer,) = (each for each in repository.ledger.writers.values() if each.name == "stolen")
    revoke_writer(
        repository, lab.root_key.enroller, writer, distrust_from=first, reason="stolen", tool="t"
    )
    repository = lab.open()
    assert [(f.subject, f.severity) for f in repository.ledger.findings] == [
        (f"ledger {first}", Severity.WARNING)
    ]
    assert repository.ledger.snapshots() == [record]
    report = lab.verify()
    assert (report.snapshots, report.verdict, report.findings) == ((record.seq,), "passed", ())


def test_a_file_that_is_one_hole_is_sound(lab: Lab, tmp_path: Path) -> None:
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


def test_a_sample_is_partial_and_drawn_by_a_nonce(lab: Lab, record: Record) -> None:
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
def test_every_damaged_object_is_told(lab: Lab, record: Record, harm: str, share: float) -> None:
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
    codes = {finding.code for finding in report.findings}
    assert codes <= ({"missing"} if harm == "missing" else {"wrong-bytes"})
    expected = set() if harm == "changed" and not share else {ref.name for ref in damaged}
    assert found == expected
    assert report.passed is (not expected)
    assert _share(lab, 1, keys=True).verdict == "failed"


def test_relocated_objects_are_told_and_pass(lab: Lab, record: Record) -> None:
    """The right bytes at another version: a warning, no failure."""
    ref = _packs(lab, record)[0]
    data = lab.store.get(ref.name, ref.version)
    lab.store.plant(ref.name, data)
    lab.store.remove(ref.name, ref.version)
    report = lab.verify(record)
    assert report.verdict == "passed"
    assert {finding.subject for finding in report.findings} == {ref.name}


@pytest.mark.parametrize("kind", ["inventory", "domain"])
def test_missing_bases_of_everything(lab: Lab, record: Record, kind: str) -> None:
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
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    lab: Lab, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snapshots of the same tree and the same packs; what is wrong is told of each."""
    source = make_source(files=10)
    records = [lab.snapshot(source).record for _ in range(3)]
    alone = lab.verify(records[0])
    walked = []
    tree = Reader.tree

    def counted(reader: Reader, flaws: Any = None) -> Any:
        walked.append(reader.record.seq)
        return tree(reader, flaws)

    monkeypatch.setattr(Reader, "tree", counted)
    report = _share(lab, 1, keys=True)
    assert report.passed
    assert report.entries == 3 * alone.entries
    assert walked == [records[0].seq]
    monkeypatch.setattr(Reader, "tree", lambda reader, _=None: iter([_fail(reader)]))
    report = _share(lab, 1, keys=True)
    assert [finding.subject for finding in report.findings] == [
        f"ledger {record.seq}" for record in records
    ]


def _fail(_: Reader) -> Any:
    raise DigestMismatchError("not the tree")


def test_details_fit_an_attestation(lab: Lab, record: Record) -> None:
    """Counts and object names: bounded, and no names of files."""
    for ref in _packs(lab, record):
        lab.store.remove(ref.name, ref.version)
    details = lab.verify(record).details()
    assert details["finding_count"] == len(_packs(lab, record)) + 1
    assert all(len(line) <= 200 for line in details["findings"])
    assert "file0" not in str(details)


# --- what is wrong, whom it concerns, what is whole ---


def _datasets(lab: Lab, tmp_path: Path) -> tuple[Record, Record]:
    """Two datasets that share nothing; the first has a file of many chunks and a small one."""
    for name, sizes in {"www": {"big": 40_000, "small": 10}, "db": {"table": 9_000}}.items():
        top = tmp_path / name
        top.mkdir()
        for file, size in sizes.items():
            (top / file).write_bytes(os.urandom(size))
    first = lab.snapshot(tmp_path / "www", dataset="www").record
    return first, lab.snapshot(tmp_path / "db", dataset="db").record


def _of_kind(lab: Lab, record: Record, kind: ObjectType) -> list[ObjectRef]:
    return [ref for ref in _packs(lab, record) if lab.store.get(ref.name)[14] == kind]


def _spoil(lab: Lab, ref: ObjectRef, how: str) -> None:
    data = lab.store.get(ref.name, ref.version)
    if how == "missing":
        lab.store.remove(ref.name, ref.version)
    else:
        at = {"block": len(data) // 2, "header": 20, "directory": len(data) - 30}[how]
        lab.store.corrupt(ref.name, ref.version, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


@pytest.mark.parametrize("how", ["missing", "block", "header", "directory"])
def test_files_that_are_hit_are_named_and_what_is_whole_is_told(
    lab: Lab, tmp_path: Path, how: str
) -> None:
    """A file is hit exactly if its bytes can't be had; the other dataset is whole."""
    hit, whole = _datasets(lab, tmp_path)
    assert lab.verify().whole == (hit.seq, whole.seq)
    ref = _of_kind(lab, hit, ObjectType.DATA)[0]
    _spoil(lab, ref, how)
    report = lab.verify()
    assert (report.verdict, report.whole, report.hit_count) == ("failed", (whole.seq,), 1)
    (found,) = report.hits
    assert (found.seq, found.dataset, found.object_count) == (hit.seq, "www", 1)
    assert set(found.files) <= {b"big", b"small"}
    assert b"big" in found.files
    assert found.file_count == len(found.files)
    assert report.bad == (str(ref.sha256),)
    without = lab.verify(keys=False)
    assert (without.whole, without.hits[0].file_count) == ((whole.seq,), None)
    assert without.hits[0].objects == found.objects


def test_only_files_in_the_damaged_block_are_hit(lab: Lab, tmp_path: Path) -> None:
    """One flipped bit in the first block of a pack: files of its other blocks can be had."""
    top = tmp_path / "top"
    top.mkdir()
    for n in range(12):
        (top / f"f{n:02d}").write_bytes(os.urandom(1900))  # some four chunks a block
    record = lab.snapshot(top).record
    ref = _of_kind(lab, record, ObjectType.DATA)[0]
    data = lab.store.get(ref.name, ref.version)
    at = len(data) // 20 + 1300  # behind the header, in the first block
    lab.store.corrupt(ref.name, ref.version, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    (hit,) = lab.verify().hits
    assert hit.file_count is not None
    assert 0 < hit.file_count < 12


@pytest.mark.parametrize("how", ["missing", "block"])
def test_a_tree_that_ends_early_says_after_what(
    lab: Lab, make_source: MakeSource, tmp_path: Path, how: str
) -> None:
    """Or that none of it can be read; the other dataset is whole all the same."""
    hit = lab.snapshot(make_source(files=300, size=10), dataset="www").record
    other = lab.snapshot(make_source("other", seed=5), dataset="db").record
    trees = _of_kind(lab, hit, ObjectType.TREE)
    _spoil(lab, trees[-1], how)
    report = lab.verify()
    assert (report.verdict, report.whole) == ("failed", (other.seq,))
    (found,) = report.hits
    assert found.file_count is None or found.after is not None


def test_many_that_are_hit_are_counted_and_the_first_told() -> None:
    """Memory is bounded, however much is wrong."""
    found = Found()
    for n in range(5000):
        found.note(f"packs/{n}", "is missing")
        found.is_wrong((f"packs/{n}", bytes(32), n), MissingObjectError(f"packs/{n} is missing"))
    assert (len(found.findings), found.finding_count, len(found.wrong)) == (
        KEPT_FINDINGS,
        10_000,
        5000,
    )


def test_what_is_known_to_be_hit_is_added_to_however_many_are(
    lab: Lab, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first ones all is told; those beyond are counted."""
    monkeypatch.setattr("vault.verify.damage_found.KEPT_FINDINGS", 2)
    source = make_source()
    records = [lab.snapshot(source).record for _ in range(3)]
    found = Found()
    for each in records:
        found.concerns(each, "x")
    for each in records:
        found.concerns(each, "y", files=(b"file",), file_count=1)
    assert {seq: hit.files for seq, hit in found.hits.items()} == {
        records[0].seq: (b"file",),
        records[1].seq: (b"file",),
    }
    assert found.hit == {each.seq for each in records}


def test_what_is_hit_is_capped(lab: Lab, record: Record) -> None:
    """Names of a snapshot's objects and files are the first twenty; their counts are of all."""
    found = Found()
    names = tuple(map(str, range(100)))
    files = tuple(name.encode() for name in names)
    found.concerns(record, "x", objects=names, object_count=100)
    found.concerns(record, "y", files=files, file_count=100)
    hit = found.hits[record.seq]
    assert (len(hit.objects), hit.object_count, len(hit.files), hit.file_count) == (
        NAMED_IN_HIT,
        100,
        NAMED_IN_HIT,
        100,
    )
    assert hit.problem == "x"


def test_an_attestation_names_no_files(lab: Lab, tmp_path: Path) -> None:
    """It is public: counts, digests and object names."""
    hit, _ = _datasets(lab, tmp_path)
    _spoil(lab, _of_kind(lab, hit, ObjectType.DATA)[0], "block")
    report = lab.verify()
    assert b"big" in report.hits[0].files
    assert "big" not in str(report.details())
    assert report.details()["hits"][0]["files"] == report.hits[0].file_count


# --- packs that hash right and are wrong all the same ---


def test_a_pack_of_wrong_chunks_is_found_by_the_key(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored as signed, every tag right, and the chunks are not what their ids say."""
    top = tmp_path / "top"
    top.mkdir()
    (top / "file").write_bytes(os.urandom(20_000))
    control = lab.snapshot(top, dataset="right").record
    (top / "file").write_bytes(os.urandom(20_000))
    monkeypatch.setattr(
        "vault.snapshot.file_reader.chunk_id",
        lambda key, kind, digest: hashlib.sha256(digest).digest(),
    )
    record = lab.snapshot(top, dataset="wrong").record
    assert lab.verify(keys=False).passed
    report = lab.verify()
    assert (report.verdict, report.whole) == ("failed", (control.seq,))
    assert report.hits[0].files == (b"file",)
    wrong = {str(ref.sha256) for ref in _of_kind(lab, record, ObjectType.DATA)}
    assert set(report.bad) == wrong
    assert {finding.subject for finding in report.findings} >= {
        ref.name for ref in _of_kind(lab, record, ObjectType.DATA)
    }


def _with_wrong_directory(writer: PackWriter) -> FinishedPack:
    """What `PackWriter.finish` gives, but the sealed directory has its first two ids changed."""
    right = Directory(writer._blocks, writer._lengths, bytes(writer._ids))
    ids = bytes(writer._ids)
    lengths = writer._lengths
    kind = writer._sealer.header.type
    stored = right
    if kind is ObjectType.DATA:
        stored = Directory(writer._blocks, lengths, ids[32:64] + ids[:32] + ids[64:])
    frame = compress(stored.encode(), writer._level)
    sealed = writer._sealer.seal(DIRECTORY_COUNTER, frame, final=True)
    data = bytearray(writer._data + sealed + struct.pack(">I8s", len(sealed), b"VAULTDIR"))
    return FinishedPack(
        PackId(hashlib.sha256(data).digest()), data, right, writer._sealer.header.length, kind
    )


def test_a_wrong_directory_beside_a_right_index_is_found(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore falls back to the directory, so it is what is checked; by the index all is well."""
    top = tmp_path / "top"
    top.mkdir()
    (top / "file").write_bytes(os.urandom(30_000))
    monkeypatch.setattr(PackWriter, "finish", _with_wrong_directory)
    record = lab.snapshot(top).record
    assert lab.contents(record)["file"] == (top / "file").read_bytes()  # the control: by the index
    assert lab.verify(keys=False).passed
    report = lab.verify()
    assert report.verdict == "failed"
    assert report.bad


# --- what this key can't open ---


def test_a_snapshot_sealed_to_nobody_does_not_hide_the_others(
    lab: Lab, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, its packs are bad, and what is stored before and after is checked."""
    before = lab.snapshot(make_source("one", seed=1), dataset="one").record
    with monkeypatch.context() as patch:
        stranger = RecipientKey.generate().public_raw
        patch.setattr(Ledger, "recipients", property(lambda _: [stranger]))
        lost = lab.snapshot(make_source("two", seed=2), dataset="two").record
    after = lab.snapshot(make_source("three", seed=3), dataset="three").record
    assert lab.verify(keys=False).passed
    report = lab.verify()
    assert (report.verdict, report.whole) == ("failed", (before.seq, after.seq))
    assert [(hit.seq, hit.dataset) for hit in report.hits] == [(lost.seq, "two")]
    assert "sealed" in report.hits[0].problem
    assert set(report.bad) == {str(ref.sha256) for ref in _packs(lab, lost)}
    _spoil(lab, _of_kind(lab, before, ObjectType.DATA)[0], "block")
    assert [hit.seq for hit in lab.verify().hits] == [before.seq, lost.seq]


def _recover_with(lab: Lab, *added: RecipientKey) -> None:
    """Append root N+1, which lists more recipients."""
    repository = lab.open()
    root = repository.ledger.root
    more = [
        Recipient(name=f"r{n}", public=b64encode(key.public_raw)) for n, key in enumerate(added)
    ]
    body = replace_body(root, version=root.version + 1, recipients=(*root.recipients, *more))
    draft = Draft(type="root", subject=[("repository", Digest.of(repository.id))], body=body)
    repository.append(lambda _: draft, [lab.root_key.root], tool="vault test")


def test_what_was_sealed_before_a_key_was_listed_is_no_fault(
    lab: Lab, make_source: MakeSource
) -> None:
    """Nothing is called wrong or bad; the verdict says that it was not opened."""
    lab.snapshot(make_source())
    late = RecipientKey.generate()
    _recover_with(lab, late)
    holder = dataclasses.replace(lab, recovery=dataclasses.replace(lab.recovery, recipient=late))
    report = holder.verify()
    assert (report.passed, report.verdict, report.unopened) == (True, "partial", 1)
    assert (report.bad, report.hits, report.whole) == ((), (), ())
    assert (report.with_key, report.opened) == (True, False)  # as is signed: nothing was opened
    opened = lab.verify()
    assert (opened.verdict, opened.with_key, opened.opened) == ("passed", True, True)
    assert lab.verify(keys=False).opened is False


def test_a_key_of_no_recipient_is_refused(lab: Lab, record: Record) -> None:
    """That it opens nothing is no finding about the repository."""
    stranger = dataclasses.replace(lab.recovery, recipient=RecipientKey.generate())
    with pytest.raises(WrongKeyError):
        dataclasses.replace(lab, recovery=stranger).verify()


# --- a store that errs, and one that does not answer ---


class _Troubled:
    """The store, but what it gives of some names is another matter."""

    def __init__(self, store: Any, trouble: Callable[[str, Callable[[], Any]], Any]) -> None:
        self._store = store
        self._trouble = trouble

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, name: str, *rest: Any, **options: Any) -> Any:
        return self._trouble(name, lambda: self._store.get(name, *rest, **options))


def _troubled(lab: Lab, trouble: Callable[[str, Callable[[], Any]], Any]) -> Lab:
    store: Any = _Troubled(lab.store, trouble)
    return lab.with_store(store)


@pytest.mark.parametrize("times", [1, 100])
def test_a_wrong_answer_is_asked_again_before_it_is_a_word(
    lab: Lab, record: Record, times: int
) -> None:
    """A bit that flips on the way is no damage; one that is flipped each time is."""
    name = _packs(lab, record)[0].name
    asked: list[str] = []

    def flip(which: str, give: Callable[[], bytes]) -> bytes:
        data = give()
        if which != name or len(asked) >= times:
            return data
        asked.append(which)
        return data[:-1] + bytes([data[-1] ^ 1])

    report = _troubled(lab, flip).verify(keys=False)
    assert report.verdict == ("passed" if times == 1 else "failed")
    assert asked


def test_a_stale_list_is_asked_again(
    lab: Lab, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object that is not in one answer, and in the next, is there."""
    name = _packs(lab, record)[0].name
    versions_of = lab.store.versions_of
    hidden: list[str] = []

    def stale(wanted: str) -> list[ObjectVersion]:
        if wanted == name and len(hidden) < 1:
            hidden.append(wanted)
            return []
        return list(versions_of(wanted))

    monkeypatch.setattr(lab.store, "versions_of", stale)
    assert _share(lab, 0).passed
    assert hidden


@pytest.mark.parametrize("error", [StorageUnavailableError, StorageError])
def test_what_the_store_does_not_give_is_not_wrong(
    lab: Lab, tmp_path: Path, error: type[StorageError]
) -> None:
    """The others are checked; nothing is said about its bytes, and what needs it is not whole."""
    first, second = _datasets(lab, tmp_path)
    name = _of_kind(lab, first, ObjectType.DATA)[0].name

    def refuse(which: str, give: Callable[[], bytes]) -> bytes:
        if which == name:
            raise error("input/output error")
        return give()

    report = _troubled(lab, refuse).verify()
    assert (report.verdict, report.passed, report.bad) == ("unfinished", True, ())
    assert [each for each, _ in report.unread] == [name]
    assert report.whole == (second.seq,)
    assert not report.hits


def test_a_store_that_gives_nothing_ends_it(lab: Lab, record: Record) -> None:
    """Unreachable is no verdict."""

    def refuse(which: str, give: Callable[[], bytes]) -> bytes:
        if which.startswith("packs/"):
            raise StorageUnavailableError("no answer")
        return give()

    with pytest.raises(StorageUnavailableError):
        _troubled(lab, refuse).verify(keys=False)


def test_a_name_that_two_sign_differently_hides_nothing(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hostile inventory says other digests of an honest pack's name; both are looked at."""
    honest, hostile = _datasets(lab, tmp_path)
    ref = _of_kind(lab, honest, ObjectType.DATA)[0]
    inventory = Repository.inventory

    def lying(repository: Repository, record: Record) -> Any:
        found = inventory(repository, record)
        if record.seq != hostile.seq:
            return found
        planted = dataclasses.replace(ref, sha256=Digest.of(b"x"))
        return dataclasses.replace(found, objects=(*found.objects, planted))

    monkeypatch.setattr(Repository, "inventory", lying)
    report = lab.verify(keys=False)
    assert (report.verdict, report.whole) == ("failed", (honest.seq,))
    assert report.bad == ()  # the pack is right, and that name is no pack's of that digest
    _spoil(lab, ref, "block")
    assert str(ref.sha256) in lab.verify(keys=False).bad


def _record(lab: Lab, report: VerifyReport) -> None:
    """Sign and record a verification, as the command does."""
    repository = lab.open()
    attestation = attestations.attestation_of(
        repository,
        kind="verification",
        verdict=report.verdict,
        snapshot=None,
        started=lab.clock(),
        tool="vault test",
        details=report.details(),
        claims=report.claims(),
    )
    signed = attestations.sign(attestation, lab.recovery.restorer)
    record = attestations.record_attestation(
        repository, signed, lab.recovery.restorer, tool="vault test"
    )
    assert attestations.objections(signed, record, lab.open().ledger) == []


@pytest.mark.parametrize("kind", [ObjectType.DATA, ObjectType.TREE])
@pytest.mark.parametrize("how", ["missing", "block", "directory"])
def test_a_mended_snapshot_is_told_from_one_that_is_hit(
    lab: Lab, tmp_path: Path, how: str, kind: ObjectType
) -> None:
    """Its pack stays bad; all of it can be had, once a later snapshot stored it anew."""
    first, _ = _datasets(lab, tmp_path)
    spoilt = _of_kind(lab, first, kind)
    for ref in spoilt:
        _spoil(lab, ref, how)
    report = lab.verify()
    assert [hit.is_mended for hit in report.hits] == [False]
    _record(lab, report)
    second = lab.snapshot(tmp_path / "www", dataset="www").record
    report = lab.verify()
    assert report.verdict == "failed"
    assert set(report.bad) == {str(ref.sha256) for ref in spoilt}
    assert [(hit.seq, hit.is_mended) for hit in report.hits] == [(first.seq, True)]
    assert second.seq in report.whole
    for ref in set(_packs(lab, second)) - set(_packs(lab, first)):
        _spoil(lab, ref, "missing")
    if how != "directory":  # blocks behind a broken directory still open, by the index
        assert [hit.is_mended for hit in lab.verify().hits] == [False, False]


def test_packs_once_bad_and_now_right_are_cleared(lab: Lab, record: Record) -> None:
    """With the key, which opens them; a share of the packs clears only what it read."""
    ref = _packs(lab, record)[0]
    data = lab.store.get(ref.name, ref.version)
    _spoil(lab, ref, "block")
    report = lab.verify()
    assert report.bad == (str(ref.sha256),)
    _record(lab, report)
    assert set(lab.open().ledger.bad_packs()) == {str(ref.sha256)}
    assert lab.verify().cleared == ()
    lab.store.corrupt(ref.name, ref.version, data)
    assert lab.verify(keys=False).cleared == ()
    assert lab.verify().cleared == (str(ref.sha256),)


def test_the_share_is_of_bytes_too(lab: Lab, tmp_path: Path) -> None:
    """Ten small packs of eleven are no ten elevenths of what is stored."""
    _datasets(lab, tmp_path)
    report = _share(lab, 0)
    assert report.share == min(
        report.objects_read * 1_000_000 // report.objects,
        report.bytes_read * 1_000_000 // report.bytes,
    )
    assert lab.verify().share == 1_000_000
    assert report.claims()["share"] < 1_000_000
    assert dataclasses.replace(report, objects=0).share == 0  # of nothing
