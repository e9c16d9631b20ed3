"""What an audit says of policies."""

from datetime import timedelta

from tests.support.lab import Lab
from tests.support.policies import (
    apply_terms,
    edited,
    governed_snapshot,
    policy_terms,
    state_policy,
)
from tests.support.trees import MakeSource
from vault.audit.check_policies import check_policies
from vault.custody.findings import Concern, Findings
from vault.model import Code, Severity
from vault.snapshot.snapshot_request import FixedKeeper


def found(lab: Lab) -> list[tuple[Code, Severity, Concern]]:
    """The findings."""
    findings = Findings()
    check_policies(lab.open(), findings)
    return [(each.code, each.severity, each.concern) for each in findings.kept]


def test_an_audit_reports_what_is_kept_short_and_what_is_not_used(
    lab: Lab, make_source: MakeSource
) -> None:
    """The first is an error of retention, the second one of integrity."""
    source = make_source(files=1)
    apply_terms(lab, policy_terms())
    governed_snapshot(lab, source)
    assert found(lab) == []
    lab.clock.advance(hours=1)
    lab.snapshot(source, keeper=FixedKeeper(timedelta(days=3)))
    assert found(lab) == [(Code.RETENTION_SHORT, Severity.ERROR, Concern.RETENTION)]
    state_policy(lab, edited({"daily = 14": "daily = 1"}), weakens=False)
    assert found(lab)[0] == (Code.UNAPPROVED, Severity.ERROR, Concern.INTEGRITY)
