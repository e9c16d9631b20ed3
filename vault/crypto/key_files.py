"""Key files: the secrets of a host, of recovery and of the root (docs/format.md 9).

A writer's file has no passphrase (cron runs it) and can read no snapshot. The others are sealed
under Argon2id. None is ever overwritten.
"""

import dataclasses
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, Self, TypeVar

from vault.crypto.key_file_bytes import (
    DEFAULT_COST,
    KEY_FILE_VERSION,
    Argon2Cost,
    Members,
    binary_member,
    create_key_file,
    key_id_member,
    label_member,
    local_errors,
    member_of,
    open_members,
    read_key_file,
    seal_members,
    text_member,
)
from vault.crypto.keys import (
    RECIPIENT_PUBLIC_SIZE,
    RecipientKey,
    Signer,
    SigningKey,
    VerifyKey,
    random_bytes,
)
from vault.crypto.token_uri import SCHEME, TokenUri
from vault.crypto.tokens import AskPin, TokenKey, open_token_key
from vault.encoding import b64encode, dumps
from vault.errors import (
    ConfigError,
    FormatError,
    LocalError,
    SignatureError,
    WrongKeyError,
    naming,
)
from vault.machine import durable
from vault.model import Digest

_KEY_SIZE: Final = 32  # bytes, of a secret of a domain
_MAX_PATTERNS = 64

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryAddress:
    """Where a repository is, and the root that it must have."""

    id: str  # 32 hex digits
    url: str
    endpoint: str  # of S3; empty where not needed
    root: str  # digest of statement 0, hex


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DomainSecrets:
    """The secrets that the hosts of a domain share."""

    name: str
    id_key: bytes = dataclasses.field(repr=False)  # 32 bytes
    index_key: bytes = dataclasses.field(repr=False)  # 32 bytes

    @classmethod
    def new(cls, name: str) -> Self:
        """Fresh secrets."""
        return cls(name=name, id_key=random_bytes(_KEY_SIZE), index_key=random_bytes(_KEY_SIZE))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WriterKey:
    """The key of a host: it can add snapshots and read none."""

    repository: RepositoryAddress
    name: str
    signing: Signer
    recipient: RecipientKey
    domain: DomainSecrets | None  # None until the host was enrolled into its domain


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryKey:
    """The key that opens snapshots, and signs what restores and verifications found."""

    repository: RepositoryAddress
    recipient: RecipientKey
    restorer: Signer


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RootKey:
    """The keys that govern the repository, one for each role."""

    repository: RepositoryAddress
    root: SigningKey
    enroller: SigningKey
    policy: SigningKey
    pruner: SigningKey


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RoleKey:
    """A key of one role, apart from the others that govern the repository."""

    repository: RepositoryAddress
    role: str
    signing: SigningKey


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """A host asks to be enrolled; holds no secret in clear."""

    repository: RepositoryAddress
    name: str
    public: bytes  # DER SubjectPublicKeyInfo
    recipient: bytes  # raw HPKE public key
    datasets: tuple[str, ...]  # patterns
    domain: str
    domain_object: bytes | None  # its sealed secrets, if the domain is new
    replaces: str  # id of the host's key that this one is to replace, hex; empty for a new host
    old_signature: bytes  # by that key, over all other members but the signature; empty without
    signature: bytes  # proof of possession, over all other members of the file

    @classmethod
    def signed(
        cls,
        key: WriterKey,
        *,
        datasets: tuple[str, ...],
        domain: str,
        domain_object: bytes | None,
        old: Signer | None = None,
    ) -> Self:
        """The request of the holder of ``key``, signed with it, and with the ``old`` to replace."""
        request = cls(
            repository=key.repository,
            name=key.name,
            public=key.signing.public.der,
            recipient=key.recipient.public_raw,
            datasets=datasets,
            domain=domain,
            domain_object=domain_object,
            replaces=old.public.id if old is not None else "",
            old_signature=b"",
            signature=b"",
        )
        if old is not None:
            word = old.sign(dumps(_request_members(request, old_signed=False)))
            request = dataclasses.replace(request, old_signature=word)
        signature = key.signing.sign(dumps(_request_members(request)))
        return dataclasses.replace(request, signature=signature)

    def is_signed_by(self, old: VerifyKey) -> bool:
        """Whether the key that is to be replaced agreed to exactly this request."""
        signed = dumps(_request_members(self, old_signed=False))
        return old.id == self.replaces and old.verify(self.old_signature, signed)


# --- save ---


def save_writer(path: Path, key: WriterKey) -> None:
    """Create the file, readable by its owner alone, durable on return.

    Raises:
        ConfigError: The file exists already.
        LocalError: It can't be written.
    """
    create_key_file(path, dumps(_writer_members(key)))


def save_recovery(
    path: Path, key: RecoveryKey, passphrase: bytes, *, cost: Argon2Cost = DEFAULT_COST
) -> None:
    """Create the file, sealed under the passphrase; else as `save_writer`."""
    assert isinstance(key.restorer, SigningKey)
    secrets = {
        "recipient": b64encode(key.recipient.raw()),
        "restorer": b64encode(key.restorer.pkcs8()),
    }
    create_key_file(
        path, seal_members(_head("recovery", key.repository), secrets, passphrase, cost)
    )


def save_root(
    path: Path, key: RootKey, passphrase: bytes, *, cost: Argon2Cost = DEFAULT_COST
) -> None:
    """Create the file, sealed under the passphrase; else as `save_writer`."""
    secrets = {
        "root": b64encode(key.root.pkcs8()),
        "enroller": b64encode(key.enroller.pkcs8()),
        "policy": b64encode(key.policy.pkcs8()),
        "pruner": b64encode(key.pruner.pkcs8()),
    }
    create_key_file(path, seal_members(_head("root", key.repository), secrets, passphrase, cost))


def save_role(
    path: Path, key: RoleKey, passphrase: bytes, *, cost: Argon2Cost = DEFAULT_COST
) -> None:
    """Create the file, sealed under the passphrase; else as `save_writer`."""
    secrets = {key.role: b64encode(key.signing.pkcs8())}
    clear: Members = {"role": key.role, "public": b64encode(key.signing.public.der)}
    head = {**_head("role", key.repository), **clear}
    create_key_file(path, seal_members(head, secrets, passphrase, cost))


def change_passphrase(
    path: Path, old: bytes, new: bytes, *, cost: Argon2Cost = DEFAULT_COST
) -> None:
    """Seal a key file under another passphrase; whenever it is interrupted, one of them opens it.

    The new form is written beside it, opened, and put in its place. Copies elsewhere still open
    with the old passphrase.

    Raises:
        WrongKeyError: The old passphrase does not open it, or it is a file without one.
        ConfigError: Something stands at the name of the new form.
        LocalError: It can't be read or written.
    """
    with naming(path):
        members = read_key_file(path)
        kind = text_member(members, "kind")
        if kind not in ("root", "recovery", "role"):
            raise WrongKeyError(f"{path} has no passphrase", found=f"kind {kind[:40]}")
        secrets = open_members(members, old, path)
    clear: Members = {name: members[name] for name in ("role", "public") if name in members}
    head = {**_head(kind, _address(members)), **clear}
    fresh = path.with_name(f"{path.name}.new")
    _remove_unfinished(fresh, members)
    create_key_file(fresh, seal_members(head, secrets, new, cost))
    if open_members(read_key_file(fresh), new, fresh) != secrets:
        raise LocalError(f"{fresh} does not hold what was written")
    take_over(fresh, path)


def _remove_unfinished(fresh: Path, members: Members) -> None:
    """What an interrupted change of the same file left; anything else is left alone."""
    if not fresh.exists():
        return
    try:
        left = read_key_file(fresh)
    except FormatError:
        left = {}
    same = ("kind", "repository", "public")
    if [left.get(name) for name in same] != [members.get(name) for name in same]:
        raise ConfigError(f"{fresh} is in the way", hint="move it away")
    with local_errors(fresh):
        fresh.unlink()


def save_request(path: Path, request: KeyRequest) -> None:
    """Create the file; as `save_writer`."""
    members = _request_members(request)
    members["signature"] = b64encode(request.signature)
    create_key_file(path, dumps(members))


def take_over(fresh: Path, path: Path) -> None:
    """Put a host's new key file in place of the one that it replaces; durable on return.

    Raises:
        LocalError: It can't be done; both are as they were.
    """
    with local_errors(path):
        fresh.replace(path)
        durable.sync_directory(path.parent)


# --- load ---


def _naming_the_file(
    load: Callable[Concatenate[Path, _P], _T],
) -> Callable[Concatenate[Path, _P], _T]:
    """Put the file's name into format errors: the code that raises them sees bytes only."""

    @functools.wraps(load)
    def wrapper(path: Path, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with naming(path):
            return load(path, *args, **kwargs)

    return wrapper


def _no_pin(uri: TokenUri) -> bytes:
    """Where the caller gave no way to ask."""
    raise WrongKeyError(f"no PIN for {uri}")


@_naming_the_file
def peek(path: Path) -> tuple[str, RepositoryAddress]:
    """Kind and repository of a key file, without its secrets.

    Raises:
        WrongKeyError: No such file.
        FormatError: Not a key file.
        LocalError: It can't be read.
    """
    members = read_key_file(path)
    return text_member(members, "kind"), _address(members)


@_naming_the_file
def load_writer(path: Path, *, pin: AskPin = _no_pin, signing: Signer | None = None) -> WriterKey:
    """The inverse of `save_writer`.

    Args:
        path: The file.
        pin: Gives the PIN, where the file names a key in a token.
        signing: Signs in place of the key that the file holds or names.

    Raises:
        ConfigError: Others than its owner may read or write it.
        WrongKeyError: No such file, one of another kind, or no such token, key or PIN.
        FormatError: Not a key file.
        LocalError: It can't be read.
    """
    members = _of_kind(read_key_file(path, private=True), "writer", path)
    secret = member_of(members, "secret", dict)
    domain = secret.get("domain")
    return WriterKey(
        repository=_address(members),
        name=label_member(secret, "name"),
        signing=signing or _signing_or_token(secret, pin),
        recipient=RecipientKey.from_raw(binary_member(secret, "recipient")),
        domain=None if domain is None else _domain(member_of(secret, "domain", dict)),
    )


@_naming_the_file
def load_recovery(path: Path, passphrase: bytes) -> RecoveryKey:
    """The inverse of `save_recovery`.

    Raises:
        WrongKeyError: Wrong passphrase, no such file, or one of another kind.
        FormatError: Not a key file, or a cost over the caps.
        LocalError: It can't be read, or memory is short.
    """
    members = _of_kind(read_key_file(path), "recovery", path)
    secrets = open_members(members, passphrase, path)
    return RecoveryKey(
        repository=_address(members),
        recipient=RecipientKey.from_raw(binary_member(secrets, "recipient")),
        restorer=_signing(secrets, "restorer"),
    )


@_naming_the_file
def load_root(path: Path, passphrase: bytes) -> RootKey:
    """The inverse of `save_root`; raises as `load_recovery`."""
    members = _of_kind(read_key_file(path), "root", path)
    secrets = open_members(members, passphrase, path)
    return RootKey(
        repository=_address(members),
        root=_signing(secrets, "root"),
        enroller=_signing(secrets, "enroller"),
        policy=_signing(secrets, "policy"),
        pruner=_signing(secrets, "pruner"),
    )


@_naming_the_file
def load_role(path: Path, passphrase: bytes) -> RoleKey:
    """The inverse of `save_role`; raises as `load_recovery`."""
    members = _of_kind(read_key_file(path), "role", path)
    role = text_member(members, "role")
    key = _signing(open_members(members, passphrase, path), role)
    if b64encode(key.public.der) != text_member(members, "public"):
        raise FormatError("key file names another public key than the one that it holds")
    return RoleKey(repository=_address(members), role=role, signing=key)


@_naming_the_file
def peek_role(path: Path) -> tuple[str, VerifyKey]:
    """Role and public key of a file of one role, without its secret; raises as `peek`."""
    members = _of_kind(read_key_file(path), "role", path)
    return text_member(members, "role"), VerifyKey.from_der(binary_member(members, "public"))


@_naming_the_file
def load_request(path: Path) -> KeyRequest:
    """The inverse of `save_request`; checks that the requester holds the signing key.

    Raises:
        SignatureError: The key that the request names did not sign it.
        WrongKeyError: No such file, or one of another kind.
        FormatError: Not a request.
        LocalError: It can't be read.
    """
    members = _of_kind(read_key_file(path), "request", path)
    domain_object = members.get("domain_object")
    request = KeyRequest(
        repository=_address(members),
        name=label_member(members, "name"),
        public=binary_member(members, "public"),
        recipient=binary_member(members, "recipient", RECIPIENT_PUBLIC_SIZE),
        datasets=_patterns(members),
        domain=label_member(members, "domain"),
        domain_object=None if domain_object is None else binary_member(members, "domain_object"),
        replaces=key_id_member(members, "replaces"),
        old_signature=binary_member(members, "old_signature"),
        signature=binary_member(members, "signature"),
    )
    signed = dumps({name: value for name, value in members.items() if name != "signature"})
    if not VerifyKey.from_der(request.public).verify(request.signature, signed):
        raise SignatureError("key request is not signed by the key it names", found=request.name)
    return request


# --- members ---


def _head(kind: str, repository: RepositoryAddress) -> Members:
    return {
        "vault-key": KEY_FILE_VERSION,
        "kind": kind,
        "repository": dataclasses.asdict(repository),
    }


def _writer_members(key: WriterKey) -> Members:
    domain = key.domain and {
        "name": key.domain.name,
        "id_key": b64encode(key.domain.id_key),
        "index_key": b64encode(key.domain.index_key),
    }
    secret = {
        "name": key.name,
        "signing": _signing_text(key.signing),
        "recipient": b64encode(key.recipient.raw()),
        "domain": domain,
    }
    return {**_head("writer", key.repository), "secret": secret}


def _request_members(request: KeyRequest, *, old_signed: bool = True) -> Members:
    domain_object = request.domain_object
    signed = {"old_signature": b64encode(request.old_signature)} if old_signed else {}
    return {
        **signed,
        **_head("request", request.repository),
        "name": request.name,
        "public": b64encode(request.public),
        "recipient": b64encode(request.recipient),
        "datasets": list(request.datasets),
        "domain": request.domain,
        "domain_object": None if domain_object is None else b64encode(domain_object),
        "replaces": request.replaces,
    }


def _signing(members: Members, name: str) -> SigningKey:
    return SigningKey.from_pkcs8(binary_member(members, name))


def _signing_text(key: Signer) -> str:
    """The secret itself, or where it stays."""
    if isinstance(key, TokenKey):
        return key.uri.text
    assert isinstance(key, SigningKey)
    return b64encode(key.pkcs8())


def _signing_or_token(members: Members, pin: AskPin) -> SigningKey | TokenKey:
    text = text_member(members, "signing")
    if not text.startswith(SCHEME):
        return _signing(members, "signing")
    return open_token_key(TokenUri.parse(text), pin)


def _domain(members: Members) -> DomainSecrets:
    return DomainSecrets(
        name=label_member(members, "name"),
        id_key=binary_member(members, "id_key", _KEY_SIZE),
        index_key=binary_member(members, "index_key", _KEY_SIZE),
    )


def _patterns(members: Members) -> tuple[str, ...]:
    patterns = member_of(members, "datasets", list)
    if not 0 < len(patterns) <= _MAX_PATTERNS or not all(type(each) is str for each in patterns):
        raise FormatError("key request has no usable dataset patterns", found=str(patterns)[:80])
    return tuple(patterns)


def _address(members: Members) -> RepositoryAddress:
    fields = member_of(members, "repository", dict)
    address = RepositoryAddress(
        id=text_member(fields, "id"),
        url=text_member(fields, "url"),
        endpoint=text_member(fields, "endpoint"),
        root=str(Digest.parse(text_member(fields, "root"))),
    )
    if not re.fullmatch(r"[0-9a-f]{32}", address.id):
        raise FormatError("repository id must be 32 lower-case hex digits", found=address.id[:80])
    return address


def _of_kind(members: Members, kind: str, path: Path) -> Members:
    found = text_member(members, "kind")
    if found != kind:
        raise WrongKeyError(
            f"{path} is a key file of another kind", expected=kind, found=repr(found[:40])
        )
    return members
