"""`vault witness`: cosign checkpoints of a ledger that only grows."""

import dataclasses
from pathlib import Path
from typing import Any

import click

from cli.exits import EXIT_INTEGRITY
from cli.output import render
from cli.session import Invocation, pass_invocation
from cli.small_files import hand_out, read_file
from vault.errors import naming
from vault.ledger.notes import SignedNote
from vault.ledger.statements import RootBody, WriterBody
from vault.ledger.witness import (
    MAX_REQUEST,
    Answer,
    LogState,
    Refused,
    WitnessRequest,
    judge_request,
    parse_request,
)
from vault.ledger.witness_state import WitnessState
from vault.repository.cosigning import governing, judge_by_ledger, listed_log
from vault.repository.repository import Repository

_STATE = click.option(
    "--state",
    "directory",
    metavar="DIR",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The witness's directory: its key, and what it has seen.",
)
_HEADINGS = ("time", "answer", "log", "size", "why")


@click.group()
def witness() -> None:
    """Cosign checkpoints of a ledger that only grows.

    A witness is a person with a machine of their own. It needs no key of the repository.
    """


@witness.command("init")
@_STATE
@click.option("--name", metavar="NAME", help="Of the new witness: a label.")
@click.option(
    "--log",
    "logs",
    metavar="VKEY",
    multiple=True,
    help="A log to know, as 'vault checkpoint' prints it. Repeatable.",
)
@pass_invocation
def make_witness(
    invocation: Invocation, *, directory: Path, name: str | None, logs: tuple[str, ...]
) -> None:
    """Make the key of a witness, and print its verifier key, which the root is to list.

    Where DIR has a witness, --log adds logs to it. A witness that reads the repository itself
    (cosign with --repo) knows the logs by the root, and needs none.
    """
    state = WitnessState(directory)
    if name is None and not (logs and state.exists):
        raise click.UsageError("--name, or a log to add to the witness in DIR")
    vkey = state.vkey() if name is None else state.create(name)
    for log in logs:
        state.add_log(log)
    invocation.did(f"the witness in {render.printable(str(directory))} is {vkey}")
    fields = {"name": vkey.partition("+")[0], "vkey": vkey, **_known(state)}
    invocation.emit("vault/witness/v1", {"witness": fields}, vkey)


@witness.command("cosign")
@_STATE
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the cosigned note there; else it is printed.",
)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@pass_invocation
def cosign_file(invocation: Invocation, *, directory: Path, out: Path | None, file: Path) -> int:
    """Cosign the note in FILE, which 'vault checkpoint --out' wrote, if its log only grew.

    With a repository (--repo or VAULT_REPO, and its root by --trust 0:DIGEST) the ledger is read
    and every signature checked first; then no proof in FILE is needed. Exit 4: refused, and why.
    """
    data = read_file(file, MAX_REQUEST)
    with naming(file):
        request = parse_request(data)
    state = WitnessState(directory)
    state.vkey()
    repository = invocation.open(afresh=True) if _reads(invocation) else None
    now = invocation.clock()
    with state.judging():
        known = _known_log(state, repository, request.note.origin)
        refused = _judge(repository, known, request)
        if refused is not None:
            state.refuse(refused, request.note, now)
            return _tell_refusal(invocation, refused, request.note)
        assert known is not None
        line = state.cosign(known, request.note, now)
    if repository is not None:
        _tell_news(invocation, repository, known, request.note)
    note = request.note
    invocation.did(f"statements up to {note.size - 1} are cosigned")
    if out is not None or not invocation.options.json:
        hand_out(note.with_lines([line]).encode(), out)
    if out is not None:
        fields = {"answer": int(Answer.COSIGNED), **_note_fields(note), "line": line.line}
        text = f"cosigned {note.size} statements of {note.origin}"
        invocation.emit("vault/witness/v1", {"witness": fields}, text)
    return 0


def _reads(invocation: Invocation) -> bool:
    """Whether a repository was named: key files of this machine are no wish to read one."""
    return invocation.names_repository


def _known_log(state: WitnessState, repository: Repository | None, origin: str) -> LogState | None:
    known = state.log(origin)
    if repository is None:
        return known
    listed = listed_log(repository, origin)
    return None if listed is None else known or listed


def _judge(
    repository: Repository | None, known: LogState | None, request: WitnessRequest
) -> Refused | None:
    if repository is None:
        return judge_request(known, request)
    return judge_by_ledger(repository, known, request.note)


def _tell_refusal(invocation: Invocation, refused: Refused, note: SignedNote) -> int:
    fields = {"answer": int(refused.answer), "why": refused.why, **_note_fields(note)}
    render.message("error", f"not cosigned ({refused.answer:d}): {refused.why}")
    hints = {
        Answer.UNKNOWN_LOG: "'vault witness init --state DIR --log VKEY' makes a log known; the"
        " holder of its key has the VKEY from 'vault checkpoint'",
        Answer.OTHER_SIZE: "'vault checkpoint --old SIZE --out FILE' writes the proof from the size"
        " that was seen last here",
        Answer.NOT_CONSISTENT: "keep the file: it may convict the log's key; tell the people of"
        " the repository before anything else",
    }
    if refused.answer in hints:
        render.message("hint", hints[refused.answer])
    if invocation.options.json:
        invocation.emit("vault/witness/v1", {"witness": fields}, "")
    return EXIT_INTEGRITY


def _tell_news(
    invocation: Invocation, repository: Repository, known: LogState, note: SignedNote
) -> None:
    """Who may sign has changed since: the person behind the witness should look at that."""
    for record in governing(repository, known.size, note.size):
        body = record.body
        what = (
            f"root {body.version}"
            if isinstance(body, RootBody)
            else f"{body.action} host {body.name}"
            if isinstance(body, WriterBody)
            else record.type
        )
        invocation.note(f"new: statement {record.seq}: {what}; 'vault show {record.seq}' has all")


@witness.command("log")
@_STATE
@pass_invocation
def show_log(invocation: Invocation, *, directory: Path) -> None:
    """Show what the witness has signed and refused, the oldest first."""
    state = WitnessState(directory)
    vkey = state.vkey()
    entries = state.journal()
    fields = {
        "name": vkey.partition("+")[0],
        "vkey": vkey,
        **_known(state),
        "answers": [dataclasses.asdict(each) for each in entries],
    }
    rows = [(each.time, each.answer, each.origin, each.size, each.why) for each in entries]
    text = render.table(_HEADINGS, rows, right={1, 3}, width=render.terminal_width())
    invocation.emit("vault/witness/v1", {"witness": fields}, text if rows else "nothing yet")


def _known(state: WitnessState) -> dict[str, Any]:
    return {
        "logs": [
            {
                "origin": each.origin,
                "size": each.size,
                "root": str(each.root) if each.root is not None else None,
            }
            for each in state.logs()
        ]
    }


def _note_fields(note: SignedNote) -> dict[str, Any]:
    return {"origin": note.origin, "size": note.size, "root": str(note.root)}
