"""One stolen key of each role: all others go on, nothing kept is lost, and root N+1 ends it.

Each thief says whatever the key can say. Hosts, readers, restorers and auditors then do their work;
so they do after a root that lists another key in the place of the stolen one.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Host, Lab, MakeRepository
from tests.support.trees import MakeSource, files_of
from vault.audit import audit_repository
from vault.crypto.keys import Signer, SigningKey
from vault.encoding import b64encode
from vault.errors import RetentionError, SignatureError, VaultError, WrongKeyError
from vault.format import inventory
from vault.ledger.distrust import OF_ROLES
from vault.ledger.envelope import Head, build_statement, seal_envelope
from vault.ledger.records import Record, Status
from vault.ledger.statements import (
    DistrustedKey,
    HeartbeatBody,
    HoldBody,
    PolicyBody,
    PruneBody,
    PublicKey,
    ResealBody,
    Role,
    SeedTable,
    WriterBody,
)
from vault.machine.workers import make_workers
from vault.model import Body, Digest, LockMode
from vault.repository.repository import Repository
from vault.storage.names import is_pack, ledger_name

ROLES = [Role.RESTORER, Role.VERIFIER, Role.PRUNER, Role.POLICY, Role.ENROLLER]


@dataclasses.dataclass(kw_only=True)
class Scene:
    """A repository whose root lists a verifier, and two snapshots that must never be lost."""

    lab: Lab
    keys: dict[Role, Any]  # the signing key of each role
    source: Path
    kept: list[tuple[Record, dict[str, bytes]]]
    takes: int = 0

    def take(self, lab: Lab | None = None) -> Record:
        """A snapshot of something new."""
        self.takes += 1
        (self.source / f"new{self.takes}").write_text(f"{self.takes}" * 3000)
        return (lab or self.lab).snapshot(self.source).record

    def keep(self) -> None:
        """A snapshot that must stay, and its content."""
        self.kept.append((self.take(), files_of(self.source)))


@pytest.fixture
def scene(make_repository: MakeRepository, make_source: MakeSource) -> Scene:
    """With locks that hold."""
    lab = make_repository(LockMode.GOVERNANCE)
    verifier = SigningKey.generate()
    keys = lab.open().ledger.root.keys
    lab.append_root(keys=(*keys, _listed("verifier", verifier, Role.VERIFIER)))
    root_key = lab.root_key
    made = Scene(
        lab=lab,
        keys={
            Role.RESTORER: lab.recovery.restorer,
            Role.VERIFIER: verifier,
            Role.PRUNER: root_key.pruner,
            Role.POLICY: root_key.policy,
            Role.ENROLLER: root_key.enroller,
        },
        source=make_source(files=3),
        kept=[],
    )
    made.keep()
    made.keep()
    return made


def _listed(name: str, key: Signer, role: Role) -> PublicKey:
    return PublicKey(name=name, public=b64encode(key.public.der), roles=(role,))


# --- what the thieves say ---


def say(lab: Lab, kind: str, body: Body, key: Signer, *, beyond: int = 1) -> int:
    """Store a statement as the next one, or beyond a hole, whatever it is worth; its number."""
    repository = lab.open()
    head = repository.head
    seq = head.seq + beyond
    payload = build_statement(
        type=kind,
        repository=repository.ledger.repository_id,
        seq=seq,
        prev=head if beyond == 1 else Head(seq=seq - 1, digest=Digest(bytes(32))),
        time=lab.clock(),
        tool="thief",
        subject=[("repository", lab.root)],
        body=body,
        by=[key.public.id],
    )
    envelope = seal_envelope(payload, [key])
    lab.store.put(ledger_name(seq), envelope, sha256=Digest.of(envelope))
    return seq


def _all_packs(scene: Scene) -> list[str]:
    listed = (
        ref.sha256.hex()
        for record, _ in scene.kept
        for ref in scene.lab.open().inventory(record).objects
        if is_pack(ref.name)
    )
    return sorted(set(listed))


def _call_bad(scene: Scene, role: Role) -> None:
    """Everything is wrong, it says; and that all was opened and is right."""
    lab, key = scene.lab, scene.keys[role]
    liar = dataclasses.replace(lab, recovery=dataclasses.replace(lab.recovery, restorer=key))
    seqs = [record.seq for record, _ in scene.kept]
    liar.say("verification", seqs, "failed", bad=_all_packs(scene)[:24])
    liar.say("verification", seqs, "passed")
    for kind in ("restore", "drill"):
        with contextlib.suppress(SignatureError):  # a verifier's would be void
            liar.say(kind, seqs[-1], "failed")


def _restorer(scene: Scene) -> None:
    _call_bad(scene, Role.RESTORER)
    table = SeedTable(name=f"seeds/{'ab' * 32}/{'ef' * 32}", sha256="ef" * 32, size=7, version="1")
    body = ResealBody(recipient="ab" * 32, objects=(table,), sessions=1, through=3)
    say(scene.lab, "reseal", body, scene.keys[Role.RESTORER])


def _verifier(scene: Scene) -> None:
    _call_bad(scene, Role.VERIFIER)


def _pruner(scene: Scene) -> None:
    lab, key = scene.lab, scene.keys[Role.PRUNER]
    repository = lab.open()
    refs = sorted({ref for record, _ in scene.kept for ref in repository.inventory(record).objects})
    for data in (inventory.encode(refs), b"nothing that anybody reads"):
        digest = repository.put_evidence(data)
        say(lab, "prune", PruneBody(phase="plan", plan=str(digest)), key)
    say(lab, "prune", PruneBody(phase="plan", plan="ab" * 32), key)
    for ref in refs:
        with pytest.raises(RetentionError):  # the locks hold against the pruner's rights, too
            lab.store.delete(ref.name, ref.version)


def _policy(scene: Scene) -> None:
    lab, key = scene.lab, scene.keys[Role.POLICY]
    snapshot = scene.kept[-1][0].seq
    retire = PolicyBody(action="retire", name="data", weakens=True)
    say(lab, "policy", retire, key)
    add = HoldBody(action="add", snapshot=snapshot, reason="for ever", author="thief")
    held = say(lab, "hold", add, key)
    release = HoldBody(action="release", snapshot=snapshot, hold=held, reason="x", author="thief")
    say(lab, "hold", release, key)


def _enroller(scene: Scene) -> None:
    lab, key = scene.lab, scene.keys[Role.ENROLLER]
    lab.enrol("thief")
    for writer in list(lab.open().ledger.writers.values()):
        body = WriterBody(
            action="revoke",
            name=writer.name,
            public=b64encode(writer.key.der),
            distrust_from=writer.added + 1,
            reason="x",
        )
        say(lab, "writer", body, key)


THIEVES: dict[Role, Callable[[Scene], None]] = {
    Role.RESTORER: _restorer,
    Role.VERIFIER: _verifier,
    Role.PRUNER: _pruner,
    Role.POLICY: _policy,
    Role.ENROLLER: _enroller,
}


# --- what all others do ---


def _restored(scene: Scene, record: Record, name: str, **options: Any) -> dict[str, bytes]:
    target = scene.lab.base / name
    scene.lab.restore(record, target, **options)
    return files_of(target)


def require_kept(scene: Scene, when: str) -> None:
    """Every snapshot from before is restored by its number, whatever is said of it."""
    for record, content in scene.kept:
        now = scene.lab.open().ledger.records[record.seq]
        is_void = now.status is not Status.VALID
        assert _restored(scene, now, f"{when}{record.seq}", void=is_void) == content


def require_work(scene: Scene, lab: Lab, when: str) -> None:
    """A host publishes, and what it published is restored; an audit comes to its end."""
    state = lab.host.base / "remembers"
    record = scene.take(lab)
    assert lab.open().ledger.records[record.seq].status is Status.VALID
    assert _restored(scene, record, f"work-{when}") == files_of(scene.source)
    audited = Repository.open(lab.store, lab.root, clock=lab.clock, tolerant=True)
    with make_workers(0) as workers:
        audit_repository(audited, workers=workers)
    state.mkdir(exist_ok=True)


def _without(keys: Sequence[PublicKey], stolen: str) -> tuple[PublicKey, ...]:
    return tuple(each for each in keys if each.public != stolen)


def replace_key(scene: Scene, role: Role, *, start: int) -> Signer:
    """Root N+1: another key has the role, and the stolen one is distrusted from a number on."""
    lab, fresh = scene.lab, SigningKey.generate()
    stolen = b64encode(scene.keys[role].public.der)
    keys = _without(lab.open().ledger.root.keys, stolen)
    lab.append_root(
        keys=(*keys, _listed(f"new-{role}", fresh, role)),
        distrust=(DistrustedKey(public=stolen, start=start),),
    )
    return fresh


@pytest.mark.parametrize("role", ROLES)
def test_one_stolen_key_stops_nobody_loses_nothing_and_is_ended(scene: Scene, role: Role) -> None:
    """An enroller's stops hosts, whose keys it takes off the list; readers it stops not."""
    lab = scene.lab
    first = lab.open().head.seq + 1
    THIEVES[role](scene)
    last = lab.open().head.seq
    assert last > first, "the control: it said something that links"
    require_kept(scene, "stolen")
    if role is Role.ENROLLER:
        with pytest.raises(WrongKeyError):
            scene.take()
    else:
        require_work(scene, lab, "stolen")
    fresh = replace_key(scene, role, start=first)
    records = lab.open().ledger.records[first : last + 1]
    theirs = [each for each in records if scene.keys[role].public.id in each.by]
    assert theirs
    for each in theirs:
        if each.type in OF_ROLES:
            assert each.status is Status.VOID
    before = lab.open().head.seq
    say(lab, "heartbeat", HeartbeatBody(note="still here"), scene.keys[role])
    say(lab, "heartbeat", HeartbeatBody(note="still here"), scene.keys[role], beyond=2)
    assert lab.open().head.seq == before, "what the key signs links no more"
    require_kept(scene, "ended")
    require_work(scene, _with_host(lab, role, fresh), "ended")
    seqs = {each.seq for each in lab.open().ledger.snapshots()}
    assert {record.seq for record, _ in scene.kept} <= seqs, "all count again"
    assert lab.verify(*(record for record, _ in scene.kept)).verdict == "passed"


def _with_host(lab: Lab, role: Role, fresh: Any) -> Lab:
    """A host that may write: after a stolen enroller's key, a new one."""
    if role is not Role.ENROLLER:
        return lab
    root_key = dataclasses.replace(lab.root_key, enroller=fresh)
    governed = dataclasses.replace(lab, root_key=root_key)
    host: Host = governed.enrol("again")
    return governed.with_host(host)


@pytest.mark.parametrize("role", ROLES)
def test_no_stolen_key_does_another_roles_work(scene: Scene, role: Role) -> None:
    """What another role may say is void, and changes nothing for hosts."""
    lab, key = scene.lab, scene.keys[role]
    other: dict[Role, tuple[str, Body]] = {
        Role.PRUNER: ("prune", PruneBody(phase="plan", plan="ab" * 32)),
        Role.POLICY: ("policy", PolicyBody(action="retire", name="data", weakens=True)),
        Role.ENROLLER: (
            "writer",
            WriterBody(
                action="revoke", name="first", public=b64encode(lab.host.key.signing.public.der)
            ),
        ),
    }
    for owner, (kind, body) in other.items():
        if owner is not role:
            seq = say(lab, kind, body, key)
            assert lab.open().ledger.records[seq].status is Status.VOID
    require_work(scene, lab, "other")
    with pytest.raises(VaultError):
        lab.append_root(by=key)


# --- a verifier's word on packs, beside a restorer's ---


@pytest.mark.parametrize("role", [Role.RESTORER, Role.VERIFIER])
def test_a_verifier_calls_packs_bad_in_its_statement_only(scene: Scene, role: Role) -> None:
    """At most 24, that is; what evidence names besides counts of a restorer."""
    lab, seqs = scene.lab, [record.seq for record, _ in scene.kept]
    pack, named = _all_packs(scene)[0], "ab" * 32
    keys = dataclasses.replace(lab.recovery, restorer=scene.keys[role])
    dataclasses.replace(lab, recovery=keys).say("verification", seqs, "failed", bad=[pack])
    bad = lab.open().ledger.bad_packs(lambda _: [named])
    assert set(bad) == ({named} if role is Role.RESTORER else {pack})
