"""`vault policy check`: the ledger compared with the policies in force."""

import dataclasses
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import click

from cli.commands.policy_show import local_difference
from cli.exits import EXIT_INTEGRITY, EXIT_OBJECTIVE, EXIT_RETENTION, gravest
from cli.option_values import format_age
from cli.output import render
from cli.session import Invocation, pass_invocation
from vault.clock import to_rfc3339
from vault.durations import format_duration, parse_duration
from vault.errors import ConfigError
from vault.ledger.records import Record
from vault.policy.in_force import AppliedPolicy, policies_in_force
from vault.policy.kept_short import KeptShort, kept_short
from vault.policy.objectives import MissedObjective, missed_objectives, missed_runs
from vault.policy.terms import DatasetTerms
from vault.repository.bad_packs import BadPackMemory
from vault.repository.dataset_status import Check, Cited, restored, status_of, verified
from vault.repository.repository import Repository


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Obeyed:
    """How a dataset stands to its policy."""

    dataset: str
    policy: str
    missed: Sequence[MissedObjective]
    wanted: int  # runs
    lost: int  # of those, runs without a snapshot


@click.command("check")
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option(
    "--since",
    type=parse_duration,
    default="30d",
    metavar="DURATION",
    show_default=True,
    help="How far back to look for missed runs.",
)
@pass_invocation
def check_policies_kept(invocation: Invocation, *, names: tuple[str, ...], since: timedelta) -> int:
    """Compare the ledger with the policies in force, or with those called NAME. Needs no secret.

    Says which objectives are missed, how many runs brought no snapshot, which snapshots promise
    less than was asked when they were taken, and where the local file says otherwise. Exit 4: a
    policy is not used; 5: a snapshot is kept too short; 6: an objective is missed, or a file
    differs.
    """
    repository = invocation.open()
    invocation.report_findings(repository)
    policies = policies_in_force(repository)
    invocation.report(policies.findings)
    if unknown := [name for name in names if name not in policies.by_name]:
        raise ConfigError(
            f"no policy {unknown[0]} is in force",
            hint=f"in force: {', '.join(policies.by_name) or 'none'}",
        )
    looked = [each for name, each in policies.by_name.items() if not names or name in names]
    now = invocation.clock()
    cited = Cited(repository, BadPackMemory(invocation.places.state))
    obeyed = [
        _obeyed(repository, cited, policy, terms, dataset, since=now - since, now=now)
        for policy in looked
        for dataset, terms in _governed(repository, policy)
    ]
    short = [each for each in kept_short(repository) if each.policy in {p.name for p in looked}]
    drift = {each.name: text for each in looked if (text := local_difference(invocation, each))}
    codes = [
        EXIT_INTEGRITY if policies.findings else 0,
        EXIT_RETENTION if any(each.sure for each in short) else 0,
        EXIT_OBJECTIVE if drift or any(each.missed for each in obeyed) else 0,
    ]
    invocation.emit(
        "vault/policy-check/v1",
        {
            "exit_code": gravest(codes),
            "datasets": [_fields(each) for each in obeyed],
            "kept_short": [_short_fields(each) for each in short],
            "drift": [{"policy": name, "differs": text} for name, text in drift.items()],
            "not_used": [each.subject for each in policies.findings],
        },
        "\n".join(_lines(obeyed, short, drift)) or "no policy is in force",
    )
    return gravest(codes)


def _governed(repository: Repository, policy: AppliedPolicy) -> Iterator[tuple[str, DatasetTerms]]:
    """The datasets of a policy: those that have snapshots, and those it names outright."""
    known = repository.ledger.datasets()
    for terms in policy.terms.datasets:
        if "{host}" not in terms.name:
            yield terms.name, terms
            continue
        yield from ((dataset, terms) for dataset in known if terms.governs(dataset))


def _obeyed(
    repository: Repository,
    cited: Cited,
    policy: AppliedPolicy,
    terms: DatasetTerms,
    dataset: str,
    *,
    since: datetime,
    now: datetime,
) -> _Obeyed:
    ledger = repository.ledger
    records = ledger.snapshots(dataset)
    state = status_of(ledger, dataset, now, cited)
    checked = _passed(repository, cited, records) if "verify" in terms.objectives or (
        "drill" in terms.objectives) else []  # fmt: skip
    wanted = lost = 0
    if terms.schedule is not None and records:
        begin = max(since, ledger.stored(policy.record), ledger.when(records[0]))
        taken = [ledger.when(record) for record in records]
        wanted, lost = missed_runs(
            terms.schedule, policy.terms.timezone, taken, since=begin, now=now
        )
    return _Obeyed(
        dataset=dataset,
        policy=policy.name,
        missed=missed_objectives(terms, state, checked, now),
        wanted=wanted,
        lost=lost,
    )


def _passed(repository: Repository, cited: Cited, records: Sequence[Record]) -> list[Check]:
    """Whole checks of the dataset's snapshots that passed and are believed."""
    found = (
        check
        for record in records
        for check in (
            verified(repository.ledger, record, cited),
            restored(repository.ledger, record, cited),
        )
    )
    return [check for check in found if check is not None and check.is_whole]


def _lines(
    obeyed: Sequence[_Obeyed], short: Sequence[KeptShort], drift: dict[str, str]
) -> Iterator[str]:
    if obeyed:
        rows = [
            (
                each.dataset,
                each.policy,
                "; ".join(map(_missed_text, each.missed)) or "met",
                f"{each.lost:,} of {each.wanted:,}" if each.wanted else "",
            )
            for each in obeyed
        ]
        yield render.table(("dataset", "policy", "objectives", "runs missed"), rows)
    for each in short:
        sure = "" if each.sure else ", by the calendar of a day earlier or later it is right"
        yield (
            f"snapshot {each.record.seq} is kept until {render.moment(each.until)}; policy"
            f" {each.policy} asked {render.moment(each.asked)}{sure}"
        )
    for name, text in drift.items():
        yield f"policy {name}: {render.printable(text)}"


def _missed_text(missed: MissedObjective) -> str:
    age = "never" if missed.age is None else format_age(missed.age)
    return f"{missed.objective} MISSED: {age}, allowed {format_duration(missed.allowed)}"


def _fields(each: _Obeyed) -> dict[str, object]:
    return {
        "dataset": each.dataset,
        "policy": each.policy,
        "missed": [
            {
                "objective": missed.objective,
                "allowed": int(missed.allowed.total_seconds()),
                "age": None if missed.age is None else int(missed.age.total_seconds()),
            }
            for missed in each.missed
        ],
        "runs_wanted": each.wanted,
        "runs_missed": each.lost,
    }


def _short_fields(each: KeptShort) -> dict[str, object]:
    return {
        "snapshot": each.record.seq,
        "policy": each.policy,
        "until": to_rfc3339(each.until),
        "asked": to_rfc3339(each.asked),
        "reasons": list(each.reasons),
        "sure": each.sure,
    }
