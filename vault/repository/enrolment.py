"""Who may write: making a repository, and adding or revoking hosts (docs/design.md "Trust").

Every secret is made where it is used. Key files are durable before the root
that needs them is published.
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from vault.clock import Clock
from vault.crypto.key_file_bytes import DEFAULT_COST, Argon2Cost
from vault.crypto.key_files import (
    DomainSecrets,
    KeyRequest,
    RecoveryKey,
    RepositoryAddress,
    RootKey,
    WriterKey,
    save_recovery,
    save_root,
    save_writer,
)
from vault.crypto.keys import RecipientKey, Signer, SigningKey, random_bytes
from vault.encoding import b64decode_strict, b64encode
from vault.errors import (
    ConfigError,
    FormatError,
    VaultError,
)
from vault.format.domain_secrets import open_domain, seal_domain
from vault.ledger.chain import Ledger
from vault.ledger.envelope import build_statement, parse_envelope, seal_envelope
from vault.ledger.records import Record, WriterInfo
from vault.ledger.request_files import RequestFile
from vault.ledger.statements import (
    DomainRef,
    PublicKey,
    Recipient,
    Role,
    RootBody,
    StatementType,
    WriterBody,
)
from vault.ledger.warrants import Request
from vault.machine.privacy import make_private
from vault.model import (
    Digest,
    LockMode,
    Retention,
    body_from_json,
    replace_body,
    validate_label,
    validate_wanted_pattern,
)
from vault.parameters import Parameters
from vault.repository.agreements import Intent, require_unasked, rest_on
from vault.repository.append_statements import Draft
from vault.repository.hosts import (
    domains,
    live_writers,
    require_addition,
    require_limit,
)
from vault.repository.key_names import RECOVERY_FILE, ROOT_FILE, WRITER_FILE
from vault.repository.keyrequests import check_request, granted, require_domain
from vault.repository.repository import Repository, read_domain
from vault.retention import ledger_until, lock_target
from vault.storage.base import ObjectStore
from vault.storage.names import domain_object_name, ledger_name

DEFAULT_DOMAIN = "default"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SecondHolder:
    """Another person who can restore, with a recovery key and a passphrase of their own."""

    file: Path
    passphrase: bytes = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InitRequest:
    """What a new repository is to be."""

    url: str
    endpoint: str
    parameters: Parameters
    host: str
    keys: Path  # directory of the key files
    passphrase: bytes = dataclasses.field(repr=False)
    second: SecondHolder | None = None
    tool: str
    cost: Argon2Cost = DEFAULT_COST


def existing_root(store: ObjectStore) -> Digest | None:
    """Digest of the statement that claims to be the root of a store; unverified."""
    name = ledger_name(0)
    for version in store.versions_of(name):
        if not version.marker:
            try:
                return parse_envelope(store.get(name, version.version)).digest
            except FormatError:
                continue
    return None


def create_repository(store: ObjectStore, request: InitRequest, *, clock: Clock) -> Repository:
    """Make keys, root and the first writer; the repository is ready on return.

    Raises:
        ConfigError: There is a repository already, or key files are in the way.
    """
    found = existing_root(store)
    if found is not None:
        raise ConfigError(
            "there is a repository already",
            found=f"0:{found}",
            hint="a further host joins with 'vault key request' and 'vault key add'",
        )
    root_key, writer_key = _make_keys(store, request, clock)
    repository = Repository.open(store, Digest.parse(root_key.repository.root), clock=clock)
    enrol_own_writer(repository, root_key.enroller, writer_key, tool=request.tool)
    return repository


def _make_keys(store: ObjectStore, request: InitRequest, clock: Clock) -> tuple[RootKey, WriterKey]:
    """Write the three key files, then publish the root that they belong to."""
    validate_label(request.host, "host")
    root, enroller, policy, pruner, restorer = (SigningKey.generate() for _ in range(5))
    recovery = RecipientKey.generate()
    second = (RecipientKey.generate(), SigningKey.generate()) if request.second else None
    repository_id = random_bytes(16)
    body = RootBody(
        parameters=request.parameters,
        keys=(
            _listed("root", root, Role.ROOT),
            _listed("enroller", enroller, Role.ENROLLER),
            _listed("policy", policy, Role.POLICY),
            _listed("pruner", pruner, Role.PRUNER),
            _listed("restorer", restorer, Role.RESTORER),
            *([_listed("restorer-second", second[1], Role.RESTORER)] if second else []),
        ),
        thresholds=dict.fromkeys(Role, 1),
        recipients=(
            Recipient(name="site", public=b64encode(recovery.public_raw)),
            *([Recipient(name="second", public=b64encode(second[0].public_raw))] if second else []),
        ),
    )
    payload = build_statement(
        type=StatementType.ROOT,
        repository=repository_id.hex(),
        seq=0,
        prev=None,
        time=clock(),
        tool=request.tool,
        subject=[("repository", Digest.of(repository_id))],
        body=body,
        by=[root.public.id],
    )
    envelope = seal_envelope(payload, [root], limit=65_536)
    address = RepositoryAddress(
        id=repository_id.hex(),
        url=request.url,
        endpoint=request.endpoint,
        root=str(parse_envelope(envelope).digest),
    )
    writer_key = WriterKey(
        repository=address,
        name=request.host,
        signing=SigningKey.generate(),
        recipient=RecipientKey.generate(),
        domain=DomainSecrets.new(DEFAULT_DOMAIN),
    )
    root_key = RootKey(
        repository=address, root=root, enroller=enroller, policy=policy, pruner=pruner
    )
    recovery_key = RecoveryKey(repository=address, recipient=recovery, restorer=restorer)
    _refuse_overwriting(request)
    secret, cost = request.passphrase, request.cost
    with _taken_back(store, request.keys) as made:
        make_private(request.keys)
        save_root(request.keys / ROOT_FILE, root_key, secret, cost=cost)
        made.append(request.keys / ROOT_FILE)  # not before: what was there is not ours
        save_recovery(request.keys / RECOVERY_FILE, recovery_key, secret, cost=cost)
        made.append(request.keys / RECOVERY_FILE)
        if request.second and second:
            other = RecoveryKey(repository=address, recipient=second[0], restorer=second[1])
            save_recovery(request.second.file, other, request.second.passphrase, cost=cost)
            made.append(request.second.file)
        save_writer(request.keys / WRITER_FILE, writer_key)
        made.append(request.keys / WRITER_FILE)
        _publish_root(store, envelope, request.parameters, clock)
    return root_key, writer_key


@contextlib.contextmanager
def _taken_back(store: ObjectStore, keys: Path) -> Iterator[list[Path]]:
    """A list of key files; they are removed if no repository came of them, for the next try.

    Where the store does not answer, its root may be there: then they stay.
    """
    before = keys.exists()
    made: list[Path] = []
    try:
        yield made
    except BaseException:
        with contextlib.suppress(VaultError):
            if existing_root(store) is None:
                for each in made:
                    each.unlink(missing_ok=True)
                if not before:
                    with contextlib.suppress(OSError):
                        keys.rmdir()
        raise


def _publish_root(
    store: ObjectStore, envelope: bytes, parameters: Parameters, clock: Clock
) -> None:
    sha256 = hashlib.sha256(envelope).digest()
    retention = None
    if parameters.lock_mode is not LockMode.NONE:
        need = ledger_until(clock(), parameters)
        until = lock_target(need, sha256, parameters.lock_grid)
        retention = Retention(mode=parameters.lock_mode, until=until)
    store.put(ledger_name(0), envelope, sha256=sha256, retention=retention)


def _listed(name: str, key: SigningKey, role: Role) -> PublicKey:
    return PublicKey(name=name, public=b64encode(key.public.der), roles=(role,))


def _refuse_overwriting(request: InitRequest) -> None:
    paths = [request.keys / name for name in (WRITER_FILE, RECOVERY_FILE, ROOT_FILE)]
    if request.second is not None:
        paths.append(request.second.file)
    for path in paths:
        if path.exists():
            raise ConfigError(
                f"key file {path} exists already",
                hint="choose another directory with --keys, or move that file away",
            )


def enrol_own_writer(
    repository: Repository, enroller: Signer, writer_key: WriterKey, *, tool: str
) -> Record | None:
    """Enrol the writer that `create_repository` made; None if that was done already.

    Splitting it off lets an init that was killed half-way be finished.
    """
    if writer_key.signing.public.id in repository.ledger.writers:
        return None
    assert writer_key.domain is not None
    recipients = [*repository.ledger.recipients, writer_key.recipient.public_raw]
    data = seal_domain(writer_key.domain, repository.id, recipients)
    return _append(
        repository,
        enroller,
        WriterBody(
            action="add",
            name=writer_key.name,
            public=b64encode(writer_key.signing.public.der),
            recipient=b64encode(writer_key.recipient.public_raw),
            datasets=("*",),
            domain=_store_domain(repository, writer_key.domain.name, data),
        ),
        tool=tool,
    )


# --- hosts ---


def add_writer(
    repository: Repository,
    request: KeyRequest,
    enroller: Signer,
    *,
    recovery_key: Callable[[], RecoveryKey],
    share: str | None,
    tool: str,
    datasets: Sequence[str] = (),
    share_datasets: Collection[str] = (),
    agreed: RequestFile | None = None,
) -> Record:
    """Enrol a host, or put its new key in the place of the old one.

    Args:
        repository: Where.
        request: What the host asked for; its proof of possession was checked.
        enroller: Signs.
        recovery_key: Called only for an existing domain, whose secrets it opens.
        share: The existing domain that the operator agrees to share.
        tool: Goes into the statement.
        datasets: Patterns that it gets; those it asked for if none is given.
        share_datasets: Names of hosts whose datasets it may write too.
        agreed: What people agreed to, with the domain object that was stored for it.

    Raises:
        ConfigError: The request is for another repository, a name or domain is
            taken, or sharing or the addition was not agreed to.
        SignatureError: The key that is to be replaced did not sign the request.
        IntegrityError: The domain object is not what it must be.
    """
    if agreed is None:
        body = _addition(repository, request, datasets)
        require_unasked(repository.ledger, StatementType.WRITER, body)
        body = addition(
            repository,
            request,
            recovery_key=recovery_key,
            share=share,
            datasets=datasets,
            share_datasets=share_datasets,
        )
    else:
        stored = agreed.values.get("domain")
        domain = None if stored is None else body_from_json(stored, DomainRef)
        body = replace_body(_addition(repository, request, datasets), domain=domain)

    def check(ledger: Ledger) -> None:
        require_addition(ledger, body, share_datasets)

    check(repository.ledger)
    request_of = None if agreed is None else agreed.request
    return _append(repository, enroller, body, tool=tool, check=check, agreed=request_of)


def addition(
    repository: Repository,
    request: KeyRequest,
    *,
    recovery_key: Callable[[], RecoveryKey],
    share: str | None,
    datasets: Sequence[str] = (),
    share_datasets: Collection[str] = (),
) -> WriterBody:
    """The statement that enrols a host, to be signed; its domain object is stored.

    Args:
        repository: Where.
        request: What the host asked for; its proof of possession was checked.
        recovery_key: Called only for an existing domain, whose secrets it opens.
        share: The existing domain that the operator agrees to share.
        datasets: Patterns that it gets; those it asked for if none is given.
        share_datasets: Names of hosts whose datasets it may write too.

    Raises:
        VaultError: As `add_writer`.
    """
    body = _addition(repository, request, datasets)
    require_addition(repository.ledger, body, share_datasets)
    require_domain(repository, request, share)
    return replace_body(body, domain=_domain_of(repository, request, recovery_key))


def _addition(repository: Repository, request: KeyRequest, datasets: Sequence[str]) -> WriterBody:
    """The same without its domain, which must be stored first."""
    check_request(repository, request)
    return WriterBody(
        action="add",
        name=request.name,
        public=b64encode(request.public),
        recipient=b64encode(request.recipient),
        datasets=granted(request, datasets),
        replaces=request.replaces,
    )


def _domain_of(
    repository: Repository,
    request: KeyRequest,
    recovery_key: Callable[[], RecoveryKey],
) -> DomainRef | None:
    """Where the host finds its domain's secrets; they are stored if they are new, or new to it."""
    old = live_writers(repository.ledger).get(request.replaces)
    if old is not None:  # sealed to its HPKE key already
        return old.domain
    data = request.domain_object
    if data is None:
        data = _shared_domain_object(repository, request, recovery_key)
    return _store_domain(repository, request.domain, data)


def _shared_domain_object(
    repository: Repository, request: KeyRequest, recovery_key: Callable[[], RecoveryKey]
) -> bytes:
    """The existing domain's secrets, sealed to the new host too."""
    domain = domains(repository.ledger)[request.domain].domain
    assert domain is not None
    recipient = recovery_key().recipient
    secrets = open_domain(
        read_domain(repository, domain),
        repository.id,
        lambda header: repository.seeds.seed_of(header, recipient),
        request.domain,
    )
    members = [
        b64decode_strict(other.recipient)
        for other in live_writers(repository.ledger).values()
        if other.domain is not None and other.domain.name == request.domain
        if other.recipient
    ]
    recipients = [*repository.ledger.recipients, *members, request.recipient]
    return seal_domain(secrets, repository.id, list(dict.fromkeys(recipients)))


def revoke_writer(
    repository: Repository,
    enroller: Signer,
    writer: WriterInfo,
    *,
    distrust_from: int | None,
    reason: str,
    tool: str,
    insist: Callable[[int], None] = lambda _: None,
    agreed: Request | None = None,
) -> Record:
    """Take a writer's key off the list; with ``distrust_from``, void what it wrote from there.

    Tried 10,000 times without a pause, because a thief who has the key may append without one.

    Args:
        repository: Where.
        enroller: Signs.
        writer: Whose key it is.
        distrust_from: Seq from which on what it wrote becomes void; None leaves all of it.
        reason: Goes into the statement.
        tool: The same.
        insist: Called after each attempt that others won, with how many they did.
        agreed: What people agreed to.

    Raises:
        LedgerMovedError: Others won every attempt.
        ConfigError: As `revocation`, or people have not agreed to it.
    """
    body = revocation(repository, writer, distrust_from=distrust_from, reason=reason)
    return _append(repository, enroller, body, tool=tool, insist=insist, agreed=agreed)


def revocation(
    repository: Repository, writer: WriterInfo, *, distrust_from: int | None, reason: str
) -> WriterBody:
    """The statement that revokes a writer's key, to be signed.

    Raises:
        ConfigError: It is revoked already, or the seq lies before its enrolment or beyond the head.
    """
    if writer.revoked is not None:
        raise ConfigError(f"{writer.name} is revoked already", found=f"ledger {writer.revoked}")
    head = repository.head.seq
    if distrust_from is not None and not writer.added < distrust_from <= head + 1:
        raise ConfigError(
            "distrust must begin after the enrolment and not beyond the head",
            expected=f"{writer.added + 1} to {head + 1}",
            found=distrust_from,
        )
    return WriterBody(
        action="revoke",
        name=writer.name,
        public=b64encode(writer.key.der),
        distrust_from=distrust_from,
        reason=reason,
    )


def limit_writer(
    repository: Repository,
    enroller: Signer,
    writer: WriterInfo,
    *,
    datasets: Sequence[str],
    share_datasets: Collection[str] = (),
    reason: str,
    tool: str,
    agreed: Request | None = None,
) -> Record:
    """Give a host other patterns from here on; what it published stays.

    Args:
        repository: Where.
        enroller: Signs.
        writer: A live key of the host.
        datasets: The patterns that it has from here on.
        share_datasets: Names of hosts whose datasets it may write too.
        reason: Goes into the statement.
        tool: The same.
        agreed: What people agreed to.

    Raises:
        ConfigError: The key is revoked, patterns are not allowed or overlap unasked, or people
            have not agreed to it.
    """
    body = limitation(writer, datasets=datasets, reason=reason)

    def check(ledger: Ledger) -> None:
        require_limit(ledger, writer.key.id, datasets, share_datasets)

    check(repository.ledger)
    return _append(repository, enroller, body, tool=tool, check=check, agreed=agreed)


def limitation(writer: WriterInfo, *, datasets: Sequence[str], reason: str) -> WriterBody:
    """The statement that gives a host other patterns, to be signed.

    Raises:
        ConfigError: A pattern is not allowed.
    """
    for pattern in datasets:
        validate_wanted_pattern(pattern)
    return WriterBody(
        action="limit",
        name=writer.name,
        public=b64encode(writer.key.der),
        datasets=tuple(datasets),
        reason=reason,
    )


def _append(
    repository: Repository,
    enroller: Signer,
    body: WriterBody,
    *,
    tool: str,
    check: Callable[[Ledger], None] = lambda _: None,
    insist: Callable[[int], None] | None = None,
    agreed: Request | None = None,
) -> Record:
    """Append a writer statement, if ``check`` passes on the very ledger that it extends."""
    key = Digest.of(b64decode_strict(body.public))
    intent = Intent(kind=StatementType.WRITER, body=body, by=(enroller.public.id,))
    warrant = rest_on(repository, intent, agreed, enroller, tool=tool)
    draft = Draft(type=StatementType.WRITER, subject=[("key", key)], body=body, warrant=warrant)

    def checked(ledger: Ledger) -> Draft:
        check(ledger)
        return draft

    return repository.append(checked, [enroller], tool=tool, insist=insist)


def _store_domain(repository: Repository, name: str, data: bytes) -> DomainRef:
    digest = Digest.of(data)
    need = repository.objects.ledger_need()
    ref = repository.put(domain_object_name(name, digest), data, need).ref
    return DomainRef(
        name=name, object=ref.name, sha256=str(ref.sha256), size=ref.size, version=ref.version
    )
