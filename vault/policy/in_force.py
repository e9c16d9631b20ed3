"""Which terms are in force in a repository, and what changes them.

A policy that keeps or demands less than the one before, and does not say so, is not used: the one
before stays in force, and that is a finding. Everyone finds the same, from public data alone.
"""

import dataclasses
from collections.abc import Iterable, Sequence

from vault.crypto.keys import Signer
from vault.errors import ConfigError, IntegrityError, LedgerMovedError
from vault.ledger.chain import Ledger
from vault.ledger.lapse import lapse
from vault.ledger.records import Record
from vault.ledger.statements import PolicyBody, StatementType
from vault.ledger.warrants import Request
from vault.model import Code, Digest, Finding, LockMode, Severity
from vault.parameters import Parameters
from vault.policy.dataset_names import may_be_one
from vault.policy.terms import DatasetTerms, PolicyTerms, parse_terms, weaker
from vault.repository.agreements import Intent, require_agreed, require_unasked, rest_on
from vault.repository.append_statements import Draft
from vault.repository.repository import Repository

_MAX_WEAKER = 8  # texts in a statement, of so many bytes:
_MAX_WEAKER_TEXT = 100
_MAX_REASON = 200
_STRENGTH = ("", LockMode.NONE, LockMode.GOVERNANCE, LockMode.COMPLIANCE)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AppliedPolicy:
    """A policy that is in force."""

    record: Record
    terms: PolicyTerms

    @property
    def name(self) -> str:
        """Its name."""
        return self.terms.name


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PoliciesInForce:
    """All that are in force, by name, and what was found while they were read."""

    by_name: dict[str, AppliedPolicy]
    findings: tuple[Finding, ...]

    def of(self, dataset: str) -> list[tuple[AppliedPolicy, DatasetTerms]]:
        """The terms that govern a dataset; of more than one policy only by mistake."""
        return [
            (policy, terms)
            for policy in self.by_name.values()
            for terms in policy.terms.datasets
            if terms.governs(dataset)
        ]


def policies_in_force(repository: Repository, ledger: Ledger | None = None) -> PoliciesInForce:
    """The policies in force at the head of the ledger.

    Args:
        repository: Where.
        ledger: A ledger of it other than the one that was read last.
    """
    return policy_timeline(repository, ledger)[-1][1]


def policy_timeline(
    repository: Repository, ledger: Ledger | None = None
) -> list[tuple[int, PoliciesInForce]]:
    """What was in force after each policy statement, by its seq; at first, at -1, nothing.

    Args:
        repository: Where.
        ledger: A ledger of it other than the one that was read last.
    """
    known = ledger or repository.ledger
    found: dict[str, AppliedPolicy] = {}
    findings: list[Finding] = []
    times = [(-1, PoliciesInForce(by_name={}, findings=()))]
    for record in known.valid(StatementType.POLICY):
        body = _body(record)
        if body.action == "withdraw":
            found.pop(body.name, None)
        elif body.action == "apply":
            try:
                terms = parse_terms(repository.read_evidence(Digest.parse(body.sha256)))
                _require_name(terms, body)
                _require_honest(found.get(body.name), terms, body)
                _require_timely(known, record)
            except IntegrityError as error:
                findings.append(_unused(record, body, error))
            else:
                found[body.name] = AppliedPolicy(record=record, terms=terms)
        times.append((record.seq, PoliciesInForce(by_name=dict(found), findings=tuple(findings))))
    return times


def retired_datasets(ledger: Ledger) -> dict[str, Record]:
    """Datasets that are given up, with the statement that says so; a new snapshot ends it."""
    found: dict[str, Record] = {}
    for record in ledger.valid(StatementType.POLICY):
        body = _body(record)
        if body.action == "retire":
            found[body.name] = record
    for name, record in list(found.items()):
        snapshots = ledger.snapshots(name)
        if snapshots and snapshots[-1].seq > record.seq:
            del found[name]
    return found


def _body(record: Record) -> PolicyBody:
    assert isinstance(record.body, PolicyBody)
    return record.body


def _require_name(terms: PolicyTerms, body: PolicyBody) -> None:
    if terms.name != body.name:
        raise IntegrityError(
            "the terms are of another policy", expected=body.name, found=terms.name
        )


def _require_honest(before: AppliedPolicy | None, terms: PolicyTerms, body: PolicyBody) -> None:
    if before is None or body.weakens:
        return
    less = weaker(before.terms, terms)
    if less:
        raise IntegrityError("it keeps or demands less and does not say so", found=less[0])


def _require_timely(ledger: Ledger, record: Record) -> None:
    late = lapse(ledger, record)
    if late:
        raise IntegrityError("people's agreement to it had expired", found=late)


def _unused(record: Record, body: PolicyBody, error: IntegrityError) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        subject=f"ledger {record.seq}",
        problem=f"policy {body.name} is not used, and the one before it stays in force",
        found=str(error),
        code=Code.UNAPPROVED,
    )


# --- changes ---


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChange:
    """A statement that changes what is in force; not signed yet."""

    body: PolicyBody
    terms: PolicyTerms | None  # to store; None: the statement cites none, or stored ones
    weaker: tuple[str, ...]  # all of it; the statement has room for some


def plan_apply(repository: Repository, terms: PolicyTerms, *, reason: str) -> PolicyChange:
    """The change that puts terms in force.

    Raises:
        ConfigError: The repository can't keep them, they are in force already, or another policy
            governs one of their datasets.
    """
    policies = policies_in_force(repository)
    before = policies.by_name.get(terms.name)
    if before is not None and before.terms == terms:
        raise ConfigError(
            f"policy {terms.name} is in force as it is", found=f"statement {before.record.seq}"
        )
    problems = [*_unkeepable(terms, repository.parameters), *_shared(terms, policies)]
    if problems:
        error = ConfigError(f"policy {terms.name} can't be applied here", found=problems[0])
        for each in problems[1:]:
            error.add_note(each)
        raise error
    less = tuple(weaker(before.terms, terms)) if before is not None else ()
    body = PolicyBody(
        action="apply",
        name=terms.name,
        sha256=str(terms.digest),
        previous=_previous(repository.ledger, terms.name),
        weaker=_texts(less),
        weakens=bool(less),
        reason=reason,
    )
    return PolicyChange(body=body, terms=terms, weaker=less)


def plan_withdraw(repository: Repository, name: str, *, reason: str) -> PolicyChange:
    """The change that ends a policy; what was stored keeps its time.

    Raises:
        ConfigError: No policy of that name is in force.
    """
    record = repository.ledger.policies().get(name)
    if record is None:
        raise ConfigError(f"no policy {name} is in force")
    less = ("is withdrawn: nothing is promised any more",)
    body = PolicyBody(
        action="withdraw",
        name=name,
        sha256=_body(record).sha256,
        previous=record.seq,
        weaker=less,
        weakens=True,
        reason=reason,
    )
    return PolicyChange(body=body, terms=None, weaker=less)


def plan_retire(repository: Repository, dataset: str, *, reason: str) -> PolicyChange:
    """The change that gives up a dataset: its newest snapshots too may go once their time is over.

    Raises:
        ConfigError: It has no snapshot, or is given up already.
    """
    if not repository.ledger.snapshots(dataset):
        raise ConfigError(f"there is no snapshot of dataset {dataset}")
    if dataset in retired_datasets(repository.ledger):
        raise ConfigError(f"dataset {dataset} is given up already")
    less = ("is given up: its newest snapshots are not kept beyond their time",)
    body = PolicyBody(action="retire", name=dataset, weaker=less, weakens=True, reason=reason)
    return PolicyChange(body=body, terms=None, weaker=less)


def sign_change(
    repository: Repository,
    change: PolicyChange,
    signer: Signer,
    *,
    tool: str,
    agreed: Request | None = None,
) -> Record:
    """Store the terms of a change, and append its statement.

    Args:
        repository: Where.
        change: As it was planned.
        signer: A key of the role policy.
        tool: Goes into the statement.
        agreed: The request that people signed, where the root wants that.

    Raises:
        ConfigError: The root wants people to agree, and no request is given or it does not fit.
        LedgerMovedError: Another change of the same policy came first; nothing was appended.
    """
    body = change.body
    _require_room(body)
    intent = Intent(kind=StatementType.POLICY, body=body, by=(signer.public.id,))
    if agreed is None:
        require_unasked(repository.ledger, StatementType.POLICY, body)
    else:
        require_agreed(repository.ledger, intent, agreed, now=repository.clock())
    if change.terms is not None:
        repository.put_evidence(change.terms.encode())
    warrant = rest_on(repository, intent, agreed, signer, tool=tool)
    if body.action == "retire":
        subject = Digest.of(body.name.encode())
    else:
        subject = Digest.parse(body.sha256)
    draft = Draft(
        type=StatementType.POLICY, subject=[("policy", subject)], body=body, warrant=warrant
    )

    def checked(ledger: Ledger) -> Draft:
        if body.action != "retire" and _previous(ledger, body.name) != body.previous:
            raise LedgerMovedError(
                f"policy {body.name} was changed by another meanwhile", hint="look at it again"
            )
        return draft

    return repository.append(checked, [signer], tool=tool)


def _require_room(body: PolicyBody) -> None:
    """Refuse a reason that no reader would take.

    Raises:
        ConfigError: It is too long.
    """
    size = len(body.reason.encode())
    if size > _MAX_REASON:
        raise ConfigError(
            "the reason is too long", expected=f"at most {_MAX_REASON} bytes", found=size
        )


def _previous(ledger: Ledger, name: str) -> int | None:
    found = ledger.policies().get(name)
    return found.seq if found is not None else None


def _texts(less: Sequence[str]) -> tuple[str, ...]:
    """As much of what is weaker as a statement takes."""
    return tuple(map(_cut, less[:_MAX_WEAKER]))


def _cut(text: str) -> str:
    """As much of it as a statement takes; names are ASCII, so no character is split."""
    return text if len(text.encode()) <= _MAX_WEAKER_TEXT else text[: _MAX_WEAKER_TEXT - 3] + "..."


# --- what stands against terms ---


def _unkeepable(terms: PolicyTerms, parameters: Parameters) -> Iterable[str]:
    """What the repository can't keep, a line each."""
    for dataset in terms.datasets:
        for name, seconds in (("within", dataset.within), *dataset.tiers.items()):
            if seconds > parameters.max_retention:
                yield (
                    f"{dataset.name}: {name} is longer than the repository's maximum of"
                    f" {parameters.max_retention // 86_400} days"
                )
        if _STRENGTH.index(dataset.lock) > _STRENGTH.index(parameters.lock_mode):
            yield (
                f"{dataset.name}: asks for {dataset.lock} locks,"
                f" and the repository has lock mode {parameters.lock_mode}"
            )


def _shared(terms: PolicyTerms, policies: PoliciesInForce) -> Iterable[str]:
    """Datasets that another policy governs, a line each."""
    for other in policies.by_name.values():
        if other.name == terms.name:
            continue
        for mine in terms.datasets:
            for theirs in other.terms.datasets:
                if may_be_one(mine.name, theirs.name):
                    yield f"{mine.name}: policy {other.name} governs {theirs.name} already"
