"""`vault approve`: several people agree to an act before it is done."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import click

from cli.commands.approve_policy import policy_apply, policy_weaken
from cli.commands.approve_request import request_act
from cli.commands.approve_reseal import reseal_request
from cli.commands.key_root import show_root
from cli.output import render
from cli.output.request import request_facts, request_fields, state_fields, state_row
from cli.session import Invocation, pass_invocation
from cli.warrant_choice import load_request_file, save_request_file
from vault.crypto.keys import VerifyKey
from vault.crypto.signers import parse_signer
from vault.errors import (
    ConfigError,
    RepositoryNotFoundError,
    SignatureError,
    StorageError,
    WrongKeyError,
)
from vault.ledger.agreement import brought_keys
from vault.ledger.kinds import parse_body
from vault.ledger.request_files import RequestFile
from vault.ledger.statements import Act, RootBody, StatementType
from vault.ledger.warrants import (
    add_signature,
    merge_signatures,
    require_carriable,
    unknown_members,
)
from vault.repository.agreements import request_states, require_unforged
from vault.repository.repository import Repository

_HEADINGS = ("seq", "act", "asked by", "signed by", "expires", "state", "summary")
_OF_ROOTS = (Act.ROOT, Act.RECIPIENT_REMOVE)
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def approve() -> None:
    """Ask people to agree to an act before it is done, and sign what others ask for.

    The root says which acts need how many people (docs/format.md 2.9). Who asks writes
    a request and signs it; others sign the file; who acts names it with --warrant.
    """


approve.add_command(request_act)
request_act.add_command(policy_apply)
request_act.add_command(policy_weaken)
request_act.add_command(reseal_request)


@approve.command("show")
@click.argument("file", type=_FILE)
@pass_invocation
def show_request(invocation: Invocation, *, file: Path) -> None:
    """Show all of a request, in words: what is asked, who signed, who is still needed.

    Of a root that may follow the one in force it says what changes. Needs no secret. Without the
    repository it says what it could not check.
    """
    loaded = load_request_file(file)
    repository = _reachable(invocation)
    ledger = None if repository is None else repository.ledger
    _check(loaded, repository)
    _show_change(invocation, loaded, repository)
    text = render.facts(request_facts(loaded, ledger, invocation.clock()))
    invocation.emit("vault/approve-show/v1", {"request": request_fields(loaded, ledger)}, text)


@approve.command("sign")
@click.argument("files", metavar="FILE...", type=_FILE, nargs=-1, required=True)
@click.option(
    "--key",
    metavar="URI",
    required=True,
    help="Signs: file:PATH#ROLE of a key file, or pkcs11:…",
)
@click.option("--yes", is_flag=True, help="Sign without asking, for scripts.")
@pass_invocation
def sign_requests(invocation: Invocation, *, files: tuple[Path, ...], key: str, yes: bool) -> None:
    """Agree to requests: adds your signature to each FILE.

    Shows each one and asks. Needs no repository; without one it says what it could not check.
    Nothing takes a signature back: a request ends when it expires, when it is used, or with the
    next root.
    """
    loaded = [load_request_file(file) for file in files]
    if len({each.request.terms.repository for each in loaded}) > 1:
        raise ConfigError("the requests are of different repositories", hint="sign them apart")
    repository = _reachable(invocation)
    ledger = None if repository is None else repository.ledger
    for each in loaded:
        _check(each, repository)
        _refuse_unknown(each)
        _show_change(invocation, each, repository)
        for line in render.facts(request_facts(each, ledger, invocation.clock())).splitlines():
            render.message("", line)
        if not yes:
            invocation.confirm("Sign it?", instead="read it with 'approve show', then give --yes")
    signer = invocation.secrets.signer_of(loaded[0].request.terms.repository, parse_signer(key))
    may_sign = {} if ledger is None else {**ledger.keys, **_brought(loaded)}
    if ledger is not None and signer.public.id not in may_sign:
        raise WrongKeyError(
            "this key is not listed in the repository: its signature would not count",
            found=signer.public.id,
            hint="'vault key list' shows those that are",
        )
    signed: list[RequestFile] = []
    for each in loaded:
        request_now = add_signature(each.request, signer)
        require_carriable(request_now)
        signed.append(dataclasses.replace(each, request=request_now))
    for file, done in zip(files, signed, strict=True):
        save_request_file(file, done)
        invocation.did(f"{file} is signed by {signer.public.id}")
    fields = {
        "signed": [
            {"file": str(file), **request_fields(each, ledger)}
            for file, each in zip(files, signed, strict=True)
        ],
        "key": signer.public.id,
    }
    facts = {"signed": ", ".join(map(str, files)), "key": signer.public.id}
    invocation.emit("vault/approve-sign/v1", fields, render.facts(facts))


def _brought(files: Sequence[RequestFile]) -> dict[str, VerifyKey]:
    """Keys that a requested root brings along: who holds one agrees to that root too."""
    found: dict[str, VerifyKey] = {}
    for each in files:
        if each.request.terms.act in _OF_ROOTS:
            found |= brought_keys(parse_body(StatementType.ROOT, each.values))
    return found


@approve.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that no act can rest on now.")
@pass_invocation
def list_requests(invocation: Invocation, *, everything: bool) -> None:
    """List the requests that the ledger carries; needs no secret."""
    repository = invocation.open()
    invocation.report_findings(repository)
    found = request_states(repository.ledger, now=repository.clock())
    shown = [each for each in found if everything or not each.problem]
    text = render.table(
        _HEADINGS,
        [state_row(each, repository.ledger) for each in shown],
        right={0},
        width=render.terminal_width(),
    )
    fields = {"requests": [state_fields(each) for each in shown]}
    invocation.emit("vault/approve-list/v1", fields, text)


@approve.command("merge")
@click.argument("first", metavar="A", type=_FILE)
@click.argument("second", metavar="B", type=_FILE)
@click.option("--out", type=_FILE, required=True, help="The file to write.")
@pass_invocation
def merge_requests(invocation: Invocation, *, first: Path, second: Path, out: Path) -> None:
    """Put the signatures of two copies of one request into one file."""
    one, two = load_request_file(first), load_request_file(second)
    merged = dataclasses.replace(one, request=merge_signatures(one.request, two.request))
    require_carriable(merged.request)
    save_request_file(out, merged)
    invocation.did(f"{out} has the signatures of both")
    count = len(merged.request.envelope.signatures)
    fields = {"file": str(out), "signatures": count, "id": str(merged.request.id)}
    text = render.facts({"request": str(out), "signatures": str(count)})
    invocation.emit("vault/approve-merge/v1", {"request": fields}, text)


def _reachable(invocation: Invocation) -> Repository | None:
    """The repository, if it is named and answers.

    Raises:
        ConfigError: What it is to be checked against is given, and is malformed.
        LocalError: The witness policy can't be read.
    """
    invocation.require_usable_checks()
    try:
        return invocation.open()
    except (StorageError, RepositoryNotFoundError, ConfigError) as error:
        invocation.warn(f"the repository is not looked at: {error}")
        return None


def _show_change(invocation: Invocation, file: RequestFile, repository: Repository | None) -> None:
    """Show what a requested root changes, where it may follow the one in force.

    Raises:
        FormatError: The values are no root.
    """
    terms = file.request.terms
    if repository is None or terms.act not in _OF_ROOTS:
        return
    if terms.root == repository.ledger.root.version:
        body = parse_body(StatementType.ROOT, file.values)
        assert isinstance(body, RootBody)
        show_root(invocation, repository, body)


def _check(file: RequestFile, repository: Repository | None) -> None:
    """Pass if nothing is known to be wrong with a request.

    Raises:
        SignatureError: It is of another repository, or a signature in it is forged.
    """
    if repository is None:
        return
    terms, ledger = file.request.terms, repository.ledger
    if terms.repository != ledger.repository_id:
        raise SignatureError(
            "the request is of another repository",
            expected=ledger.repository_id,
            found=terms.repository,
        )
    require_unforged(ledger, None, file.request)


def _refuse_unknown(file: RequestFile) -> None:
    """Pass if this program knows all that a request says.

    Raises:
        ConfigError: It says more.
    """
    names = unknown_members(file.request.envelope.payload)
    if names:
        raise ConfigError(
            "the request says what this program does not understand",
            found=", ".join(names)[:80],
            hint="sign with a newer vault, which can show it",
        )
