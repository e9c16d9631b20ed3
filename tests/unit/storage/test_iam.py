"""The JSON that keeps roles apart."""

import json
from fnmatch import fnmatchcase
from typing import Any

import pytest

from vault.model import LockMode
from vault.parameters import Parameters
from vault.storage.iam import AccessRole, Dialect, bucket_policy, role_policy

PARAMETERS = Parameters(lock_mode=LockMode.COMPLIANCE)
PRINCIPALS = {role: [f"arn:aws:iam::1:role/{role}"] for role in AccessRole}
BASE = "arn:aws:s3:::bucket/some/prefix/"


def allows(policy: dict[str, Any], action: str, name: str) -> bool:
    """Whether an allow statement covers an action on an object of the repository."""
    return any(
        statement["Effect"] == "Allow"
        and action in statement["Action"]
        and any(fnmatchcase(BASE + name, resource) for resource in statement["Resource"])
        for statement in policy["Statement"]
    )


READ, ADD = "s3:GetObjectVersion", "s3:PutObject"
LIST = "s3:ListBucketVersions"
EXTEND, SEE_LOCK, DELETE = (
    "s3:PutObjectRetention",
    "s3:GetObjectRetention",
    "s3:DeleteObjectVersion",
)
NAMES = {
    "ledger": "ledger/0000000000000001",
    "page": "ledger-page/0",
    "evidence": "evidence/ab",
    "pack": "packs/ab/abcd",
    "index": "index/default/ab",
    "inventory": "inventory/ab",
    "domain": "domains/default/ab",
    "checkpoint": "checkpoint/0000000000000016/ab",
    "seeds": "seeds/ab/cd",
    "probe": "probe/x/y",
}
EXPECTED = {
    (AccessRole.WRITER, READ): "ledger page evidence index inventory domain checkpoint seeds",
    (AccessRole.WRITER, ADD): "ledger page evidence pack index inventory domain",
    (AccessRole.WRITER, EXTEND): "ledger page evidence pack index inventory domain seeds",
    (AccessRole.WRITER, DELETE): "",
    (AccessRole.RESTORER, READ): " ".join(NAMES),
    (AccessRole.RESTORER, ADD): "ledger page evidence seeds",
    (AccessRole.RESTORER, DELETE): "",
    (AccessRole.AUDITOR, READ): "ledger page evidence index inventory domain checkpoint seeds",
    (AccessRole.AUDITOR, ADD): "",
    (AccessRole.AUDITOR, DELETE): "",
    (AccessRole.PRUNER, READ): "ledger page evidence inventory checkpoint",
    (AccessRole.PRUNER, ADD): "ledger page evidence",
    (AccessRole.PRUNER, DELETE): "pack index inventory",
    (AccessRole.VERIFIER, READ): " ".join(NAMES),
    (AccessRole.VERIFIER, ADD): "ledger page evidence",
    (AccessRole.VERIFIER, DELETE): "",
    (AccessRole.LOG, READ): "ledger page checkpoint",
    (AccessRole.LOG, ADD): "checkpoint",
    (AccessRole.LOG, DELETE): "",
    **{(role, SEE_LOCK): " ".join(NAMES) for role in AccessRole},
}


@pytest.mark.parametrize(("role", "action"), EXPECTED)
def test_a_role_may_do_what_its_work_needs_and_nothing_else(role: AccessRole, action: str) -> None:
    """By kind of object."""
    policy = role_policy(role, "bucket", "some/prefix")
    found = {kind for kind, name in NAMES.items() if allows(policy, action, name)}
    assert found == set(EXPECTED[role, action].split())


def test_the_auditor_reads_packs_when_asked_to() -> None:
    """For an audit that hashes the data."""
    policy = role_policy(AccessRole.AUDITOR, "bucket", "some/prefix", read_data=True)
    assert allows(policy, READ, NAMES["pack"])


@pytest.mark.parametrize("role", AccessRole)
def test_no_role_bypasses_hides_or_weakens(role: AccessRole) -> None:
    """Nor does any use a wildcard for actions, or reach out of its prefix."""
    granted = role_policy(role, "bucket", "some/prefix")["Statement"]
    for statement in (each for each in granted if each["Effect"] == "Allow"):
        assert not {"s3:BypassGovernanceRetention", "s3:DeleteObject"} & set(statement["Action"])
        assert not any("*" in action for action in statement["Action"])
        for resource in statement["Resource"]:
            assert resource == "arn:aws:s3:::bucket" or resource.startswith(BASE)
        if "s3:ListBucketVersions" in statement["Action"]:
            assert statement["Condition"] == {"StringLike": {"s3:prefix": "some/prefix/*"}}


def denials(policy: dict[str, Any], action: str) -> list[dict[str, Any]]:
    """The deny statements about an action."""
    return [
        statement
        for statement in policy["Statement"]
        if statement["Effect"] == "Deny" and action in statement["Action"]
    ]


def test_aws_forbids_what_a_stolen_role_could_try() -> None:
    """Bypass to all, deletion to all but the pruner, unlocked or over-long PUTs to all."""
    policy = bucket_policy(
        "bucket",
        "some/prefix",
        dialect=Dialect.AWS,
        parameters=PARAMETERS,
        principals=PRINCIPALS,
        administrator="arn:aws:iam::1:role/admin",
    )
    (bypass,) = denials(policy, "s3:BypassGovernanceRetention")
    assert bypass["Principal"] == "*"
    assert "Condition" not in bypass
    (delete,) = denials(policy, DELETE)
    spared = delete["Condition"]["ArnNotEquals"]["aws:PrincipalArn"]
    assert spared == ["arn:aws:iam::1:role/pruner", "arn:aws:iam::1:role/admin"]
    public, mode, shortest, longest = (item["Condition"] for item in denials(policy, ADD))
    assert "public-read" in public["StringEquals"]["s3:x-amz-acl"]
    days = "s3:object-lock-remaining-retention-days"
    assert mode == {"StringNotEquals": {"s3:object-lock-mode": "COMPLIANCE"}}
    assert shortest == {"NumericLessThan": {days: "6"}}
    assert longest == {"NumericGreaterThan": {days: "873"}}
    json.dumps(policy)


def test_a_repository_without_locks_has_no_rules_about_them() -> None:
    """Versions stay protected all the same."""
    policy = bucket_policy(
        "bucket",
        dialect=Dialect.AWS,
        parameters=Parameters(lock_mode=LockMode.NONE),
        principals=PRINCIPALS,
    )
    (public,) = denials(policy, ADD)
    assert list(public["Condition"]["StringEquals"]) == ["s3:x-amz-acl"]
    assert denials(policy, DELETE)


def test_ceph_gets_grants_by_user_and_no_conditions_it_would_not_enforce() -> None:
    """Owners read and delete what they stored unless that is denied to them by name."""
    principals = {role: [f"arn:aws:iam:::user/{role}"] for role in AccessRole}
    policy = bucket_policy(
        "bucket", dialect=Dialect.CEPH, parameters=PARAMETERS, principals=principals
    )
    conditions = [s["Condition"] for s in policy["Statement"] if "Condition" in s]
    assert [list(each["StringEquals"]) for each in conditions] == [["s3:x-amz-acl"]]  # is enforced
    assert all("Principal" in statement for statement in policy["Statement"])
    (read,) = denials(policy, READ)
    assert "arn:aws:iam:::user/writer" in read["Principal"]["AWS"]
    assert read["Resource"] == ["arn:aws:s3:::bucket/packs/*"]
    (delete,) = denials(policy, DELETE)
    assert "arn:aws:iam:::user/pruner" not in delete["Principal"]["AWS"]


def test_ceph_gets_no_condition_on_a_listing_of_a_prefix_either() -> None:
    """As it judges a condition on a listing wrongly; on AWS the same role has it."""
    principals = {role: [f"arn:aws:iam:::user/{role}"] for role in AccessRole}
    policy = bucket_policy(
        "bucket",
        "some/prefix",
        dialect=Dialect.CEPH,
        parameters=PARAMETERS,
        principals=principals,
    )
    for role in AccessRole:
        (listing,) = _grants_of(role_policy(role, "bucket", "some/prefix"), LIST)
        assert listing["Condition"] == {"StringLike": {"s3:prefix": "some/prefix/*"}}
    listings = _grants_of(policy, LIST)
    assert len(listings) == len(AccessRole)
    assert not any("Condition" in each for each in listings)


def _grants_of(policy: dict[str, Any], action: str) -> list[dict[str, Any]]:
    return [
        statement
        for statement in policy["Statement"]
        if statement["Effect"] == "Allow" and action in statement["Action"]
    ]


@pytest.mark.parametrize("role", AccessRole)
def test_only_the_auditor_reads_the_rules_of_the_bucket(role: AccessRole) -> None:
    """It must find what expires objects or lets others in; the others look for locks alone."""
    rules = {"s3:GetBucketVersioning", "s3:GetBucketPolicy", "s3:GetLifecycleConfiguration"}
    policy = role_policy(role, "bucket", "some/prefix")
    granted = {action for action in rules if _grants_of(policy, action)}
    assert granted == (rules if role is AccessRole.AUDITOR else set())
    assert _grants_of(policy, "s3:GetBucketObjectLockConfiguration")


@pytest.mark.parametrize("role", AccessRole)
def test_no_role_makes_buckets(role: AccessRole) -> None:
    """A bucket of its own would be outside of all that is denied here."""
    denied = [s for s in role_policy(role, "bucket")["Statement"] if s["Effect"] == "Deny"]
    assert [statement["Action"] for statement in denied] == [["s3:CreateBucket"]]


def test_without_extends_nobody_may_change_a_lock() -> None:
    """Where the right to extend is the right to undo: neither granted nor left to owners."""
    for role in AccessRole:
        policy = role_policy(role, "bucket", "some/prefix", extend=False)
        assert not any(allows(policy, EXTEND, name) for name in NAMES.values())
    parameters = Parameters(lock_mode=LockMode.COMPLIANCE, extend=False)
    for dialect in Dialect:
        policy = bucket_policy(
            "bucket", "some/prefix", dialect=dialect, parameters=parameters, principals=PRINCIPALS
        )
        assert any(
            statement["Effect"] == "Deny" and EXTEND in statement["Action"]
            for statement in policy["Statement"]
            if "Condition" not in statement or "ArnNotEquals" in statement["Condition"]
        )
        assert not allows(policy, EXTEND, NAMES["pack"])


@pytest.mark.parametrize("dialect", Dialect)
def test_no_object_is_made_public(dialect: Dialect) -> None:
    """Neither by a canned list of access at its PUT nor afterwards."""
    policy = bucket_policy("bucket", dialect=dialect, parameters=PARAMETERS, principals=PRINCIPALS)
    denials = [s for s in policy["Statement"] if s["Effect"] == "Deny"]
    canned = [
        s for s in denials if "s3:x-amz-acl" in s.get("Condition", {}).get("StringEquals", {})
    ]
    assert canned
    assert canned[0]["Action"] == ["s3:PutObject"]
    for action in ("s3:PutObjectAcl", "s3:PutObjectVersionAcl", "s3:PutBucketAcl"):
        assert any(action in statement["Action"] for statement in denials)


def test_on_ceph_who_is_not_named_reads_nothing() -> None:
    """Whatever access list an object has; without an administrator the owner is not shut out."""
    users = {AccessRole.WRITER: ["arn:aws:iam:::user/w"]}

    def named(administrator: str) -> list[Any]:
        policy = bucket_policy(
            "b",
            "p",
            dialect=Dialect.CEPH,
            parameters=PARAMETERS,
            principals=users,
            administrator=administrator,
        )
        return [each["NotPrincipal"] for each in policy["Statement"] if "NotPrincipal" in each]

    assert named("arn:aws:iam:::user/a") == [
        {"AWS": ["arn:aws:iam:::user/a", "arn:aws:iam:::user/w"]}
    ]
    assert named("") == []
