"""`vault init`: make a repository and the keys to it."""

import contextlib
import dataclasses
import re
import socket
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import click

from cli.output import render
from cli.session import TOOL, Invocation, pass_invocation
from vault.clock import to_rfc3339
from vault.crypto.key_file_bytes import DEFAULT_COST
from vault.crypto.key_files import load_root, load_writer, peek
from vault.durations import format_duration, parse_duration
from vault.errors import ConfigError, RepositoryNotFoundError, WrongKeyError
from vault.model import NAME_PATTERN, Digest, LockMode, replace_body
from vault.parameters import Parameters
from vault.repository.enrolment import (
    InitRequest,
    SecondHolder,
    create_repository,
    enrol_own_writer,
    existing_root,
)
from vault.repository.key_names import RECOVERY_FILE, ROOT_FILE, WRITER_FILE
from vault.repository.repository import Repository
from vault.retention import fits_default
from vault.storage.base import is_on_server
from vault.storage.choose_store import new_store, open_store
from vault.storage.conformance import check_store, require
from vault.storage.urls import normalized, scheme_of

COST: Final = DEFAULT_COST  # of the passphrase


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """Options of the command line."""

    url: str
    endpoint: str
    lock: LockMode
    retain: timedelta
    max_retain: timedelta
    keys: Path
    host: str
    weak_passphrase: bool
    recovery_out: Path | None  # another holder's recovery key
    recovery_passphrase_file: Path | None


@click.command()
@click.argument("url", required=False)
@click.option(
    "--lock",
    type=click.Choice([mode.value for mode in LockMode]),
    help="How strictly objects are locked; default: governance on S3, none on a directory.",
)
@click.option(
    "--retain",
    type=parse_duration,
    metavar="DURATION",
    default="30d",
    show_default=True,
    help="How long a snapshot is kept unless said.",
)
@click.option(
    "--max-retain",
    type=parse_duration,
    metavar="DURATION",
    default="400d",
    show_default=True,
    help="The longest allowed.",
)
@click.option(
    "--keys",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for the key files; else VAULT_KEYS or the default place.",
)
@click.option("--host", metavar="NAME", help="Name of this host; default: its host name.")
@click.option(
    "--recovery-out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Make a second recovery key there, for another holder with a passphrase of its own.",
)
@click.option(
    "--recovery-passphrase-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The first line is the passphrase of that second key; else it is asked for.",
)
@click.option("--yes", is_flag=True, help="Don't ask before compliance mode.")
@click.option(
    "--weak-passphrase",
    is_flag=True,
    help="Take a passphrase of less than 12 characters and 4 words.",
)
@pass_invocation
def init(
    invocation: Invocation,
    *,
    url: str | None,
    lock: str | None,
    retain: timedelta,
    max_retain: timedelta,
    keys: Path | None,
    host: str | None,
    recovery_out: Path | None,
    recovery_passphrase_file: Path | None,
    yes: bool,
    weak_passphrase: bool,
) -> None:
    """Make a repository and the keys to it.

    URL is a path, file:///path or s3://bucket/prefix. Three key files are made:
    writer.key stays on this host and can only add snapshots; recovery.key
    restores, root.key governs: move these two to a safe place.
    """
    location = invocation.location(required=False)
    address = (location.url if location else None) if url is None else url
    if not address:
        raise ConfigError("which repository is to be made?", hint="vault init URL")
    wish = _Wish(
        url=_absolute(address),
        endpoint=invocation.endpoint_for(address),
        lock=LockMode(lock) if lock else _default_lock(address),
        retain=retain,
        max_retain=max_retain,
        keys=(keys or invocation.places.keys).absolute(),
        host=host or host_label(socket.gethostname()),
        weak_passphrase=weak_passphrase,
        recovery_out=recovery_out.absolute() if recovery_out else None,
        recovery_passphrase_file=recovery_passphrase_file,
    )
    if recovery_passphrase_file and not recovery_out:
        raise click.UsageError("--recovery-passphrase-file is for --recovery-out")
    found = _existing_root(wish)
    if found is not None:
        repository = _finish_killed_init(invocation, wish, found)
    else:
        repository = _create(invocation, wish, confirmed=yes)
    root = repository.ledger.records[0].head
    invocation.did(f"the repository {wish.url} is made, root {root}, keys in {wish.keys}")
    invocation.remember(repository)
    _report(invocation, wish, repository)


def _absolute(url: str) -> str:
    """Make a path absolute: a key file is used from other working directories, too."""
    return normalized(url)


def _default_lock(url: str) -> LockMode:
    return LockMode.GOVERNANCE if scheme_of(url) == "s3" else LockMode.NONE


def host_label(hostname: str) -> str:
    """The first part of a host name, made to fit where it does not."""
    label = re.sub(r"[^a-z0-9_-]+", "-", hostname.partition(".")[0].lower()).strip("-_")[:63]
    return label if NAME_PATTERN.fullmatch(label) else f"host-{label}"[:63].rstrip("-")


def _existing_root(wish: _Wish) -> Digest | None:
    with contextlib.suppress(RepositoryNotFoundError):
        return existing_root(open_store(wish.url, endpoint=wish.endpoint))
    return None


def _create(invocation: Invocation, wish: _Wish, *, confirmed: bool) -> Repository:
    parameters = _observe(invocation, wish, _parameters(wish))
    if wish.lock is LockMode.COMPLIANCE and not confirmed:
        _confirm_compliance(invocation, wish, parameters)
    request = InitRequest(
        url=wish.url,
        endpoint=wish.endpoint,
        parameters=parameters,
        host=wish.host,
        keys=wish.keys,
        passphrase=invocation.secrets.new_passphrase(
            "the new recovery.key and root.key", weak=wish.weak_passphrase
        ),
        second=_second(invocation, wish),
        tool=TOOL,
        cost=COST,
    )
    with new_store(wish.url, endpoint=wish.endpoint) as store:
        return create_repository(store, request, clock=invocation.clock)


def _second(invocation: Invocation, wish: _Wish) -> SecondHolder | None:
    """Who else is to hold a recovery key, with the passphrase that they chose."""
    if wish.recovery_out is None:
        return None
    secret = invocation.secrets.second_passphrase(
        wish.recovery_out.name, wish.recovery_passphrase_file, weak=wish.weak_passphrase
    )
    return SecondHolder(file=wish.recovery_out, passphrase=secret)


def _observe(invocation: Invocation, wish: _Wish, parameters: Parameters) -> Parameters:
    """Try out a bucket before anything is promised on it.

    Raises:
        RetentionError: It can't keep what the lock mode promises.
    """
    try:
        store = open_store(wish.url, endpoint=wish.endpoint)
    except RepositoryNotFoundError:  # a directory, which is made later
        return parameters
    if not is_on_server(store):
        return parameters
    invocation.note(f"checking what {store.url} really does")
    report = check_store(store, clock=invocation.clock)
    require(report, parameters.lock_mode)
    extend = parameters.lock_mode is LockMode.NONE or report.keeps_locks_from_extenders
    if not extend:
        invocation.warn(
            f"{store.url}: who may extend a lock can undo it there, so this repository extends"
            " none: give hosts no PutObjectRetention ('vault store iam --no-extend'), and expect"
            " everything to be stored anew every 90 days or so"
        )
    return replace_body(
        parameters,
        versions_ordered=report.observed.orders_versions_by_commit,
        checksums_refused=report.observed.refuses_wrong_checksums,
        extend=extend,
    )


def _parameters(wish: _Wish) -> Parameters:
    parameters = Parameters(
        lock_mode=wish.lock,
        default_retention=int(wish.retain.total_seconds()),
        max_retention=int(wish.max_retain.total_seconds()),
    )
    if not fits_default(parameters):
        least = format_duration(timedelta(seconds=parameters.min_retention))
        raise ConfigError(
            "--retain does not fit",
            expected=f"{least} to {format_duration(wish.max_retain)}",
            found=format_duration(wish.retain),
        )
    return parameters


def _confirm_compliance(invocation: Invocation, wish: _Wish, parameters: Parameters) -> None:
    day = removable_from(invocation.clock(), parameters)
    invocation.confirm(
        f"Under compliance locks no user, not even the account's owner, can remove {wish.url}"
        f" before {day:%Y-%m-%d}, and every snapshot moves that date on. Go on?",
        instead="--yes confirms compliance mode;"
        f" the bucket then can't be removed before {day:%Y-%m-%d}",
    )


def removable_from(now: datetime, parameters: Parameters) -> datetime:
    """When the locks that `init` itself sets have run out, at the earliest."""
    return now + parameters.ledger_span


def _finish_killed_init(invocation: Invocation, wish: _Wish, found: Digest) -> Repository:
    """Enrol the writer of an `init` that was killed after it published the root.

    Raises:
        ConfigError: The repository is no unfinished one of this user, so it is left alone.
    """
    exists = ConfigError(
        f"there is a repository at {wish.url} already",
        found=f"0:{found}",
        hint="a further host joins with 'vault key request' here and 'vault key add' where"
        " root.key is",
    )
    if not all(_is_of(wish.keys / name, found) for name in (ROOT_FILE, WRITER_FILE)):
        raise exists
    store = open_store(wish.url, endpoint=wish.endpoint)
    repository = Repository.open(store, found, clock=invocation.clock)
    writer = load_writer(wish.keys / WRITER_FILE)
    if writer.signing.public.id in repository.ledger.writers:
        raise exists
    root = load_root(wish.keys / ROOT_FILE, invocation.secrets.passphrase(ROOT_FILE))
    enrol_own_writer(repository, root.enroller, writer, tool=TOOL)
    invocation.note("finished the init that was interrupted")
    return repository


def _is_of(path: Path, root: Digest) -> bool:
    try:
        return peek(path)[1].root == str(root)
    except WrongKeyError:
        return False


def _report(invocation: Invocation, wish: _Wish, repository: Repository) -> None:
    root = repository.ledger.records[0].head
    parameters = repository.parameters
    fields = {
        "id": repository.ledger.repository_id,
        "url": wish.url,
        "root": str(root),
        "head": str(repository.head),
        "lock": parameters.lock_mode.value,
        "default_retention": parameters.default_retention,
        "max_retention": parameters.max_retention,
        "locked_until": to_rfc3339(removable_from(invocation.clock(), parameters))
        if parameters.lock_mode is not LockMode.NONE
        else None,
        "keys": str(wish.keys),
        "second": str(wish.recovery_out) if wish.recovery_out else None,
    }
    facts = render.facts(
        {
            "repository": wish.url,
            "root": str(root),
            "lock": f"{parameters.lock_mode.value}, kept {format_duration(wish.retain)}"
            f" unless said, at most {format_duration(wish.max_retain)}",
            "host": f"{wish.host} may write every dataset, until a second host is enrolled",
            "writer key": f"{wish.keys / WRITER_FILE} stays on this host",
            "recovery key": f"{wish.keys / RECOVERY_FILE} restores: move it to a safe place",
            "root key": f"{wish.keys / ROOT_FILE} governs: move it to a safe place",
            **(
                {"second": f"{wish.recovery_out} restores too: give it to its holder"}
                if wish.recovery_out
                else {}
            ),
        }
    )
    advice = (
        "Write down the root and the passphrase. Without recovery.key and its passphrase"
        " nothing can ever be restored; keep two copies, away from this host."
    )
    invocation.emit("vault/init/v1", {"repository": fields}, facts)
    invocation.note(advice)
    if len(repository.ledger.root.recipients) == 1:
        invocation.note(
            "One recovery key opens this repository, and one root key governs it: a loss of either"
            " has no remedy. --recovery-out, or 'vault key root propose' later, adds a second."
        )
