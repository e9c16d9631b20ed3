"""The options of `vault key root propose`, and the change of the root that they ask for."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from cli.output import render
from cli.small_files import read_file
from vault.crypto.public_keys import MAX_PUBLIC_FILE, PublicFile, parse_public_file
from vault.durations import parse_duration
from vault.encoding import b64encode
from vault.errors import ConfigError, SignatureError, naming
from vault.ledger.statements import Approval, PublicKey, Recipient, Role, Witness
from vault.repository.hosts import ID_DIGITS
from vault.repository.repository import Repository
from vault.repository.root_changes import RootChange, all_keys

_F = TypeVar("_F", bound=Callable[..., Any])


def _repeated(*names: str, metavar: str, help: str) -> Callable[[Any], Any]:  # noqa: A002  # as click has it
    return click.option(*names, metavar=metavar, multiple=True, help=help)


_OPTIONS: Final = (
    _repeated(
        "--add",
        "added",
        metavar="NAME=FILE:ROLE[,ROLE]",
        help="List the public key in FILE, a PEM such as 'vault key new' makes, with these roles."
        " Repeatable.",
    ),
    _repeated("--remove", "removed", metavar="NAME", help="Take a key off the list. Repeatable."),
    _repeated(
        "--person", "persons", metavar="NAME[,NAME]=PERSON", help="Whose keys they are. Repeatable."
    ),
    _repeated(
        "--review",
        "reviews",
        metavar="NAME[,NAME]=DATE",
        help="When to ask whether the keys are still wanted, for example 2027-01-31. Repeatable.",
    ),
    _repeated(
        "--threshold",
        "thresholds",
        metavar="ROLE=N",
        help="How many people must sign as that role. Repeatable.",
    ),
    _repeated(
        "--recipient-add",
        "recipients",
        metavar="NAME=FILE",
        help="Seal what comes to the recovery key too whose public file FILE is. Repeatable.",
    ),
    _repeated(
        "--recipient-remove",
        "unsealed",
        metavar="NAME",
        help="Seal to that one no more. Repeatable.",
    ),
    _repeated(
        "--approval",
        "approvals",
        metavar="ACT=ROLE:N[:DURATION]",
        help="So many others with the role must agree to that act, within a time. Repeatable.",
    ),
    _repeated("--no-approval", "unapproved", metavar="ACT", help="No more. Repeatable."),
    _repeated(
        "--witness",
        "witnesses",
        metavar="NAME=VKEY",
        help="List a key that cosigns checkpoints. Repeatable.",
    ),
    _repeated(
        "--witness-remove", "unwitnessed", metavar="NAME", help="List it no more. Repeatable."
    ),
    click.option("--quorum", type=click.IntRange(min=1), help="How many witnesses must cosign."),
    click.option(
        "--checkpoint-age",
        type=parse_duration,
        metavar="DURATION",
        help="When the newest checkpoint is stale.",
    ),
    _repeated(
        "--distrust",
        "distrusted",
        metavar="KEY=SEQ",
        help="Make void what a stolen key signed from that number on: its id, 16 digits or more."
        " Repeatable.",
    ),
    _repeated("--no-distrust", "trusted", metavar="KEY", help="Take that back. Repeatable."),
)


def root_change_options(command: _F) -> _F:
    """Give a command the options that `root_change` reads."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def root_change(repository: Repository, options: dict[str, Any]) -> RootChange:
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
            _role(r): _number(n, "--threshold")
            for r, n in _all(options, "thresholds", "--threshold")
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


def _role(text: str) -> str:
    if text not in set(Role):
        raise ConfigError(
            "--threshold names no role", expected=" ".join(Role), found=repr(text[:40])
        )
    return text


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
        with naming(path):
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
