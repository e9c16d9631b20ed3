"""Makes plain reads return the right bytes again, after an attacker hid them.

See docs/design.md "Heal". The vault itself never needs this: it reads pinned versions. Copy
tools, other programs and people in a console see only the newest version of a name. `plan` lists
the delete markers and junk versions that hide a needed object; `execute` removes them. If a lock
keeps one, `execute` stores the right bytes again as the newest version. For statements, junk
older than the right version is removed too, since each program that opens the repository reads
it. A version that an inventory names, or whose bytes are needed, is never deleted. A statement
that only a page still has, and that the one after it names, is stored again (docs/format.md 2.5).
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from enum import StrEnum
from typing import Any

from vault.custody.findings import Findings
from vault.custody.needs import Collector, Need, Needs, when
from vault.custody.versions import Inspector, Judged, NameView, VersionKind, groups, hash_version
from vault.errors import (
    IntegrityError,
    ObjectNotFoundError,
    RetentionError,
    StorageError,
    StorageUnavailableError,
    VaultError,
)
from vault.ledger.envelope import parse_envelope
from vault.ledger.records import Record
from vault.machine.workers import Workers, in_order
from vault.model import Digest, ObjectRef
from vault.repository.datasets import owed
from vault.repository.ledgerobjects import MAX_ENVELOPE
from vault.repository.objects import MAX_EVIDENCE
from vault.repository.repository import Repository
from vault.storage.base import ObjectVersion
from vault.storage.names import ledger_name, parse_ledger_name

_IN_FLIGHT = 32  # names being looked at
_NEVER = "has versions that heal never removes"
_COPY = "a version has the bytes of another needed object"
# kinds of versions that a plain read must not return
_COVERING = (
    VersionKind.OTHER,
    VersionKind.FORK,
    VersionKind.UNLISTED,
    VersionKind.DISTRUSTED,
)


class HealAction(StrEnum):
    """The action on one version."""

    REMOVE_MARKER = "remove marker"
    REMOVE_JUNK = "remove junk"
    EXPOSE = "expose"  # store the right bytes again, as the newest version
    PUT_BACK = "put back"  # store a statement that only a page still has


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing to do about one version of a needed object."""

    action: HealAction
    name: str
    version: str  # the one to remove; for EXPOSE, the one whose bytes are stored again; or empty
    size: int  # of that version
    modified: datetime  # of that version, by the store's clock


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """One needed object that other versions hide: the steps to expose it, in their order."""

    name: str
    is_hidden: bool  # plain reads don't find it
    steps: tuple[Step, ...]  # markers, then junk
    right: Step  # the step that stores it, or exposes it if the store refuses one of `steps`


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A name with a version that heal does not remove."""

    name: str
    reason: str
    is_wrong: bool = False  # an audit calls it an error; any other hides nothing, or is covered


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HealPlan:
    """Versions that hide needed objects from plain reads, and objects that are lost."""

    repairs: tuple[Repair, ...]
    lost: tuple[str, ...]  # names of needed objects of which the store lists no right version
    refused: tuple[str, ...] = ()  # names whose versions the store refuses to show
    left: tuple[Left, ...] = ()
    unread: tuple[int, ...] = ()  # snapshots with a bad inventory, so that their needs are unknown

    @property
    def hidden(self) -> list[str]:
        """Names that plain reads don't find."""
        return [repair.name for repair in self.repairs if repair.is_hidden]

    @property
    def steps(self) -> Iterator[Step]:
        """All of them."""
        return (step for repair in self.repairs for step in repair.steps)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """Result of one step."""

    step: Step
    refusal: str = ""  # why it was not done; empty if it was


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HealReport:
    """Result of `execute`."""

    done: tuple[Done, ...]
    hidden: tuple[str, ...]  # names that plain reads still don't find

    def details(self) -> dict[str, Any]:
        """For an attestation."""
        carried_out = [each for each in self.done if not each.refusal]
        return {
            "heal": {
                action.value: sum(each.step.action is action for each in carried_out)
                for action in HealAction
            },
            "refused": len(self.done) - len(carried_out),
            "still_hidden": len(self.hidden),
            "steps": [f"{each.step.action}: {each.step.name}"[:200] for each in carried_out[:100]],
        }


# --- planning; pure ---


def plan_repair(
    view: NameView,
    right: ObjectVersion,
    needs: Sequence[Need],
    stuck: AbstractSet[str] = frozenset(),
) -> Repair | None:
    """The repair that exposes one needed object again; None if it needs none. Pure.

    Args:
        view: All versions of its name.
        right: A version that has the right bytes.
        needs: Its rows; the versions that they pin are never touched.
        stuck: Versions that can't be removed.
    """
    markers = [each for each in view.judged if each.kind is VersionKind.MARKER]
    others = [each for each in view.judged if each.kind is not VersionKind.MARKER]
    junk = [each for each in _removable(view, needs) if each.version.version not in stuck]
    is_hidden = bool(markers) or others[-1].kind in _COVERING
    if not is_hidden and not junk:
        return None
    steps = [_step(HealAction.REMOVE_MARKER, each.version) for each in markers]
    steps += [_step(HealAction.REMOVE_JUNK, each.version) for each in junk]
    expose = _step(HealAction.EXPOSE, right)
    stays = next(each for each in reversed(others) if each not in junk)
    if stays.kind in _COVERING:  # it is pinned, stuck, or evidence of a theft
        steps.append(expose)
    return Repair(name=view.name, is_hidden=is_hidden, steps=tuple(steps), right=expose)


def plan_return(
    record: Record,
    stored: datetime,
    view: NameView | None,
    needs: Sequence[Need],
    stuck: AbstractSet[str] = frozenset(),
) -> Repair:
    """The repair of a statement that only a page still has. Pure.

    Args:
        record: As the page's line has it.
        stored: When it was, at the latest.
        view: All versions of its name, none of which links; None without any.
        needs: Its rows.
        stuck: Versions that can't be removed.
    """
    name = ledger_name(record.seq)
    put = Step(
        action=HealAction.PUT_BACK,
        name=name,
        version="",
        size=len(record.envelope),
        modified=stored,
    )
    junk = _removable(view, needs) if view is not None else []
    removed = (
        _step(HealAction.REMOVE_JUNK, each.version)
        for each in junk
        if each.version.version not in stuck
    )
    return Repair(name=name, is_hidden=True, steps=(put, *removed), right=put)


def _removable(view: NameView, needs: Sequence[Need]) -> list[Judged]:
    """Junk to be removed, newest first: of a statement all of it, else what is over it."""
    if not needs:
        return []
    newest_first: Iterator[Judged] = reversed(view.judged)
    if not needs[0].is_statement:
        newest_first = itertools.takewhile(
            lambda each: each.kind is not VersionKind.RIGHT, newest_first
        )
    pins = {need.version for need in needs}
    return [
        each
        for each in newest_first
        if each.kind is VersionKind.OTHER and each.version.version not in pins
    ]


def _step(action: HealAction, version: ObjectVersion) -> Step:
    return Step(
        action=action,
        name=version.name,
        version=version.version,
        size=version.size,
        modified=version.modified,
    )


# --- looking and doing ---


class Healer:
    """Plans a repair and carries it out.

    Args:
        repository: Read up to its head.
        workers: Executors, for looking.
    """

    def __init__(self, repository: Repository, workers: Workers) -> None:
        self._repository = repository
        self._store = repository.store
        self._workers = workers
        self._needs, self._unread = _needs(repository)
        self._inspector = Inspector(repository, self._needs)
        self._digests = frozenset(need.sha256 for need in self._needs)
        self._sizes = frozenset(need.size for need in self._needs)

    def plan(self) -> HealPlan:
        """Look through the store; changes nothing.

        Raises:
            StorageError: The store did not answer.
        """
        missing = {ledger_name(each.seq): each for each in self._repository.log.missing()}
        pending = {need.name for need in self._needs}
        repairs: list[Repair] = []
        left: list[Left] = []
        for view, stuck in self._views(groups(self._store)):
            pending.discard(view.name)
            needs = self._needs.of(view.name)
            if any(_is_left(each, needed=bool(needs)) for each in view.harmful(needed=bool(needs))):
                left.append(Left(name=view.name, reason=_NEVER, is_wrong=True))
            elif stuck:
                left.append(Left(name=view.name, reason=next(iter(stuck.values()))))
            if (record := missing.pop(view.name, None)) is not None:
                stored = self._repository.ledger.stored(record)
                repairs.append(plan_return(record, stored, view, needs, stuck.keys()))
                continue
            right = view.right(needs[0].version) if needs else None
            if needs and right is None:
                pending.add(view.name)
            elif right is not None and (repair := plan_repair(view, right, needs, stuck.keys())):
                repairs.append(repair)
        for name, record in missing.items():
            pending.discard(name)
            stored = self._repository.ledger.stored(record)
            repairs.append(plan_return(record, stored, None, self._needs.of(name)))
        lost, refused = self._settle(sorted(pending))
        return HealPlan(
            repairs=tuple(repairs),
            lost=lost,
            refused=refused,
            left=tuple(left),
            unread=self._unread,
        )

    def _views(
        self, found: Iterable[tuple[str, Sequence[ObjectVersion]]]
    ) -> Iterator[tuple[NameView, Mapping[str, str]]]:
        """Names with their versions, and why junk among these can't be removed."""
        judged = in_order(self._workers.transfer, self._inspect, found, limit=_IN_FLIGHT)
        return (future.result() for _, future in judged)

    def _inspect(
        self, group: tuple[str, Sequence[ObjectVersion]]
    ) -> tuple[NameView, Mapping[str, str]]:
        view = self._inspector.inspect(*group)
        junk = [each.version for each in _removable(view, self._needs.of(view.name))]
        reasons = {each.version: self._why_stuck(each) for each in junk}
        return view, {version: reason for version, reason in reasons.items() if reason}

    def _why_stuck(self, version: ObjectVersion) -> str:
        """Why junk can't be removed; empty where that is not known before it is tried."""
        try:
            lock = self._store.status(version.name, version.version)
            if lock.legal_hold:
                return "a version of other bytes carries a legal hold"
            if lock.retention is not None and lock.retention.until > self._store.now():
                return f"a version of other bytes is locked until {when(lock.retention.until)}"
            return _COPY if self._is_needed_somewhere(version) else ""
        except StorageUnavailableError:
            raise
        except StorageError:
            return ""

    def _settle(self, names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names that are lost, and names that the store refuses to show.

        A store's list may be stale, so an object is lost only if a second list lacks it, too.
        """
        lost: list[str] = []
        refused: list[str] = []
        again = in_order(self._workers.transfer, self._inspector.look, names, limit=_IN_FLIGHT)
        for name, future in again:
            view = future.result()
            if view.right(self._needs.of(name)[0].version) is None:
                (refused if view.may_be_right else lost).append(name)
        return tuple(lost), tuple(refused)

    def execute(
        self, plan: HealPlan, *, tell: Callable[[Done], None] = lambda _: None
    ) -> HealReport:
        """Carry out a plan; a step that is refused never stops the others.

        Args:
            plan: What `plan` gave.
            tell: Hears of every step when it is over.
        """
        done: list[Done] = []
        hidden: list[str] = []
        for repair in plan.repairs:
            for outcome in self._carry_out(repair):
                done.append(outcome)
                tell(outcome)
            if not self._is_exposed(repair.name):
                hidden.append(repair.name)
        return HealReport(done=tuple(done), hidden=tuple(hidden))

    def _carry_out(self, repair: Repair) -> Iterator[Done]:
        for step in repair.steps:
            done = self._try(step)
            yield done
            if done.refusal and step.action is HealAction.PUT_BACK:
                return  # what else stands there may be all that is left of it
        if repair.right not in repair.steps and not self._is_exposed(repair.name):
            yield self._try(repair.right)

    def _try(self, step: Step) -> Done:
        try:
            match step.action:
                case HealAction.REMOVE_MARKER:
                    self._store.delete(step.name, step.version)
                case HealAction.REMOVE_JUNK:
                    self._remove_junk(step)
                case HealAction.EXPOSE:
                    self._expose(step)
                case HealAction.PUT_BACK:
                    self._put_back(step)
        except ObjectNotFoundError:
            return Done(step=step)  # another process has removed it
        except VaultError as error:
            return Done(step=step, refusal=str(error))
        return Done(step=step)

    def _remove_junk(self, step: Step) -> None:
        """Delete a version, after a last check that no needed object has its bytes.

        Raises:
            RetentionError: A lock keeps it, or an object that is needed has these bytes.
        """
        version = ObjectVersion(
            name=step.name, version=step.version, size=step.size, modified=step.modified
        )
        if self._is_needed_somewhere(version):
            raise RetentionError(f"{step.name} has the bytes of a needed object in that version")
        self._store.delete(step.name, step.version)

    def _is_needed_somewhere(self, version: ObjectVersion) -> bool:
        may_be = version.size in self._sizes or version.size <= MAX_EVIDENCE
        if may_be and hash_version(self._store, version) in self._digests:
            return True
        if version.size > MAX_ENVELOPE:
            return False
        data = self._store.get(version.name, version.version, length=MAX_ENVELOPE)
        return _statement_digest(data) in self._digests

    def _expose(self, step: Step) -> None:
        """Store the right bytes once more, with the lock that they have."""
        data = self._right_bytes(step)
        retention = self._store.status(step.name, step.version).retention
        if retention is not None and retention.until <= self._store.now():
            retention = None
        self._store.put(step.name, data, sha256=Digest.of(data), retention=retention)

    def _put_back(self, step: Step) -> None:
        seq = parse_ledger_name(step.name)
        assert seq is not None
        self._repository.log.put_back(self._repository.ledger.records[seq])

    def _right_bytes(self, step: Step) -> bytes:
        """The right bytes, from any version that has them, verified against the signed digest."""
        seq = parse_ledger_name(step.name)
        if seq is not None:
            return self._repository.log.envelope_of(self._repository.ledger.records[seq])
        need = self._needs.of(step.name)[0]
        if need.size is None:
            return self._repository.read_evidence(need.sha256)
        return self._repository.read(
            ObjectRef(name=need.name, sha256=need.sha256, size=need.size, version=step.version)
        )

    def _is_exposed(self, name: str) -> bool:
        """Whether a plain read meets the right bytes now."""
        shown = self._inspector.look(name).shown
        return shown is not None and shown.kind not in (VersionKind.MARKER, *_COVERING)


def heal_repository(
    repository: Repository, *, workers: Workers, execute: bool = False
) -> tuple[HealPlan, HealReport | None]:
    """Find, and where asked remove, what hides needed objects from plain reads.

    Args:
        repository: Read up to its head, afresh.
        workers: Executors, for looking.
        execute: Carry the plan out; else nothing is changed.

    Returns:
        The plan; and what came of it, None if it was not carried out.

    Raises:
        StorageError: The store did not answer while it was looked through; nothing was changed.
    """
    healer = Healer(repository, workers)
    plan = healer.plan()
    return plan, healer.execute(plan) if execute else None


def _is_left(judged: Judged, *, needed: bool) -> bool:
    """Whether heal leaves this version, although an audit reports it.

    A thief's statements are evidence. Junk at a number beyond the head may be the statement of a
    host that was enrolled a moment ago.
    """
    return not needed or judged.kind in (VersionKind.FORK, VersionKind.UNLISTED)


def _needs(repository: Repository) -> tuple[Needs, tuple[int, ...]]:
    """Everything that snapshots need; and snapshots whose inventory can't be read."""
    ledger = repository.ledger
    records = owed(ledger, ledger.snapshots(), min(repository.clock(), repository.store.now()))
    collector = Collector(repository, Findings())
    sound = {record.seq for record in collector.add_snapshots(records)}
    collector.add_ledger(records)
    collector.add_evidence()
    unread = tuple(record.seq for record in records if record.seq not in sound)
    return collector.needs, unread


def _statement_digest(data: bytes) -> Digest | None:
    """The digest by which the ledger knows an envelope; None if the bytes are no envelope."""
    try:
        return parse_envelope(data).digest
    except IntegrityError:
        return None
