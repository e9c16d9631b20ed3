"""Every key that may sign or ever might: since when, until when, and what it signed. No I/O."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from vault.crypto.keys import VerifyKey
from vault.encoding import b64decode_strict
from vault.ledger.chain import Ledger
from vault.ledger.statements import Role, RootBody, StatementType


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ListedKey:
    """A key that the ledger lists or listed."""

    name: str
    key: VerifyKey
    roles: tuple[str, ...]
    person: str = ""
    review: str = ""  # YYYY-MM-DD
    datasets: tuple[str, ...] = ()
    domain: str | None = None
    added: int  # seq
    removed: int | None = None  # seq of the root or writer statement since which it is not listed
    distrust_from: int | None = None
    replaces: str = ""  # id of the host's key before
    last: int | None = None  # seq of the newest statement that it signed
    statements: int = 0  # that it signed


def listed_keys(ledger: Ledger) -> list[ListedKey]:
    """All keys: those of roots first, then hosts, by the number that brought them."""
    signed: Counter[str] = Counter()
    last: dict[str, int] = {}
    for record in ledger.records:
        for key_id in record.by:
            signed[key_id] += 1
            last[key_id] = record.seq
    found = [*_of_roots(ledger), *_of_hosts(ledger)]
    return [
        dataclasses.replace(e, last=last.get(e.key.id), statements=signed[e.key.id]) for e in found
    ]


def _of_roots(ledger: Ledger) -> list[ListedKey]:
    found: dict[str, ListedKey] = {}
    distrusted = {_key(e.public).id: e.start for e in ledger.root.distrust}
    for record in ledger.valid(StatementType.ROOT):
        assert isinstance(record.body, RootBody)
        here = {}
        for entry in record.body.keys:
            key = _key(entry.public)
            before = found.get(key.id)
            here[key.id] = ListedKey(
                name=entry.name,
                key=key,
                roles=tuple(map(str, entry.roles)),
                person=entry.person,
                review=entry.review,
                added=record.seq if before is None or before.removed is not None else before.added,
                distrust_from=distrusted.get(key.id),
            )
        for key_id, each in found.items():
            if key_id not in here:
                gone = record.seq if each.removed is None else each.removed
                here[key_id] = dataclasses.replace(each, removed=gone)
        found = {key_id: here[key_id] for key_id in (*found, *here)}
    return list(found.values())


def _of_hosts(ledger: Ledger) -> list[ListedKey]:
    distrusted = {_key(e.public).id: e.start for e in ledger.root.distrust}
    return [
        ListedKey(
            name=writer.name,
            key=writer.key,
            roles=(Role.WRITER.value,),
            datasets=writer.datasets,
            domain=writer.domain.name if writer.domain else None,
            added=writer.added,
            removed=writer.revoked,
            distrust_from=writer.distrust_from
            if writer.distrust_from is not None
            else distrusted.get(key_id),
            replaces=writer.replaces,
        )
        for key_id, writer in ledger.writers.items()
    ]


def _key(public: str) -> VerifyKey:
    return VerifyKey.from_der(b64decode_strict(public))


def due_reviews(keys: Sequence[ListedKey], now: datetime) -> list[ListedKey]:
    """Listed keys whose review date has come.

    Args:
        keys: Of `listed_keys`.
        now: UTC; dates of the form YYYY-MM-DD are in the order of their text.
    """
    today = now.strftime("%Y-%m-%d")
    return [each for each in keys if each.removed is None and "" < each.review <= today]
