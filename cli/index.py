"""`vault index`: the chunk map of this host, which is a cache."""

import click

from cli import render
from cli.context import TOOL, Invocation, pass_invocation
from vault.snapshot import rebuild_index
from vault.workers import make_workers


@click.group()
def index() -> None:
    """Look after the chunk map of this host, which is a cache."""


@index.command()
@pass_invocation
def rebuild(invocation: Invocation) -> None:
    """Make the chunk map anew from the repository's index objects."""
    repository = invocation.open()
    with make_workers() as workers:
        packs = rebuild_index(
            repository,
            invocation.writer_key(repository),
            cache_dir=invocation.places.cache,
            workers=workers,
            tool=TOOL,
        )
    invocation.emit(
        "vault/index-rebuild/v1",
        {"index": {"packs": packs}},
        f"{render.plural(packs, 'pack')} in the chunk map",
    )
