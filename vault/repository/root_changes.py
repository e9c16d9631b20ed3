"""A root that follows another: what is changed, what is refused, and what comes of it. No I/O."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from vault.crypto.keys import VerifyKey
from vault.encoding import b64decode_strict, b64encode
from vault.errors import ConfigError, FormatError
from vault.ledger.authority import Authority
from vault.ledger.chain import Ledger
from vault.ledger.envelope import parse_envelope, parse_statement
from vault.ledger.kinds import parse_body
from vault.ledger.records import Record, Status
from vault.ledger.statements import (
    Act,
    Approval,
    DistrustedKey,
    PublicKey,
    Recipient,
    Role,
    RootBody,
    StatementType,
    Witness,
)
from vault.model import Digest, body_to_json, replace_body

_ACTS_BY: Final[Mapping[Role, tuple[Act, ...]]] = {  # who does what may have to be approved
    Role.ROOT: (Act.ROOT, Act.RECIPIENT_REMOVE),
    Role.ENROLLER: (Act.WRITER_ADD, Act.WRITER_LIMIT, Act.WRITER_REVOKE),
    Role.POLICY: (Act.HOLD_ADD, Act.HOLD_RELEASE, Act.POLICY_APPLY, Act.POLICY_WEAKEN),
    Role.PRUNER: (Act.PRUNE,),
    Role.RESTORER: (Act.RESTORE_REPLACE, Act.ROLLBACK, Act.RESEAL),
}


# --- the root in force ---


def root_record(ledger: Ledger) -> Record:
    """The statement of the root in force."""
    return max(ledger.valid(StatementType.ROOT), key=lambda record: record.seq)


def known_root(ledger: Ledger) -> RootBody:
    """The root in force, if this program knows every member of it.

    A root that it writes would lack the others: approvals, say, without a word.

    Raises:
        ConfigError: There is a member that it does not know.
    """
    record = root_record(ledger)
    fields = parse_statement(parse_envelope(record.envelope).payload).body
    body = ledger.root
    unknown = list(_unknown(fields, body_to_json(body), ""))
    if unknown:
        raise ConfigError(
            f"the root in force, {record.seq}, has members that this program does not know",
            found=" ".join(unknown)[:200],
            hint="a newer vault wrote it: upgrade vault on this machine before it writes a root",
        )
    return body


def _unknown(fields: Any, known: Any, where: str) -> Iterator[str]:
    """Paths of the members that were read and are not among the known ones."""
    if isinstance(fields, dict) and isinstance(known, dict):
        for name, value in fields.items():
            path = f"{where}.{name}" if where else name
            if name in known:
                yield from _unknown(value, known[name], path)
            else:
                yield path
    elif isinstance(fields, list) and isinstance(known, list | tuple):
        for number, (one, other) in enumerate(zip(fields, known, strict=True)):
            yield from _unknown(one, other, f"{where}[{number}]")


# --- what is changed ---


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RootChange:
    """What the next root has otherwise than the one in force. Empty: nothing."""

    add: Sequence[PublicKey] = ()
    remove: Sequence[str] = ()  # names of keys
    persons: Mapping[str, str] = dataclasses.field(default_factory=dict)  # by name of a key
    reviews: Mapping[str, str] = dataclasses.field(default_factory=dict)  # the same
    thresholds: Mapping[str, int] = dataclasses.field(default_factory=dict)
    recipients_add: Sequence[Recipient] = ()
    recipients_remove: Sequence[str] = ()  # names
    approvals: Mapping[str, Approval | None] = dataclasses.field(default_factory=dict)
    witnesses_add: Sequence[Witness] = ()
    witnesses_remove: Sequence[str] = ()  # names
    quorum: int | None = None
    checkpoint_age: int | None = None  # seconds
    distrust: Sequence[tuple[str, int]] = ()  # key id and the number from which on
    trust: Sequence[str] = ()  # ids of keys that are not distrusted any more


def next_root(ledger: Ledger, change: RootChange) -> RootBody:
    """The root that follows the one in force.

    Raises:
        ConfigError: A name is not there or there twice, or the root would be void, or such that
            its people could not change it any more.
    """
    body = known_root(ledger)
    keys = _replaced(body.keys, change.add, change.remove, "key")
    keys = _labelled(keys, "person", change.persons)
    keys = _labelled(keys, "review", change.reviews)
    witnesses = _replaced(body.witnesses, change.witnesses_add, change.witnesses_remove, "witness")
    approvals = {act: each for act, each in {**body.approvals, **change.approvals}.items() if each}
    following = replace_body(
        body,
        version=body.version + 1,
        keys=keys,
        thresholds={**body.thresholds, **change.thresholds},
        recipients=_replaced(
            body.recipients, change.recipients_add, change.recipients_remove, "recipient"
        ),
        approvals=approvals,
        witnesses=witnesses,
        quorum=body.quorum if change.quorum is None else change.quorum,
        checkpoint_age=body.checkpoint_age
        if change.checkpoint_age is None
        else change.checkpoint_age,
        distrust=_distrust(ledger, body, change),
    )
    if body_to_json(replace_body(following, version=body.version)) == body_to_json(body):
        raise ConfigError("nothing would change", hint="'vault key root propose --help' lists ways")
    require_root(ledger, following)
    return following


def _replaced(listed: Sequence[Any], add: Sequence[Any], remove: Sequence[str], what: str) -> Any:
    """The list without some and with others, each name once."""
    names = [each.name for each in listed]
    for name in remove:
        if name not in names:
            raise ConfigError(
                f"the root in force has no {what} {name}", expected=" ".join(names) or "none"
            )
    found = [*(each for each in listed if each.name not in remove), *add]
    once = {each.name for each in found}
    if len(once) < len(found):
        twice = next(name for name in once if sum(e.name == name for e in found) > 1)
        raise ConfigError(f"the root would have two {what}s of the name {twice}")
    return tuple(found)


def _labelled(keys: Sequence[PublicKey], member: str, labels: Mapping[str, str]) -> Any:
    unknown = sorted(set(labels) - {key.name for key in keys})
    if unknown:
        raise ConfigError(f"the root would have no key {unknown[0]}")
    return tuple(
        replace_body(key, **{member: labels[key.name]}) if key.name in labels else key
        for key in keys
    )


def _distrust(ledger: Ledger, body: RootBody, change: RootChange) -> tuple[DistrustedKey, ...]:
    entries = {VerifyKey.from_der(b64decode_strict(e.public)).id: e for e in body.distrust}
    for key_id in change.trust:
        if entries.pop(key_id, None) is None:
            raise ConfigError(f"the root in force does not distrust the key {key_id}")
    known = all_keys(ledger)
    for key_id, start in change.distrust:
        if key_id not in known:
            raise ConfigError(f"no key {key_id} was ever listed", hint="vault key list --all")
        public = b64encode(known[key_id].der)
        entries[key_id] = DistrustedKey(public=public, start=start)
    return tuple(entries.values())


def all_keys(ledger: Ledger) -> dict[str, VerifyKey]:
    """Every key that a valid root or an enrolment ever listed, by id, oldest first."""
    found: dict[str, VerifyKey] = {}
    for record in ledger.valid(StatementType.ROOT):
        assert isinstance(record.body, RootBody)
        for entry in record.body.keys:
            key = VerifyKey.from_der(b64decode_strict(entry.public))
            found.setdefault(key.id, key)
    return found | {key_id: writer.key for key_id, writer in ledger.writers.items()}


# --- what is refused ---


def require_root(ledger: Ledger, body: RootBody) -> None:
    """Pass if a root may follow the one in force, and its people can live with it.

    Raises:
        ConfigError: It may not, or would be void.
    """
    try:
        parse_body(StatementType.ROOT, body_to_json(body))
    except FormatError as error:
        raise ConfigError(
            f"the root would be void: {error}",
            hint=error.hint or "docs/format.md 2.3 has the rules",
        ) from error
    version = ledger.root.version + 1
    if body.version != version:
        raise ConfigError(
            "this root does not follow the one in force",
            expected=f"root {version}",
            found=f"root {body.version}",
            hint="another was applied meanwhile: propose anew",
        )
    authority = Authority.of(body)
    taken = sorted(
        writer.name for key_id, writer in ledger.writers.items() if key_id in authority.keys
    )
    if taken:
        raise ConfigError(f"a key of the root is the host's key of {taken[0]}")
    publics = [each.public for each in body.recipients]
    if len(set(publics)) < len(publics):
        raise ConfigError("the root would have a recipient twice")
    _require_people(authority)


def _require_people(authority: Authority) -> None:
    """Each threshold and each approval can be met."""
    for name, needed in authority.body.thresholds.items():
        found = persons_with(authority, name)
        if needed > max(1, len(found)):
            raise ConfigError(
                f"no one could sign as {name}: {needed} people must, and the root has fewer",
                found=" ".join(sorted(found)) or "none",
            )
    for act, approval in authority.body.approvals.items():
        able = persons_with(authority, approval.role)
        role = next(role for role, acts in _ACTS_BY.items() if act in acts)
        actors = persons_with(authority, role) or {""}
        if all(len(able - {actor}) < approval.threshold for actor in actors):
            raise ConfigError(
                f"{act} could never be approved: who does it does not count",
                expected=f"{approval.threshold} others with the role {approval.role}",
                found=" ".join(sorted(able)) or "none",
            )


def persons_with(authority: Authority, role: str) -> set[str]:
    """Whose keys have a role; a key without a person stands for itself."""
    return {authority.people[key_id] for key_id, roles in authority.roles.items() if role in roles}


def without_spare(body: RootBody) -> bool:
    """Whether one root key that is lost ends all changes for ever."""
    authority = Authority.of(body)
    return len(persons_with(authority, Role.ROOT)) <= body.thresholds.get(Role.ROOT, 1)


# --- what comes of it ---


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Consequences:
    """What a root changes beside itself."""

    void: Sequence[Record]  # statements that counted and will not
    valid: Sequence[Record]  # statements that will count again
    listed: Sequence[PublicKey]  # keys that may sign from then on
    unlisted: Sequence[PublicKey]  # keys that may sign no more
    removed: Sequence[Recipient]  # they open what is stored, and nothing that is sealed later
    added: Sequence[Recipient]  # they open what is sealed later


def consequences(ledger: Ledger, body: RootBody, *, now: datetime) -> Consequences:
    """What becomes void or valid, and who may do what, once a root is in force."""
    before = ledger.root
    after = _supposing(ledger, body, now)
    pairs = list(zip(ledger.records, after.records, strict=False))
    valid = Status.VALID
    old, new = ({key.public for key in each.keys} for each in (before, body))
    opened, opens = ({each.public for each in root.recipients} for root in (before, body))
    return Consequences(
        void=[o for o, n in pairs if o.status is valid and n.status is not valid],
        valid=[o for o, n in pairs if o.status is not valid and n.status is valid],
        listed=[key for key in body.keys if key.public not in old],
        unlisted=[key for key in before.keys if key.public not in new],
        removed=[each for each in before.recipients if each.public not in opens],
        added=[each for each in body.recipients if each.public not in opened],
    )


def _supposing(ledger: Ledger, body: RootBody, now: datetime) -> Ledger:
    """The ledger as it would be with that root behind it."""
    supposed = Ledger(None)
    for record in ledger.records:
        supposed.relink(record)
    head = ledger.records[-1]
    supposed.relink(
        dataclasses.replace(
            head,
            seq=head.seq + 1,
            digest=Digest(bytes(32)),
            type=StatementType.ROOT,
            status=Status.VALID,
            reason="",
            distrusted_by=None,
            body=body,
            time=now,
            modified=now,
        )
    )
    return supposed


def missing_signers(ledger: Ledger, body: RootBody, signers: Sequence[str]) -> str:
    """Who must sign beside these keys before both thresholds are met; empty if none must.

    Args:
        ledger: The root in force judges, and the next one too.
        body: Of the next root.
        signers: Ids of keys.
    """
    found = []
    for authority, words in (
        (Authority.of(ledger.root), "the root in force"),
        (Authority.of(body), "the new root"),
    ):
        if authority.shortfall(Role.ROOT, signers):
            needed = authority.body.thresholds.get(Role.ROOT, 1)
            signed = authority.people_with(Role.ROOT, signers)
            others = sorted(persons_with(authority, Role.ROOT) - signed)
            names = {_key_id(key): key.name for key in authority.body.keys}
            called = ", ".join(names.get(each, each) for each in others)
            found.append(f"{words} wants {needed - len(signed)} of: {called}")
    return "; ".join(found)


def _key_id(key: PublicKey) -> str:
    return VerifyKey.from_der(b64decode_strict(key.public)).id
