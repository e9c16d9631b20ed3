"""A second holder of a repository, with a recovery key of his own, as a new root lists him."""

from pathlib import Path

from vault.clock import utc_now
from vault.crypto.key_file_bytes import Argon2Cost
from vault.crypto.key_files import RecoveryKey, RootKey, load_root, save_recovery
from vault.crypto.keys import RecipientKey, SigningKey
from vault.encoding import b64encode
from vault.ledger.chain import Ledger
from vault.ledger.statements import PublicKey, Recipient, RootBody
from vault.model import Digest, replace_body
from vault.repository.append_statements import Draft
from vault.repository.repository import Repository
from vault.storage.choose_store import open_store

SECRET = b"correct horse"
CHEAP = Argon2Cost(memory=64, iterations=1, lanes=1)


def append_root(repository: Repository, root_key: RootKey, **changes: object) -> None:
    """Root N+1: the one in force with some fields otherwise."""

    def draft(ledger: Ledger) -> Draft:
        body: RootBody = replace_body(ledger.root, version=ledger.root.version + 1, **changes)
        return Draft(type="root", subject=[("repository", Digest.of(repository.id))], body=body)

    repository.append(draft, [root_key.root], tool="vault test")


def list_holder(repository: Repository, root_key: RootKey, name: str = "bob") -> RecoveryKey:
    """Root N+1 lists one more recipient and restorer; gives that holder's key."""
    key = RecoveryKey(
        repository=root_key.repository,
        recipient=RecipientKey.generate(),
        restorer=SigningKey.generate(),
    )
    root = repository.ledger.root
    more = Recipient(name=name, public=b64encode(key.recipient.public_raw))
    listed = PublicKey(name=name, public=b64encode(key.restorer.public.der), roles=("restorer",))
    append_root(
        repository,
        root_key,
        recipients=(*root.recipients, more),
        keys=(*root.keys, listed),
    )
    return key


def add_holder(repository: Repository, root_key: RootKey, place: Path) -> RecoveryKey:
    """The same, and bob's recovery.key is written into that directory."""
    key = list_holder(repository, root_key)
    place.mkdir(mode=0o700)
    save_recovery(place / "recovery.key", key, SECRET, cost=CHEAP)
    return key


def add_holder_at(repo: Path, keys: Path, place: Path) -> RecoveryKey:
    """The same for a repository in a directory, by the root.key in another."""
    root_key = load_root(keys / "root.key", SECRET)
    repository = Repository.open(
        open_store(str(repo)), Digest.parse(root_key.repository.root), clock=utc_now
    )
    return add_holder(repository, root_key, place)
