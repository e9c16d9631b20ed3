"""`vault store`: how a bucket really behaves, and the permissions that each role needs."""

import json
from collections.abc import Sequence

import click

from cli.exits import EXIT_RETENTION, EXIT_STORAGE
from cli.output import render
from cli.session import Invocation, pass_invocation
from vault.errors import ConfigError
from vault.model import LockMode
from vault.parameters import Parameters
from vault.storage.base import is_on_server
from vault.storage.choose_store import open_store
from vault.storage.conformance import ProbeOutcome, check_store
from vault.storage.iam import AccessRole, Dialect, bucket_policy, role_policy
from vault.storage.urls import parse_s3


@click.group()
def store() -> None:
    """Look at a bucket, and say who may do what in it."""


@store.command()
@click.argument("url")
@click.option(
    "--lock",
    type=click.Choice([mode.value for mode in LockMode]),
    default=LockMode.GOVERNANCE.value,
    show_default=True,
    help="The lock mode that it must be fit for.",
)
@pass_invocation
def check(invocation: Invocation, *, url: str, lock: str) -> int:
    """Try out what the vault needs of the bucket at URL, on objects locked for a minute.

    Existing objects are not touched; small objects are left under probe/. Exit 5: the
    store can't keep what a repository of that lock mode promises; 13: these credentials may
    not try all of it.
    """
    opened = open_store(url, endpoint=invocation.endpoint_for(url))
    if not is_on_server(opened):
        raise ConfigError(
            "only buckets need a check: the program itself keeps a directory's promises",
            expected="s3://bucket/prefix",
            found=url,
        )
    report = check_store(opened, clock=invocation.clock)
    fatal = report.shortfalls(LockMode(lock))
    rows = [
        (
            probe.outcome.value,
            probe.row.promise,
            probe.found if probe.outcome == "kept" else f"{probe.found}; {probe.row.remedy}",
        )
        for probe in report.probes
    ]
    invocation.emit(
        "vault/store-check/v1",
        {
            "url": report.url,
            "lock": lock,
            "fit": not fatal,
            "leftovers": report.leftovers,
            "probes": [
                {
                    "name": probe.row.name,
                    "promise": probe.row.promise,
                    "outcome": probe.outcome.value,
                    "found": probe.found,
                    "remedy": probe.row.remedy,
                }
                for probe in report.probes
            ],
        },
        render.table(("outcome", "promise", "found"), rows),
    )
    if not fatal:
        return 0
    if (
        fatal[0].outcome is ProbeOutcome.UNTESTED
    ):  # the store refused the first check: others need it
        invocation.warn(f"these credentials may not try it on {report.url}: {fatal[0].row.promise}")
        return EXIT_STORAGE
    invocation.warn(f"{report.url} is not fit for lock mode {lock}: {fatal[0].row.promise}")
    return EXIT_RETENTION


@store.command()
@click.argument("url")
@click.option(
    "--role",
    type=click.Choice([role.value for role in AccessRole]),
    help="Print the least that this role needs, to be attached to it.",
)
@click.option("--bucket-policy", "whole", is_flag=True, help="Print the bucket's policy instead.")
@click.option(
    "--dialect",
    type=click.Choice([dialect.value for dialect in Dialect]),
    default=Dialect.AWS.value,
    show_default=True,
    help="The server whose policy language to use.",
)
@click.option(
    "--principal",
    "principals",
    metavar="ROLE=ARN",
    multiple=True,
    help="With --bucket-policy: a user who holds a role. Repeatable.",
)
@click.option(
    "--administrator", metavar="ARN", default="", help="The user who may change the bucket."
)
@click.option(
    "--lock",
    type=click.Choice([mode.value for mode in LockMode]),
    default=LockMode.GOVERNANCE.value,
    show_default=True,
    help="The lock mode of the repository.",
)
@click.option("--read-data", is_flag=True, help="Let the auditor read packs too.")
@click.option(
    "--extend/--no-extend",
    default=None,
    help="Whether hosts may extend locks; 'vault store check' and 'vault init' say where they"
    " must not. Default: not with --dialect ceph, whose version 16 lets them undo locks so.",
)
def iam(
    url: str,
    *,
    role: str | None,
    whole: bool,
    dialect: str,
    principals: Sequence[str],
    administrator: str,
    lock: str,
    read_data: bool,
    extend: bool | None,
) -> None:
    """Print least-privilege JSON for the bucket at URL.

    Give every host credentials of its own: of a stolen key they are what you take away first, as
    a thief near the store can append faster than 'vault key revoke'.
    """
    bucket, prefix = parse_s3(url)
    if whole == (role is not None):
        raise ConfigError("give either --role or --bucket-policy")
    if whole or role == AccessRole.WRITER:
        render.message(
            "",
            "give every host credentials of its own: those of a stolen key are what you take away"
            " first, then 'vault key revoke'",
        )
    extends = Dialect(dialect) is not Dialect.CEPH if extend is None else extend
    if role is not None:
        policy = role_policy(AccessRole(role), bucket, prefix, read_data=read_data, extend=extends)
    else:
        policy = bucket_policy(
            bucket,
            prefix,
            dialect=Dialect(dialect),
            parameters=Parameters(lock_mode=LockMode(lock), extend=extends),
            principals=_by_role(principals),
            administrator=administrator,
            read_data=read_data,
        )
    render.emit(json.dumps(policy, indent=2))


def _by_role(principals: Sequence[str]) -> dict[AccessRole, list[str]]:
    """ROLE=ARN options as a mapping.

    Raises:
        ConfigError: One is not of that form.
    """
    named: dict[AccessRole, list[str]] = {}
    for principal in principals:
        role, found, arn = principal.partition("=")
        if not found or role not in {known.value for known in AccessRole}:
            known = " or ".join(known.value for known in AccessRole)
            raise ConfigError(
                "--principal is ROLE=ARN", expected=f"ROLE is {known}", found=principal[:120]
            )
        named.setdefault(AccessRole(role), []).append(arn)
    return named
