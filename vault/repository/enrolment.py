"""Who may write: making a repository, and adding or revoking hosts (docs/design.md "Trust").

Every secret is made where it is used. Key files are durable before the root
that needs them is published.
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vault.clock import Clock
from vault.crypto.keyfiles import (
    DEFAULT_COST,
    Argon2Cost,
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
from vault.crypto.keys import RecipientKey, SigningKey, VerifyKey, random_bytes, recipient_id
from vault.crypto.sealed import Header
from vault.encoding import b64decode_strict, b64encode
from vault.errors import ConfigError, FormatError, IntegrityError, VaultError
from vault.format.domainsecrets import open_domain, seal_domain
from vault.ledger.chain import Ledger
from vault.ledger.envelope import build_statement, parse_envelope, seal_envelope
from vault.ledger.records import Record, WriterInfo
from vault.ledger.statements import (
    DomainRef,
    PublicKey,
    Recipient,
    Role,
    RootBody,
    StatementType,
    WriterBody,
)
from vault.machine.privacy import make_private
from vault.model import Digest, LockMode, Retention, validate_label, validate_pattern
from vault.parameters import Parameters
from vault.repository.log import Draft
from vault.repository.repository import Repository, read_domain
from vault.retention import ledger_until, lock_target
from vault.storage.base import ObjectStore
from vault.storage.names import domain_object_name, ledger_name

WRITER_FILE = "writer.key"
RECOVERY_FILE = "recovery.key"
ROOT_FILE = "root.key"
DEFAULT_DOMAIN = "default"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InitRequest:
    """What a new repository is to be."""

    url: str
    endpoint: str
    parameters: Parameters
    host: str
    keys: Path  # directory of the key files
    passphrase: bytes = dataclasses.field(repr=False)
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
    enrol_own_writer(repository, root_key, writer_key, tool=request.tool)
    return repository


def _make_keys(store: ObjectStore, request: InitRequest, clock: Clock) -> tuple[RootKey, WriterKey]:
    """Write the three key files, then publish the root that they belong to."""
    validate_label(request.host, "host")
    root, enroller, policy, pruner, restorer = (SigningKey.generate() for _ in range(5))
    recovery = RecipientKey.generate()
    repository_id = random_bytes(16)
    body = RootBody(
        parameters=request.parameters,
        keys=(
            _listed("root", root, Role.ROOT),
            _listed("enroller", enroller, Role.ENROLLER),
            _listed("policy", policy, Role.POLICY),
            _listed("pruner", pruner, Role.PRUNER),
            _listed("restorer", restorer, Role.RESTORER),
        ),
        thresholds=dict.fromkeys(Role, 1),
        recipients=(Recipient(name="site", public=b64encode(recovery.public_raw)),),
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
    _refuse_overwriting(request.keys)
    secret, cost = request.passphrase, request.cost
    with _taken_back(store, request.keys) as made:
        make_private(request.keys)
        save_root(request.keys / ROOT_FILE, root_key, secret, cost=cost)
        made.append(request.keys / ROOT_FILE)  # not before: what was there is not ours
        save_recovery(request.keys / RECOVERY_FILE, recovery_key, secret, cost=cost)
        made.append(request.keys / RECOVERY_FILE)
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


def _refuse_overwriting(keys: Path) -> None:
    for name in (WRITER_FILE, RECOVERY_FILE, ROOT_FILE):
        if (keys / name).exists():
            raise ConfigError(
                f"key file {keys / name} exists already",
                hint="choose another directory with --keys, or move that file away",
            )


def enrol_own_writer(
    repository: Repository, root_key: RootKey, writer_key: WriterKey, *, tool: str
) -> Record | None:
    """Enrol the writer that `create_repository` made; None if that was done already.

    Splitting it off lets an init that was killed half-way be finished.
    """
    if writer_key.signing.public.id in repository.ledger.writers:
        return None
    assert writer_key.domain is not None
    recipients = [*repository.ledger.recipients, writer_key.recipient.public_raw]
    data = seal_domain(writer_key.domain, repository.id, recipients)
    return _add_writer(
        repository,
        root_key.enroller,
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


# --- further hosts ---


def request_key(
    repository: Repository,
    address: RepositoryAddress,
    *,
    name: str,
    datasets: Sequence[str],
    domain: str | None,
    begun: WriterKey | None = None,
) -> tuple[WriterKey, KeyRequest]:
    """Keys for this host, and the request to have them enrolled.

    Args:
        repository: Read from its pinned root; says who the recipients are.
        address: Goes into the key file.
        name: Of the host.
        datasets: Patterns it wants to write.
        domain: An existing domain to share; None for one of its own, named as the host.
        begun: The key of a request that was killed before it was written; it is used again.

    Raises:
        ConfigError: The host's name is taken, a pattern is not allowed, or no such domain exists;
            or the key that was begun is for something else, or enrolled.
    """
    if begun is not None and not _is_begun(begun, repository, address, name, domain):
        raise ConfigError("this host has a key already", hint="move writer.key away, if it is lost")
    validate_label(name, "host")
    for pattern in datasets:
        validate_pattern(pattern)
    taken = {writer.name for writer in repository.ledger.writers.values()}
    if name in taken:
        raise ConfigError(f"a host named {name} is enrolled already", hint="choose another --name")
    domains = _domains(repository)
    if domain is not None and domain not in domains:
        raise ConfigError(
            f"there is no domain {domain} to share", expected=" or ".join(sorted(domains))
        )
    if domain is None and name in domains:
        raise ConfigError(f"there is a domain {name} already", hint="choose another --name")
    secrets = None
    if domain is None:
        secrets = begun.domain if begun else DomainSecrets.new(name)
    key = begun or WriterKey(
        repository=address,
        name=name,
        signing=SigningKey.generate(),
        recipient=RecipientKey.generate(),
        domain=secrets,
    )
    sealed = None
    if secrets is not None:
        recipients = [*repository.ledger.recipients, key.recipient.public_raw]
        sealed = seal_domain(secrets, repository.id, recipients)
    request = KeyRequest.signed(
        key, datasets=tuple(datasets), domain=domain or name, domain_object=sealed
    )
    return key, request


def _is_begun(
    key: WriterKey,
    repository: Repository,
    address: RepositoryAddress,
    name: str,
    domain: str | None,
) -> bool:
    """Whether a key is what this very request would have made, and is not enrolled."""
    return (
        (key.repository.root, key.name) == (address.root, name)
        and (key.domain is None) == (domain is not None)
        and key.signing.public.id not in repository.ledger.writers
    )


def add_writer(
    repository: Repository,
    request: KeyRequest,
    root_key: RootKey,
    *,
    recovery_key: Callable[[], RecoveryKey],
    share: str | None,
    tool: str,
) -> Record:
    """Enrol a host.

    Args:
        repository: Where.
        request: What the host asked for; its proof of possession was checked.
        root_key: Holds the enroller's key.
        recovery_key: Called only for an existing domain, whose secrets it opens.
        share: The existing domain that the operator agrees to share.
        tool: Goes into the statement.

    Raises:
        ConfigError: The request is for another repository, a name or domain is
            taken, or sharing was not agreed to.
        IntegrityError: The domain object is not what it must be.
    """
    if request.repository.id != repository.ledger.repository_id:
        raise ConfigError(
            "the request is for another repository",
            expected=repository.ledger.repository_id,
            found=request.repository.id,
        )
    if VerifyKey.from_der(request.public).id in repository.ledger.writers:
        raise ConfigError(f"{request.name} is enrolled already, or was and is revoked")
    if request.domain_object is not None:
        data = _new_domain_object(repository, request)
    else:
        data = _shared_domain_object(repository, request, recovery_key, share)
    body = WriterBody(
        action="add",
        name=request.name,
        public=b64encode(request.public),
        recipient=b64encode(request.recipient),
        datasets=request.datasets,
        domain=_store_domain(repository, request.domain, data),
    )
    return _add_writer(repository, root_key.enroller, body, tool=tool)


def _new_domain_object(repository: Repository, request: KeyRequest) -> bytes:
    """The object that came with the request, if the repository can live with it."""
    assert request.domain_object is not None
    if request.domain in _domains(repository):
        raise ConfigError(
            f"there is a domain {request.domain} already",
            hint="the host must ask for another name, or to share it with --domain",
        )
    sealed_to = {name for name, _ in Header.parse(request.domain_object).sealed}
    missing = {recipient_id(key) for key in repository.ledger.recipients} - sealed_to
    if missing:
        raise IntegrityError(
            "the request's domain is not sealed to every recipient: its data could not be restored",
            hint="have the host make the request again",
        )
    return request.domain_object


def _shared_domain_object(
    repository: Repository,
    request: KeyRequest,
    recovery_key: Callable[[], RecoveryKey],
    share: str | None,
) -> bytes:
    """The existing domain's secrets, sealed to the new host too."""
    writer = _domains(repository).get(request.domain)
    if writer is None or writer.domain is None:
        raise ConfigError(f"there is no domain {request.domain} to share")
    if share != request.domain:
        hosts = ", ".join(_hosts_of(repository, request.domain))
        raise ConfigError(
            f"{request.name} asks to share domain {request.domain} with {hosts}",
            hint=f"hosts of a domain must trust each other; --share-domain {request.domain} agrees",
        )
    recipient = recovery_key().recipient
    stored = read_domain(repository, writer.domain)
    secrets = open_domain(stored, repository.id, recipient, request.domain)
    members = [
        b64decode_strict(other.recipient)
        for other in repository.ledger.writers.values()
        if other.domain is not None and other.domain.name == request.domain
        if other.revoked is None and other.recipient
    ]
    recipients = [*repository.ledger.recipients, *members, request.recipient]
    return seal_domain(secrets, repository.id, list(dict.fromkeys(recipients)))


def _domains(repository: Repository) -> dict[str, WriterInfo]:
    """Each domain with a writer that knows its object; the newest wins."""
    return {
        writer.domain.name: writer
        for writer in repository.ledger.writers.values()
        if writer.domain is not None
    }


def _hosts_of(repository: Repository, domain: str) -> list[str]:
    return sorted(
        writer.name
        for writer in repository.ledger.writers.values()
        if writer.domain is not None and writer.domain.name == domain
    )


def revoke_writer(
    repository: Repository,
    root_key: RootKey,
    writer: WriterInfo,
    *,
    distrust_from: int | None,
    reason: str,
    tool: str,
) -> Record:
    """Take a writer's key off the list; with ``distrust_from``, void what it wrote from there.

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
    body = WriterBody(
        action="revoke",
        name=writer.name,
        public=b64encode(writer.key.der),
        distrust_from=distrust_from,
        reason=reason,
    )
    return _add_writer(repository, root_key.enroller, body, tool=tool)


def find_writer(ledger: Ledger, name: str) -> WriterInfo:
    """By host name or beginning of the key id.

    Raises:
        ConfigError: None, or several.
    """
    found = [
        writer
        for key_id, writer in ledger.writers.items()
        if writer.name == name or (len(name) >= 8 and key_id.startswith(name))
    ]
    active = [writer for writer in found if writer.revoked is None] or found
    if len(active) != 1:
        known = ", ".join(sorted({writer.name for writer in ledger.writers.values()}))
        raise ConfigError(f"{len(active)} writers match {name!r}", expected=f"one of: {known}")
    return active[0]


def _add_writer(
    repository: Repository, enroller: SigningKey, body: WriterBody, *, tool: str
) -> Record:
    key = Digest.of(b64decode_strict(body.public))
    draft = Draft(type=StatementType.WRITER, subject=[("key", key)], body=body)
    return repository.append(lambda _: draft, [enroller], tool=tool)


def _store_domain(repository: Repository, name: str, data: bytes) -> DomainRef:
    digest = Digest.of(data)
    need = repository.objects.ledger_need()
    ref = repository.put(domain_object_name(name, digest), data, need).ref
    return DomainRef(
        name=name, object=ref.name, sha256=str(ref.sha256), size=ref.size, version=ref.version
    )
