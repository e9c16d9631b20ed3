"""`vault key root`: show the root in force, propose the next one, apply it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from cli.commands.key_add import place_fields
from cli.output import render
from cli.output.lost_attempts import LostAttempts
from cli.root_options import root_change, root_change_options
from cli.session import TOOL, Invocation, pass_invocation
from cli.small_files import read_file
from cli.warrant_choice import chosen_request, warrant_option
from vault.crypto.keys import Signer, VerifyKey
from vault.crypto.signers import parse_signer
from vault.encoding import b64decode_strict
from vault.errors import naming
from vault.ledger.records import Record
from vault.ledger.statements import (
    Approval,
    PublicKey,
    Role,
    RootBody,
)
from vault.model import body_to_json
from vault.repository.hosts import ID_DIGITS
from vault.repository.recipients import still_open
from vault.repository.repository import Repository
from vault.repository.root_changes import (
    Consequences,
    consequences,
    missing_signers,
    next_root,
    root_record,
    without_spare,
)
from vault.repository.roots import (
    MAX_PROPOSAL,
    RootProposal,
    apply_root,
    parse_proposal,
    propose,
    require_proposal,
    save_proposal,
)

_SHOWN = 8  # statements that become void or valid, of each


@click.group()
def root() -> None:
    """Show the root in force, propose the next one, apply it."""


# --- show ---


@root.command("show")
@pass_invocation
def show_command(invocation: Invocation) -> None:
    """Show what the root in force says: keys, persons, thresholds, recipients, witnesses."""
    repository = invocation.open(afresh=True)
    record = root_record(repository.ledger)
    body = repository.ledger.root
    fields = {"root": {**place_fields(record), "digest": str(record.digest), **body_to_json(body)}}
    invocation.emit("vault/key-root/v1", fields, render.facts(_facts(body, record)))


def _facts(body: RootBody, record: Record | None = None) -> dict[str, str]:
    """A root for people, in lines."""
    facts = {"root": f"version {body.version}" + (f", statement {record.seq}" if record else "")}
    for key in body.keys:
        facts[f"key {key.name}"] = _key_text(key)
    over_one = {role: count for role, count in body.thresholds.items() if count > 1}
    facts["thresholds"] = _pairs(over_one) or "1 for each role"
    facts["recipients"] = ", ".join(each.name for each in body.recipients)
    for act, each in body.approvals.items():
        facts[f"approval {act}"] = _approval_text(each)
    facts["witnesses"] = ", ".join(f"{each.name} {each.vkey}" for each in body.witnesses) or "none"
    if body.witnesses:
        facts["quorum"] = f"{body.quorum}, checkpoints at least every {body.checkpoint_age} s"
    if body.distrust:
        facts["distrusts"] = ", ".join(
            f"{_id(e.public)[:16]} from {e.start}" for e in body.distrust
        )
    facts["lock"] = body.parameters.lock_mode.value
    return facts


def _pairs(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _approval_text(each: Approval) -> str:
    people = render.plural(each.threshold, "person")
    return f"{people} with the role {each.role} beside who asks and acts, within {each.max_age} s"


def _id(public: str) -> str:
    return VerifyKey.from_der(b64decode_strict(public)).id


def _key_text(key: PublicKey) -> str:
    text = f"{_id(key.public)[:ID_DIGITS]} {' '.join(key.roles)}"
    text += f", of {key.person}" if key.person else ""
    return text + (f", review {key.review}" if key.review else "")


# --- propose ---


_FILE = click.Path(dir_okay=False, path_type=Path)


@root.command("propose")
@root_change_options
@click.option("--out", type=_FILE, required=True, help="The proposal to write; it is public.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@pass_invocation
def propose_command(invocation: Invocation, /, *, out: Path, yes: bool, **options: Any) -> None:
    """Write the next root to a file, from the one in force and what is to change.

    Shows what becomes void or valid, and who may do what, and asks. Needs no secret: 'vault key
    root apply FILE' signs it, where a root key is. If several people must sign, the file travels.
    """
    repository = invocation.open(afresh=True)
    body = next_root(repository.ledger, root_change(repository, options))
    facts = show_root(invocation, repository, body)
    agree_to_root(invocation, repository, body, "Propose this root?", yes=yes)
    save_proposal(out, propose(repository.ledger, body))
    invocation.did(f"root {body.version} is proposed in {out}")
    _emit_proposal(invocation, repository, body, out, facts)


def _emit_proposal(
    invocation: Invocation,
    repository: Repository,
    body: RootBody,
    out: Path,
    facts: Consequences,
) -> None:
    missing = missing_signers(repository.ledger, body, [])
    fields = {
        "file": str(out),
        "version": body.version,
        "void": [record.seq for record in facts.void],
        "valid": [record.seq for record in facts.valid],
        "body": body_to_json(body),
    }
    text = render.facts(
        {
            "proposal": str(out),
            "root": f"version {body.version}",
            "must sign": missing,
            "next": f"'vault key root apply {out.name}' where a root key is",
        }
    )
    invocation.emit("vault/key-root-propose/v1", {"proposal": fields}, text)


# --- what comes of it, and agreement ---


def show_root(invocation: Invocation, repository: Repository, body: RootBody) -> Consequences:
    """Show what a root changes; returns it."""
    found = consequences(repository.ledger, body, now=invocation.clock())
    lines = {**_differences(repository.ledger.root, body), **_followed(found)}
    for line in render.facts(lines).splitlines():
        render.message("", line)
    for each in found.removed:
        for line in still_open(repository.ledger, each, invocation.clock()).lines():
            render.message("", line)
    return found


def _differences(before: RootBody, after: RootBody) -> dict[str, str]:
    """Lines of a root that are other than in the one before, or gone."""
    old, new = _facts(before), _facts(after)
    gone = {name: f"removed (was: {old[name]})" for name in old if name not in new}
    changed = {
        name: f"{value} (was: {old[name]})" if name in old else value
        for name, value in new.items()
        if old.get(name) != value
    }
    return changed | gone


def _followed(found: Consequences) -> dict[str, str]:
    facts = {
        "becomes void": _statements(found.void),
        "counts again": _statements(found.valid),
    }
    if found.added:
        names = ", ".join(each.name for each in found.added)
        facts["opens from then on"] = f"{names}; what is older after 'vault key reseal'"
    if found.removed:
        facts["opens no more"] = ", ".join(each.name for each in found.removed)
    facts["requests"] = "all that people signed under the root in force end with it"
    return {name: value for name, value in facts.items() if value}


def _statements(records: Sequence[Record]) -> str:
    if not records:
        return "nothing"
    shown = ", ".join(f"{record.seq} {record.type}" for record in records[:_SHOWN])
    more = len(records) - _SHOWN
    return f"{render.plural(len(records), 'statement')}: {shown}" + (
        f" and {more} more" if more > 0 else ""
    )


def agree_to_root(
    invocation: Invocation, repository: Repository, body: RootBody, question: str, *, yes: bool
) -> None:
    """Pass if a person agrees to a root, or a script said so.

    Raises:
        ConfigError: They don't.
    """
    if without_spare(body):
        words = "the root has no spare: if one root key is lost, no root can ever follow it"
        if without_spare(repository.ledger.root):
            invocation.note(words)
        else:
            question = f"{words[:1].upper()}{words[1:]}. {question}"
    if not yes:
        invocation.confirm(question, instead="--yes agrees to it")


# --- apply ---


@root.command("apply")
@click.argument("file", type=_FILE)
@click.option(
    "--key",
    "uris",
    metavar="URI",
    multiple=True,
    help="A further key that signs: file:PATH#root or pkcs11:… Repeatable.",
)
@click.option("--yes", is_flag=True, help="Don't ask.")
@warrant_option
@pass_invocation
def apply_command(
    invocation: Invocation,
    *,
    file: Path,
    uris: tuple[str, ...],
    yes: bool,
    warrant: str | None,
) -> None:
    """Sign a proposed root and put it in force. Needs root.key, or --signer root=URI.

    The thresholds of the root in force and of the new one must be met. If a thief near the store
    is faster, the command tries 10,000 times.
    """
    proposal = read_proposal(file)
    repository = invocation.open(afresh=True)
    require_proposal(repository.ledger, proposal)
    agreed = chosen_request(repository, warrant)
    show_root(invocation, repository, proposal.body)
    agree_to_root(invocation, repository, proposal.body, "Put this root in force?", yes=yes)
    signers = root_signers(invocation, repository, uris)
    lost = LostAttempts(invocation.warn)
    request = None if agreed is None else agreed.request
    record = apply_root(repository, proposal, signers, tool=TOOL, insist=lost, agreed=request)
    emit_applied(invocation, repository, record, proposal, lost)


def read_proposal(file: Path) -> RootProposal:
    """The proposed root in a file.

    Raises:
        ConfigError: There is no such file, or it is too large.
        LocalError: It can't be read.
        VaultError: It is no proposal, or its root would be void.
    """
    data = read_file(file, MAX_PROPOSAL)
    with naming(file):
        return parse_proposal(data)


def emit_applied(
    invocation: Invocation,
    repository: Repository,
    record: Record,
    proposal: RootProposal,
    lost: LostAttempts,
) -> None:
    """Say that a root is in force."""
    invocation.did(f"root {proposal.body.version} is in force, head {record.head}")
    invocation.remember(repository)
    fields = {"version": proposal.body.version, "lost": lost.count, **place_fields(record)}
    facts = {"root": f"version {proposal.body.version} is in force", "head": str(record.head)}
    if lost.count:
        facts["lost"] = lost.text
    invocation.emit("vault/key-root-apply/v1", {"root": fields}, render.facts(facts))


def root_signers(
    invocation: Invocation, repository: Repository, uris: Sequence[str]
) -> list[Signer]:
    """The usual root key, where there is one, and those that are named; each once."""
    found = [invocation.secrets.open_signer(repository, parse_signer(uri)) for uri in uris]
    if not found or invocation.secrets.has_signer(repository, Role.ROOT):
        found.insert(0, invocation.secrets.signer(repository, Role.ROOT))
    return list({each.public.id: each for each in found}.values())
