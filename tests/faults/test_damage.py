"""Every kind of object damaged in every way: found by the right error, or irrelevant."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.support.lab import Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.errors import IntegrityError, RepositoryNotFoundError
from vault.model import Digest, LockMode, ObjectRef
from vault.repository.repository import domain_ref
from vault.storage.base import ObjectVersion
from vault.verify import VerifyReport

Damage: TypeAlias = Callable[[bytes, bytes], bytes]

KINDS = ("root", "ledger", "inventory", "data", "tree", "index", "domain", "evidence")


@pytest.fixture
def lab(make_repository: MakeRepository, make_source: MakeSource) -> Lab:
    """A repository after two snapshots."""
    made: Lab = make_repository(LockMode.NONE)
    source = make_source()
    made.snapshot(source)
    (source / "dir0/file0").write_bytes(b"changed" * 3000)
    made.snapshot(source)
    digest = made.open().put_evidence(b"# vault-inventory 1\n# objects 0\n# bytes 0\n")
    assert made.open().read_evidence(digest)
    return made


def _objects(lab: Lab) -> dict[str, list[ObjectVersion]]:
    """Stored objects by kind; of the newest snapshot where there is a choice."""
    repository = lab.open()
    record = repository.ledger.snapshots()[-1]
    inventory = repository.inventory(record)
    listed = {item.name: item for item in lab.store.versions("")}
    (writer,) = repository.ledger.writers.values()
    assert writer.domain is not None
    return {
        "root": [listed["ledger/0000000000000000"]],
        "ledger": [listed[f"ledger/{seq:016d}"] for seq in (1, 2)],
        "inventory": [listed[repository.inventory_ref(record).name]],
        "data": [listed[ref.name] for ref in _packs(lab, 1)][:2],
        "tree": [listed[ref.name] for ref in _packs(lab, 2)][:1],
        "index": [listed[ref.name] for ref in inventory.index],
        "domain": [listed[domain_ref(writer.domain).name]],
        "evidence": [item for name, item in listed.items() if name.startswith("evidence/")],
    }


def _packs(lab: Lab, kind: int) -> Iterator[ObjectRef]:
    repository = lab.open()
    for ref in repository.inventory(repository.ledger.snapshots()[-1]).objects:
        if ref.name.startswith("packs/") and lab.store.get(ref.name)[14] == kind:
            yield ref


def _flips(data: bytes) -> list[bytes]:
    """One byte changed in every region: the ends, and every so often between them."""
    places = {0, 9, 13, len(data) - 1, len(data) - 9, *range(0, len(data), len(data) // 12 or 1)}
    return [data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :] for at in sorted(places)]


def _damages(data: bytes, other: bytes, foreign: bytes) -> dict[str, bytes]:
    flips = {f"flip {number}": flipped for number, flipped in enumerate(_flips(data))}
    return flips | {
        "truncated": data[: len(data) // 2],
        "short by one": data[:-1],
        "extended": data + b"\0",
        "empty": b"",
        "swapped": other,
        "spliced": foreign,
        "splice of halves": data[: len(data) // 2] + foreign[len(data) // 2 :],
    }


def _look(lab: Lab, *, keys: bool) -> tuple[bool, VerifyReport | None]:
    """Whether anything is found; any error outside the integrity family fails the test."""
    try:
        report = lab.verify(keys=keys)
    except (IntegrityError, RepositoryNotFoundError):
        return True, None
    return bool(report.findings), report


@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_goes_unnoticed_or_ends_in_a_crash(
    lab: Lab,
    make_repository: MakeRepository,
    make_source: MakeSource,
    tmp_path: Path,
    kind: str,
) -> None:
    """Without keys and with them; an index object is no need: ignored, and nothing is missed."""
    foreign_lab = make_repository(name="foreign")
    source = make_source("foreign source", seed=9)
    for dataset in ("data", "other"):
        foreign_lab.snapshot(source, dataset=dataset)
        (source / "dir0/file1").write_bytes(b"other" * 3000)
    foreign_lab.open().put_evidence(b"# other\n")
    items = _objects(lab)[kind]
    foreign = foreign_lab.store.get(_objects(foreign_lab)[kind][0].name)
    others = items[1:] + items[:1] if len(items) > 1 else _objects(foreign_lab)[kind]
    assert items
    expected = len(lab.open().ledger.snapshots())
    for item, other in zip(items, others, strict=False):
        data = lab.store.get(item.name)
        swapped = (lab if len(items) > 1 else foreign_lab).store.get(other.name)
        variants = _damages(data, swapped, foreign)
        for name, damaged in variants.items():
            if damaged == data:
                continue
            twin = lab.with_store(lab.store.copy())
            twin.store.corrupt(item.name, item.version, damaged)
            _check(twin, kind, f"{kind}: {name}", expected)
        twin = lab.with_store(lab.store.copy())
        twin.store.remove(item.name, item.version)
        _check(twin, kind, f"{kind}: deleted", expected)


def _check(lab: Lab, kind: str, what: str, snapshots: int) -> None:
    if kind in ("index", "evidence"):  # no needs; evidence is read by who relies on it
        found, report = _look(lab, keys=True)
        assert not found, what
        assert report is not None
        assert report.verdict == "passed"
        for record in lab.open().ledger.snapshots():
            assert lab.contents(record)
        return
    public, report = _look(lab, keys=False)
    if kind == "ledger" and not public and report is not None:
        assert len(report.snapshots) == snapshots, what  # the envelope changed, not what it says
        return
    assert public, what
    private, _ = _look(lab, keys=True)
    assert private, what


def test_the_end_of_the_ledger_can_only_be_missed_with_a_floor(lab: Lab) -> None:
    """Without the newest statement the chain is valid: `--trust` and the memory are for that."""
    items = list(lab.store.versions("ledger/"))
    lab.store.remove(items[-1].name, items[-1].version)
    assert len(lab.open().ledger.snapshots()) == 1
    assert lab.verify().verdict == "passed"


def test_damaged_evidence_is_found_by_who_reads_it(lab: Lab) -> None:
    """It is cited by digest."""
    (item,) = lab.store.versions("evidence/")
    read = lab.open().read_evidence
    name = Digest.parse(item.name.partition("/")[2])
    data = lab.store.get(item.name)
    for damaged in [*_flips(data), b"", data[:-1], data + b"\n"]:
        lab.store.corrupt(item.name, item.version, damaged)
        with pytest.raises(IntegrityError):
            read(name)
    lab.store.remove(item.name, item.version)
    with pytest.raises(IntegrityError):
        read(name)


def test_a_hidden_or_newer_version_is_seen_through(lab: Lab) -> None:
    """I5: what an attacker puts on top of an object changes nothing: versions are pinned."""
    for items in _objects(lab).values():
        for item in items:
            lab.store.plant(item.name, b"junk")
            lab.store.put_marker(item.name)
    report = lab.verify()
    assert report.passed
    for record in lab.open().ledger.snapshots():
        assert lab.contents(record)


def test_right_bytes_under_another_version_are_used_and_reported(lab: Lab) -> None:
    """I5: a copied bucket has other version ids."""
    for item in list(lab.store.versions("")):
        data = lab.store.get(item.name, item.version)
        lab.store.remove(item.name, item.version)
        lab.store.plant(item.name, data)
    report = lab.verify()
    assert report.passed
    assert any("another version" in finding.problem for finding in report.findings)


def test_a_snapshot_goes_on_where_index_objects_are_damaged(
    lab: Lab, make_source: MakeSource
) -> None:
    """I10: a bad index is ignored; what it knew is stored again, nothing is believed."""
    for item in _objects(lab)["index"]:
        data = bytearray(lab.store.get(item.name))
        data[len(data) // 2] ^= 1
        lab.store.corrupt(item.name, item.version, bytes(data))
    fresh = lab.with_host(dataclasses.replace(lab.host, base=lab.base / "reinstalled"))
    report = fresh.snapshot(make_source("again"))
    assert report.reused_packs == 0
    assert lab.verify(report.record).verdict == "passed"


@pytest.mark.parametrize("mode", [LockMode.NONE, LockMode.GOVERNANCE])
@pytest.mark.parametrize("how", ["gone", "cut", "flipped"])
def test_nothing_is_published_without_what_every_restore_needs(
    make_repository: MakeRepository, make_source: MakeSource, mode: LockMode, how: str
) -> None:
    """I1: the domain object is stored once, by enrolment, and read back for each snapshot."""
    lab = make_repository(mode)
    source = make_source()
    lab.snapshot(source)
    (item,) = _objects(lab)["domain"]
    data = lab.store.get(item.name)
    if how == "gone":
        lab.store.remove(item.name, item.version)
    else:
        damaged = data[:-1] if how == "cut" else data[:-1] + bytes([data[-1] ^ 1])
        lab.store.corrupt(item.name, item.version, damaged)
    with pytest.raises(IntegrityError, match=item.name):
        lab.snapshot(source)
    assert len(lab.open().ledger.snapshots()) == 1
