"""The program `vault`: its commands, its exit codes, its end.

Commands are loaded when they are called, so that `vault --help` starts at once.
"""

import importlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import NoReturn

import click

import vault
from cli import render
from cli.options import Options
from vault.errors import (
    BusyError,
    ConfigError,
    IntegrityError,
    LedgerMovedError,
    LocalError,
    RepositoryNotFoundError,
    RetentionError,
    SourceCommandError,
    StorageError,
    VaultError,
    WrongKeyError,
)

EXIT_CODES: Mapping[type[VaultError], int] = {  # design.md 7
    VaultError: 1,
    ConfigError: 2,
    IntegrityError: 4,
    RetentionError: 5,
    RepositoryNotFoundError: 10,
    LedgerMovedError: 11,
    WrongKeyError: 12,
    StorageError: 13,
    LocalError: 14,
    BusyError: 15,
    SourceCommandError: 16,
}
EXIT_FAILURE = 1
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

COMMANDS: Mapping[str, tuple[str, str]] = {  # name -> module:attribute, first line of its help
    "init": ("cli.init:init", "Make a repository and the keys to it."),
    "key": ("cli.key:key", "Enrol, list and revoke the hosts that may write."),
    "snapshot": ("cli.snapshot:snapshot", "Store the state of PATHs as a snapshot."),
    "list": ("cli.list:list_snapshots", "List snapshots, newest last."),
    "index": ("cli.index:index", "Look after the chunk map of this host, which is a cache."),
    "completion": ("cli.completion:completion", "Print the completion script of a shell."),
}

_COMPLETE = "_VAULT_COMPLETE"


class LazyGroup(click.Group):
    """Knows its commands by name and first line; imports one when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
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
@click.option("--json", is_flag=True, help="Print one JSON object (docs/json.md).")
@click.option("-q", "--quiet", is_flag=True, help="Only results, warnings and errors.")
@click.option("-v", "--verbose", is_flag=True, help="Log to stderr; show tracebacks.")
@click.version_option(vault.__version__, prog_name="vault", message="%(prog)s %(version)s")
@click.pass_context
def app(
    ctx: click.Context,
    repo: str | None,
    endpoint_url: str | None,
    trust: tuple[str, ...],
    accept_head: str | None,
    json: bool,  # noqa: FBT001 - click passes flags so
    quiet: bool,  # noqa: FBT001 - click passes flags so
    verbose: bool,  # noqa: FBT001 - click passes flags so
) -> None:
    """Immutable backups: history that can't be rewritten, recoveries that are proven.

    VAULT_REPO names the repository, VAULT_KEYS the directory of the key files,
    VAULT_PASSPHRASE_FILE a file whose first line is the passphrase.

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


def exit_code(error: VaultError) -> int:
    """By the error's nearest ancestor in the table."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Returns:
        The exit code. Everything that is to be said was printed.
    """
    context: list[click.Context] = []
    try:
        return _invoke(arguments, context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        fields = {"kind": "UsageError", "message": error.format_message(), "hint": _usage(error)}
        return _fail(error.exit_code, fields, _options(context, arguments))
    except VaultError as error:
        return _fail(exit_code(error), _fields(error), _options(context, arguments), error)
    except (KeyboardInterrupt, click.Abort, EOFError):
        fields = {"kind": "Interrupted", "message": "interrupted"}
        return _fail(EXIT_INTERRUPTED, fields, _options(context, arguments))
    except TerminatedError:
        fields = {"kind": "Terminated", "message": "terminated"}
        return _fail(EXIT_TERMINATED, fields, _options(context, arguments))
    except OSError as error:
        local = LocalError("input or output failed", found=error)
        return _fail(EXIT_CODES[LocalError], _fields(local), _options(context, arguments), error)
    except Exception as error:  # noqa: BLE001 - the last resort: a bug ends in one line, not in a trace
        fields = {
            "kind": type(error).__name__,
            "message": f"unexpected failure: {type(error).__name__}: {error}",
            "hint": "this is a bug; -v shows where",
        }
        return _fail(EXIT_FAILURE, fields, _options(context, arguments), error)


def _invoke(arguments: Sequence[str], context: list[click.Context]) -> int:
    """Parse and call; ``context`` gets the root context as soon as there is one."""
    with app.make_context("vault", list(arguments)) as ctx:
        context.append(ctx)
        code = app.invoke(ctx)
    return code if isinstance(code, int) else 0


def _options(context: Sequence[click.Context], arguments: Sequence[str]) -> Options:
    """As parsed; where parsing itself failed, as far as they can be seen."""
    if context and isinstance(context[0].obj, Options):
        return context[0].obj
    return Options(json="--json" in arguments, verbose="-v" in arguments)


def _usage(error: click.ClickException) -> str | None:
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return None
    return f"'{error.ctx.command_path} --help' shows what it takes"


def _fields(error: VaultError) -> dict[str, str | None]:
    return {
        "kind": type(error).__name__,
        "message": error.message,
        "expected": None if error.expected is None else str(error.expected),
        "found": None if error.found is None else str(error.found),
        "hint": error.hint,
        "text": str(error),
    }


def _fail(
    code: int,
    fields: Mapping[str, str | None],
    options: Options,
    error: BaseException | None = None,
) -> int:
    """Say what went wrong: on stderr for people, with ``--json`` on stdout for programs."""
    if error is not None and options.verbose:
        traceback.print_exception(error)
    render.message("error", fields.get("text") or fields["message"])
    if fields.get("hint"):
        render.message("hint", fields["hint"])
    if options.json:
        names = ("kind", "message", "expected", "found", "hint")
        told = {name: fields.get(name) for name in names}
        render.emit_json("vault/error/v1", error={**told, "exit_code": code})
    return code


# --- the process ---


def main() -> NoReturn:
    """The console script."""
    if _COMPLETE in os.environ:
        app.main(prog_name="vault", complete_var=_COMPLETE)
    signal.signal(signal.SIGTERM, _terminate)
    code = run(sys.argv[1:])
    with render.ignore_closed_stdout():
        sys.stdout.flush()
    sys.exit(code)


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise TerminatedError


if __name__ == "__main__":
    main()
