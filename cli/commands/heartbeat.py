"""`vault heartbeat`: a host says that it is there, and when it will sign again."""

from datetime import timedelta

import click

from cli.session import TOOL, Invocation, pass_invocation
from vault.clock import to_rfc3339
from vault.durations import parse_duration
from vault.ledger.statements import HeartbeatBody
from vault.repository.heartbeats import beat


@click.command()
@click.option(
    "--every",
    type=parse_duration,
    metavar="DURATION",
    required=True,
    help="Within that time this host will sign again, for example 26h.",
)
@click.option("--note", default="alive", help="Goes into the ledger, for everyone to read.")
@pass_invocation
def heartbeat(invocation: Invocation, *, every: timedelta, note: str) -> None:
    """Say that this host is there, and within which time it will sign again.

    Needs writer.key. For cron, on a host that takes few snapshots. Once the time has passed without
    a snapshot or heartbeat of this key, 'vault status' (with --check) and 'vault audit' end with 6
    and name the host. That concerns no other host.
    """
    repository = invocation.open()
    key = invocation.secrets.writer_key(repository).signing
    record = beat(repository, key, every=every, note=note, tool=TOOL)
    invocation.did(f"statement {record.head} is appended")
    invocation.remember(repository)
    assert isinstance(record.body, HeartbeatBody)
    assert record.body.next_by is not None
    by = to_rfc3339(record.body.next_by)
    fields = {"seq": record.seq, "head": str(record.head), "next_by": by}
    invocation.emit("vault/heartbeat/v1", {"heartbeat": fields}, f"{record.head}, next by {by}")
