"""One wrong answer of a store is asked again; one that lasts is found (`double_check`)."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.lab import Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.audit import audit_repository
from vault.custody.findings import Concern
from vault.custody.sampling import Sample
from vault.errors import IntegrityError, ObjectNotFoundError, VaultError
from vault.ledger import pages
from vault.ledger.statements import HeartbeatBody
from vault.machine.workers import make_workers
from vault.model import Digest, LockMode
from vault.repository.append_statements import Draft
from vault.repository.repository import Repository
from vault.storage.base import ObjectVersion
from vault.storage.names import ledger_name

LENGTH = 4  # statements in a page


class Flaky:
    """A store whose answers about some names are wrong: the first ones, or all of them.

    Everything else is the store behind it.
    """

    def __init__(self, store: Any, names: str, kind: str, *, lasting: bool = False) -> None:
        self._store = store
        self._names = names
        self._kind = kind
        self._lasting = lasting
        self.struck: Counter[str] = Counter()  # by name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def _strikes(self, name: str) -> bool:
        if not name.startswith(self._names) or (self.struck[name] and not self._lasting):
            return False
        self.struck[name] += 1
        return True

    def get(
        self, name: str, version: str | None = None, *, offset: int = 0, length: int | None = None
    ) -> bytes:
        """The bytes, one of them flipped, or some missing, or none at all."""
        data: bytes = self._store.get(name, version, offset=offset, length=length)
        if self._kind == "stale list" or not data or not self._strikes(name):
            return data
        if self._kind == "gone":
            raise ObjectNotFoundError(f"{name} is not there")
        if self._kind == "cut":
            return data[: len(data) // 2]
        at = len(data) // 2
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    def versions(self, prefix: str, *, after: str = "") -> Iterator[ObjectVersion]:
        """The list, without some names."""
        for item in self._store.versions(prefix, after=after):
            if self._kind != "stale list" or not self._strikes(item.name):
                yield item

    def versions_of(self, name: str) -> list[ObjectVersion]:
        """The same, of one name."""
        return [item for item in self.versions(name) if item.name == name]


@pytest.fixture
def lab(
    make_repository: MakeRepository,
    make_source: MakeSource,
    monkeypatch: pytest.MonkeyPatch,
) -> Lab:
    """Two snapshots, a page of the ledger, a restore that was attested."""
    monkeypatch.setattr(pages, "PAGE_LENGTH", LENGTH)
    made: Lab = make_repository(LockMode.GOVERNANCE)
    source = make_source(files=6)
    made.snapshot(source)
    (source / "dir0/file0").write_bytes(b"changed" * 9000)
    made.snapshot(source)
    repository = made.open()
    digest = repository.put_evidence(b"# vault-inventory 1\n# objects 0\n# bytes 0\n")
    beat = Draft(
        type="heartbeat",
        subject=[("repository", Digest.of(repository.id))],
        body=HeartbeatBody(note="alive"),
    )
    for _ in range(LENGTH):
        repository.append(lambda _: beat, [made.host.key.signing], tool="t")
    assert digest
    return made


def _open(lab: Lab) -> int:
    return lab.open().head.seq


def _verify(lab: Lab) -> str:
    return lab.verify(*lab.open().ledger.snapshots()).verdict


def _sizes(lab: Lab) -> str:
    return lab.verify(*lab.open().ledger.snapshots(), keys=False).verdict


def _contents(lab: Lab) -> list[Any]:
    return [lab.contents(record) for record in lab.open().ledger.snapshots()]


def _audit(lab: Lab) -> list[str]:
    repository = Repository.open(lab.store, lab.root, clock=lab.clock, tolerant=True)
    with make_workers(2) as workers:
        report = audit_repository(repository, sample=Sample(share=1.0), workers=workers)
    return [
        f"{each.code} {each.subject}"
        for each in report.findings
        if each.concern is not Concern.NONE
    ]


LOOKS: dict[str, Callable[[Lab], Any]] = {
    "open": _open,
    "verify": _verify,
    "verify without key": _sizes,
    "restore": _contents,
    "audit": _audit,
}
READ = {  # what each of them reads
    "open": ("ledger/",),
    "verify": ("ledger/", "inventory/", "packs/", "domains/"),
    "verify without key": ("ledger/", "inventory/", "packs/", "domains/"),
    "restore": ("ledger/", "inventory/", "packs/", "domains/"),
    "audit": ("ledger/", "inventory/", "packs/", "domains/"),
}
CASES = [
    (look, names, kind)
    for look in LOOKS
    for names in READ[look]
    for kind in ("flip", "cut", "gone", "stale list")
    if kind != "stale list" or names == "ledger/" or look == "audit"
]


@pytest.mark.parametrize(("look", "names", "kind"), CASES)
def test_one_wrong_answer_accuses_nobody(lab: Lab, look: str, names: str, kind: str) -> None:
    """About every object of a kind, the first answer only: the same is seen as without."""
    right = LOOKS[look](lab)
    store = Flaky(lab.store, names, kind)
    assert LOOKS[look](dataclasses.replace(lab, store=store)) == right
    assert store.struck.total() >= 1


@pytest.mark.parametrize(("look", "names", "kind"), CASES)
def test_an_answer_that_stays_wrong_is_found(lab: Lab, look: str, names: str, kind: str) -> None:
    """Control: the same fault for good."""
    right = LOOKS[look](lab)
    store = Flaky(lab.store, names, kind, lasting=True)
    try:
        seen = LOOKS[look](dataclasses.replace(lab, store=store))
    except VaultError as error:
        seen = type(error)
    assert seen != right


@pytest.mark.parametrize("kind", ["flip", "cut", "gone", "stale list"])
def test_a_statement_that_answers_wrongly_once_keeps_its_number(lab: Lab, kind: str) -> None:
    """The newest too, where nothing beyond it could tell: a new one follows it."""
    head = lab.open().head
    name = ledger_name(head.seq)
    if kind == "stale list":
        name = ledger_name(head.seq - 1)
    store = Flaky(lab.store, name, kind)
    found = dataclasses.replace(lab, store=store).open()
    assert store.struck.total() == 1
    assert found.head == head
    assert found.findings == []


def test_a_read_that_failed_twice_is_no_more_than_two_reads(lab: Lab) -> None:
    """Who answers wrongly for good costs twice the time, and not more."""
    repository = lab.open()
    ref = repository.inventory_ref(repository.ledger.snapshots()[-1])
    store = Flaky(lab.store, ref.name, "flip", lasting=True)
    broken = dataclasses.replace(lab, store=store).open()
    with pytest.raises(IntegrityError):
        broken.read(ref)
    assert store.struck[ref.name] == 2


@pytest.mark.parametrize("kind", ["flip", "cut", "gone"])
def test_evidence_is_asked_for_again(lab: Lab, kind: str) -> None:
    """Else a plan of one moment would cost every pack a lock, and an attestation its worth."""
    repository = lab.open()
    data = b"a plan or an attestation"
    digest = repository.put_evidence(data)
    store = Flaky(lab.store, "evidence/", kind)
    assert dataclasses.replace(lab, store=store).open().read_evidence(digest) == data
    assert store.struck.total() == 1


def test_a_snapshot_goes_on_after_wrong_answers(lab: Lab, make_source: MakeSource) -> None:
    """About everything it reads."""
    source = make_source("more", files=3)
    for names in ("ledger/", "inventory/", "domains/", "index/"):
        store = Flaky(lab.store, names, "flip")
        broken = dataclasses.replace(lab, store=store)
        record = broken.snapshot(source, dataset="more").record
        assert lab.verify(record).verdict == "passed"
