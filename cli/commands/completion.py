"""`vault completion`: the script a shell sources."""

import click
from click.shell_completion import get_completion_class

from cli.output import render


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    For bash: vault completion bash > /etc/bash_completion.d/vault
    """
    script = get_completion_class(shell)
    assert script is not None
    root = ctx.find_root().command
    render.emit(script(root, {}, "vault", "_VAULT_COMPLETE").source())
