"""`vault key root`: show the root in force, propose the next one, apply it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from cli.commands.key_add import place_fields
from cli.output import render
from cli.output.lost_attempts import LostAttempts
from cli.session import TOOL, Invocation, pass_invocation
from cli.small_files import read_file
from vault.crypto.keys import Signer, VerifyKey
from vault.crypto.public_keys import MAX_PUBLIC_FILE, PublicFile, parse_public_file
from vault.crypto.signers import parse_signer
from vault.durations import parse_duration
from vault.encoding import b64decode_strict, b64encode
from vault.errors import ConfigError, SignatureError
from vault.ledger.records import Record
from vault.ledger.statements import (
    Approval,
    PublicKey,
    Recipient,
    Role,
    RootBody,
    Witness,
)
from vault.model import body_to_json
from vault.repository.hosts import ID_DIGITS
from vault.repository.repository import Repository
from vault.repository.root_changes import (
    Consequences,
    RootChange,
    all_keys,
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


def _repeated(*names: str, metavar: str, help: str) -> Callable[[Any], Any]:  # noqa: A002  # as click has it
    return click.option(*names, metavar=metavar, multiple=True, help=help)


@root.command("propose")
@_repeated(
    "--add",
    "added",
    metavar="NAME=FILE:ROLE[,ROLE]",
    help="List the public key in FILE, a PEM such as 'vault key new' makes, with these roles."
    " Repeatable.",
)
@_repeated("--remove", "removed", metavar="NAME", help="Take a key off the list. Repeatable.")
@_repeated(
    "--person", "persons", metavar="NAME[,NAME]=PERSON", help="Whose keys they are. Repeatable."
)
@_repeated(
    "--review",
    "reviews",
    metavar="NAME[,NAME]=DATE",
    help="When to ask whether the keys are still wanted, for example 2027-01-31. Repeatable.",
)
@_repeated(
    "--threshold",
    "thresholds",
    metavar="ROLE=N",
    help="How many people must sign as that role. Repeatable.",
)
@_repeated(
    "--recipient-add",
    "recipients",
    metavar="NAME=FILE",
    help="Seal what comes to the recovery key too whose public file FILE is. Repeatable.",
)
@_repeated(
    "--recipient-remove", "unsealed", metavar="NAME", help="Seal to that one no more. Repeatable."
)
@_repeated(
    "--approval",
    "approvals",
    metavar="ACT=ROLE:N[:DURATION]",
    help="So many others with the role must agree to that act, within a time. Repeatable.",
)
@_repeated("--no-approval", "unapproved", metavar="ACT", help="No more. Repeatable.")
@_repeated(
    "--witness",
    "witnesses",
    metavar="NAME=VKEY",
    help="List a key that cosigns checkpoints. Repeatable.",
)
@_repeated("--witness-remove", "unwitnessed", metavar="NAME", help="List it no more. Repeatable.")
@click.option("--quorum", type=click.IntRange(min=1), help="How many witnesses must cosign.")
@click.option(
    "--checkpoint-age",
    type=parse_duration,
    metavar="DURATION",
    help="When the newest checkpoint is stale.",
)
@_repeated(
    "--distrust",
    "distrusted",
    metavar="KEY=SEQ",
    help="Make void what a stolen key signed from that number on: its id, 16 digits or more."
    " Repeatable.",
)
@_repeated("--no-distrust", "trusted", metavar="KEY", help="Take that back. Repeatable.")
@click.option("--out", type=_FILE, required=True, help="The proposal to write; it is public.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@pass_invocation
def propose_command(invocation: Invocation, /, *, out: Path, yes: bool, **options: Any) -> None:
    """Write the next root to a file, from the one in force and what is to change.

    Shows what becomes void or valid, and who may do what, and asks. Needs no secret: 'vault key
    root apply FILE' signs it, where a root key is. If several people must sign, the file travels.
    """
    repository = invocation.open(afresh=True)
    body = next_root(repository.ledger, _change(repository, options))
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


def _change(repository: Repository, options: dict[str, Any]) -> RootChange:
    """What the options ask for.

    Raises:
        ConfigError: One is malformed, or a file is none of a public key.
    """
    ids = list(all_keys(repository.ledger))
    age = options["checkpoint_age"]
    dropped: dict[str, Approval | None] = dict.fromkeys(options["unapproved"])
    return RootChange(
        add=[_added(repository, text) for text in options["added"]],
        remove=options["removed"],
        persons=_each(options["persons"], "--person"),
        reviews=_each(options["reviews"], "--review"),
        thresholds={
            r: _number(n, "--threshold") for r, n in _all(options, "thresholds", "--threshold")
        },
        recipients_add=[
            _recipient(repository, name, file)
            for name, file in _all(options, "recipients", "--recipient-add")
        ],
        recipients_remove=options["unsealed"],
        approvals=dropped | {a: _approval(v) for a, v in _all(options, "approvals", "--approval")},
        witnesses_add=[
            Witness(name=name, vkey=vkey) for name, vkey in _all(options, "witnesses", "--witness")
        ],
        witnesses_remove=options["unwitnessed"],
        quorum=options["quorum"],
        checkpoint_age=None if age is None else int(age.total_seconds()),
        distrust=[
            (_key_id(ids, key), _number(seq, "--distrust"))
            for key, seq in _all(options, "distrusted", "--distrust")
        ],
        trust=[_key_id(ids, key) for key in options["trusted"]],
    )


def _all(options: dict[str, Any], name: str, option: str) -> list[tuple[str, str]]:
    return [_pair(text, option) for text in options[name]]


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ConfigError(f"{option} is NAME=VALUE", found=repr(text[:80]))
    return name, value


def _each(texts: Sequence[str], option: str) -> dict[str, str]:
    """By name; several names may share a value."""
    pairs = [_pair(text, option) for text in texts]
    return {name: value for names, value in pairs for name in names.split(",")}


def _number(text: str, option: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 15:
        raise ConfigError(f"{option} names no number", found=repr(text[:40]))
    return int(text)


def _added(repository: Repository, text: str) -> PublicKey:
    name, value = _pair(text, "--add")
    file, colon, roles = value.rpartition(":")
    named = roles.split(",")
    if not colon or not set(named) <= set(Role) - {Role.WRITER, Role.APPROVER}:
        raise ConfigError(
            "--add is NAME=FILE:ROLE[,ROLE]",
            expected=" ".join(r for r in Role if r not in (Role.WRITER, Role.APPROVER)),
            found=repr(text[:80]),
        )
    found = read_public_file(Path(file), repository.ledger.repository_id)
    if not found.proven:
        render.message(
            "warning", f"nothing in {file} proves that its holder has the private key of {name}"
        )
    roles_once = tuple(dict.fromkeys(named))
    return PublicKey(name=name, public=b64encode(found.key.der), roles=roles_once)


def _recipient(repository: Repository, name: str, file: str) -> Recipient:
    found = read_public_file(Path(file), repository.ledger.repository_id)
    if found.recipient is None:
        raise ConfigError(
            f"{file} names no recipient",
            hint="'vault key new --role restorer' makes a recovery key and its public file",
        )
    return Recipient(name=name, public=b64encode(found.recipient))


def read_public_file(path: Path, repository: str) -> PublicFile:
    """A public key that another person handed over.

    Raises:
        ConfigError: It is missing.
        FormatError: It is none.
        SignatureError: Its proof does not hold.
        LocalError: It can't be read.
    """
    text = read_file(path, MAX_PUBLIC_FILE).decode("utf-8", "replace")
    try:
        return parse_public_file(text, repository)
    except SignatureError as error:
        error.add_note(f"in {path}")
        raise


def _approval(text: str) -> Approval:
    role, colon, rest = text.partition(":")
    count, _, age = rest.partition(":")
    if not colon:
        raise ConfigError("--approval is ACT=ROLE:N[:DURATION]", found=repr(text[:80]))
    threshold = _number(count, "--approval")
    if not age:
        return Approval(role=role, threshold=threshold)
    seconds = int(parse_duration(age).total_seconds())
    return Approval(role=role, threshold=threshold, max_age=seconds)


def _key_id(known: Sequence[str], text: str) -> str:
    found = [key_id for key_id in known if key_id.startswith(text)]
    if len(text) < ID_DIGITS or len(found) != 1:
        raise ConfigError(
            f"{len(found)} keys match {text[:64]!r}", expected=f"{ID_DIGITS} digits of a key id"
        )
    return found[0]


# --- what comes of it, and agreement ---


def show_root(invocation: Invocation, repository: Repository, body: RootBody) -> Consequences:
    """Show what a root changes; returns it."""
    found = consequences(repository.ledger, body, now=invocation.clock())
    lines = {**_differences(repository.ledger.root, body), **_followed(found)}
    for line in render.facts(lines).splitlines():
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
        facts["opens from then on"] = ", ".join(each.name for each in found.added)
    if found.removed:
        names = ", ".join(each.name for each in found.removed)
        facts["opens no more"] = (
            f"{names}: what is sealed from then on; what is stored it still opens"
        )
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
@_repeated(
    "--key",
    "uris",
    metavar="URI",
    help="A further key that signs: file:PATH#root or pkcs11:… Repeatable.",
)
@click.option("--yes", is_flag=True, help="Don't ask.")
@pass_invocation
def apply_command(invocation: Invocation, *, file: Path, uris: tuple[str, ...], yes: bool) -> None:
    """Sign a proposed root and put it in force. Needs root.key, or --signer root=URI.

    The thresholds of the root in force and of the new one must be met. If a thief near the store
    is faster, the command tries 10,000 times.
    """
    proposal = parse_proposal(read_file(file, MAX_PROPOSAL))
    repository = invocation.open(afresh=True)
    require_proposal(repository.ledger, proposal)
    show_root(invocation, repository, proposal.body)
    agree_to_root(invocation, repository, proposal.body, "Put this root in force?", yes=yes)
    signers = root_signers(invocation, repository, uris)
    lost = LostAttempts(invocation.warn)
    record = apply_root(repository, proposal, signers, tool=TOOL, insist=lost)
    emit_applied(invocation, repository, record, proposal, lost)


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
    found = [invocation.open_signer(repository, parse_signer(uri)) for uri in uris]
    if not found or invocation.has_signer(Role.ROOT):
        found.insert(0, invocation.signer(repository, Role.ROOT))
    return list({each.public.id: each for each in found}.values())
