"""From options and environment to an opened, verified repository.

See docs/design.md "Trust" and "The command line".

The only reader of the environment and the wall clock. Keys are found and opened by `held_secrets`.
"""

import contextlib
import dataclasses
import functools
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, Self, TypeVar

import click

from cli.exits import EXIT_LOCAL, gravest
from cli.held_secrets import HeldSecrets
from cli.options import Options
from cli.output import render
from cli.output.findings import finding_text
from cli.scratch_directory import scratch_directory
from cli.small_files import read_file
from cli.user_places import Places, home_directory
from vault.clock import Clock
from vault.crypto.key_files import (
    RepositoryAddress,
    peek,
)
from vault.errors import (
    ConfigError,
    FormatError,
    LocalError,
    VaultError,
)
from vault.ledger.envelope import Head
from vault.ledger.records import Record, Status
from vault.ledger.succession import dated_back
from vault.ledger.trust import parse_trust
from vault.ledger.witness_policy import MAX_POLICY, parse_witness_policy
from vault.machine import cache_tag
from vault.machine.privacy import check_unshared
from vault.model import Digest, Finding
from vault.repository.hosts import ID_DIGITS, PublishedBy
from vault.repository.key_names import (
    RECOVERY_FILE,
    ROOT_FILE,
    SPLIT_ROLES,
    WRITER_FILE,
    role_file,
)
from vault.repository.opening import Acceptance, open_repository, remember_head
from vault.repository.repository import Repository
from vault.repository.snapshot_spec import is_at_time, select_snapshot
from vault.repository.vouching import WitnessWish
from vault.storage.base import ObjectStore
from vault.storage.choose_store import open_store
from vault.storage.urls import is_same_bucket, scheme_of
from vault.version import __version__

TOOL = f"vault {__version__}"
TOLD: Final = 20  # findings of one kind that a command prints

_KEY_FILES = (WRITER_FILE, RECOVERY_FILE, ROOT_FILE, *map(role_file, SPLIT_ROLES))

_P = ParamSpec("_P")
_T = TypeVar("_T")

_ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # boto3 obeys them


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GivenRepository:
    """The address of the repository, as far as options, environment or key files give it."""

    url: str
    endpoint: str


class Invocation:
    """One run of the program: its options, its environment, its clock.

    Args:
        options: The options before the command.
        environment: The variables by name.
        clock: The wall clock, aware and UTC.
    """

    def __init__(
        self, options: Options, environment: Mapping[str, str], *, clock: Clock | None = None
    ) -> None:
        self.options = options
        self.clock: Clock = clock or wall_clock
        self.places = Places.of(
            environment, home=home_directory(environment), is_root=os.geteuid() == 0
        )
        self._environment = environment
        self._stack = contextlib.ExitStack()
        self._done: list[str] = []
        self.secrets = HeldSecrets(self.places.keys, options.signer, environment, tell=self)
        self.unprinted = False  # the result could not be printed

    def __enter__(self) -> Self:
        """Check the directories of state and cache.

        Raises:
            ConfigError: Other users can change what the vault keeps on this machine.
            LocalError: It can't be looked at.
        """
        for place in (self.places.cache, self.places.state):
            try:
                check_unshared(place)
            except OSError as error:
                raise LocalError(f"can't look at {place}", found=error.strerror) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        for place in (self.places.cache, self.places.state):
            cache_tag.tag(place)

    # --- where, and which ---

    def location(self, *, required: bool = True) -> GivenRepository | None:
        """The address from ``--repo``, else ``VAULT_REPO``, else a key file.

        Raises:
            ConfigError: None of them gives it, and it is required.
        """
        said = self.options.repo
        if said is None:  # an empty value is a script's mistake
            said = self._environment.get("VAULT_REPO") or None
        known = self._known()
        if said is not None:
            return GivenRepository(url=said, endpoint=self.endpoint_for(said))
        if known is not None:
            return GivenRepository(
                url=known.url, endpoint=self.options.endpoint_url or known.endpoint
            )
        if not required:
            return None
        raise ConfigError(
            "which repository?",
            found=f"neither --repo nor VAULT_REPO, and no key file in {self.places.keys}",
            hint="name it with --repo, or the directory of your key files with VAULT_KEYS",
        )

    @property
    def names_repository(self) -> bool:
        """Whether ``--repo`` or ``VAULT_REPO`` gives an address."""
        return bool(self.options.repo or self._environment.get("VAULT_REPO"))

    def endpoint_for(self, url: str) -> str:
        """The server to ask for a URL; "" leaves it to boto3.

        A key file's server serves its whole bucket. For another bucket the server is unknown, and
        a request signed for one service must not go to Amazon only because no server was named.

        Raises:
            ConfigError: The key files name a server for another bucket only.
        """
        if self.options.endpoint_url:
            return self.options.endpoint_url
        known = self._known()
        if known is None or not known.endpoint or scheme_of(url) != "s3":
            return ""
        if is_same_bucket(known.url, url):
            return known.endpoint
        if any(self._environment.get(name) for name in _ENDPOINT_VARIABLES):
            return ""
        raise ConfigError(
            f"which server has {url}?",
            found=f"the key files name {known.endpoint}, for {known.url} only",
            hint=f"--endpoint-url {known.endpoint}, or --endpoint-url https://s3.amazonaws.com",
        )

    def pinned_root(self) -> Digest:
        """The digest of the root, from ``--trust 0:DIGEST``, else from the key files.

        Raises:
            ConfigError: Neither gives it.
        """
        pinned = self._pin() or ((known := self._known()) and Digest.parse(known.root))
        if pinned:
            return pinned
        raise ConfigError(
            "no root digest to check the repository against",
            found=f"no --trust 0:DIGEST, and no key file in {self.places.keys}",
            hint="'vault init' printed it, and every key file holds it",
        )

    def _pin(self) -> Digest | None:
        digests = {floor.digest for floor in self.floors if floor.seq == 0}
        if len(digests) > 1:
            raise ConfigError("--trust names two different roots")
        return next(iter(digests), None)

    @functools.cached_property
    def floors(self) -> tuple[Head, ...]:
        """The heads that ``--trust`` names."""
        return tuple(map(parse_trust, self.options.trust))

    def _known(self) -> RepositoryAddress | None:
        """The address in the key files, leaving out those of another root than the pinned one.

        Raises:
            ConfigError: They are of different repositories.
        """
        pin = self._pin()
        addresses = {
            name: address
            for name, address in self._addresses.items()
            if pin is None or address.root == str(pin)
        }
        if len({address.root for address in addresses.values()}) > 1:
            raise ConfigError(
                f"the key files in {self.places.keys} are of different repositories",
                found=", ".join(f"{name}: 0:{a.root}" for name, a in addresses.items()),
                hint="give each repository a directory of its own and choose it with VAULT_KEYS",
            )
        return next(iter(addresses.values()), None)

    @functools.cached_property
    def _addresses(self) -> dict[str, RepositoryAddress]:
        """The address in each key file that can be read; one that can't be is left out."""
        found: dict[str, RepositoryAddress] = {}
        failed: list[VaultError] = []
        for name in _KEY_FILES:
            path = self.places.keys / name
            if path.exists():
                try:
                    _, found[name] = peek(path)
                except (FormatError, LocalError) as error:
                    failed.append(error)
        if failed and not found:
            raise failed[0]
        for each in failed:
            self.warn(f"a key file is left out: {each}")
        return found

    # --- the repository ---

    def open(self, *, afresh: bool = False) -> Repository:
        """The repository, verified from its root and compared with the heads already known.

        Args:
            afresh: Read and verify every statement, for a command that is about to prove something
                or to change who may sign. False: what was verified here before is believed.

        Raises:
            RollbackError: The store shows an older or different history.
            VaultError: It can't be opened.
        """
        store, root = self.store_and_root()
        return open_repository(
            store,
            root,
            clock=self.clock,
            state=self.places.state,
            floors=self.floors,
            afresh=afresh,
            acceptance=self._acceptance(),
            witnesses=self.witness_wish(),
            warn=self.warn,
        )

    def store_and_root(self) -> tuple[ObjectStore, Digest]:
        """The store of the repository, and the digest that its first statement must have.

        Raises:
            ConfigError: Its address, or its root, is not given.
            StorageError: The store can't be reached.
        """
        location = self.location()
        assert location is not None
        root = self.pinned_root()
        return open_store(location.url, endpoint=location.endpoint), root

    def witness_wish(self) -> WitnessWish:
        """What ``--witness-policy`` and ``--require-witnesses`` ask for.

        Raises:
            ConfigError: The file is no policy.
            LocalError: It can't be read.
        """
        pinned = None
        if self.options.witness_policy is not None:
            data = read_file(Path(self.options.witness_policy), MAX_POLICY)
            pinned = parse_witness_policy(data.decode("utf-8", "replace"))
        return WitnessWish(pinned=pinned, required=self.options.require_witnesses)

    def require_usable_checks(self) -> None:
        """Pass if all that a repository is to be checked against can be read.

        Raises:
            ConfigError: ``--trust``, ``--accept-head`` or the witness policy is malformed.
            LocalError: The witness policy can't be read.
        """
        self._pin()
        self._acceptance()
        self.witness_wish()

    def _acceptance(self) -> Acceptance | None:
        """The acceptance that ``--accept-head`` asks for."""
        if not self.options.accept_head:
            return None
        head = parse_trust(self.options.accept_head)
        return Acceptance(
            head=head,
            writer=lambda repository: self.secrets.writer_key(repository).signing,
            tool=TOOL,
            done=lambda: self.did(f"{head} is accepted as a head of the ledger"),
        )

    def remember(self, repository: Repository) -> None:
        """Remember on this machine the newest head that no lost race can take back."""
        remember_head(repository, state=self.places.state, warn=self.warn)

    def snapshot(self, repository: Repository, spec: str, *, void: bool = False) -> Record:
        """The snapshot that a SNAPSHOT argument names; says by whose clock, where that matters.

        Raises:
            ConfigError: There is none, or it must be said which one is meant.
            SignatureError: It is the number of a void snapshot.
        """
        record = select_snapshot(repository.ledger, spec, beyond=repository.beyond, void=void)
        if record.status is not Status.VALID:
            self.warn(f"snapshot {record.seq} does not count: {record.reason}")
        if is_at_time(spec) and repository.ledger.is_copy:
            self.warn(
                f"snapshot {record.seq} was chosen by the hosts' own clocks: this store is a copy;"
                " the sure way is its number"
            )
        back = dated_back(repository.ledger, record)
        if back is not None:
            self.warn(
                f"snapshot {record.seq} claims to be taken before snapshot {back.seq},"
                " which was stored earlier"
            )
        return record

    def report_findings(self, repository: Repository) -> None:
        """Report on stderr what was found in the ledger that should not be there."""
        ledger = repository.ledger
        witnessed = repository.witnessed.stray()
        self.report((*ledger.findings, *ledger.overclaims(), *repository.findings, *witnessed))

    def report(self, findings: Iterable[Finding]) -> None:
        """Report findings on stderr: the first of each kind, and how many more there are.

        A thief may make thousands, and what else is said must be seen.
        """
        told: Counter[str] = Counter()
        for finding in findings:
            told[finding.code] += 1
            if told[finding.code] <= TOLD:
                self.warn(finding_text(finding))
        for code, count in told.items():
            if count > TOLD:
                self.warn(f"{count - TOLD:,} more findings {code}: 'vault audit' lists them")

    # --- keys ---

    @functools.cached_property
    def scratch(self) -> Path:
        """A directory on local disk for temporary files, removed with the end of the command.

        Raises:
            LocalError: It can't be made.
        """
        return self._stack.enter_context(scratch_directory(self.places.cache))

    def confirm(self, question: str, *, instead: str) -> None:
        """Ask a yes-or-no question on the terminal.

        Raises:
            ConfigError: There is no terminal, or the answer is no.
        """
        if not sys.stdin.isatty():
            raise ConfigError("this needs a confirmation, and there is no terminal", hint=instead)
        if not click.confirm(render.printable(question), err=True):
            raise ConfigError("not confirmed; nothing was done")

    # --- output ---

    def did(self, text: str) -> None:
        """Note what is done for good; it is reported on stderr if the result can't be printed."""
        self._done.append(text)

    @property
    def has_done(self) -> bool:
        """Whether something is done for good."""
        return bool(self._done)

    def tell_done(self) -> None:
        """Report what is done and was not reported yet."""
        for text in self._done:
            render.message("done", text)
        self._done.clear()

    def emit(self, schema: str, fields: Mapping[str, object], text: str) -> None:
        """Print the result: the object under ``--json``, else the text.

        If it can't be printed, that is a separate error; what the command did stays done.
        """
        try:
            taken = render.emit_json(schema, **fields) if self.options.json else render.emit(text)
        except LocalError as error:
            render.message("error", str(error))
            self.unprinted = True
            taken = False
        if taken:
            self._done.clear()
        self.tell_done()

    def warn(self, text: str) -> None:
        """Print advice on stderr; it is not an error."""
        render.message("warning", text)

    def note(self, text: str) -> None:
        """Print information on stderr, except with ``-q``."""
        if not self.options.quiet:
            render.message("", text)


def pass_invocation(
    command: Callable[Concatenate[Invocation, _P], _T],
) -> Callable[_P, _T | int]:
    """Hand a click command the invocation that its global options make."""

    @functools.wraps(command)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _T | int:
        options = click.get_current_context().find_object(Options) or Options()
        with Invocation(options, os.environ) as invocation:
            try:
                result = command(invocation, *args, **kwargs)
            except BaseException:
                invocation.tell_done()
                raise
            if invocation.unprinted:
                codes = (EXIT_LOCAL, result if isinstance(result, int) else 0)
                return gravest(codes)
            return result

    return wrapper


def wall_clock() -> datetime:
    """The time now, aware and UTC."""
    return datetime.now(UTC)


def publisher_text(who: PublishedBy) -> str:
    """Host and key of a snapshot, for people."""
    return f"{who.host} {who.key_id[:ID_DIGITS]}"


def publisher_fields(who: PublishedBy) -> dict[str, object]:
    """The same for programs, and the snapshot before where another key signed that one."""
    before = who.before
    return {
        "host": who.host,
        "key": who.key_id,
        "before": None
        if before is None
        else {
            "seq": before.seq,
            "host": who.before_host,
            "key": before.key_id,
            "rotated_at": who.rotated_at,
        },
    }


def signer_name(repository: Repository, key_id: str) -> str:
    """The host or root key that signed, by name."""
    writer = repository.ledger.writers.get(key_id)
    return writer.name if writer else key_id[:ID_DIGITS]
