"""Key files: the secrets of a host, of recovery and of the root (docs/format.md 9).

A writer's file has no passphrase (cron runs it) and can read no snapshot. The others are sealed
under Argon2id. None is ever overwritten.
"""

import contextlib
import dataclasses
import functools
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeAlias, TypeVar

from vault.crypto.keys import (
    RECIPIENT_PUBLIC_SIZE,
    RecipientKey,
    Signer,
    SigningKey,
    VerifyKey,
    aes_gcm_open,
    aes_gcm_seal,
    argon2id,
    random_bytes,
)
from vault.crypto.token_uri import SCHEME, TokenUri
from vault.crypto.tokens import AskPin, TokenKey, open_token_key
from vault.encoding import b64decode_strict, b64encode, dumps, loads_strict
from vault.errors import (
    ConfigError,
    DigestMismatchError,
    FormatError,
    LocalError,
    SignatureError,
    WrongKeyError,
    naming,
)
from vault.machine import durable
from vault.model import NAME_PATTERN, Digest, Id

MAX_FILE: Final = 64 << 10  # bytes
_MAX_MEMORY = 1 << 20  # KiB
_MAX_ITERATIONS = 16
_MAX_LANES = 16
_SALT_SIZE, _NONCE_SIZE, _KEY_SIZE = 16, 12, 32  # bytes
_VERSION = 1
_MAX_PATTERNS = 64

_Json: TypeAlias = dict[str, Any]

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Argon2Cost:
    """The cost of one guess of the passphrase."""

    memory: int = 65_536  # KiB
    iterations: int = 3
    lanes: int = 4


DEFAULT_COST: Final = Argon2Cost()


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
    _create(path, dumps(_writer_members(key)))


def save_recovery(
    path: Path, key: RecoveryKey, passphrase: bytes, *, cost: Argon2Cost = DEFAULT_COST
) -> None:
    """Create the file, sealed under the passphrase; else as `save_writer`."""
    assert isinstance(key.restorer, SigningKey)
    secrets = {
        "recipient": b64encode(key.recipient.raw()),
        "restorer": b64encode(key.restorer.pkcs8()),
    }
    _create(path, _seal("recovery", key.repository, secrets, passphrase, cost))


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
    _create(path, _seal("root", key.repository, secrets, passphrase, cost))


def save_role(
    path: Path, key: RoleKey, passphrase: bytes, *, cost: Argon2Cost = DEFAULT_COST
) -> None:
    """Create the file, sealed under the passphrase; else as `save_writer`."""
    secrets = {key.role: b64encode(key.signing.pkcs8())}
    clear: _Json = {"role": key.role, "public": b64encode(key.signing.public.der)}
    _create(path, _seal("role", key.repository, secrets, passphrase, cost, clear=clear))


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
        members = _read(path)
        kind = _text(members, "kind")
        if kind not in ("root", "recovery", "role"):
            raise WrongKeyError(f"{path} has no passphrase", found=f"kind {kind[:40]}")
        secrets = _open(members, old, path)
    clear: _Json = {name: members[name] for name in ("role", "public") if name in members}
    fresh = path.with_name(f"{path.name}.new")
    _remove_unfinished(fresh, members)
    _create(fresh, _seal(kind, _address(members), secrets, new, cost, clear=clear))
    if _open(_read(fresh), new, fresh) != secrets:
        raise LocalError(f"{fresh} does not hold what was written")
    take_over(fresh, path)


def _remove_unfinished(fresh: Path, members: _Json) -> None:
    """What an interrupted change of the same file left; anything else is left alone."""
    if not fresh.exists():
        return
    try:
        left = _read(fresh)
    except FormatError:
        left = {}
    same = ("kind", "repository", "public")
    if [left.get(name) for name in same] != [members.get(name) for name in same]:
        raise ConfigError(f"{fresh} is in the way", hint="move it away")
    with _local_errors(fresh):
        fresh.unlink()


def save_request(path: Path, request: KeyRequest) -> None:
    """Create the file; as `save_writer`."""
    members = _request_members(request)
    members["signature"] = b64encode(request.signature)
    _create(path, dumps(members))


def take_over(fresh: Path, path: Path) -> None:
    """Put a host's new key file in place of the one that it replaces; durable on return.

    Raises:
        LocalError: It can't be done; both are as they were.
    """
    with _local_errors(path):
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
    members = _read(path)
    return _text(members, "kind"), _address(members)


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
    members = _of_kind(_read(path, private=True), "writer", path)
    secret = _member(members, "secret", dict)
    domain = secret.get("domain")
    return WriterKey(
        repository=_address(members),
        name=_label(secret, "name"),
        signing=signing or _signing_or_token(secret, pin),
        recipient=RecipientKey.from_raw(_binary(secret, "recipient")),
        domain=None if domain is None else _domain(_member(secret, "domain", dict)),
    )


@_naming_the_file
def load_recovery(path: Path, passphrase: bytes) -> RecoveryKey:
    """The inverse of `save_recovery`.

    Raises:
        WrongKeyError: Wrong passphrase, no such file, or one of another kind.
        FormatError: Not a key file, or a cost over the caps.
        LocalError: It can't be read, or memory is short.
    """
    members = _of_kind(_read(path), "recovery", path)
    secrets = _open(members, passphrase, path)
    return RecoveryKey(
        repository=_address(members),
        recipient=RecipientKey.from_raw(_binary(secrets, "recipient")),
        restorer=_signing(secrets, "restorer"),
    )


@_naming_the_file
def load_root(path: Path, passphrase: bytes) -> RootKey:
    """The inverse of `save_root`; raises as `load_recovery`."""
    members = _of_kind(_read(path), "root", path)
    secrets = _open(members, passphrase, path)
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
    members = _of_kind(_read(path), "role", path)
    role = _text(members, "role")
    key = _signing(_open(members, passphrase, path), role)
    if b64encode(key.public.der) != _text(members, "public"):
        raise FormatError("key file names another public key than the one that it holds")
    return RoleKey(repository=_address(members), role=role, signing=key)


@_naming_the_file
def peek_role(path: Path) -> tuple[str, VerifyKey]:
    """Role and public key of a file of one role, without its secret; raises as `peek`."""
    members = _of_kind(_read(path), "role", path)
    return _text(members, "role"), VerifyKey.from_der(_binary(members, "public"))


@_naming_the_file
def load_request(path: Path) -> KeyRequest:
    """The inverse of `save_request`; checks that the requester holds the signing key.

    Raises:
        SignatureError: The key that the request names did not sign it.
        WrongKeyError: No such file, or one of another kind.
        FormatError: Not a request.
        LocalError: It can't be read.
    """
    members = _of_kind(_read(path), "request", path)
    domain_object = members.get("domain_object")
    request = KeyRequest(
        repository=_address(members),
        name=_label(members, "name"),
        public=_binary(members, "public"),
        recipient=_binary(members, "recipient", RECIPIENT_PUBLIC_SIZE),
        datasets=_patterns(members),
        domain=_label(members, "domain"),
        domain_object=None if domain_object is None else _binary(members, "domain_object"),
        replaces=_key_id(members, "replaces"),
        old_signature=_binary(members, "old_signature"),
        signature=_binary(members, "signature"),
    )
    signed = dumps({name: value for name, value in members.items() if name != "signature"})
    if not VerifyKey.from_der(request.public).verify(request.signature, signed):
        raise SignatureError("key request is not signed by the key it names", found=request.name)
    return request


# --- members ---


def _head(kind: str, repository: RepositoryAddress) -> _Json:
    return {"vault-key": _VERSION, "kind": kind, "repository": dataclasses.asdict(repository)}


def _writer_members(key: WriterKey) -> _Json:
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


def _request_members(request: KeyRequest, *, old_signed: bool = True) -> _Json:
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


def _member(members: _Json, name: str, kind: type[Any]) -> Any:
    value = members.get(name)
    if type(value) is not kind:
        raise FormatError(
            f"key file member {name!r} is missing or of another type",
            expected=kind.__name__,
            found=type(value).__name__,
        )
    return value


def _text(members: _Json, name: str) -> str:
    return str(_member(members, name, str))


def _label(members: _Json, name: str) -> str:
    text = _text(members, name)
    if not NAME_PATTERN.fullmatch(text):
        raise FormatError(
            f"key file member {name!r} is no name", expected=NAME_PATTERN.pattern, found=text[:80]
        )
    return text


def _key_id(members: _Json, name: str) -> str:
    """64 hex digits, or an empty text for none."""
    text = _text(members, name)
    return str(Id.parse(text)) if text else ""


def _binary(members: _Json, name: str, size: int | None = None) -> bytes:
    data = b64decode_strict(_text(members, name))
    if size is not None and len(data) != size:
        raise FormatError(
            f"key file member {name!r} has another size", expected=size, found=len(data)
        )
    return data


def _signing(members: _Json, name: str) -> SigningKey:
    return SigningKey.from_pkcs8(_binary(members, name))


def _signing_text(key: Signer) -> str:
    """The secret itself, or where it stays."""
    if isinstance(key, TokenKey):
        return key.uri.text
    assert isinstance(key, SigningKey)
    return b64encode(key.pkcs8())


def _signing_or_token(members: _Json, pin: AskPin) -> SigningKey | TokenKey:
    text = _text(members, "signing")
    if not text.startswith(SCHEME):
        return _signing(members, "signing")
    return open_token_key(TokenUri.parse(text), pin)


def _domain(members: _Json) -> DomainSecrets:
    return DomainSecrets(
        name=_label(members, "name"),
        id_key=_binary(members, "id_key", _KEY_SIZE),
        index_key=_binary(members, "index_key", _KEY_SIZE),
    )


def _patterns(members: _Json) -> tuple[str, ...]:
    patterns = _member(members, "datasets", list)
    if not 0 < len(patterns) <= _MAX_PATTERNS or not all(type(each) is str for each in patterns):
        raise FormatError("key request has no usable dataset patterns", found=str(patterns)[:80])
    return tuple(patterns)


def _address(members: _Json) -> RepositoryAddress:
    fields = _member(members, "repository", dict)
    address = RepositoryAddress(
        id=_text(fields, "id"),
        url=_text(fields, "url"),
        endpoint=_text(fields, "endpoint"),
        root=str(Digest.parse(_text(fields, "root"))),
    )
    if not re.fullmatch(r"[0-9a-f]{32}", address.id):
        raise FormatError("repository id must be 32 lower-case hex digits", found=address.id[:80])
    return address


def _of_kind(members: _Json, kind: str, path: Path) -> _Json:
    found = _text(members, "kind")
    if found != kind:
        raise WrongKeyError(
            f"{path} is a key file of another kind", expected=kind, found=repr(found[:40])
        )
    return members


# --- seal ---


def _seal(
    kind: str,
    repository: RepositoryAddress,
    secrets: _Json,
    passphrase: bytes,
    cost: Argon2Cost,
    *,
    clear: _Json | None = None,
) -> bytes:
    if not passphrase:
        raise ConfigError("the passphrase is empty")
    nonce = random_bytes(_NONCE_SIZE)
    members = {
        **_head(kind, repository),
        **(clear or {}),
        "kdf": {
            "name": "argon2id",
            **dataclasses.asdict(cost),
            "salt": b64encode(random_bytes(_SALT_SIZE)),
        },
        "nonce": b64encode(nonce),
    }
    sealed = aes_gcm_seal(_derive(members, passphrase), nonce, dumps(secrets), dumps(members))
    return dumps({**members, "sealed": b64encode(sealed)})


def _open(members: _Json, passphrase: bytes, path: Path) -> _Json:
    nonce = _binary(members, "nonce", _NONCE_SIZE)
    sealed = _binary(members, "sealed")
    rest = dumps({name: value for name, value in members.items() if name != "sealed"})
    try:
        plaintext = aes_gcm_open(_derive(members, passphrase), nonce, sealed, rest)
    except DigestMismatchError as error:
        raise WrongKeyError(
            f"{path} does not open: wrong passphrase, or the file was altered",
            hint="check the passphrase; else use another copy of the key file",
        ) from error
    return _object(plaintext)


def _derive(members: _Json, passphrase: bytes) -> bytes:
    kdf = _member(members, "kdf", dict)
    if _text(kdf, "name") != "argon2id":
        raise FormatError("key file has an unknown kdf", expected="argon2id", found=kdf["name"])
    return argon2id(
        passphrase,
        salt=_binary(kdf, "salt", _SALT_SIZE),
        memory_kib=_capped(kdf, "memory", _MAX_MEMORY),
        iterations=_capped(kdf, "iterations", _MAX_ITERATIONS),
        lanes=_capped(kdf, "lanes", _MAX_LANES),
    )


def _capped(members: _Json, name: str, cap: int) -> int:
    value = int(_member(members, name, int))
    if not 1 <= value <= cap:
        raise FormatError(f"key file's kdf {name}", expected=f"1 to {cap}", found=value)
    return value


# --- files ---


def _object(data: bytes) -> _Json:
    members = loads_strict(data)
    if not isinstance(members, dict):
        raise FormatError("key file is not a JSON object", found=type(members).__name__)
    return members


def _read(path: Path, *, private: bool = False) -> _Json:
    with _local_errors(path):
        try:
            # A FIFO in the file's place must not hang a cron job.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise WrongKeyError(
                f"there is no key file {path}", hint="name the directory of your key files"
            ) from error
        with open(descriptor, "rb") as file:  # noqa: PTH123  # a descriptor has no path
            _check_file(os.fstat(descriptor), path, private=private)
            data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise FormatError("too large for a key file", expected=f"at most {MAX_FILE} bytes")
    members = _object(data)
    if _member(members, "vault-key", int) != _VERSION:
        raise FormatError(
            "unknown key file version",
            expected=_VERSION,
            found=members["vault-key"],
        )
    return members


def _check_file(status: os.stat_result, path: Path, *, private: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path} is not a regular file")
    if private and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"other users may read or write the key file {path}",
            expected="mode 0600",
            found=f"mode {stat.S_IMODE(status.st_mode):04o}",
            hint=f"chmod 600 {path}",
        )


def _create(path: Path, data: bytes) -> None:
    if len(data) > MAX_FILE:
        raise ConfigError(f"{path} would be too large", expected=MAX_FILE, found=len(data))
    with _local_errors(path):
        try:
            durable.create(path, data)
        except FileExistsError as error:
            raise ConfigError(
                f"{path} exists and is never overwritten", hint="move it away or name another"
            ) from error


@contextlib.contextmanager
def _local_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LocalError(f"key file {path}: {error.strerror}") from error
