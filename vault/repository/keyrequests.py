"""Requests of hosts for a key: how they are made, and which can be granted.

See docs/design.md "Enrolment and revocation". What is granted is signed in `enrolment`.
"""

import dataclasses
import itertools
from collections.abc import Collection, Sequence

from vault.crypto.key_files import DomainSecrets, KeyRequest, RepositoryAddress, WriterKey
from vault.crypto.keys import RecipientKey, SigningKey, VerifyKey, recipient_id
from vault.crypto.sealed import Header
from vault.crypto.tokens import TokenKey
from vault.encoding import b64encode
from vault.errors import ConfigError, IntegrityError, SignatureError
from vault.format.domain_secrets import seal_domain
from vault.ledger.records import WriterInfo
from vault.model import validate_label, validate_pattern, validate_wanted_pattern
from vault.repository.hosts import covers, domains, hosts_of, live_writers
from vault.repository.repository import Repository

# --- by the host ---


def request_key(
    repository: Repository,
    address: RepositoryAddress,
    *,
    name: str,
    datasets: Sequence[str],
    domain: str | None,
    begun: WriterKey | None = None,
    signing: TokenKey | None = None,
) -> tuple[WriterKey, KeyRequest]:
    """Keys for this host, and the request to have them enrolled.

    Args:
        repository: Read from its pinned root; says who the recipients are.
        address: Goes into the key file.
        name: Of the host.
        datasets: Patterns it wants to write.
        domain: An existing domain to share; None for one of its own, named as the host, or
            NAME-2 and so on where an earlier host left one of that name.
        begun: The key of a request that was killed before it was written; it is used again.
        signing: The host's key, where it lies in a token; None for a new one.

    Raises:
        ConfigError: A live host has the name, a pattern is not allowed, or no such domain exists;
            or the key that was begun is for something else, or enrolled.
    """
    if begun is not None and not (
        _is_begun(begun, repository, address, name, domain) and _is_by(begun, signing)
    ):
        raise ConfigError(
            "this host has a key already",
            hint="'vault key request --rotate' replaces it; if it is lost, move writer.key away",
        )
    validate_label(name, "host")
    for pattern in datasets:
        validate_wanted_pattern(pattern)
    if name in {writer.name for writer in live_writers(repository.ledger).values()}:
        raise ConfigError(f"a host named {name} is enrolled already", hint="choose another --name")
    known = domains(repository.ledger)
    if domain is not None and domain not in known:
        raise ConfigError(
            f"there is no domain {domain} to share", expected=" or ".join(sorted(known))
        )
    secrets = None
    if domain is None:
        secrets = begun.domain if begun else DomainSecrets.new(_free_domain(name, known))
    key = begun or WriterKey(
        repository=address,
        name=name,
        signing=signing or SigningKey.generate(),
        recipient=RecipientKey.generate(),
        domain=secrets,
    )
    sealed = None
    if secrets is not None:
        recipients = [*repository.ledger.recipients, key.recipient.public_raw]
        sealed = seal_domain(secrets, repository.id, recipients)
        domain = secrets.name
    assert domain is not None
    request = KeyRequest.signed(key, datasets=tuple(datasets), domain=domain, domain_object=sealed)
    return key, request


def _free_domain(name: str, taken: Collection[str]) -> str:
    """The host's name, or that with a number, where an earlier host left a domain of that name."""
    names = (name if n == 1 else f"{name[: 62 - len(str(n))]}-{n}" for n in itertools.count(1))
    return next(each for each in names if each not in taken)


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


def request_rotation(
    repository: Repository,
    old: WriterKey,
    *,
    datasets: Sequence[str] = (),
    begun: WriterKey | None = None,
    signing: TokenKey | None = None,
) -> tuple[WriterKey, KeyRequest]:
    """A new signing key for this host, and the request to have it replace the old one.

    Only the signing key is new: the domain's secrets are sealed to the HPKE key that stays.

    Args:
        repository: Read up to its head.
        old: The host's key; it signs the request too.
        datasets: Patterns; those that it has now if none is given.
        begun: The new key of a request that was killed before it was written, or is not granted.
        signing: The new key, where it lies in a token; None for a new one.

    Raises:
        ConfigError: The old key is not enrolled or was revoked, a pattern is not allowed, or the
            key that was begun is not such a one.
    """
    writer = live_writers(repository.ledger).get(old.signing.public.id)
    if writer is None or writer.domain is None:
        raise ConfigError(
            f"the key of {old.name} is not live, so none can replace it",
            hint="move writer.key away and ask for a key with 'vault key request --name'",
        )
    for pattern in datasets:
        validate_wanted_pattern(pattern)
    if begun is not None and not (_is_next(begun, old) and _is_by(begun, signing)):
        raise ConfigError(
            "another key waits already to replace the key of this host",
            found=f"key {begun.signing.public.id}",
            hint="move writer.next.key away if its request is not wanted any more",
        )
    key = begun or dataclasses.replace(old, signing=signing or SigningKey.generate())
    request = KeyRequest.signed(
        key,
        datasets=tuple(datasets) or writer.datasets,
        domain=writer.domain.name,
        domain_object=None,
        old=old.signing,
    )
    return key, request


def _is_by(key: WriterKey, signing: TokenKey | None) -> bool:
    """Whether a key that was begun is the one in that token, or one that was made for the file."""
    if signing is None:
        return not isinstance(key.signing, TokenKey)
    return key.signing.public == signing.public


def _is_next(key: WriterKey, old: WriterKey) -> bool:
    """Whether a key was made to replace that one."""
    return (key.repository.root, key.name, key.recipient) == (
        old.repository.root,
        old.name,
        old.recipient,
    )


# --- by the operator ---


def granted(request: KeyRequest, datasets: Sequence[str]) -> tuple[str, ...]:
    """The patterns that a host gets: those it asked for, or these, which must be within them.

    Raises:
        ConfigError: One is not allowed, or reaches beyond what was asked for.
    """
    for pattern in datasets or request.datasets:
        validate_pattern(pattern)
    beyond = [
        each for each in datasets if not any(covers(asked, each) for asked in request.datasets)
    ]
    if beyond:
        raise ConfigError(
            f"{request.name} did not ask to write {' '.join(beyond)}",
            expected=f"patterns within {' '.join(request.datasets)}",
            hint=f"once it is enrolled, 'vault key limit {request.name}' gives it others",
        )
    return tuple(datasets) or request.datasets


def check_request(repository: Repository, request: KeyRequest) -> WriterInfo | None:
    """Pass if a request can be granted in this repository; the key that it replaces, if any.

    Raises:
        ConfigError: It is for another repository, its key was enrolled before, or what it is to
            replace is no live key of that host.
        SignatureError: The key that is to be replaced did not sign it.
    """
    ledger = repository.ledger
    if request.repository.id != ledger.repository_id:
        raise ConfigError(
            "the request is for another repository",
            expected=ledger.repository_id,
            found=request.repository.id,
        )
    if VerifyKey.from_der(request.public).id in ledger.writers:
        raise ConfigError(f"{request.name} is enrolled already, or was and is revoked")
    if not request.replaces:
        return None
    old = live_writers(ledger).get(request.replaces)
    if old is None:
        raise ConfigError(
            f"{request.name} asks to replace a key that is no live one", found=request.replaces
        )
    if not request.is_signed_by(old.key):
        raise SignatureError(
            f"the key that {request.name} asks to replace did not sign the request",
            expected=request.replaces,
        )
    kept = (old.name, old.recipient, old.domain.name if old.domain is not None else "")
    asked = (request.name, b64encode(request.recipient), request.domain)
    if kept != asked:
        raise ConfigError(
            "a new key is for the same host, with its HPKE key and domain",
            expected=f"{kept[0]}, domain {kept[2]}",
            found=f"{asked[0]}, domain {asked[2]}",
        )
    return old


def require_domain(repository: Repository, request: KeyRequest, share: str | None) -> None:
    """Pass if a host may have the domain that it asks for.

    Raises:
        ConfigError: A new domain has a name that is taken; or an existing one is not there, or
            sharing it was not agreed to.
        IntegrityError: A new domain is not sealed to every recipient.
    """
    if request.replaces:
        return  # it keeps the one it has
    known = domains(repository.ledger)
    if request.domain_object is None:
        if request.domain not in known:
            raise ConfigError(f"there is no domain {request.domain} to share")
        if share != request.domain:
            hosts = ", ".join(hosts_of(repository.ledger, request.domain))
            raise ConfigError(
                f"{request.name} asks to share domain {request.domain} with {hosts}",
                hint=f"hosts of a domain must trust each other;"
                f" --share-domain {request.domain} agrees",
            )
        return
    if request.domain in known:
        raise ConfigError(
            f"there is a domain {request.domain} already",
            hint="the host must make its request again, or ask to share it with --domain",
        )
    sealed_to = {name for name, _ in Header.parse(request.domain_object).sealed}
    missing = {recipient_id(key) for key in repository.ledger.recipients} - sealed_to
    if missing:
        raise IntegrityError(
            "the request's domain is not sealed to every recipient: its data could not be restored",
            hint="have the host make the request again",
        )
