"""A log and witnesses for a repository of the lab, and what thieves of their keys do."""

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.support.lab import CHEAP, TOOL, Host, Lab
from vault.clock import utc_now
from vault.crypto.key_files import RoleKey, load_recovery, load_root, load_writer, save_role
from vault.crypto.keys import SigningKey, WitnessKey
from vault.encoding import b64decode_strict, b64encode
from vault.ledger.merkle import tree_root
from vault.ledger.notes import (
    NoteSignature,
    SignedNote,
    cosign,
    log_mark,
    log_origin,
    log_vkey,
    vkey_parts,
    witness_vkey,
)
from vault.ledger.statements import (
    HeartbeatBody,
    PublicKey,
    Role,
    StatementType,
    Witness,
)
from vault.model import Digest, replace_body
from vault.repository.append_statements import Draft
from vault.repository.key_names import role_file
from vault.storage.base import ObjectVersion
from vault.storage.choose_store import open_store
from vault.storage.memory import MemoryStore
from vault.storage.names import checkpoint_name, ledger_name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Council:
    """A log's key and witnesses' keys, which a root lists."""

    lab: Lab
    log: SigningKey
    witnesses: tuple[WitnessKey, ...]
    names: tuple[str, ...] = ("w0", "w1", "w2")  # of their keys

    @property
    def origin(self) -> str:
        """Of the log."""
        return log_origin(self.lab.root_key.repository.id, self.log.public.id)

    @property
    def log_vkey(self) -> str:
        """What a witness is set up with."""
        return log_vkey(self.origin, self.log.public)

    def policy(self, quorum: int = 1) -> str:
        """The same as a reviewer's file."""
        names = [f"w{at}" for at in range(len(self.witnesses))]
        lines = [
            f"witness {name} {witness_vkey(name, key.public_raw)}"
            for name, key in zip(names, self.witnesses, strict=True)
        ]
        return "\n".join([*lines, f"group all-of {quorum} {' '.join(names)}", "quorum all-of", ""])

    def note(self, digests: Sequence[Digest] | None = None, size: int | None = None) -> SignedNote:
        """What the log's key signs: of the ledger as it is, or of any other one."""
        if digests is None:
            digests = [record.digest for record in self.lab.open().ledger.records]
        digests = digests[:size]
        note = SignedNote(origin=self.origin, size=len(digests), root=tree_root(digests))
        mark, data = log_mark(self.log.public), self.log.sign(note.text)
        return note.with_lines([NoteSignature(name=self.origin, mark=mark, data=data)])

    def cosign(self, note: SignedNote, *by: int, now: datetime | None = None) -> SignedNote:
        """With the lines of these witnesses; of the first if none is said. They look at nothing."""
        when = now or self.lab.clock()
        lines = [cosign(note, self.names[at], self.witnesses[at], when) for at in by or (0,)]
        return note.with_lines(lines)

    def store(self, note: SignedNote) -> ObjectVersion:
        """Put a note into the store as it is."""
        data = note.encode()
        name = checkpoint_name(note.size, Digest.of(data))
        return self.lab.store.put(name, data, sha256=Digest.of(data))  # type: ignore[no-any-return]

    def checkpoint(self, *by: int, now: datetime | None = None) -> SignedNote:
        """The ledger as it is now, logged, cosigned and stored."""
        note = self.cosign(self.note(), *by, now=now)
        self.store(note)
        return note


def make_council(lab: Lab, count: int = 1, **root: Any) -> Council:
    """New keys of a log and of so many witnesses, and the root that lists them.

    Args:
        lab: Of the repository.
        count: Of witnesses.
        **root: Further members of the root.
    """
    council = Council(
        lab=lab,
        log=SigningKey.generate(),
        witnesses=tuple(WitnessKey.generate() for _ in range(count)),
    )
    govern(lab, council, **root)
    return council


def file_lab(store: Path, keys: Path) -> Lab:
    """A repository that the program made in a directory, with its key files."""
    writer = load_writer(keys / "writer.key")
    return Lab(
        store=open_store(str(store)),
        clock=utc_now,  # type: ignore[arg-type] # the wall clock: commands go by it
        root=Digest.parse(writer.repository.root),
        host=Host(key=writer, base=keys / "host"),
        root_key=load_root(keys / "root.key", b"correct horse"),
        recovery=load_recovery(keys / "recovery.key", b"correct horse"),
        base=keys / "lab",
    )


def file_council(lab: Lab, state: Path) -> Council:
    """A new log, and the one witness whose directory this is."""
    secret = (state / "key.pem").read_text().split("\n")[1]
    witness = WitnessKey.from_raw(b64decode_strict(secret)[16:])
    name, _ = vkey_parts((state / "vkey").read_text().strip())
    return Council(lab=lab, log=SigningKey.generate(), witnesses=(witness,), names=(name,))


def save_log(council: Council, keys: Path) -> None:
    """The log's key in a file of its own."""
    address = council.lab.root_key.repository
    key = RoleKey(repository=address, role=Role.LOG, signing=council.log)
    save_role(keys / role_file(Role.LOG), key, b"correct horse", cost=CHEAP)


def govern(lab: Lab, council: Council | None, **root: Any) -> None:
    """Append the next root, with this log and these witnesses in place of those before."""
    repository = lab.open()
    body = repository.ledger.root
    keys = [key for key in body.keys if Role.LOG not in key.roles]
    witnesses: list[Witness] = []
    if council is not None:
        public = b64encode(council.log.public.der)
        keys.append(PublicKey(name="log", public=public, roles=(Role.LOG,)))
        witnesses = [
            Witness(name=f"w{at}", vkey=witness_vkey(council.names[at], key.public_raw))
            for at, key in enumerate(council.witnesses)
        ]
    body = replace_body(
        body,
        version=body.version + 1,
        keys=tuple(keys),
        witnesses=tuple(witnesses),
        **{"quorum": 1, **root},
    )
    subject = [("repository", Digest.of(repository.id))]
    draft = Draft(type=StatementType.ROOT, subject=subject, body=body)
    repository.append(lambda _: draft, [lab.root_key.root], tool=TOOL)


def beat(lab: Lab, note: str = "alive", **fields: Any) -> None:
    """One more statement, of the first host."""
    repository = lab.open()
    body = HeartbeatBody(note=note, **fields)
    subject = [("repository", Digest.of(repository.id))]
    draft = Draft(type=StatementType.HEARTBEAT, subject=subject, body=body)
    repository.append(lambda _: draft, [lab.host.key.signing], tool=TOOL)


def cut(lab: Lab, count: int) -> None:
    """Take the last statements away, as a thief of the store does."""
    for record in lab.open().ledger.records[-count:]:
        name = ledger_name(record.seq)
        if isinstance(lab.store, MemoryStore):
            lab.store.remove(name, record.version)
        else:
            (Path(lab.store.url) / name).unlink()
