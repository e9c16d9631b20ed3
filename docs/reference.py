"""Writes docs/cli.md and docs/vault.1 from the help of every command.

``python -m docs.reference docs`` writes both.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from cli.main import app
from vault.version import __version__

_WIDTH = 100
_HEAD = """# The command line

Made by `make docs` from the help that the program prints; a test compares the two.
`docs/json.md` describes what `--json` prints.
"""


def reference() -> str:
    """The whole page."""
    parts = [_HEAD]
    for path, text in helps():
        parts.append(f"## {path}\n\n```\n{text}\n```\n")
    return "\n".join(parts)


def helps() -> Iterator[tuple[str, str]]:
    """Every command with its help, in the order of the program's own list."""
    for context in _contexts():
        yield context.command_path, context.command.get_help(context)


def _contexts() -> Iterator[click.Context]:
    """One for each command, a group before its members."""
    yield from _below(_context(app, "vault", None))


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    return click.Context(
        command,
        info_name=name,
        parent=parent,
        terminal_width=_WIDTH,
        max_content_width=_WIDTH,
        **command.context_settings,
    )


def _below(context: click.Context) -> Iterator[click.Context]:
    yield context
    command = context.command
    if not isinstance(command, click.Group):
        return
    for name in command.list_commands(context):
        member = command.get_command(context, name)
        assert member is not None
        yield from _below(_context(member, name, context))


# --- the manual page, in the macros of man(7) ---

_PREFORMATTED = "\b\n"  # click's mark for a paragraph that must not be wrapped
_EXIT_CODES = "Exit codes:"

_MAN_HEAD = """\
.\\" Made by `make docs` from the help that the program prints; a test compares the two.
.TH VAULT 1 "" "vault {version}" "Vault"
.SH NAME
vault \\- immutable backups, proven recoveries
"""
_MAN_TAIL = """\
.SH FILES
.TP
.I /etc/vault
Key files of the root user: writer.key, recovery.key, root.key. Others have them in
.IR $XDG_CONFIG_HOME/vault .
.TP
.I /var/lib/vault
Remembered heads, entry lists, journals; else
.IR $XDG_STATE_HOME/vault .
.TP
.I /var/cache/vault
The chunk map and scratch files, which may be lost; else
.IR $XDG_CACHE_HOME/vault .
.SH SEE ALSO
.BR sha256sum (1),
.BR openssl (1),
.BR cron (8).
docs/guide.md has the usual tasks, docs/json.md what
.B \\-\\-json
prints.
"""


def man() -> str:
    """The manual page, as roff."""
    contexts = list(_contexts())
    head = _MAN_HEAD.format(version=__version__)
    return head + "".join([_man_top(contexts[0]), *map(_man_command, contexts[1:])]) + _MAN_TAIL


def _man_top(context: click.Context) -> str:
    """The program itself: its help is cut into the sections that a manual page has."""
    text = inspect.cleandoc(context.command.help or "")
    description, _, codes = text.partition(_PREFORMATTED + _EXIT_CODES)
    statuses = "".join(
        f".TP\n.B {code}\n{_roff(meaning)}\n"
        for code, meaning in re.findall(r"^ *([0-9]+)  (.*)$", codes, re.MULTILINE)
    )
    return (
        f".SH SYNOPSIS\n{_synopsis(context)}"
        f".SH DESCRIPTION\n{_paragraphs(description)}"
        f".SH OPTIONS\n{_options(context)}"
        f".SH EXIT STATUS\n{statuses}"
        ".SH COMMANDS\n"
    )


def _man_command(context: click.Context) -> str:
    text = _paragraphs(inspect.cleandoc(context.command.help or ""))
    return f".SS {_roff(context.command_path)}\n{_synopsis(context)}.PP\n{text}{_options(context)}"


def _synopsis(context: click.Context) -> str:
    pieces = " ".join(context.command.collect_usage_pieces(context))
    return f".B {_roff(context.command_path)}\n{_roff(pieces)}\n"


def _paragraphs(text: str) -> str:
    return ".PP\n".join(map(_paragraph, text.strip().split("\n\n")))


def _paragraph(text: str) -> str:
    if text.startswith(_PREFORMATTED):
        lines = text.removeprefix(_PREFORMATTED).split("\n")
        return ".nf\n" + "".join(f"{_roff(line)}\n" for line in lines) + ".fi\n"
    return f"{_roff(' '.join(text.split()))}\n"


def _options(context: click.Context) -> str:
    """A tagged paragraph each; --help, which every command has, only at the top."""
    options = [each for each in context.command.get_params(context) if _is_shown(each, context)]
    records = filter(None, (each.get_help_record(context) for each in options))
    return "".join(f".TP\n.B {_roff(names)}\n{_roff(text)}\n" for names, text in records)


def _is_shown(parameter: click.Parameter, context: click.Context) -> bool:
    if not isinstance(parameter, click.Option):
        return False
    return context.parent is None or "--help" not in parameter.opts


def _roff(text: str) -> str:
    """Text that roff prints as it is: no escapes, no requests, hyphens that can be copied."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", escaped, flags=re.MULTILINE)


if __name__ == "__main__":
    docs = Path(sys.argv[1])
    (docs / "cli.md").write_text(reference(), encoding="utf-8")
    (docs / "vault.1").write_text(man(), encoding="utf-8")
