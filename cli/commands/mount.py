"""`vault mount`: a snapshot as a read-only file system."""

from pathlib import Path

import click

from cli.session import Invocation, pass_invocation
from cli.snapshot_views import report_flaws
from vault.browse import View
from vault.browse.mount import check_mount_point, load_fuse, mount_snapshot


@click.command()
@click.argument("spec", metavar="SNAPSHOT")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--allow-other", is_flag=True, help="Other users may look too, as modes permit.")
@pass_invocation
def mount(invocation: Invocation, *, spec: str, directory: Path, allow_other: bool) -> int:
    """Mount SNAPSHOT read-only at the empty DIRECTORY.

    Stays in the foreground; Ctrl-C or 'umount DIRECTORY' ends it. Every byte is
    verified as it is read. Reading something that is damaged, or breaks a rule, gives an
    input/output error, and the reason is printed here. Exit 3 at the end: entries break a
    rule; 4: the tree is damaged, and entries behind the damage are not there. Needs recovery.key,
    FUSE, and 'vault-backup[mount]' from pip.
    """
    if invocation.options.json:
        raise click.UsageError("mount prints nothing that could be JSON")
    load_fuse()
    check_mount_point(directory)
    repository = invocation.open()
    record = invocation.snapshot(repository, spec)
    recovery = invocation.secrets.recovery_key(repository)
    with View(repository, recovery, record, scratch=invocation.scratch, random_access=True) as view:
        code = report_flaws(invocation, record.seq, view.flaws)
        invocation.note(f"snapshot {record.seq} is at {directory}; Ctrl-C unmounts it")
        mount_snapshot(view, directory, allow_other=allow_other)
    return code
