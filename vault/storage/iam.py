"""Who may do what in a bucket, as JSON for its administrator (docs/design.md "Stores").

`role_policy` allows what one role needs and nothing else. `bucket_policy` forbids, to all users,
what no routine role does: bypass governance, hide objects, weaken the bucket. Pure.

Ceph has users instead of roles, knows them by ``arn:aws:iam:::user/NAME``, and accepts
conditions that it does not enforce. Its bucket policy therefore has all grants, and has no rule
that needs a condition.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeAlias

from vault.model import LockMode
from vault.parameters import Parameters
from vault.storage.names import (
    CHECKPOINTS,
    DOMAINS,
    EVIDENCE,
    INDEX,
    INVENTORY,
    LEDGER,
    PACKS,
    PAGES,
    SEEDS,
)

Json: TypeAlias = dict[str, Any]

_VERSION = "2012-10-17"  # of the policy language
_DAY = 86_400
_SLACK = 3  # days: a run may last, clocks may differ

_LEDGER = (f"{LEDGER}*", f"{PAGES}*")
_EVIDENCE = (f"{EVIDENCE}*",)
_CHECKPOINTS = (f"{CHECKPOINTS}*",)
_NEEDED = (f"{INDEX}*", f"{INVENTORY}*")
_PRUNED = (f"{PACKS}*", *_NEEDED)
_SEEDS = (f"{SEEDS}*",)
_WRITTEN = (*_LEDGER, *_EVIDENCE, *_PRUNED, f"{DOMAINS}*")  # by hosts
_READ = ("s3:GetObject", "s3:GetObjectVersion")
_EXTEND = "s3:PutObjectRetention"
_ADD = ("s3:PutObject", _EXTEND)
_LOCKS = ("s3:GetObjectRetention", "s3:GetObjectLegalHold")
_LIST = "s3:ListBucketVersions"
_CONFIGURATION = (
    "s3:GetBucketObjectLockConfiguration",
    "s3:GetBucketVersioning",
    "s3:GetBucketPolicy",
    "s3:GetLifecycleConfiguration",
)
_HARMFUL = (
    "s3:DeleteObject",  # without a version id: a delete marker
    "s3:PutObjectLegalHold",
    "s3:PutObjectAcl",
    "s3:PutObjectVersionAcl",
)
_WEAKENING = (
    "s3:PutBucketVersioning",
    "s3:PutBucketObjectLockConfiguration",
    "s3:PutLifecycleConfiguration",
    "s3:PutReplicationConfiguration",
    "s3:PutBucketPolicy",
    "s3:DeleteBucketPolicy",
    "s3:PutBucketAcl",
    "s3:DeleteBucket",
)
_AWS_WEAKENING = (  # these are no actions of Ceph 16
    *_WEAKENING,
    "s3:PutEncryptionConfiguration",
    "s3:PutBucketPublicAccessBlock",
    "s3:PutBucketOwnershipControls",
)
_PUBLIC = ("public-read", "public-read-write", "authenticated-read")  # canned lists of access
_CEPH_ADMINISTERING = (
    *_READ,
    *_ADD,
    *_LOCKS,
    "s3:PutObjectLegalHold",
    "s3:DeleteObjectVersion",
)


class AccessRole(StrEnum):
    """The role of a holder of store credentials; not a role that signs statements."""

    WRITER = "writer"
    RESTORER = "restorer"
    AUDITOR = "auditor"
    PRUNER = "pruner"
    VERIFIER = "verifier"  # reads all, and records what was read
    LOG = "log"  # signs how the ledger stands


class Dialect(StrEnum):
    """The server whose policy language is used."""

    AWS = "aws"
    CEPH = "ceph"


_BLIND = {  # see no packs
    AccessRole.WRITER,
    AccessRole.AUDITOR,
    AccessRole.PRUNER,
    AccessRole.LOG,
}


def role_policy(
    role: AccessRole,
    bucket: str,
    prefix: str = "",
    *,
    read_data: bool = False,
    extend: bool = True,
) -> Json:
    """The least that a role needs in the bucket; to be attached to the role on AWS.

    Args:
        role: The role.
        bucket: The name of the bucket.
        prefix: That of the repository, without a slash at its end.
        read_data: Lets the auditor read packs too, for ``audit --read-data``.
        extend: Whether locks are extended, by the repository's parameters.
    """
    grants = _grants(role, bucket, prefix, read_data=read_data, extend=extend)
    makes = _statement("Deny", ["s3:CreateBucket"], ["arn:aws:s3:::*"])
    return _document([*grants, makes])


def bucket_policy(
    bucket: str,
    prefix: str = "",
    *,
    dialect: Dialect,
    parameters: Parameters,
    principals: Mapping[AccessRole, Sequence[str]],
    administrator: str = "",
    read_data: bool = False,
) -> Json:
    """What the bucket refuses to all users, whatever their roles allow.

    Args:
        bucket: The name of the bucket.
        prefix: That of the repository, without a slash at its end.
        dialect: AWS or Ceph; the latter's policy holds the grants as well.
        parameters: Those of the repository: its lock mode and shortest and longest locks.
        principals: ARNs of those who hold each role.
        administrator: ARN of the user who may change the bucket and set legal holds; "": none.
            On Ceph it is the bucket's owner, who is granted what other users stored. Only
            if it is named are users without a role refused what a host made public.
        read_data: See `role_policy`; on AWS it is the role that lets the auditor read packs.
    """
    if dialect is Dialect.CEPH:
        statements = _ceph_statements(
            bucket,
            prefix,
            principals,
            administrator,
            read_data=read_data,
            extend=parameters.extend,
        )
        return _document(statements)
    return _document(_aws_statements(bucket, prefix, parameters, principals, administrator))


def _grants(
    role: AccessRole, bucket: str, prefix: str, *, read_data: bool, extend: bool
) -> list[Json]:
    """Allow statements of one role."""
    add = _ADD if extend else _ADD[:1]

    def allow(actions: Sequence[str], names: Sequence[str]) -> Json:
        return _statement("Allow", actions, _objects(bucket, prefix, names))

    listing = _statement("Allow", [_LIST], [_bucket(bucket)])
    if prefix:
        listing["Condition"] = {"StringLike": {"s3:prefix": f"{prefix}/*"}}
    state = _CONFIGURATION if role is AccessRole.AUDITOR else _CONFIGURATION[:1]
    common = [
        listing,
        _statement("Allow", state, [_bucket(bucket)]),
        allow(_LOCKS, ["*"]),
        allow(_READ, (*_LEDGER, *_CHECKPOINTS)),  # every start reads these
    ]
    recorded = (*_LEDGER, *_EVIDENCE)
    public = (*_EVIDENCE, *_NEEDED, f"{DOMAINS}*", *_SEEDS)
    match role:
        case AccessRole.WRITER:
            again = allow([_EXTEND] if extend else add, _SEEDS)  # locks them, and makes none
            return [*common, allow(add, _WRITTEN), again, allow(_READ, public)]
        case AccessRole.RESTORER:
            return [*common, allow(_READ, ["*"]), allow(add, (*recorded, *_SEEDS))]
        case AccessRole.VERIFIER:
            return [*common, allow(_READ, ["*"]), allow(add, recorded)]
        case AccessRole.AUDITOR:
            return [*common, allow(_READ, ["*"] if read_data else public)]
        case AccessRole.PRUNER:
            return [
                *common,
                allow(_READ, (*_EVIDENCE, f"{INVENTORY}*")),
                allow(add, recorded),
                allow(["s3:DeleteObjectVersion"], _PRUNED),
            ]
        case AccessRole.LOG:
            return [*common, allow(add, _CHECKPOINTS)]


def _ceph_statements(
    bucket: str,
    prefix: str,
    principals: Mapping[AccessRole, Sequence[str]],
    administrator: str,
    *,
    read_data: bool,
    extend: bool,
) -> list[Json]:
    """Grants by user, then denials: Ceph lets the owner of an object do what no rule denies."""
    statements: list[Json] = []
    for role, users in principals.items():
        for grant in _grants(role, bucket, prefix, read_data=read_data, extend=extend):
            grant.pop("Condition", None)
            statements.append({**grant, "Principal": {"AWS": list(users)}})
    if administrator:  # owning the bucket does not let it read what others stored
        granted = _statement("Allow", _CEPH_ADMINISTERING, _objects(bucket, prefix, ["*"]))
        statements.append({**granted, "Principal": {"AWS": [administrator]}})
    routine = sorted({user for users in principals.values() for user in users})
    keepers = sorted(set(routine) - set(principals.get(AccessRole.PRUNER, ())))
    objects = _objects(bucket, prefix, ["*"])
    statements.append(_deny("*", ["s3:BypassGovernanceRetention"], objects))
    if administrator:  # else hosts could make objects public by headers or by uploads in parts
        strangers = {"NotPrincipal": {"AWS": sorted({*routine, administrator})}}
        statements.append({**_statement("Deny", _READ, objects), **strangers})
    if routine:
        # an access list lets the user who stored an object do what no rule denies
        harmful = _HARMFUL if extend else (*_HARMFUL, _EXTEND)
        statements.append(_deny(routine, harmful, objects))
        public = {"StringEquals": {"s3:x-amz-acl": list(_PUBLIC)}}
        statements.append(_deny(routine, ["s3:PutObject"], objects, public))
        statements.append(_deny(routine, _WEAKENING, [_bucket(bucket)]))
    sighted = {AccessRole.AUDITOR} if read_data else set()
    blind = sorted({user for role in _BLIND - sighted for user in principals.get(role, ())})
    if blind:  # else the access list lets them read what they stored
        statements.append(_deny(blind, _READ, _objects(bucket, prefix, [f"{PACKS}*"])))
    if keepers:
        statements.append(_deny(keepers, ["s3:DeleteObjectVersion"], objects))
    return statements


def _aws_statements(
    bucket: str,
    prefix: str,
    parameters: Parameters,
    principals: Mapping[AccessRole, Sequence[str]],
    administrator: str,
) -> list[Json]:
    objects = _objects(bucket, prefix, ["*"])
    administrators = [administrator] if administrator else []
    pruners = [*principals.get(AccessRole.PRUNER, ()), *administrators]
    statements = [
        _deny("*", ["s3:BypassGovernanceRetention", "s3:DeleteObject"], objects),
        _deny("*", ["s3:DeleteObjectVersion"], objects, _unless(pruners)),
        _deny("*", ["s3:PutObjectLegalHold"], objects, _unless(administrators)),
        _deny("*", _HARMFUL[2:], objects, _unless(administrators)),
        _deny("*", ["s3:PutObject"], objects, {"StringEquals": {"s3:x-amz-acl": list(_PUBLIC)}}),
        _deny("*", _AWS_WEAKENING, [_bucket(bucket)], _unless(administrators)),
    ]
    if parameters.lock_mode is LockMode.NONE:
        return statements
    written = _objects(bucket, prefix, (*_WRITTEN, *_SEEDS, *_CHECKPOINTS))
    mode = {"StringNotEquals": {"s3:object-lock-mode": parameters.lock_mode.upper()}}
    days = "s3:object-lock-remaining-retention-days"
    shortest = parameters.min_retention // _DAY - 1
    longest = (parameters.ledger_term + parameters.lock_grid) // _DAY + _SLACK
    if not parameters.extend:
        statements.append(_deny("*", [_EXTEND], objects, _unless(administrators)))
    return [
        *statements,
        _deny("*", ["s3:PutObject"], written, mode),
        _deny("*", _ADD, written, {"NumericLessThan": {days: str(shortest)}}),
        _deny("*", _ADD, written, {"NumericGreaterThan": {days: str(longest)}}),
    ]


def _unless(arns: Sequence[str]) -> Json | None:
    return {"ArnNotEquals": {"aws:PrincipalArn": list(arns)}} if arns else None


def _deny(
    principals: str | Sequence[str],
    actions: Sequence[str],
    resources: Sequence[str],
    condition: Json | None = None,
) -> Json:
    who: Any = "*" if principals == "*" else {"AWS": list(principals)}
    denial = {**_statement("Deny", actions, resources), "Principal": who}
    return {**denial, "Condition": condition} if condition else denial


def _statement(effect: str, actions: Sequence[str], resources: Sequence[str]) -> Json:
    return {"Effect": effect, "Action": list(actions), "Resource": list(resources)}


def _document(statements: Sequence[Json]) -> Json:
    return {"Version": _VERSION, "Statement": list(statements)}


def _bucket(bucket: str) -> str:
    return f"arn:aws:s3:::{bucket}"


def _objects(bucket: str, prefix: str, names: Sequence[str]) -> list[str]:
    base = f"{_bucket(bucket)}/{prefix}/" if prefix else f"{_bucket(bucket)}/"
    return [base + name for name in names]
