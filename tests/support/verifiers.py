"""A key of the role verifier, as a new root lists it, and what it says of packs."""

from collections.abc import Sequence

from vault.clock import Clock
from vault.crypto.key_files import RootKey
from vault.crypto.keys import Signer, SigningKey
from vault.encoding import b64encode
from vault.ledger.kinds import name_packs
from vault.ledger.records import Record
from vault.ledger.statements import DistrustedKey, PublicKey, Role
from vault.model import Body, Digest, replace_body
from vault.repository import attestations
from vault.repository.append_statements import Draft
from vault.repository.repository import Repository


def list_verifier(repository: Repository, root_key: RootKey) -> SigningKey:
    """Root N+1 lists one."""
    key = SigningKey.generate()
    root = repository.ledger.root
    listed = PublicKey(name="watcher", public=b64encode(key.public.der), roles=(Role.VERIFIER,))
    body = replace_body(root, version=root.version + 1, keys=(*root.keys, listed))
    _append_root(repository, root_key, body)
    return key


def distrust(repository: Repository, root_key: RootKey, key: Signer) -> None:
    """Root N+1 lists a key no more, and distrusts it from the first statement on."""
    root = repository.ledger.root
    public = b64encode(key.public.der)
    body = replace_body(
        root,
        version=root.version + 1,
        keys=tuple(each for each in root.keys if each.public != public),
        distrust=(*root.distrust, DistrustedKey(public=public, start=0)),
    )
    _append_root(repository, root_key, body)


def _append_root(repository: Repository, root_key: RootKey, body: Body) -> None:
    draft = Draft(type="root", subject=[("repository", Digest.of(repository.id))], body=body)
    repository.append(lambda _: draft, [root_key.root], tool="vault test")


def say_bad(
    repository: Repository,
    key: Signer,
    clock: Clock,
    snapshots: Sequence[tuple[int, int]],
    *,
    bad: Sequence[str] = (),
    cleared: Sequence[str] = (),
) -> Record:
    """That key's word on packs, true or not, with all of them in its evidence."""
    attestation = attestations.attestation_of(
        repository,
        kind="verification",
        verdict="failed" if bad else "partial",
        snapshot=None,
        started=clock(),
        tool="vault test",
        details={"bad_packs": sorted(bad)},
        claims={
            **name_packs(bad, cleared),
            "snapshots": tuple(snapshots),
            "share": 1_000_000,
            "opened": False,
            "read": 1,
            "through": repository.head.seq,
        },
    )
    data = attestations.sign(attestation, key)
    return attestations.record_attestation(repository, data, key, tool="vault test")
