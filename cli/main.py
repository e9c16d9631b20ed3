"""The program `vault`: its commands, its exit codes, its end.

Commands are loaded when they are called, so that `vault --help` starts at once.
"""

import contextlib
import dataclasses
import importlib
import io
import logging
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from cli.exits import EXIT_CODES, EXIT_INTERRUPTED, EXIT_TERMINATED, exit_code_of
from cli.options import Options
from cli.output import progress, render
from vault.errors import LocalError, VaultError
from vault.machine.tuning import tune_process
from vault.version import __version__

COMMANDS: Mapping[str, tuple[str, str]] = {  # name -> module:attribute, first line of its help
    "init": ("cli.commands.init:init", "Make a repository and the keys to it."),
    "key": (
        "cli.commands.key:key",
        "Enrol hosts, give people keys, and change the root that says who may do what.",
    ),
    "snapshot": ("cli.commands.snapshot:snapshot", "Store the state of PATHs as a snapshot."),
    "heartbeat": (
        "cli.commands.heartbeat:heartbeat",
        "Say that this host is there, and within which time it will sign again.",
    ),
    "list": ("cli.commands.list:list_snapshots", "List snapshots, newest last."),
    "status": (
        "cli.commands.status:status",
        "Show how every dataset stands: newest snapshot, last proof.",
    ),
    "log": (
        "cli.commands.log:log",
        "List the statements of the ledger, from SEQ on: who did what, when, how it ended.",
    ),
    "show": (
        "cli.commands.show:show",
        "Show all of the statement SEQ of the ledger: 'vault log' and warnings name numbers.",
    ),
    "ls": ("cli.commands.ls:ls", "List what SNAPSHOT holds, or its directory PATH."),
    "cat": ("cli.commands.cat:cat", "Write the file PATH of SNAPSHOT to stdout."),
    "diff": ("cli.commands.diff:diff", "List what differs from SNAPSHOT_A to SNAPSHOT_B."),
    "find": ("cli.commands.find:find", "Find what matches PATTERN in all snapshots, newest first."),
    "stats": ("cli.commands.stats:stats", "Show sizes, deduplication and compression by dataset."),
    "mount": ("cli.commands.mount:mount", "Mount SNAPSHOT read-only at the empty DIRECTORY."),
    "restore": (
        "cli.commands.restore:restore",
        "Put SNAPSHOT's content at TARGET, proven from disk.",
    ),
    "verify": ("cli.commands.verify:verify", "Check stored bytes against what was signed."),
    "audit": (
        "cli.commands.audit:audit",
        "Check the whole repository: chain, signatures, bytes, locks, hidden versions.",
    ),
    "heal": (
        "cli.commands.heal:heal",
        "Show, and with --execute remove, what hides needed objects from plain reads.",
    ),
    "export-checksums": (
        "cli.commands.export_checksums:export_checksums",
        "Print a snapshot's SHA-256 sums as sha256sum does.",
    ),
    "attest": (
        "cli.commands.attest:attest",
        "Record attestations that could not be recorded at once.",
    ),
    "index": (
        "cli.commands.index:index",
        "Look after the chunk map of this host, which is a cache.",
    ),
    "checkpoint": (
        "cli.commands.checkpoint:checkpoint",
        "Sign the ledger as it stands, for witnesses. Needs a log's key.",
    ),
    "witness": (
        "cli.commands.witness:witness",
        "Cosign checkpoints of a ledger that only grows.",
    ),
    "store": ("cli.commands.store:store", "Look at a bucket, and say who may do what in it."),
    "policy": (
        "cli.commands.policy:policy",
        "Check policy files: schedule, retention, objectives and recovery checks of datasets.",
    ),
    "approve": (
        "cli.commands.approve:approve",
        "Ask people to agree to an act before it is done, and sign what others ask for.",
    ),
    "completion": ("cli.commands.completion:completion", "Print the completion script of a shell."),
}

_COMPLETE = "_VAULT_COMPLETE"


class LazyGroup(click.Group):
    """Knows its commands by name and first line; imports one when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """The list in ``--help``, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--repo", metavar="URL", help="Repository; else VAULT_REPO, else the key file's.")
@click.option("--endpoint-url", metavar="URL", help="S3 service other than AWS.")
@click.option(
    "--trust",
    metavar="SEQ:DIGEST",
    multiple=True,
    help="The ledger must contain this statement; 0:DIGEST pins the root. Repeatable.",
)
@click.option(
    "--accept-head",
    metavar="SEQ:DIGEST",
    help="Accept this head although a newer or another one was seen here; recorded.",
)
@click.option(
    "--signer",
    metavar="ROLE=URI",
    multiple=True,
    help="Sign as ROLE with this key: file:PATH#ROLE or pkcs11:…; else VAULT_SIGNERS. Repeatable.",
)
@click.option(
    "--witness-policy",
    metavar="FILE",
    help="Witnesses whose checkpoints count in place of the root's (docs/format.md 2.8).",
)
@click.option(
    "--require-witnesses",
    is_flag=True,
    help="Refuse a ledger of which no checkpoint counts.",
)
@click.option("--json", is_flag=True, help="Print one JSON object (docs/json.md).")
@click.option("-q", "--quiet", is_flag=True, help="Only results, warnings and errors.")
@click.option("-v", "--verbose", is_flag=True, help="Log to stderr; show tracebacks.")
@click.version_option(__version__, prog_name="vault", message="%(prog)s %(version)s")
@click.pass_context
def app(
    ctx: click.Context,
    *,
    repo: str | None,
    endpoint_url: str | None,
    trust: tuple[str, ...],
    accept_head: str | None,
    signer: tuple[str, ...],
    witness_policy: str | None,
    require_witnesses: bool,
    json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Immutable backups: history that can't be rewritten, recoveries that are proven.

    VAULT_REPO names the repository, VAULT_KEYS the directory of the key files,
    VAULT_PASSPHRASE_FILE a file whose first line is the passphrase, VAULT_PASSPHRASE_COMMAND a
    command that prints it.

    \b
    Exit codes:
      0  done
      1  bug or unexpected failure
      2  usage, configuration or policy; target or source not as required
      3  only: incomplete snapshot, --strict, attributes not restored, unrecorded attestation
      4  integrity: a digest, tag, signature, chain or recovery check failed
      5  retention: a lock or hold forbids it, or is weaker than required
      6  an objective is missed
     10  no repository there
     11  the ledger moved on, try again
     12  wrong key or passphrase, or none given
     13  the store is unreachable or refused
     14  local disk or I/O error
     15  already running for this dataset
     16  a hook or source command failed
    130  interrupted
    143  terminated
    """  # noqa: D301 - \b is click's mark for text that must not be wrapped
    if quiet and verbose:
        raise click.UsageError("-q and -v exclude each other")
    ctx.obj = Options(
        repo=repo,
        endpoint_url=endpoint_url,
        trust=trust,
        accept_head=accept_head,
        signer=signer,
        witness_policy=witness_policy,
        require_witnesses=require_witnesses,
        json=json,
        quiet=quiet,
        verbose=verbose,
    )
    _log_to_stderr(verbose=verbose)


class _LogHandler(logging.Handler):
    """Log records as messages on stderr, escaped like all text from outside."""

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        level = "warning" if record.levelno >= logging.WARNING else "log"
        render.message(level, record.getMessage())


def _log_to_stderr(*, verbose: bool) -> None:
    logger = logging.getLogger("vault")
    logger.handlers = [_LogHandler()]
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    logger.propagate = False


# --- errors ---


class TerminatedError(BaseException):
    """SIGTERM arrived; passes through every ``except Exception`` so that all cleans up."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How a command that failed is reported."""

    code: int
    kind: str
    message: str
    expected: str | None = None
    found: str | None = None
    hint: str | None = None
    text: str = ""  # for people; empty: the message
    notes: Sequence[str] = ()  # further lines for the operator, in this order


def failure_of(error: BaseException) -> Failure:
    """The report of the error that ended a command."""
    match error:
        case VaultError():
            return _vault_failure(error)
        case click.Abort() | KeyboardInterrupt() | EOFError():
            return Failure(code=EXIT_INTERRUPTED, kind="Interrupted", message="interrupted")
        case TerminatedError():
            return Failure(code=EXIT_TERMINATED, kind="Terminated", message="terminated")
        case click.ClickException():
            is_bare = isinstance(error, click.exceptions.NoArgsIsHelpError)  # its message is a page
            message = "which command?" if is_bare else error.format_message()
            code, hint = error.exit_code, _usage(error)
            return Failure(code=code, kind="UsageError", message=message, hint=hint)
        case OSError():
            return _vault_failure(LocalError("input or output failed", found=error))
        case _:
            return _bug(error)


def _bug(error: BaseException) -> Failure:
    return Failure(
        code=EXIT_CODES[VaultError],
        kind=type(error).__name__,
        message=f"unexpected failure: {type(error).__name__}: {error}",
        hint="this is a bug; -v shows where",
    )


def _vault_failure(error: VaultError) -> Failure:
    return Failure(
        code=exit_code_of(error),
        kind=type(error).__name__,
        message=error.message,
        expected=None if error.expected is None else str(error.expected),
        found=None if error.found is None else str(error.found),
        hint=error.hint,
        text=str(error),
    )


def _usage(error: click.ClickException) -> str | None:
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return None
    return f"'{error.ctx.command_path} --help' shows what it takes"


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Returns:
        The exit code. Everything that is to be said was printed.
    """
    contexts: list[click.Context] = []
    try:
        return _invoke(arguments, contexts)
    except click.exceptions.Exit as end:
        return end.exit_code
    except (Exception, KeyboardInterrupt, TerminatedError) as error:  # noqa: BLE001 - every end has a code and a line
        notes = tuple(getattr(error, "__notes__", ()))
        failure = dataclasses.replace(failure_of(error), notes=notes)
        options = _options(contexts, arguments)
        if options.verbose and not isinstance(error, click.ClickException):
            traceback.print_exception(error)
        _tell(failure, options)
        return failure.code


def _invoke(arguments: Sequence[str], contexts: list[click.Context]) -> int:
    """Parse and call; ``contexts`` gets the root context as soon as there is one."""
    with app.make_context("vault", list(arguments)) as ctx:
        contexts.append(ctx)
        code = app.invoke(ctx)
    return code if isinstance(code, int) else 0


def _options(contexts: Sequence[click.Context], arguments: Sequence[str]) -> Options:
    """As parsed; where parsing itself failed, as far as they can be seen."""
    if contexts and isinstance(contexts[0].obj, Options):
        return contexts[0].obj
    return Options(json="--json" in arguments, verbose="-v" in arguments)


def _tell(failure: Failure, options: Options) -> None:
    """On stderr for people; with ``--json`` on stdout too, for programs."""
    render.message("error", failure.text or failure.message)
    for note in failure.notes:
        render.message("", note)
    if failure.hint:
        render.message("hint", failure.hint)
    if options.json:
        fields = dataclasses.asdict(failure)
        del fields["text"]
        fields["notes"] = list(failure.notes)
        fields["exit_code"] = fields.pop("code")
        with contextlib.suppress(LocalError):  # stdout may be what failed; stderr has the error
            render.emit_json("vault/error/v1", error=fields)


# --- the process ---


def main() -> NoReturn:
    """The console script."""
    _prepare_streams()
    tune_process()
    if _COMPLETE in os.environ:
        app.main(prog_name="vault", complete_var=_COMPLETE)
    _answer_signals()
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError:
        render.discard_stdout()
        code = code or EXIT_CODES[LocalError]
    sys.exit(code)


def _answer_signals() -> None:
    """Stop on signals, except those that the caller had ignored: nohup, ``trap '' INT``.

    A shell that starts a command with ``&`` makes it ignore both SIGINT and SIGQUIT. That is not
    meant to protect it from ``kill -INT``, so SIGINT is answered then.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _terminate)
    is_background = all(
        signal.getsignal(number) is signal.SIG_IGN for number in (signal.SIGINT, signal.SIGQUIT)
    )
    if is_background or signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _prepare_streams() -> None:
    """All three are there, and no character makes printing fail."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # started with it closed
            null = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 - for the whole run
            setattr(sys, name, null)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    progress.say_stopping("terminated")
    raise TerminatedError


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    progress.say_stopping("interrupted")
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
