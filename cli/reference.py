"""Writes docs/cli.md from the help of every command: ``python -m cli.reference``."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from cli.main import app

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
    context = click.Context(
        app,
        info_name="vault",
        terminal_width=_WIDTH,
        max_content_width=_WIDTH,
        **app.context_settings,
    )
    yield from _helps(app, context)


def _helps(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    yield context.command_path, command.get_help(context)
    if not isinstance(command, click.Group):
        return
    for name in command.list_commands(context):
        member = command.get_command(context, name)
        assert member is not None
        inner = click.Context(
            member, info_name=name, parent=context, terminal_width=_WIDTH, max_content_width=_WIDTH
        )
        yield from _helps(member, inner)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
