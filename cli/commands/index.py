"""`vault index`: the chunk map of this host, which is a cache."""

import click

from cli.output import render
from cli.session import TOOL, Invocation, pass_invocation
from vault.machine.workers import make_workers
from vault.snapshot import rebuild_index


@click.group()
def index() -> None:
    """Look after the chunk map of this host, which is a cache."""


@index.command()
@click.option(
    "--from-packs",
    is_flag=True,
    help="Also from packs that no index object names; needs recovery.key.",
)
@pass_invocation
def rebuild(invocation: Invocation, *, from_packs: bool) -> None:
    """Make the chunk map anew from the repository's index objects.

    With --from-packs the packs alone are enough; the next snapshot on this host then writes
    index objects for them.
    """
    repository = invocation.open(afresh=True)
    recovery = invocation.secrets.recovery_key(repository) if from_packs else None
    with make_workers() as workers:
        packs = rebuild_index(
            repository,
            invocation.secrets.writer_key(repository),
            cache_dir=invocation.places.cache,
            state_dir=invocation.places.state,
            workers=workers,
            tool=TOOL,
            recipient=recovery.recipient if recovery else None,
        )
    invocation.did("the chunk map is made anew")
    invocation.emit(
        "vault/index-rebuild/v1",
        {"index": {"packs": packs}},
        f"{render.plural(packs, 'pack')} in the chunk map",
    )
