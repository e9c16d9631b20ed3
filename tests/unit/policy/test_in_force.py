"""Which terms are in force, and what may change them."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.lab import TOOL, Lab
from tests.support.policies import apply_terms, edited, policy_terms, state_policy
from tests.support.trees import MakeSource
from vault.errors import ConfigError, LedgerMovedError
from vault.ledger.statements import PolicyBody
from vault.model import Code, Severity
from vault.policy.in_force import (
    plan_apply,
    plan_retire,
    plan_withdraw,
    policies_in_force,
    retired_datasets,
    sign_change,
)

SHORT = {"daily = 14": "daily = 13"}


def in_force(lab: Lab) -> dict[str, str]:
    """Names, and the digests of terms."""
    found = policies_in_force(lab.open()).by_name
    return {name: str(policy.terms.digest) for name, policy in found.items()}


def test_what_is_applied_is_in_force_until_it_is_withdrawn(lab: Lab) -> None:
    """And says whose terms it has; a second one of the name replaces it."""
    assert in_force(lab) == {}
    first = apply_terms(lab, policy_terms(), reason="first")
    assert in_force(lab) == {"web": str(policy_terms().digest)}
    longer = edited({"daily = 14": "daily = 15"})
    second = apply_terms(lab, longer)
    assert isinstance(second.body, PolicyBody)
    assert (second.body.previous, second.body.weakens, second.body.weaker) == (first.seq, False, ())
    assert in_force(lab) == {"web": str(longer.digest)}
    repository = lab.open()
    change = plan_withdraw(repository, "web", reason="over")
    assert change.body.weakens
    sign_change(repository, change, lab.root_key.policy, tool=TOOL)
    assert in_force(lab) == {}
    assert policies_in_force(lab.open()).findings == ()


def test_what_is_weaker_is_in_the_statement(lab: Lab) -> None:
    """For everyone to read."""
    apply_terms(lab, policy_terms())
    record = apply_terms(lab, edited(SHORT))
    assert isinstance(record.body, PolicyBody)
    assert record.body.weakens
    assert record.body.weaker == ("data: daily from 14d to 13d",)
    assert in_force(lab) == {"web": str(edited(SHORT).digest)}


def test_weaker_terms_that_do_not_say_so_are_not_used(lab: Lab) -> None:
    """The ones before stay in force, and that is an error for everyone."""
    apply_terms(lab, policy_terms())
    record = state_policy(lab, edited(SHORT), weakens=False)
    found = policies_in_force(lab.open())
    assert in_force(lab) == {"web": str(policy_terms().digest)}
    [finding] = found.findings
    assert (finding.code, finding.severity) == (Code.UNAPPROVED, Severity.ERROR)
    assert finding.subject == f"ledger {record.seq}"
    assert "data: daily from 14d to 13d" in finding.found


def test_weaker_terms_that_say_so_are_used(lab: Lab) -> None:
    """The control of the test before."""
    apply_terms(lab, policy_terms())
    state_policy(lab, edited(SHORT), weakens=True)
    assert in_force(lab) == {"web": str(edited(SHORT).digest)}


def test_a_policy_can_not_be_weakened_in_steps_past_a_lie(lab: Lab) -> None:
    """Each is compared with what is in force, not with what stands before it."""
    apply_terms(lab, policy_terms())
    state_policy(lab, edited(SHORT), weakens=False)
    state_policy(lab, edited({"daily = 14": "daily = 12"}), weakens=False)
    assert in_force(lab) == {"web": str(policy_terms().digest)}
    assert len(policies_in_force(lab.open()).findings) == 2


@pytest.mark.parametrize("data", [b"", b"{}", b"junk", policy_terms().encode() + b" "])
def test_terms_that_can_not_be_read_are_not_used(lab: Lab, data: bytes) -> None:
    """Nor terms of another policy; the ones before stay in force."""
    apply_terms(lab, policy_terms())
    state_policy(lab, data)
    state_policy(lab, edited({'"web"': '"other"'}))
    assert in_force(lab) == {"web": str(policy_terms().digest)}
    assert [each.code for each in policies_in_force(lab.open()).findings] == [Code.UNAPPROVED] * 2


def test_terms_that_are_gone_are_not_used(lab: Lab) -> None:
    """A store that lost them leaves the ones before in force."""
    apply_terms(lab, policy_terms())
    state_policy(lab, b"x", sha256="0" * 64)
    assert in_force(lab) == {"web": str(policy_terms().digest)}
    assert len(policies_in_force(lab.open()).findings) == 1


def test_what_the_repository_can_not_keep_is_refused(lab: Lab) -> None:
    """Tiers over its maximum, stronger locks, a dataset that another policy governs."""
    asked = {"monthly = 12": 'monthly = "3y"\nlock = "compliance"'}
    with pytest.raises(ConfigError, match="can't be applied here") as caught:
        plan_apply(lab.open(), edited(asked), reason="")
    said = [str(caught.value.found), *caught.value.__notes__]
    assert "monthly is longer than the repository's maximum" in said[0]
    assert "asks for compliance locks" in said[1]
    apply_terms(lab, policy_terms())
    with pytest.raises(ConfigError, match="policy web governs data already"):
        plan_apply(lab.open(), edited({'name = "web"': 'name = "other"'}), reason="")
    fleet = edited({'name = "web"': 'name = "other"', 'name = "data"': 'name = "{host}"'})
    with pytest.raises(ConfigError, match="policy web governs data already"):
        plan_apply(lab.open(), fleet, reason="")
    with pytest.raises(ConfigError, match="is in force as it is"):
        plan_apply(lab.open(), policy_terms(), reason="")


def test_a_change_that_another_overtook_is_refused(lab: Lab) -> None:
    """What was listed as weaker would not be what is weaker."""
    apply_terms(lab, policy_terms())
    repository = lab.open()
    change = plan_apply(repository, edited({"daily = 14": "daily = 20"}), reason="")
    apply_terms(lab, edited({"daily = 14": "daily = 30"}))
    with pytest.raises(LedgerMovedError, match="changed by another"):
        sign_change(repository, change, lab.root_key.policy, tool=TOOL)
    assert in_force(lab) == {"web": str(edited({"daily = 14": "daily = 30"}).digest)}


def test_a_dataset_is_given_up_until_its_next_snapshot(lab: Lab, make_source: MakeSource) -> None:
    """Once only; one without snapshots can't be."""
    source: Path = make_source(files=1)
    with pytest.raises(ConfigError, match="no snapshot of dataset"):
        plan_retire(lab.open(), "data", reason="")
    lab.snapshot(source)
    repository = lab.open()
    change = plan_retire(repository, "data", reason="moved")
    record = sign_change(repository, change, lab.root_key.policy, tool=TOOL)
    assert {name: each.seq for name, each in retired_datasets(lab.open().ledger).items()} == {
        "data": record.seq
    }
    with pytest.raises(ConfigError, match="is given up already"):
        plan_retire(lab.open(), "data", reason="")
    lab.clock.now += timedelta(hours=1)
    lab.snapshot(source)
    assert retired_datasets(lab.open().ledger) == {}
