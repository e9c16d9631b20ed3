"""A second holder of a repository, with a recovery key of his own, as a new root lists him."""

from pathlib import Path

from vault.clock import utc_now
from vault.crypto.key_files import (
    Argon2Cost,
    RecoveryKey,
    load_recovery,
    load_root,
    save_recovery,
)
from vault.crypto.keys import RecipientKey, SigningKey
from vault.encoding import b64encode
from vault.ledger.statements import PublicKey, Recipient, RootBody
from vault.model import Digest, replace_body
from vault.repository.append_statements import Draft
from vault.repository.repository import Repository
from vault.storage.choose_store import open_store

SECRET = b"correct horse"
CHEAP = Argon2Cost(memory=64, iterations=1, lanes=1)


def add_holder(repo: Path, keys: Path, place: Path, name: str = "bob") -> RecoveryKey:
    """Root N+1 lists him as recipient and restorer; his recovery.key is written to ``place``."""
    key = RecoveryKey(
        repository=load_recovery(keys / "recovery.key", SECRET).repository,
        recipient=RecipientKey.generate(),
        restorer=SigningKey.generate(),
    )
    place.mkdir(mode=0o700)
    save_recovery(place / "recovery.key", key, SECRET, cost=CHEAP)
    root_key = load_root(keys / "root.key", SECRET)
    store = open_store(str(repo))
    repository = Repository.open(store, Digest.parse(root_key.repository.root), clock=utc_now)
    root = repository.ledger.root
    listed = PublicKey(name=name, public=b64encode(key.restorer.public.der), roles=("restorer",))
    more = Recipient(name=name, public=b64encode(key.recipient.public_raw))
    body: RootBody = replace_body(
        root,
        version=root.version + 1,
        keys=(*root.keys, listed),
        recipients=(*root.recipients, more),
    )
    draft = Draft(type="root", subject=[("repository", Digest.of(repository.id))], body=body)
    repository.append(lambda _: draft, [root_key.root], tool="vault test")
    return key
