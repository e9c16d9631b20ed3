"""The part of an audit that looks at the ledger, its heads, and the rules of its store."""

from collections import Counter
from collections.abc import Sequence

from vault.audit.claimed_times import check_approvals, check_modes, check_times
from vault.clock import check_skew
from vault.custody.findings import Findings
from vault.errors import ConfigError, RollbackError, StorageError, StorageUnavailableError
from vault.ledger.chain import Ledger
from vault.ledger.envelope import Head
from vault.ledger.records import Record
from vault.ledger.remarks import remarks
from vault.ledger.trust import check_floor
from vault.model import Code
from vault.repository.heartbeats import silent_hosts
from vault.repository.key_inventory import due_reviews, listed_keys
from vault.repository.repository import Repository
from vault.repository.vouching import witnessed_now
from vault.storage.base import ObjectStore


def check_ledger(
    repository: Repository, owed: Sequence[Record], floors: Sequence[Head], findings: Findings
) -> None:
    """Report void statements, heads that are missing, what witnesses saw, clocks that differ."""
    ledger = repository.ledger
    for each in ledger.findings:
        if each.code != Code.DISTRUSTED:  # see `check_distrusted`
            findings.add(Code(each.code), each.subject, each.problem, found=each.found)
    check_times(ledger, findings)
    check_modes(ledger, owed, findings)
    check_approvals(ledger, findings)
    for claim in ledger.overclaims():
        findings.add(Code.OVERCLAIM, claim.subject, claim.problem, found=claim.found)
    for plan in repository.plans.unreadable():
        findings.add(Code.UNREADABLE_PLAN, plan.subject, plan.problem, found=plan.found)
    for plan in repository.heavy_plans():
        findings.add(Code.HEAVY_PLAN, plan.subject, plan.problem, found=plan.found)
    _check_witnesses(repository, findings)
    for host in silent_hosts(ledger, repository.clock()):
        each = host.finding
        findings.add(
            Code.SILENT, each.subject, each.problem, expected=each.expected, found=each.found
        )
    _check_reviews(repository, findings)
    for floor in floors:
        try:
            check_floor(ledger, floor)
        except RollbackError as error:
            findings.add(
                Code.OTHER_HISTORY,
                "ledger",
                error.message,
                expected=error.expected,
                found=error.found,
            )
    _check_store(repository.store, findings)
    try:
        check_skew(repository.clock(), repository.store.now())
    except ConfigError as error:
        findings.add(Code.CLOCK, "clock", error.message, expected=error.expected, found=error.found)


def check_distrusted(ledger: Ledger, beside: Counter[str], findings: Findings) -> None:
    """Report what keys left that are distrusted: one warning for each, wherever it stands.

    Args:
        ledger: Read up to its head.
        beside: How many statements each left at numbers that others own.
        findings: Take the warnings.
    """
    left = beside + Counter(ledger.left_beyond)
    for each in remarks(ledger.records, ledger.distrusted, left):
        if each.code == Code.DISTRUSTED:
            findings.add(Code.DISTRUSTED, each.subject, each.problem, found=each.found)


def _check_reviews(repository: Repository, findings: Findings) -> None:
    """Report keys of the root that people wanted to look at again by now."""
    for key in due_reviews(listed_keys(repository.ledger), repository.clock()):
        problem = f"the root lists the key {key.name}, whose review is due: is it still wanted?"
        findings.add(Code.REVIEW_DUE, f"key {key.key.id}", problem, found=key.review)


def _check_witnesses(repository: Repository, findings: Findings) -> None:
    """Report what checkpoints say of the ledger."""
    witnessed = witnessed_now(repository)
    for each in witnessed.findings():
        code = Code(each.code)
        findings.add(
            code,
            each.subject,
            each.problem,
            expected=each.expected,
            found=each.found,
            harmless=code is Code.UNWITNESSED and not witnessed.required,
        )


def _check_store(store: ObjectStore, findings: Findings) -> None:
    """Report rules by which the store itself would remove objects, or that it hides them."""
    try:
        hazards = store.hazards()
    except StorageUnavailableError:
        raise
    except StorageError as error:
        problem = "rules of the bucket that expire objects can't be asked for"
        findings.add(Code.NOT_READ, store.url, problem, found=error)
        return
    for hazard in hazards:
        findings.add(Code.BUCKET_RULE, store.url, hazard)
