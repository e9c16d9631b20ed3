"""What shapes can't say of a root: its keys, parameters, approvals and witnesses. No I/O.

A root that breaks one of these rules is void (docs/format.md 2.3).
"""

from typing import Final

from vault.clock import from_rfc3339
from vault.errors import FormatError
from vault.ledger.authority import Authority, distrusted_keys
from vault.ledger.notes import vkey_parts
from vault.ledger.statements import Act, Approval, Role, RootBody, Witness
from vault.model import validate_label
from vault.parameters import Parameters

PERSONAL: Final = (Role.ROOT, Role.ENROLLER, Role.POLICY, Role.PRUNER, Role.RESTORER)
APPROVING: Final = (*PERSONAL, Role.VERIFIER)  # roles that approvals may name
LONGEST_AGE: Final = 315_360_000  # seconds: 10 years
_MAX_RECIPIENTS: Final = 16
_MAX_WITNESSES: Final = 16


def check_root(body: RootBody) -> None:
    """Pass if a root may come into force.

    Raises:
        VaultError: It breaks a rule of docs/format.md 2.3.
    """
    Authority.of(body)
    distrusted_keys(body)
    if not 1 <= len(body.recipients) <= _MAX_RECIPIENTS:
        raise FormatError("root must have 1 to 16 recipients", found=len(body.recipients))
    _check_parameters(body.parameters)
    for act, approval in body.approvals.items():
        _check_approval(act, approval)
    _check_people(body)
    _check_witnesses(body)


def needs_people(body: RootBody) -> bool:
    """Whether agreement of several is wanted anywhere, so that keys must say whose they are."""
    return bool(body.approvals) or any(count > 1 for count in body.thresholds.values())


def _check_parameters(parameters: Parameters) -> None:
    for sizes in (parameters.data_chunk, parameters.tree_chunk):
        if not 0 < sizes[0] <= sizes[1] <= sizes[2]:
            raise FormatError("root has impossible chunk sizes", found=sizes)
    spans = (parameters.min_retention, parameters.default_retention, parameters.max_retention)
    if min(parameters.block_size, parameters.pack_size, parameters.lock_grid, *spans) < 1:
        raise FormatError("root has a parameter below 1")


def _check_approval(act: str, approval: Approval) -> None:
    if act not in list(Act):
        raise FormatError(
            "root wants approval of an unknown act", expected=" ".join(Act), found=act[:64]
        )
    if approval.role not in APPROVING:
        raise FormatError(
            f"approval of {act} names a role that can't approve",
            expected=" ".join(APPROVING),
            found=approval.role[:64],
        )
    if approval.threshold < 1:
        raise FormatError(f"approval of {act} has a threshold below 1", found=approval.threshold)
    _check_age(approval.max_age, f"max_age of {act}")


def _check_age(seconds: int, what: str) -> None:
    if not 1 <= seconds <= LONGEST_AGE:
        raise FormatError(
            f"root has an impossible {what}", expected=f"1 to {LONGEST_AGE} s", found=seconds
        )


def _check_people(body: RootBody) -> None:
    for entry in body.keys:
        if entry.person:
            validate_label(entry.person, "person")
        elif needs_people(body) and not set(PERSONAL).isdisjoint(entry.roles):
            raise FormatError(
                f"key {entry.name[:64]} has no person",
                hint="a root with a threshold over 1 or an approval says of each key whose it is",
            )
        if entry.review:
            _check_date(entry.review)


def _check_date(text: str) -> None:
    try:
        from_rfc3339(f"{text}T00:00:00Z")
    except FormatError as error:
        raise FormatError("review is no date", expected="YYYY-MM-DD", found=text[:40]) from error


def _check_witnesses(body: RootBody) -> None:
    witnesses: tuple[Witness, ...] = body.witnesses
    if len(witnesses) > _MAX_WITNESSES:
        raise FormatError("root has too many witnesses", expected=16, found=len(witnesses))
    names = {validate_label(each.name, "witness") for each in witnesses}
    keys = {vkey_parts(each.vkey)[1] for each in witnesses}
    if min(len(names), len(keys)) < len(witnesses):
        raise FormatError("root lists a witness twice")
    most = max(1, len(witnesses))
    if not 1 <= body.quorum <= most:
        raise FormatError(
            "root has an impossible quorum", expected=f"1 to {most}", found=body.quorum
        )
    _check_age(body.checkpoint_age, "checkpoint_age")
