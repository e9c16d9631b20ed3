"""A pack that was found wrong is built upon by nobody, and older snapshots live on substitutes."""

import dataclasses
import json
import os
import random
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Host, Lab, MakeRepository
from vault.browse import View
from vault.browse.files import FileContent
from vault.errors import IntegrityError
from vault.ledger.records import Record
from vault.machine.workers import make_workers
from vault.model import LockMode, ObjectRef, ObjectType
from vault.repository import attestations, bad_packs
from vault.repository.bad_packs import BadPackMemory
from vault.restore import RestoreOutcome, RestoreReport, RestoreRequest, restore_snapshot
from vault.snapshot import (
    NamedStream,
    PreviewAction,
    SnapshotReport,
    SnapshotRequest,
    StandardInput,
    preview_snapshot,
)
from vault.verify import VerifyReport

DATA, TREE = int(ObjectType.DATA), int(ObjectType.TREE)


def bit(data: bytes) -> bytes:
    """One bit in the middle."""
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "a bit": bit,
    "a bit of the header": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "a bit of the directory": lambda data: data[:-30] + bytes([data[-30] ^ 1]) + data[-29:],
    "other bytes of its size": lambda data: random.Random(1).randbytes(len(data)),
    "cut short": lambda data: data[: len(data) // 2],
    "longer": lambda data: data + b"\0",
    "empty": lambda _: b"",
    "missing": lambda _: None,
}


@pytest.fixture(params=[LockMode.NONE, LockMode.GOVERNANCE])
def lab(make_repository: MakeRepository, request: pytest.FixtureRequest) -> Lab:
    """An empty repository; the second way, nobody could move a pack away."""
    return make_repository(request.param)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Some files, small and large ones, a hard link; old enough to be taken for unchanged."""
    top = tmp_path / "files"
    (top / "d").mkdir(parents=True)
    for i in range(12):
        (top / f"d/f{i}").write_bytes(random.Random(i).randbytes(5_000))
    (top / "big").write_bytes(random.Random(99).randbytes(120_000))
    os.link(top / "big", top / "second name")
    return top


def packs_of(lab: Lab, record: Record, kind: int | None = None) -> list[ObjectRef]:
    """What a snapshot needs, by name."""
    refs = [r for r in lab.open().inventory(record).objects if r.name.startswith("packs/")]
    return [r for r in refs if kind is None or kind_of(lab, r) == kind]


def kind_of(lab: Lab, ref: ObjectRef) -> int:
    """As the header says, where it is there."""
    data: bytes = lab.store.get(ref.name, ref.version)
    return data[14]


def spoil(lab: Lab, refs: Iterable[ObjectRef], damage: str = "a bit") -> list[str]:
    """Damage packs as a disk does; returns their ids."""
    for ref in refs:
        data = DAMAGE[damage](lab.store.get(ref.name, ref.version))
        if data is None:
            lab.store.remove(ref.name, ref.version)
        else:
            lab.store.corrupt(ref.name, ref.version, data)
    return [ref.sha256.hex() for ref in refs]


def attested(lab: Lab, report: VerifyReport, *, verdict: str | None = None) -> Record:
    """Sign and record a verification, as `vault verify` does."""
    repository = lab.open()
    attestation = attestations.attestation_of(
        repository,
        kind="verification",
        verdict=verdict or report.verdict,
        snapshot=None,
        started=lab.clock(),
        tool="vault test",
        details=report.details(),
        claims=report.claims(),
    )
    data = attestations.sign(attestation, lab.recovery.restorer)
    return attestations.record_attestation(
        repository, data, lab.recovery.restorer, tool="vault test"
    )


def say(lab: Lab, bad: Iterable[str] = (), cleared: Iterable[str] = ()) -> Record:
    """A restorer's word on packs, true or not."""
    report = lab.verify(keys=False)
    return attested(
        lab,
        dataclasses.replace(report, bad=tuple(sorted(bad)), cleared=tuple(sorted(cleared))),
        verdict="failed" if bad else "passed",
    )


def look(lab: Lab, *records: Record) -> None:
    """A verification without keys, on this host."""
    report = lab.verify(*records, keys=False)
    repository = lab.open()
    checked = records or repository.ledger.snapshots()
    BadPackMemory(lab.host.state).note(repository, checked, report.bad, whole=True)


def files(top: Path) -> dict[str, bytes]:
    """What a restore has to give; of hard links, the first name has the content."""
    found = {str(p.relative_to(top)): p.read_bytes() for p in sorted(top.rglob("*")) if p.is_file()}
    found.pop("second name", None)
    return found


def is_free_of(lab: Lab, report: SnapshotReport, bad: Iterable[str]) -> bool:
    """Whether a snapshot needs none of these packs."""
    return not {r.sha256.hex() for r in packs_of(lab, report.record)} & set(bad)


# --- writers ---


@pytest.mark.parametrize("kind", [DATA, TREE])
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("signed", [True, False], ids=["signed", "own look"])
def test_what_is_damaged_is_stored_anew(
    lab: Lab,
    source: Path,
    kind: int,
    damage: str,
    signed: bool,  # noqa: FBT001 - a parameter
) -> None:
    """The next snapshot needs none of the bad packs, is whole, and says what it replaced."""
    first = lab.snapshot(source)
    bad = spoil(lab, packs_of(lab, first.record, kind)[:1], damage)
    if signed:
        attested(lab, lab.verify())
    else:
        look(lab)
    second = lab.snapshot(source)
    assert is_free_of(lab, second, bad)
    assert lab.contents(second.record) == files(source)
    assert lab.verify(second.record).verdict == "passed"
    assert second.left is not None
    assert second.left.packs == tuple(bad)
    assert second.left.words[0].is_own is not signed
    third = lab.snapshot(source)
    assert third.left is None
    assert third.body.counts.added_size == 0


def test_what_nobody_found_is_built_upon(lab: Lab, source: Path) -> None:
    """The control: without a word on it, the damaged pack is reused."""
    first = lab.snapshot(source)
    bad = spoil(lab, packs_of(lab, first.record, DATA)[:1])
    second = lab.snapshot(source)
    assert not is_free_of(lab, second, bad)
    assert second.left is None


@pytest.mark.parametrize("lost", ["cache", "state", "both"])
def test_lost_local_files_bring_nothing_bad_back(lab: Lab, source: Path, lost: str) -> None:
    """The chunk map made from index objects leaves bad packs out, and finds the substitutes."""
    first = lab.snapshot(source)
    bad = spoil(lab, packs_of(lab, first.record, DATA)[:1])
    attested(lab, lab.verify())
    lab.snapshot(source)
    for name in ("cache", "state") if lost == "both" else (lost,):
        (lab.host.base / name).rename(lab.host.base / f"{name} gone")
    third = lab.snapshot(source)
    assert is_free_of(lab, third, bad)
    assert lab.contents(third.record) == files(source)
    assert third.body.counts.added_size == 0


def test_an_interrupted_runs_journal_brings_nothing_bad_back(
    lab: Lab, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed run noted as read lies in a pack that was found wrong since."""
    lab.snapshot(source)
    (source / "new").write_bytes(random.Random(5).randbytes(60_000))
    before = {item.name for item in lab.store.versions("packs/")}

    def cut_off(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("vault.snapshot.publish.Publisher.publish", cut_off)
        with pytest.raises(KeyboardInterrupt):
            lab.snapshot(source)
    new = [item for item in lab.store.versions("packs/") if item.name not in before]
    for item in new:
        lab.store.corrupt(item.name, item.version, bit(lab.store.get(item.name, item.version)))
    bad = [item.name.rpartition("/")[2] for item in new]
    say(lab, bad)
    report = lab.snapshot(source)
    assert is_free_of(lab, report, bad)
    assert lab.contents(report.record) == files(source)


def test_a_file_that_is_gone_or_unreadable_keeps_nothing_bad(
    lab: Lab, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a problem of that file; the snapshot is incomplete and the others are whole."""
    first = lab.snapshot(source)
    bad = spoil(lab, packs_of(lab, first.record, DATA))
    attested(lab, lab.verify())
    (source / "d/f0").unlink()
    opened = os.open

    def refuses(path: object, *rest: object, **options: object) -> int:
        if os.fsencode(path).endswith(b"f1"):  # type: ignore[arg-type]
            raise PermissionError(13, "Permission denied")
        return opened(path, *rest, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuses)
        second = lab.snapshot(source)
    assert is_free_of(lab, second, bad)
    assert [(p.path, p.kind) for p in second.problems] == [(b"d/f1", "unreadable")]
    assert not second.body.complete
    expected = files(source)
    del expected["d/f1"]
    assert lab.contents(second.record) == expected


def test_streams_store_anew_what_is_damaged(lab: Lab, tmp_path: Path) -> None:
    """Standard input again, the same bytes."""
    data = random.Random(3).randbytes(100_000)
    dump = tmp_path / "dump"
    dump.write_bytes(data)

    def take() -> SnapshotReport:
        with dump.open("rb") as file:
            return lab.snapshot(stream=NamedStream(name="dump", stream=StandardInput(file)))

    first = take()
    bad = spoil(lab, packs_of(lab, first.record, DATA)[:2])
    attested(lab, lab.verify())
    second = take()
    assert is_free_of(lab, second, bad)
    assert lab.contents(second.record) == {"dump": data}


def test_all_hosts_and_datasets_of_a_domain_leave_it(lab: Lab, source: Path) -> None:
    """Another dataset and another host that share the pack store its chunks anew, once."""
    other: Host = lab.enrol("other", domain="default")
    there = lab.with_host(other)
    first = lab.snapshot(source)
    lab.snapshot(source, dataset="copy")
    shared = there.snapshot(source, dataset="theirs")
    assert shared.body.counts.added_size == 0
    bad = spoil(lab, packs_of(lab, first.record, DATA)[:1])
    attested(lab, lab.verify())
    reports = [
        lab.snapshot(source),
        lab.snapshot(source, dataset="copy"),
        there.snapshot(source, dataset="theirs"),
    ]
    for report in reports:
        assert is_free_of(lab, report, bad)
        assert report.left is not None
        assert lab.contents(report.record) == files(source)
    assert [report.body.counts.added_size > 0 for report in reports] == [True, False, False]


def test_what_is_found_while_a_run_builds_on_it_is_left(
    lab: Lab, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The word comes between the walk and the manifest: the run begins again."""
    first = lab.snapshot(source)
    bad = spoil(lab, packs_of(lab, first.record, DATA)[:1])
    store_index = "vault.snapshot.publish.Publisher.store_index"
    from vault.snapshot.publish import Publisher

    before = Publisher.store_index
    said: list[Record] = []

    def speaks(self: Publisher, *arguments: object) -> object:
        if not said:
            said.append(say(lab, bad))
        return before(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(store_index, speaks)
    second = lab.snapshot(source)
    assert is_free_of(lab, second, bad)
    assert lab.contents(second.record) == files(source)


def test_a_dry_run_says_which_unchanged_files_are_read(lab: Lab, source: Path) -> None:
    """Those whose packs are bad, with the reason; the control: without a word on them, none."""

    def read() -> list[tuple[bytes, str]]:
        request = SnapshotRequest(paths=(source,), dataset="data", tool="vault test")
        host = lab.host
        planned = preview_snapshot(
            lab.open(), host.key, request, cache_dir=host.cache, state_dir=host.state
        )
        return [(each.path, each.reason) for each in planned if each.action is PreviewAction.READ]

    first = lab.snapshot(source)
    assert not read()
    spoil(lab, packs_of(lab, first.record, DATA))
    attested(lab, lab.verify())
    assert len(read()) == 13
    assert {reason for _, reason in read()} == {
        "unchanged, but its packs are damaged, gone or about to go"
    }


# --- whose word counts ---


def test_a_later_right_reading_takes_it_back(lab: Lab, source: Path) -> None:
    """It was no damage: the pack is built upon again."""
    first = lab.snapshot(source)
    bad = [ref.sha256.hex() for ref in packs_of(lab, first.record, DATA)[:1]]
    say(lab, bad)
    say(lab, cleared=bad)
    second = lab.snapshot(source)
    assert not is_free_of(lab, second, bad)
    assert second.body.counts.added_size == 0


def test_an_own_look_is_taken_back_by_another_and_by_a_restorer(
    lab: Lab, source: Path, tmp_path: Path
) -> None:
    """By a look that finds it right, and by a passed verification of the snapshot."""
    first = lab.snapshot(source)
    (ref,) = packs_of(lab, first.record, DATA)[:1]
    right = lab.store.get(ref.name, ref.version)
    spoil(lab, [ref])
    look(lab)
    lab.store.corrupt(ref.name, ref.version, right)
    assert bad_packs.words(lab.open(), BadPackMemory(lab.host.state))
    signed = lab.fork(tmp_path / "fork")
    look(lab)
    assert not bad_packs.words(lab.open(), BadPackMemory(lab.host.state))
    attested(signed, signed.verify())
    assert not bad_packs.words(signed.open(), BadPackMemory(signed.host.state))


def test_statements_that_name_all_take_no_room_of_those_that_do_not(
    lab: Lab, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many attestations are read, of the latest statements that have more than they name."""
    lab.snapshot(source)
    many = [f"{number:064x}" for number in range(30)]
    say(lab, bad=many)
    for number in range(3):
        say(lab, bad=[f"{number:064x}"])
    monkeypatch.setattr(bad_packs, "MAX_READ", 1)
    assert set(bad_packs.words(lab.open())) == set(many)
    say(lab, bad=[f"{number:064x}" for number in range(100, 130)])
    assert len(bad_packs.words(lab.open())) < 60  # the control: there is room for one


def test_more_than_a_statement_names_count_by_its_attestation(lab: Lab, source: Path) -> None:
    """All of them, and only as long as the attestation bears the statement out."""
    for i in range(40):
        (source / f"more{i}").write_bytes(random.Random(1000 + i).randbytes(24_000))
    first = lab.snapshot(source)
    refs = packs_of(lab, first.record, DATA)
    assert len(refs) > 30
    bad = [ref.sha256.hex() for ref in refs]
    statement = say(lab, bad)
    assert set(bad_packs.words(lab.open())) == set(bad)
    assert is_free_of(lab, lab.snapshot(source), bad)
    evidence = f"evidence/{statement.body.attestation}"  # type: ignore[union-attr]
    (version,) = (item.version for item in lab.store.versions(evidence))
    lab.store.corrupt(evidence, version, bit(lab.store.get(evidence)))
    assert len(bad_packs.words(lab.open())) == 24


def test_many_at_once_are_left_and_it_is_said_by_whom(lab: Lab, source: Path) -> None:
    """A word against everything costs an upload; the report names it. One in a hundred does not."""
    first = lab.snapshot(source)
    record = say(lab, [ref.sha256.hex() for ref in packs_of(lab, first.record)])
    second = lab.snapshot(source)
    assert second.left is not None
    assert second.left.is_many
    assert [word.seq for word in second.left.words] == [record.seq]
    assert second.left.words[0].key_id == lab.recovery.restorer.public.id
    few = dataclasses.replace(second.left, packs=second.left.packs[:1], of=100)
    assert not few.is_many


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"format":2,"packs":{},"repository":"x"}',
        b'{"format":1,"packs":{"x":[1,2]},"repository":"REPOSITORY"}',
        b'{"format":1,"packs":{"%s":["a",2]},"repository":"REPOSITORY"}' % (b"0" * 64),
        b'{"format":1,"packs":{"%s":[-1,2]},"repository":"REPOSITORY"}' % (b"0" * 64),
        b'{"format":1,"packs":{"%s":[1,2]},"repository":"00"}' % (b"0" * 64),
        b" " * (3 << 20),
    ],
)
def test_a_malformed_memory_says_nothing_and_is_written_anew(
    lab: Lab, source: Path, content: bytes
) -> None:
    """A snapshot goes on; the next look finds the damage again."""
    first = lab.snapshot(source)
    bad = spoil(lab, packs_of(lab, first.record, DATA)[:1])
    repository = lab.open()
    path = lab.host.state / repository.ledger.repository_id / "bad-packs.json"
    path.write_bytes(content.replace(b"REPOSITORY", repository.ledger.repository_id.encode()))
    assert not bad_packs.words(repository, BadPackMemory(lab.host.state))
    look(lab)
    assert list(bad_packs.words(repository, BadPackMemory(lab.host.state))) == bad


def test_a_memory_is_on_the_disk_before_it_has_its_name(
    lab: Lab, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut the former one is there, or the new one: never one that is empty."""
    first = lab.snapshot(source)
    spoil(lab, packs_of(lab, first.record, DATA)[:1])
    synced: list[tuple[int, int]] = []
    named: list[tuple[int, int]] = []
    sync, replace = os.fsync, Path.replace

    def note_sync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        synced.append((status.st_ino, status.st_size))
        sync(descriptor)

    def note_replace(path: Path, target: Path) -> Path:
        status = path.stat()
        assert (status.st_ino, status.st_size) in synced
        named.append((status.st_ino, status.st_size))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_replace)
    look(lab)
    assert len(named) == 1
    assert named[0][1] > 0


@pytest.mark.parametrize("how", ["writable by a group", "writable by all", "a link", "a pipe"])
def test_a_memory_that_others_could_have_written_says_nothing(
    lab: Lab, source: Path, tmp_path: Path, how: str
) -> None:
    """Or it would tell a host to upload everything anew; its owner's own is believed."""
    first = lab.snapshot(source)
    spoil(lab, packs_of(lab, first.record, DATA)[:1])
    look(lab)
    memory = BadPackMemory(lab.host.state)
    path = lab.host.state / lab.open().ledger.repository_id / "bad-packs.json"
    assert bad_packs.words(lab.open(), memory)
    assert path.stat().st_mode & 0o777 == 0o600
    if how.startswith("writable"):
        path.chmod(0o660 if "group" in how else 0o606)
    else:
        path.rename(tmp_path / "elsewhere")
        if how == "a link":
            path.symlink_to(tmp_path / "elsewhere")
        else:
            os.mkfifo(path)
    assert not bad_packs.words(lab.open(), memory)


def test_the_memory_is_bounded(lab: Lab, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more packs than it holds, those that were seen last."""
    monkeypatch.setattr(bad_packs, "MAX_REMEMBERED", 2)
    first = lab.snapshot(source)
    spoil(lab, packs_of(lab, first.record, DATA)[:4])
    look(lab)
    path = lab.host.state / lab.open().ledger.repository_id / "bad-packs.json"
    assert len(json.loads(path.read_bytes())["packs"]) == 2


def test_unsigned_words_bind_one_host_alone(lab: Lab, source: Path) -> None:
    """What one host saw and nobody signed is no reason for another to upload."""
    first = lab.snapshot(source)
    there = lab.with_host(lab.enrol("other", domain="default"))
    bad = spoil(lab, packs_of(lab, first.record, DATA)[:1])
    look(lab)
    theirs = there.snapshot(source, dataset="theirs")
    assert not is_free_of(lab, theirs, bad)


# --- what older snapshots live on ---


def locks_of(lab: Lab, record: Record) -> dict[str, datetime]:
    """Until when each pack of a snapshot is locked, by hex id."""
    found = {}
    for ref in packs_of(lab, record):
        retention = lab.store.status(ref.name, ref.version).retention
        assert retention is not None
        found[ref.sha256.hex()] = retention.until
    return found


@pytest.mark.parametrize("kind", [DATA, TREE])
def test_substitutes_are_locked_as_long_as_an_older_snapshot_needs_them(
    make_repository: MakeRepository, source: Path, kind: int
) -> None:
    """By whoever stores them; the packs that are no substitutes are not, which is the control."""
    lab = make_repository(LockMode.GOVERNANCE)
    first = lab.snapshot(source, retention=timedelta(days=90))
    until = first.body.until
    refs = packs_of(lab, first.record, kind)
    bad = spoil(lab, refs[:1])
    attested(lab, lab.verify())
    (source / "new").write_bytes(random.Random(77).randbytes(60_000))
    second = lab.snapshot(source, retention=timedelta(days=7))
    assert is_free_of(lab, second, bad)
    locks = locks_of(lab, second.record)
    others = [ref.sha256.hex() for ref in packs_of(lab, first.record)]
    new = [until_ for pack, until_ in locks.items() if pack not in others]
    assert max(new) >= until
    if kind == DATA:
        assert min(new) < until


def test_what_another_host_stored_is_locked_too(
    make_repository: MakeRepository, source: Path
) -> None:
    """A substitute that nobody has to store: the run that reuses it locks it."""
    lab = make_repository(LockMode.GOVERNANCE)
    first = lab.snapshot(source, retention=timedelta(days=90))
    until = first.body.until
    there = lab.with_host(lab.enrol("other", domain="default"))
    bad = spoil(lab, packs_of(lab, first.record, DATA))
    attested(lab, lab.verify())
    theirs = there.snapshot(source, dataset="theirs", retention=timedelta(days=7))
    data = {ref.sha256.hex() for ref in packs_of(lab, theirs.record, DATA)}
    assert data.isdisjoint(bad)
    locks = locks_of(lab, theirs.record)
    assert min(locks[pack] for pack in data) >= until


def test_substitutes_that_come_later_are_locked_then(
    make_repository: MakeRepository, source: Path
) -> None:
    """A file that was away during the first run: the next that meets it locks the rest."""
    lab = make_repository(LockMode.GOVERNANCE)
    first = lab.snapshot(source, retention=timedelta(days=90))
    until = first.body.until
    bad = spoil(lab, packs_of(lab, first.record, DATA))
    attested(lab, lab.verify())
    (source / "d/f3").rename(source.parent / "f3")
    lab.snapshot(source, retention=timedelta(days=7))
    (source.parent / "f3").rename(source / "d/f3")
    third = lab.snapshot(source, retention=timedelta(days=7))
    assert is_free_of(lab, third, bad)
    locks = locks_of(lab, third.record)
    assert all(locks[ref.sha256.hex()] >= until for ref in packs_of(lab, third.record, DATA))


def test_what_is_mended_is_looked_for_no_more(
    make_repository: MakeRepository, source: Path
) -> None:
    """Index objects are read once for it, not by every run while the old snapshot lives."""
    lab = make_repository(LockMode.GOVERNANCE)
    first = lab.snapshot(source)
    spoil(lab, packs_of(lab, first.record, DATA)[:1])
    attested(lab, lab.verify())
    lab.snapshot(source)
    lab.snapshot(source)  # learns of the index object that the one before stored
    read: list[str] = []

    def note(point: Any) -> None:
        if point.operation == "get" and point.phase == "before":
            read.append(point.name)

    lab.store.fault = note
    lab.snapshot(source)
    lab.store.fault = None
    assert not [name for name in read if name.startswith(("index/", "packs/"))]


# --- readers of older snapshots ---


def restored(lab: Lab, record: Record, target: Path, **options: Any) -> RestoreReport:
    """A real restore, proven."""
    request = RestoreRequest(record=record, target=target, tool="vault test", **options)
    scratch = lab.base / "scratch"
    scratch.mkdir(exist_ok=True)
    with make_workers(0) as workers:
        return restore_snapshot(
            lab.open(), lab.recovery, request, local=lab.local, scratch=scratch, workers=workers
        )


def drop_index(lab: Lab) -> None:
    """Lose every index object: directories of packs are all there is."""
    for version in list(lab.store.versions("index/")):
        lab.store.remove(version.name, version.version)


@pytest.mark.parametrize("index", [True, False], ids=["index", "no index"])
@pytest.mark.parametrize("kind", [DATA, TREE])
@pytest.mark.parametrize("damage", DAMAGE)
def test_an_older_snapshot_is_restored_by_substitutes(  # noqa: PLR0917 - parameters
    lab: Lab,
    source: Path,
    tmp_path: Path,
    damage: str,
    kind: int,
    index: bool,  # noqa: FBT001 - a parameter
) -> None:
    """Once its chunks exist again, by whichever damage; its content is that of then."""
    first = lab.snapshot(source)
    then = files(source)
    bad = spoil(lab, packs_of(lab, first.record, kind)[:1], damage)
    if damage == "a bit of the directory":  # of no use to who has an index, and not looked at
        attested(lab, lab.verify())
    else:
        with pytest.raises(IntegrityError):
            restored(lab, first.record, tmp_path / "before")
    assert lab.open().ledger.bad_packs().keys() == set(bad)
    second = lab.snapshot(source)
    assert is_free_of(lab, second, bad)
    if not index:
        drop_index(lab)
    report = restored(lab, first.record, tmp_path / "after")
    assert report.outcome is RestoreOutcome.RECOVERED
    assert files(tmp_path / "after") == then
    assert (tmp_path / "after/second name").stat().st_ino == (tmp_path / "after/big").stat().st_ino


@pytest.mark.parametrize("kind", [DATA, TREE])
def test_damage_that_nobody_knew_of_is_stepped_around_and_attested(
    lab: Lab, source: Path, tmp_path: Path, kind: int
) -> None:
    """Another host stored the chunks; the restore finds the damage itself, goes on, and says so."""
    first = lab.snapshot(source)
    bad = [ref.sha256.hex() for ref in packs_of(lab, first.record, kind)]
    say(lab, bad)  # so that all is stored twice
    lab.snapshot(source)
    say(lab, cleared=bad)
    assert not lab.open().ledger.bad_packs()
    spoil(lab, packs_of(lab, first.record, kind))
    report = restored(lab, first.record, tmp_path / "back")
    assert files(tmp_path / "back") == files(source)
    assert {name.rpartition("/")[2] for name in report.bad_packs} == set(bad)
    assert report.statement is not None
    assert report.statement.body.verdict == "passed"  # type: ignore[union-attr]
    assert lab.open().ledger.bad_packs().keys() == set(bad)


def test_a_substitute_that_is_damaged_too_gives_way_to_a_third(
    lab: Lab, source: Path, tmp_path: Path
) -> None:
    """Known to the ledger, and not."""
    first = lab.snapshot(source)
    known = spoil(lab, packs_of(lab, first.record, DATA))
    attested(lab, lab.verify(first.record))
    second = lab.snapshot(source)
    again = [ref.sha256.hex() for ref in packs_of(lab, second.record, DATA)]
    say(lab, again)
    third = lab.snapshot(source)
    assert is_free_of(lab, third, {*known, *again})
    say(lab, cleared=again)
    spoil(lab, packs_of(lab, second.record, DATA))
    restored(lab, first.record, tmp_path / "unknown")
    assert files(tmp_path / "unknown") == files(source)
    restored(lab, second.record, tmp_path / "now known")
    assert files(tmp_path / "now known") == files(source)


def test_one_wrong_answer_of_a_store_is_no_word(
    lab: Lab, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that are wrong once are read again: nothing is called bad."""
    first = lab.snapshot(source)
    get = type(lab.store).get
    wrong: set[str] = set()

    def once_wrong(self: Any, name: str, *rest: Any, **options: Any) -> bytes:
        data: bytes = get(self, name, *rest, **options)
        if name.startswith("packs/") and name not in wrong:
            wrong.add(name)
            return bit(data)
        return data

    monkeypatch.setattr(type(lab.store), "get", once_wrong)
    report = restored(lab, first.record, tmp_path / "back")
    assert wrong
    assert not report.bad_packs
    assert files(tmp_path / "back") == files(source)
    assert not lab.open().ledger.bad_packs()


def test_a_file_that_lies_nowhere_else_is_lost_and_the_others_are_not(
    lab: Lab, source: Path, tmp_path: Path
) -> None:
    """A selection gives what there is; all of it is refused, and the reason names the pack."""
    first = lab.snapshot(source)
    then = files(source)
    bad = spoil(lab, packs_of(lab, first.record, DATA))
    attested(lab, lab.verify())
    (source / "d/f0").unlink()
    lab.snapshot(source)
    with pytest.raises(IntegrityError, match="packs/"):
        restored(lab, first.record, tmp_path / "all")
    assert not (tmp_path / "all").exists()
    restored(lab, first.record, tmp_path / "some", wanted=lambda path, _: path == b"d/f5")
    assert (tmp_path / "some/d/f5").read_bytes() == then["d/f5"]
    assert bad


@pytest.mark.parametrize("kind", [DATA, TREE])
@pytest.mark.parametrize("damage", DAMAGE)
def test_whoever_looks_into_an_older_snapshot_reads_substitutes(
    lab: Lab, source: Path, tmp_path: Path, kind: int, damage: str
) -> None:
    """`ls`, `cat` and `mount`: names and bytes, whether the damage was known or not."""
    first = lab.snapshot(source)
    then = files(source)
    refs = packs_of(lab, first.record, kind)
    bad = [ref.sha256.hex() for ref in refs]
    say(lab, bad)
    lab.snapshot(source)
    for known in (True, False):
        if not known:
            say(lab, cleared=bad)
        else:
            spoil(lab, refs, damage)
        scratch = tmp_path / f"scratch {known}"
        scratch.mkdir()
        with View(lab.open(), lab.recovery, first.record, scratch=scratch) as view:
            for path, content in then.items():
                number = view.tree.find(path.encode())
                assert number is not None
                entry = view.tree.entry(view.tree.file_of(number))
                assert FileContent(view.blocks, entry).read(0, entry.size) == content


@pytest.mark.parametrize("kind", [DATA, TREE])
def test_verify_calls_a_snapshot_mended_only_while_its_substitutes_last(
    make_repository: MakeRepository,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: int,
) -> None:
    """All of it can be had either way; the difference is whether anything keeps it so."""
    found = []
    for locks in (True, False):
        lab = make_repository(LockMode.GOVERNANCE, name=f"locks {locks}")
        first = lab.snapshot(source, retention=timedelta(days=90))
        spoil(lab, packs_of(lab, first.record, kind))
        attested(lab, lab.verify())
        if not locks:
            monkeypatch.setattr("vault.snapshot.snapshot_attempt.Attempt._mend", lambda _: None)
        lab.snapshot(source, retention=timedelta(days=7))
        report = lab.verify()
        assert report.verdict == "failed"
        (hit,) = report.hits
        assert hit.seq == first.record.seq
        found.append((hit.is_elsewhere, hit.is_mended, hit.loose > 0))
    assert found == [(True, True, False), (True, False, True)]
