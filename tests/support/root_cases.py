"""Roots of several people: each rule of docs/format.md 2.3, kept and broken."""

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

from vault.ledger.statements import Approval, PublicKey, RootBody, Witness
from vault.model import replace_body

_GOOD = {"prune": Approval(role="policy", threshold=1)}
_LONGEST = 315_360_000


def _vkey(name: str, key: bytes = b"w" * 32, kind: bytes = b"\x04", digest: str = "") -> str:
    blob = kind + key
    found = hashlib.sha256(name.encode() + b"\n" + blob).hexdigest()[:8]
    return f"{name}+{digest or found}+{base64.b64encode(blob).decode()}"


def _witnesses(*vkeys: str) -> tuple[Witness, ...]:
    return tuple(Witness(name=f"w{number}", vkey=each) for number, each in enumerate(vkeys))


def _people(body: RootBody, **persons: str) -> RootBody:
    """The root with other persons for some keys, by the name of the key."""
    keys = [replace_body(key, person=persons.get(key.name, key.person)) for key in body.keys]
    return replace_body(body, keys=tuple(keys))


def _changed(body: RootBody, name: str, **changes: Any) -> RootBody:
    keys = [replace_body(key, **changes) if key.name == name else key for key in body.keys]
    return replace_body(body, keys=tuple(keys))


def root_cases(body: RootBody, spare: PublicKey) -> dict[str, tuple[RootBody, str]]:
    """Roots that root keys of two people bring, and what each amounts to.

    Args:
        body: A valid one: two root keys of two people, both needed.
        spare: A third root key that the second of the two persons holds.
    """
    one = _vkey("witness.example/one")
    two = _vkey("witness.example/two", b"v" * 32)
    many = [_vkey(f"w{number}", bytes([number]) * 32) for number in range(17)]
    rules: dict[str, dict[str, Any]] = {
        "approvals": {"approvals": _GOOD},
        "quorum-of-all": {"witnesses": _witnesses(one, two), "quorum": 2},
        "16-witnesses": {"witnesses": _witnesses(*many[:16]), "quorum": 16},
        "age-of-a-second": {"checkpoint_age": 1},
        "age-of-10-years": {"checkpoint_age": _LONGEST},
    }
    fine = {
        **{name: replace_body(body, **changes) for name, changes in rules.items()},
        "spare-key-of-one-person": replace_body(body, keys=(*body.keys, spare)),
        "keys-without-persons": replace_body(_people(body, **_nobody(body)), thresholds={}),
        "verifier-without-a-person": _people(body, verifier="", logger=""),
        "review": _changed(body, "policy", review="2028-02-29"),
    }
    wrong_changes: dict[str, dict[str, Any]] = {
        "approval-of-no-act": {"approvals": {"erase": _GOOD["prune"]}},
        "age-of-nothing": {"checkpoint_age": 0},
        "age-over-10-years": {"checkpoint_age": _LONGEST + 1},
        "quorum-of-none": {"quorum": 0},
        "quorum-of-2-without-witnesses": {"quorum": 2},
        "quorum-over-the-witnesses": {"witnesses": _witnesses(one), "quorum": 2},
        "17-witnesses": {"witnesses": _witnesses(*many)},
        "key-of-a-witness-twice": {"witnesses": _witnesses(one, _vkey("other"))},
        "name-of-a-witness-twice": {"witnesses": _witnesses(one)[:1] + _witnesses(two)[:1]},
        "witness-without-a-label": {"witnesses": (Witness(name="W 1", vkey=one),)},
        **{f"vkey-{name}": {"witnesses": _witnesses(each)} for name, each in _vkeys().items()},
        **{f"approval-{name}": {"approvals": {"prune": each}} for name, each in _flaws().items()},
    }
    wrong = {
        **{name: replace_body(body, **changes) for name, changes in wrong_changes.items()},
        "one-person-twice": _people(body, **{"root-a": "ann", "root-b": "ann"}),
        **{f"{role}-without-a-person": _people(body, **{role: ""}) for role in _ROLES},
        "approval-without-persons": replace_body(
            _people(body, **_nobody(body)), thresholds={}, approvals=_GOOD
        ),
        "other-threshold-without-persons": replace_body(
            _people(body, **_nobody(body)), thresholds={"pruner": 2}
        ),
        "person-that-is-no-label": _people(body, policy="Ann Example"),
        "review-of-no-day": _changed(body, "policy", review="2027-02-29"),
        "review-of-no-date": _changed(body, "policy", review="soon"),
        "review-with-a-time": _changed(body, "policy", review="2027-01-31T00:00:00Z"),
    }
    return {
        **{f"root-with-{name}": (each, "valid") for name, each in fine.items()},
        **{f"root-with-{name}": (each, "void") for name, each in wrong.items()},
    }


_ROLES: Sequence[str] = ("root-a", "enroller", "policy", "pruner", "restorer")


def _nobody(body: RootBody) -> dict[str, str]:
    return {key.name: "" for key in body.keys}


def _flaws() -> dict[str, Approval]:
    """Approvals that can't be met, or not be kept."""
    return {
        "by-a-writer": Approval(role="writer", threshold=1),
        "by-a-log-key": Approval(role="log", threshold=1),
        "by-an-approver": Approval(role="approver", threshold=1),
        "by-no-role": Approval(role="root policy", threshold=1),
        "of-none": Approval(role="policy", threshold=0),
        "for-no-time": Approval(role="policy", threshold=1, max_age=0),
        "for-too-long": Approval(role="policy", threshold=1, max_age=_LONGEST + 1),
    }


def _vkeys() -> dict[str, str]:
    """What is no verifier key for cosignatures."""
    good = _vkey("w")
    return {
        "of-nothing": "",
        "for-signatures": _vkey("w", kind=b"\x01"),
        "of-31-bytes": _vkey("w", b"w" * 31),
        "of-34-bytes": _vkey("w", b"w" * 33),
        "with-another-hash": _vkey("w", digest="00000000"),
        "with-a-short-hash": _vkey("w", digest=good.split("+")[1][:7]),
        "with-a-long-hash": _vkey("w", digest=good.split("+")[1] + "0"),
        "with-another-name": good.replace("w+", "v+", 1),
        "with-a-long-name": _vkey("w" * 129),
        "without-a-name": _vkey(""),
        "with-a-space": _vkey("w w"),
        "with-a-letter-beyond-ascii": _vkey("wé"),
        "with-stray-bits": good[:-2] + chr(ord(good[-2]) + 1) + "=",
    }
