"""Roots as people make them: a proposal in a file that travels, and the root that comes of it."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from vault.crypto.keys import Signer
from vault.encoding import dumps, loads_canonical
from vault.errors import ConfigError, FormatError
from vault.ledger.chain import Ledger
from vault.ledger.kinds import parse_body
from vault.ledger.records import Record
from vault.ledger.statements import RootBody, StatementType
from vault.ledger.warrants import Request
from vault.machine import durable
from vault.model import Digest, body_to_json
from vault.repository.agreements import Intent, carry, wants_approval
from vault.repository.append_statements import Draft
from vault.repository.repository import Repository
from vault.repository.root_changes import known_root, missing_signers, require_root, root_record

MAX_PROPOSAL: Final = 128 << 10  # bytes
_KIND: Final = "vault-root-proposal"
_MEMBERS: Final = {_KIND, "repository", "after", "body"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RootProposal:
    """A root that is to follow another; nothing in it is signed."""

    repository: str  # id, 32 hex digits
    after: Digest  # of the statement of the root that it follows
    body: RootBody


def propose(ledger: Ledger, body: RootBody) -> RootProposal:
    """The proposal of a root that follows the one in force."""
    return RootProposal(
        repository=ledger.repository_id, after=root_record(ledger).digest, body=body
    )


def encode_proposal(proposal: RootProposal) -> bytes:
    """The bytes of the file."""
    fields = {
        _KIND: 1,
        "repository": proposal.repository,
        "after": str(proposal.after),
        "body": body_to_json(proposal.body),
    }
    return dumps(fields) + b"\n"


def save_proposal(path: Path, proposal: RootProposal) -> None:
    """Write the file, which is public; it is never overwritten.

    Raises:
        ConfigError: There is such a file.
        LocalError: It can't be written.
    """
    durable.create_named(path, encode_proposal(proposal))


def parse_proposal(data: bytes) -> RootProposal:
    """The inverse of `encode_proposal`.

    Raises:
        FormatError: Not a proposal, or with members that this program does not know.
        VaultError: Its root would be void.
    """
    fields = loads_canonical(data.removesuffix(b"\n"))
    if not isinstance(fields, dict) or fields.get(_KIND) != 1 or set(fields) != _MEMBERS:
        raise FormatError("not a proposal of a root", hint="'vault key root propose' makes one")
    body = parse_body(StatementType.ROOT, fields["body"])
    assert isinstance(body, RootBody)
    if dumps(body_to_json(body)) != dumps(fields["body"]):
        raise FormatError(
            "the proposed root has members that this program does not know, or lacks some",
            hint="upgrade vault on this machine",
        )
    return RootProposal(
        repository=str(_text(fields, "repository")),
        after=Digest.parse(_text(fields, "after")),
        body=body,
    )


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise FormatError(f"{name} of a proposal is no text", found=type(value).__name__)
    return value


def require_proposal(ledger: Ledger, proposal: RootProposal) -> None:
    """Pass if a proposal is of this repository and may follow the root in force.

    Raises:
        ConfigError: It is of another, or another root was applied meanwhile.
        VaultError: It would be void.
    """
    if proposal.repository != ledger.repository_id:
        raise ConfigError(
            "the proposed root is of another repository",
            expected=ledger.repository_id,
            found=proposal.repository[:64],
        )
    known_root(ledger)
    require_root(ledger, proposal.body)
    record = root_record(ledger)
    if proposal.after != record.digest:
        raise ConfigError(
            "the proposed root does not follow the one in force",
            expected=f"statement {record.seq}, {record.digest}",
            found=proposal.after,
        )


def apply_root(
    repository: Repository,
    proposal: RootProposal,
    signers: Sequence[Signer],
    *,
    tool: str,
    insist: Callable[[int], None] = lambda _: None,
    agreed: Request | None = None,
) -> Record:
    """Append the proposed root; tried 10,000 times without a pause, as a thief may append too.

    Args:
        repository: Where.
        proposal: Of `propose`.
        signers: With those who signed the request they must meet the thresholds of the root in
            force and of the new one.
        tool: Goes into the statement.
        insist: Called after each attempt that others won, with how many they did.
        agreed: The request for this root that people signed; stored as a warrant first.

    Raises:
        ConfigError: It may not follow, or too few signed.
        SignatureError: The request is of another repository, or has a signature that is forged.
        LedgerMovedError: Others won every attempt.
    """
    require_proposal(repository.ledger, proposal)
    warrant = _resting_on(repository, proposal, signers, agreed, tool=tool, insist=insist)
    subject = [("repository", Digest.of(bytes.fromhex(proposal.repository)))]
    draft = Draft(type=StatementType.ROOT, subject=subject, body=proposal.body, warrant=warrant)

    def checked(current: Ledger) -> Draft:
        require_proposal(current, proposal)
        return draft

    return repository.append(checked, signers, tool=tool, insist=insist)


def _resting_on(
    repository: Repository,
    proposal: RootProposal,
    signers: Sequence[Signer],
    agreed: Request | None,
    *,
    tool: str,
    insist: Callable[[int], None],
) -> int | None:
    """The number of the warrant that the root names; None where it names none."""
    by = tuple(each.public.id for each in signers)
    if agreed is not None:
        intent = Intent(kind=StatementType.ROOT, body=proposal.body, by=by)
        listed = [each for each in signers if each.public.id in repository.ledger.keys]
        if not listed:
            raise ConfigError("no key that signs is listed yet, so none can store the request")
        return carry(repository, agreed, intent, listed[0], tool=tool, insist=insist)
    missing = missing_signers(repository.ledger, proposal.body, by)
    if missing:
        raise ConfigError(
            f"too few sign the root: {missing}",
            hint="--key URI names a further key; people elsewhere sign a request:"
            " 'vault approve request root FILE', then --warrant REQUEST",
        )
    act = wants_approval(repository.ledger, StatementType.ROOT, proposal.body)
    if act is not None:
        raise ConfigError(
            f"the root wants people to approve {act}",
            hint=f"'vault approve request {act} FILE' asks them; --warrant REQUEST then acts",
        )
    return None
