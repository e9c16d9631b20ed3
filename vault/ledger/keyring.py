"""Who may sign, as the root and writer statements of a chain have it so far. No I/O.

*Listed* is what decides which statements link; roles decide which of those count
(docs/format.md 2.2, 2.3). A key is unlisted from the statement on that revokes or replaces it, and
nothing lists it again: neither a signature added to an old statement nor a second enrolment.
"""

import bisect
import dataclasses
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Final

from vault.crypto.keys import VerifyKey
from vault.errors import SignatureError
from vault.ledger.authority import Authority
from vault.ledger.kinds import KINDS, parse_writer_key
from vault.ledger.records import WriterInfo
from vault.ledger.statements import Role, RootBody, SnapshotBody, WriterBody
from vault.model import Body

_NO_STATEMENTS: Final = {Role.LOG, Role.APPROVER}  # what these sign is not in the ledger


class Keyring:
    """The roots of a chain, the writers that were enrolled, and the keys that are listed now."""

    def __init__(self) -> None:
        self.writers: dict[str, WriterInfo] = {}  # by key id; revoked ones too
        self._roots: list[tuple[int, Authority]] = []  # with the seq that brought it
        self._listed: dict[str, VerifyKey] = {}

    # --- what is in force ---

    @property
    def authority(self) -> Authority:
        """What the root in force says of keys.

        Raises:
            SignatureError: There is no root yet.
        """
        if not self._roots:
            raise SignatureError("the ledger has no statement yet")
        return self._roots[-1][1]

    @property
    def listed(self) -> Mapping[str, VerifyKey]:
        """Keys whose statements link now, by id."""
        return self._listed

    def authority_at(self, seq: int) -> Authority:
        """What the root that judges statement ``seq`` says: the one in force just before it.

        Raises:
            SignatureError: There is no root yet.
        """
        if not self._roots:
            return self.authority  # which raises
        at = bisect.bisect_left(self._roots, seq, key=lambda each: each[0])
        return self._roots[max(at - 1, 0)][1]

    def name_of(self, public: str) -> str:
        """The name by which a root last listed a key, in base64; empty if none did."""
        listed = (key for _, each in reversed(self._roots) for key in each.body.keys)
        return next((key.name for key in listed if key.public == public), "")

    def governs(self, signers: Collection[str]) -> bool:
        """Whether these keys meet the threshold of the root in force."""
        return not self.authority.shortfall(Role.ROOT, signers)

    # --- effects of valid statements ---

    def take_root(self, seq: int, body: RootBody) -> None:
        """A root comes into force."""
        self._roots.append((seq, Authority.of(body)))
        self._relist()

    def take_writer(self, seq: int, body: WriterBody) -> None:
        """A host's key is enrolled, limited or revoked."""
        key = parse_writer_key(body)
        match body.action:
            case "add":
                self._enrol(seq, key, body)
            case "limit":
                limited = dataclasses.replace(self.writers[key.id], datasets=body.datasets)
                self.writers[key.id] = limited
            case _:
                self._unlist(seq, key.id)
        self._relist()

    def _enrol(self, seq: int, key: VerifyKey, body: WriterBody) -> None:
        if body.replaces:
            self._unlist(seq, body.replaces)
        self.writers[key.id] = WriterInfo(
            name=body.name,
            key=key,
            recipient=body.recipient,
            datasets=body.datasets,
            domain=body.domain,
            added=seq,
            replaces=body.replaces,
        )

    def _unlist(self, seq: int, key_id: str) -> None:
        writer = self.writers[key_id]
        revoked = seq if writer.revoked is None else writer.revoked
        self.writers[key_id] = dataclasses.replace(writer, revoked=revoked)

    def note_distrust(self, starts: Mapping[str, int]) -> None:
        """From where each distrusted writer is; the others are trusted."""
        for key_id, writer in self.writers.items():
            if writer.distrust_from != starts.get(key_id):
                changed = dataclasses.replace(writer, distrust_from=starts.get(key_id))
                self.writers[key_id] = changed

    def _relist(self) -> None:
        authority = self.authority
        active = {key_id: w.key for key_id, w in self.writers.items() if w.revoked is None}
        self._listed = active | {
            key_id: key
            for key_id, key in authority.keys.items()
            if authority.roles[key_id] - _NO_STATEMENTS
        }

    # --- what a well-formed statement would be void for ---

    def objection(
        self, kind: str, body: Body, by: Collection[str], endorsers: Collection[str] = ()
    ) -> tuple[str, str]:
        """Why a statement by these keys would be void, and the key that it counts for.

        Args:
            kind: Its type, of `KINDS`.
            body: Of that type.
            by: Ids of the keys that sign it.
            endorsers: Ids of the keys that signed a warrant for it; thresholds count them too.

        Returns:
            A reason, empty where there is none; a key id, empty where none of them has the role.
        """
        roles = KINDS[kind].roles
        if Role.WRITER in roles:
            return self._writers_objection(body, by)
        signers = (*by, *endorsers)
        if not roles:
            return "", ""
        short = {role: self.authority.shortfall(role, signers) for role in roles}
        role = next((role for role in roles if not short[role]), roles[0])
        reason = short[role]
        if not reason and isinstance(body, RootBody):
            reason = self._root_objection(body, signers)
        if not reason and isinstance(body, WriterBody):
            reason = self._enrolment_objection(body)
        return reason, self.authority.first(role, by)

    def _root_objection(self, body: RootBody, signers: Collection[str]) -> str:
        version = self.authority.body.version + 1
        if body.version != version:
            return f"root version must be {version}, found {body.version}"
        reason = Authority.of(body).shortfall(Role.ROOT, signers)
        return f"by the new root: {reason}" if reason else ""

    def _enrolment_objection(self, body: WriterBody) -> str:
        key_id = parse_writer_key(body).id
        known = self.writers.get(key_id)
        if body.action == "add":
            if known is not None or key_id in self.authority.keys:
                return "the key is listed already or was revoked"
            return self._rotation_objection(body) if body.replaces else ""
        if known is None:
            return f"{body.action}s a key that is no writer's"
        if body.action == "limit":
            return "" if known.revoked is None else "limits a key that is revoked"
        if known.revoked is not None and not _distrusts_more(known, body):
            return "the key is revoked already"
        return ""

    def _rotation_objection(self, body: WriterBody) -> str:
        """A key is replaced by another of the same host, at once and in one statement."""
        old = self.writers.get(body.replaces)
        if old is None or old.revoked is not None:
            return "it replaces a key that is no live writer's"
        domains = [each.name if each else "" for each in (old.domain, body.domain)]
        if old.name != body.name or old.recipient != body.recipient or domains[0] != domains[1]:
            return "it replaces the key of another name, domain or recipient"
        return ""

    def _writers_objection(self, body: Body, signers: Collection[str]) -> tuple[str, str]:
        if len(signers) != 1:
            return "a host signs alone", ""
        (key_id,) = signers
        writer = self.writers.get(key_id)
        if writer is None or writer.revoked is not None:
            return "the key has not the role writer", ""
        return _snapshot_objection(writer, body), key_id


def _snapshot_objection(writer: WriterInfo, body: Body) -> str:
    if not isinstance(body, SnapshotBody):
        return ""
    if writer.domain is None:
        return f"writer {writer.name} has no domain object"
    if not any(fnmatchcase(body.dataset, pattern) for pattern in writer.datasets):
        return f"dataset {body.dataset} is outside the patterns of writer {writer.name}"
    return ""


def _distrusts_more(known: WriterInfo, body: WriterBody) -> bool:
    """A theft may be found out after the key was retired."""
    if body.distrust_from is None:
        return False
    return known.distrust_from is None or body.distrust_from < known.distrust_from
