"""Policies that tests apply, and snapshots under them."""

import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.support.lab import TOOL, Host, Lab
from vault.ledger.records import Record
from vault.ledger.statements import PolicyBody, StatementType
from vault.model import Digest
from vault.policy.in_force import plan_apply, policies_in_force, sign_change
from vault.policy.policy_keeper import PolicyKeeper
from vault.policy.shape import policy_of
from vault.policy.terms import PolicyTerms, terms_of
from vault.repository.append_statements import Draft
from vault.snapshot import SnapshotReport

DAILY = """
policy = 1
name = "web"
timezone = "Europe/Berlin"
[schedule]
cron = "17 */4 * * *"
[retention]
within = "7d"
daily = 14
monthly = 12
[[dataset]]
name = "data"
paths = ["/srv"]
"""


def policy_terms(text: str = DAILY, **changes: str) -> PolicyTerms:
    """The terms of a policy file, with some of its texts exchanged for others."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return terms_of(policy_of(tomllib.loads(text)))


def edited(changes: Mapping[str, str], text: str = DAILY) -> PolicyTerms:
    """The same, where what is exchanged is no name."""
    return policy_terms(text, **changes)


def apply_terms(lab: Lab, terms: PolicyTerms, reason: str = "") -> Record:
    """Put terms in force, as the command does."""
    repository = lab.open()
    change = plan_apply(repository, terms, reason=reason)
    return sign_change(repository, change, lab.root_key.policy, tool=TOOL)


def state_policy(lab: Lab, terms: PolicyTerms | bytes, **fields: Any) -> Record:
    """Sign a policy statement that says whatever is given."""
    repository = lab.open()
    data = terms if isinstance(terms, bytes) else terms.encode()
    digest = repository.put_evidence(data)
    body = PolicyBody(**{"action": "apply", "name": "web", "sha256": str(digest), **fields})
    subject = Digest.parse(body.sha256)
    draft = Draft(type=StatementType.POLICY, subject=[("policy", subject)], body=body)
    return repository.append(lambda _: draft, [lab.root_key.policy], tool=TOOL)


def keeper_of(
    lab: Lab, *, host: Host | None = None, dataset: str = "data", asked: timedelta | None = None
) -> PolicyKeeper:
    """What the command hands to a snapshot of the dataset."""
    repository = lab.open()
    return PolicyKeeper(
        lambda ledger: policies_in_force(repository, ledger),
        repository.ledger,
        dataset=dataset,
        key_id=(host or lab.host).key.signing.public.id,
        parameters=repository.parameters,
        asked=asked,
    )


def governed_snapshot(lab: Lab, source: Path, **options: Any) -> SnapshotReport:
    """A snapshot whose floor is what is applied."""
    keeper = keeper_of(lab, asked=options.get("retention"))
    return lab.snapshot(source, keeper=keeper, **options)
