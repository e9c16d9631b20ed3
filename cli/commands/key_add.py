"""`vault key add`: shows what a host asks for, asks for agreement, and then signs."""

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

import click

from cli.commands.key_request import wanted_fields
from cli.output import render
from cli.session import TOOL, Invocation, pass_invocation
from cli.warrant_choice import chosen_request, warrant_option
from vault.crypto.key_files import KeyRequest, load_request
from vault.crypto.keys import VerifyKey
from vault.errors import ConfigError
from vault.ledger.records import Record, WriterInfo
from vault.ledger.statements import Role
from vault.repository.enrolment import add_writer, limit_writer
from vault.repository.hosts import (
    ID_DIGITS,
    Overlapping,
    hosts_of,
    is_key_id,
    limit_for,
    overlapping,
    require_free_name,
)
from vault.repository.keyrequests import check_request, granted, require_domain
from vault.repository.repository import Repository


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--key",
    "key_id",
    metavar="ID",
    help=f"The key that the host printed, {ID_DIGITS} digits or more: adds it without asking.",
)
@click.option(
    "--dataset",
    "datasets",
    metavar="PATTERN",
    multiple=True,
    help="Datasets that it may write, fewer than it asks for. Repeatable.",
)
@click.option(
    "--share-datasets",
    metavar="HOST",
    multiple=True,
    help="Agree that both hosts write the datasets in which they overlap. Repeatable.",
)
@click.option(
    "--share-domain",
    metavar="DOMAIN",
    help="Agree that the host joins this domain; needs recovery.key too.",
)
@warrant_option
@pass_invocation
def add(
    invocation: Invocation,
    *,
    file: Path,
    key_id: str | None,
    datasets: tuple[str, ...],
    share_datasets: tuple[str, ...],
    share_domain: str | None,
    warrant: str | None,
) -> None:
    """Enrol the host that made a request FILE. Needs root.key.

    Shows what the host would get, and signs nothing before you agree: compare the key with the
    one that the host printed. If its datasets overlap with those of another host, either both may
    write them (--share-datasets), or the other is first limited to what it has published. On a
    terminal it asks for what ends the overlap.
    """
    if not file.exists():
        raise ConfigError(f"there is no file {file}")
    wanted = load_request(file)
    repository = invocation.open(afresh=True)
    asked = chosen_request(repository, warrant)
    if asked is not None and not asked.values:
        raise ConfigError(
            "key add needs the request's file", hint="it names the domain object that was stored"
        )
    plan = _plan(repository, wanted, datasets, share_datasets)
    if asked is None:
        require_domain(repository, wanted, share_domain)
    for line in render.facts(_shown(repository, plan)).splitlines():
        render.message("", line)
    _agree(invocation, plan, key_id)
    agreed = {*share_datasets, *(each.writer.name for each in plan.left)}
    enroller = invocation.secrets.signer(repository, Role.ENROLLER)
    for other, patterns in plan.limits:
        record = limit_writer(
            repository,
            enroller,
            other,
            datasets=patterns,
            share_datasets=agreed,
            reason=f"{wanted.name} joins",
            tool=TOOL,
        )
        invocation.did(f"host {other.name} is limited to {' '.join(patterns)}, head {record.head}")
    record = add_writer(
        repository,
        wanted,
        enroller,
        recovery_key=lambda: invocation.secrets.recovery_key(repository),
        share=share_domain,
        datasets=datasets,
        share_datasets=agreed,
        tool=TOOL,
        agreed=asked,
    )
    invocation.did(f"host {wanted.name} is enrolled, head {record.head}")
    invocation.remember(repository)
    fields = {
        **wanted_fields(wanted),
        "datasets": list(plan.datasets),
        "limited": [
            {"name": other.name, "datasets": list(patterns)} for other, patterns in plan.limits
        ],
        **place_fields(record),
    }
    facts = {
        "host": wanted.name,
        "key": plan.key_id,
        "datasets": " ".join(plan.datasets),
        "domain": wanted.domain,
        "replaces": wanted.replaces,
        "head": str(record.head),
    }
    text = render.facts({name: value for name, value in facts.items() if value})
    invocation.emit("vault/key-add/v1", {"key": fields}, text)


def place_fields(record: Record) -> dict[str, object]:
    """The place of a statement in the ledger, for programs."""
    return {"seq": record.seq, "head": str(record.head)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """The statements that are about to be signed."""

    wanted: KeyRequest
    key_id: str
    datasets: tuple[str, ...]
    old: WriterInfo | None  # the key that it replaces
    shared: Sequence[Overlapping]  # overlaps agreed to beforehand
    overlaps: Sequence[Overlapping]  # overlaps not agreed to
    limits: Sequence[tuple[WriterInfo, tuple[str, ...]]]  # end these, if a person agrees
    left: Sequence[Overlapping]  # what no limit ends, so that both write it, if a person agrees


def _plan(
    repository: Repository,
    wanted: KeyRequest,
    datasets: Sequence[str],
    share_datasets: Collection[str],
) -> _Plan:
    """The statements that would be signed.

    Raises:
        ConfigError: None can be: a name is taken, or limits can't end the overlaps.
    """
    ledger = repository.ledger
    old = check_request(repository, wanted)
    require_free_name(ledger, wanted.name, wanted.replaces)
    patterns = granted(wanted, datasets)
    found = overlapping(ledger, patterns, besides={wanted.replaces})
    overlaps = [each for each in found if each.writer.name not in share_datasets]
    done_by = [limit_for(ledger, each.writer, patterns) for each in overlaps]
    return _Plan(
        wanted=wanted,
        key_id=VerifyKey.from_der(wanted.public).id,
        datasets=patterns,
        old=old,
        shared=[each for each in found if each not in overlaps],
        overlaps=overlaps,
        limits=[(each.writer, done) for each, done in zip(overlaps, done_by, strict=True) if done],
        left=[each for each, done in zip(overlaps, done_by, strict=True) if not done],
    )


def _shown(repository: Repository, plan: _Plan) -> dict[str, str]:
    """The facts about to be signed, to show them first."""
    wanted = plan.wanted
    facts = {
        "host": wanted.name,
        "key": plan.key_id,
        "datasets": " ".join(plan.datasets),
        "domain": wanted.domain,
    }
    if plan.old is not None:
        facts["replaces"] = f"{plan.old.key.id}, which signed the request too"
    elif wanted.domain_object is None:
        facts["domain"] += f", shared with {', '.join(hosts_of(repository.ledger, wanted.domain))}"
    if plan.shared:
        facts["both write"] = ", ".join(map(str, plan.shared))
    if plan.overlaps:
        facts["overlap"] = ", ".join(map(str, plan.overlaps))
    return facts


def _agree(invocation: Invocation, plan: _Plan, key_id: str | None) -> None:
    """Pass if a person agrees, or if a script names the key and nothing else needs agreement.

    Raises:
        ConfigError: They don't, or it is another key.
    """
    if plan.overlaps and key_id is not None:
        raise ConfigError(
            f"patterns overlap: {', '.join(map(str, plan.overlaps))}", hint=_ways(plan)
        )
    for other, patterns in plan.limits:
        invocation.confirm(
            f"Limit {other.name} to what it has published ({' '.join(patterns)}) first?",
            instead=_ways(plan),
        )
    for each in plan.left:
        invocation.confirm(f"May both write {each}?", instead=_ways(plan))
    if key_id is None:
        invocation.confirm(
            f"Is {plan.key_id} the key that {plan.wanted.name} printed? Enrol it?",
            instead=f"--key ID, with the key that {plan.wanted.name} printed",
        )
    elif not is_key_id(key_id) or not plan.key_id.startswith(key_id):
        raise ConfigError(
            f"the request is not for that key, or not enough of it is named: {ID_DIGITS} digits",
            expected=key_id,
            found=plan.key_id,
            hint="if the host printed that key, the request was exchanged on its way",
        )


def _ways(plan: _Plan) -> str:
    """The commands and options that end the overlaps, for a script."""
    limits = [
        f"'vault key limit {other.name} --dataset {' --dataset '.join(patterns)}'"
        for other, patterns in plan.limits
    ]
    limits += [f"'vault key limit {each.writer.name} --dataset PATTERN'" for each in plan.left]
    shared = " ".join(f"--share-datasets {each.writer.name}" for each in plan.overlaps)
    return f"{' and '.join(limits)} ends that; {shared} lets both write them"
