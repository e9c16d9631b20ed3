"""Which lifecycle rules of a bucket would take objects of a repository away; pure.

A rule acts by itself, without a key and without a statement. Under `--lock none` an expiration
deletes what snapshots need; under a lock it hides it behind a delete marker, and deletes what
became noncurrent as soon as its lock has run out.
"""

from collections.abc import Iterable, Mapping
from typing import Any

_OFFLINE = frozenset({"GLACIER", "DEEP_ARCHIVE"})  # storage classes that no GET reads at once


def hazards(rules: Iterable[Mapping[str, Any]], prefix: str) -> list[str]:
    """What each rule in force would do to objects under a prefix, in words; empty if nothing.

    Args:
        rules: As GetBucketLifecycleConfiguration gives them.
        prefix: Of the repository, with the slash at its end; "" for the whole bucket.
    """
    return [
        f"lifecycle rule {str(rule.get('ID') or number)[:80]!r} {act}"
        for number, rule in enumerate(rules, start=1)
        if rule.get("Status") == "Enabled" and _applies(rule, prefix)
        for act in _acts(rule)
    ]


def _applies(rule: Mapping[str, Any], prefix: str) -> bool:
    """Whether a rule can apply to objects there; those of the vault carry no tags."""
    filtered = rule.get("Filter") or {}
    parts = filtered.get("And", filtered)
    if parts.get("Tag") or parts.get("Tags"):
        return False
    wanted = str(parts.get("Prefix", rule.get("Prefix", "")) or "")
    return wanted.startswith(prefix) or prefix.startswith(wanted)


def _acts(rule: Mapping[str, Any]) -> Iterable[str]:
    expiration = rule.get("Expiration") or {}
    if "Days" in expiration or "Date" in expiration:
        when = f"after {expiration['Days']} days" if "Days" in expiration else "on a date"
        yield f"expires objects {when}"
    noncurrent = rule.get("NoncurrentVersionExpiration")
    if noncurrent:
        yield f"deletes older versions after {noncurrent.get('NoncurrentDays', 'some')} days"
    for member in ("Transitions", "NoncurrentVersionTransitions"):
        for transition in rule.get(member) or ():
            if transition.get("StorageClass") in _OFFLINE:
                yield f"moves objects to {transition['StorageClass']}, where none is read at once"
