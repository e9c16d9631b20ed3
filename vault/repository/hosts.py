"""Hosts and their datasets: overlapping patterns, names taken, keys that replaced others. Pure.

See docs/guide.md "Second host". Refusals here come before a statement is signed; none of these
rules makes a statement void.
"""

import dataclasses
import itertools
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from vault.errors import ConfigError, FormatError
from vault.ledger.chain import Ledger
from vault.ledger.records import Record, WriterInfo
from vault.ledger.statements import Role, SnapshotBody, WriterBody
from vault.ledger.succession import valid_before

ID_DIGITS: Final = 16  # the fewest of a key id on a command line; 8 are ground in hours
_ID = re.compile(r"[0-9a-f]{16,64}")


# --- patterns ---


def overlap(first: str, second: str) -> bool:
    """Whether some text matches both patterns: ``*`` is any text, ``?`` any one character.

    Args:
        first: A pattern of docs/format.md 2.3.
        second: Another.
    """
    # meets[j]: some text matches both the end of `first` seen so far and `second[j:]`
    meets = [all(sign == "*" for sign in second[j:]) for j in range(len(second) + 1)]
    for sign in reversed(first):
        above, meets = meets, [False] * (len(second) + 1)
        for j in range(len(second), -1, -1):
            other = second[j] if j < len(second) else ""
            if sign == "*":
                meets[j] = above[j] or (other != "" and meets[j + 1])
            elif other == "*":
                meets[j] = above[j] or meets[j + 1]
            elif other:
                meets[j] = above[j + 1] and (sign == other or "?" in (sign, other))
    return meets[0]


def covers(wide: str, narrow: str) -> bool:
    """Whether every text that matches ``narrow`` matches ``wide``; may miss a few such pairs.

    A ``*`` of ``narrow`` counts as one character that only a ``*`` matches. So True is always
    right, and False is wrong for a few pairs, such as ``*?`` and ``*a``.
    """
    wide, narrow = _ordered(wide), _ordered(narrow)
    takes = [False] * len(narrow) + [True]
    for sign in reversed(wide):
        above, takes = takes, [False] * (len(narrow) + 1)
        for j in range(len(narrow), -1, -1):
            other = narrow[j] if j < len(narrow) else ""
            if sign == "*":
                takes[j] = above[j] or (other != "" and takes[j + 1])
            elif other and other != "*":
                takes[j] = above[j + 1] and sign in ("?", other)
    return takes[0]


def _ordered(pattern: str) -> str:
    """The same pattern with each run of ``*`` and ``?`` sorted: first all ``?``, then one ``*``."""
    return re.sub(r"[*?]{2,}", lambda run: "?" * run[0].count("?") + "*" * ("*" in run[0]), pattern)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Overlapping:
    """A live host with a pattern that overlaps with another one."""

    writer: WriterInfo
    theirs: str  # a pattern of that host
    ours: str  # the other pattern, which overlaps with it

    def __str__(self) -> str:
        """The overlap in one clause, for people."""
        return f"'{self.ours}' and '{self.theirs}' of {self.writer.name}"


def overlapping(
    ledger: Ledger, datasets: Iterable[str], *, besides: Collection[str] = ()
) -> list[Overlapping]:
    """Live hosts whose patterns overlap with these, each once, with the first such pair.

    Args:
        ledger: The ledger, read up to its head.
        datasets: The patterns to compare with.
        besides: Names of hosts, or ids of keys, to leave out.
    """
    found = []
    for key_id, writer in live_writers(ledger).items():
        pairs = itertools.product(writer.datasets, datasets)
        pair = next((each for each in pairs if overlap(*each)), None)
        if pair is not None and not {writer.name, key_id} & set(besides):
            found.append(Overlapping(writer=writer, theirs=pair[0], ours=pair[1]))
    return found


# --- hosts ---


def live_writers(ledger: Ledger) -> dict[str, WriterInfo]:
    """Writer keys that are not revoked or replaced, by id."""
    return {key_id: writer for key_id, writer in ledger.writers.items() if writer.revoked is None}


def may_sign_as(ledger: Ledger, key_id: str, role: Role) -> bool:
    """Whether a key has that role in what is appended next."""
    if role is Role.WRITER:
        return key_id in live_writers(ledger)
    roles = ledger.authority_at(len(ledger.records)).roles
    return role in roles.get(key_id, frozenset())


def find_writer(ledger: Ledger, name: str) -> WriterInfo:
    """The writer with a host name, or with a key id that begins with at least 16 given digits.

    Raises:
        ConfigError: No writer matches, or several do.
    """
    found = [
        writer
        for key_id, writer in ledger.writers.items()
        if writer.name == name or (is_key_id(name) and key_id.startswith(name))
    ]
    active = [writer for writer in found if writer.revoked is None] or found
    if len(active) != 1:
        known = ", ".join(sorted({writer.name for writer in ledger.writers.values()}))
        raise ConfigError(
            f"{len(active)} writers match {name!r}",
            expected=f"one of: {known}; or {ID_DIGITS} digits of a key id",
        )
    return active[0]


def lineage(ledger: Ledger, key_id: str) -> list[WriterInfo]:
    """A host's key and those that it replaced, newest first; empty if it is not a writer's."""
    found = []
    while (writer := ledger.writers.get(key_id)) is not None:
        found.append(writer)
        key_id = writer.replaces
    return found


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PublishedBy:
    """The host and key that published a snapshot, and a change of key since the one before."""

    host: str  # name
    key_id: str
    before: Record | None = None  # the dataset's snapshot before, if another key signed that one
    before_host: str = ""  # name of the host of that one
    rotated_at: int | None = None  # seq at which this key replaced that one, if it did


def published_by(ledger: Ledger, record: Record) -> PublishedBy:
    """The publisher of a valid snapshot.

    Raises:
        FormatError: The record is not a snapshot.
        SignatureError: No writer signed it.
    """
    if not isinstance(record.body, SnapshotBody):
        raise FormatError(f"ledger {record.seq} is not a snapshot", found=record.type)
    writer = ledger.writer_for(record)
    before = valid_before(ledger, record)
    if before is None or before.key_id == record.key_id:
        return PublishedBy(host=writer.name, key_id=record.key_id)
    line = lineage(ledger, record.key_id)
    follows = any(each.key.id == before.key_id for each in line[1:])
    return PublishedBy(
        host=writer.name,
        key_id=record.key_id,
        before=before,
        before_host=ledger.writer_for(before).name,
        rotated_at=line[0].added if follows else None,
    )


def published(ledger: Ledger, writer: WriterInfo) -> tuple[str, ...]:
    """Datasets with a valid snapshot by this key, or by one that it replaced; sorted."""
    keys = {each.key.id for each in lineage(ledger, writer.key.id)}
    bodies = (record.body for record in ledger.snapshots() if record.key_id in keys)
    return tuple(sorted({body.dataset for body in bodies if isinstance(body, SnapshotBody)}))


def domains(ledger: Ledger) -> dict[str, WriterInfo]:
    """Each domain with a writer that knows its object; the newest wins."""
    return {
        writer.domain.name: writer
        for writer in ledger.writers.values()
        if writer.domain is not None
    }


def hosts_of(ledger: Ledger, domain: str) -> list[str]:
    """Names of all hosts that know a domain's secrets, revoked ones too, sorted."""
    return sorted(
        {
            writer.name
            for writer in ledger.writers.values()
            if writer.domain is not None and writer.domain.name == domain
        }
    )


def is_key_id(text: str) -> bool:
    """Whether a text is enough of a key id to name the key: 16 to 64 hex digits."""
    return _ID.fullmatch(text) is not None


# --- refusals before a statement is signed ---


def require_addition(ledger: Ledger, body: WriterBody, shared: Collection[str]) -> None:
    """Pass if a host may be added to this ledger, or its key replaced.

    Args:
        ledger: The ledger that the statement would extend.
        body: The body of that statement.
        shared: Names of hosts that it may share datasets with.

    Raises:
        ConfigError: A live key has the name, or patterns overlap without agreement.
    """
    require_free_name(ledger, body.name, body.replaces)
    require_apart(ledger, body.datasets, besides={*shared, body.replaces})


def require_free_name(ledger: Ledger, name: str, replaces: str) -> None:
    """Pass if no live key has the name, except the one that is replaced.

    Raises:
        ConfigError: Another live key has it.
    """
    if name in {each.name for key, each in live_writers(ledger).items() if key != replaces}:
        raise ConfigError(
            f"a host named {name} is enrolled already",
            hint=f"a new key for the same host: 'vault key request --rotate' there; if its key is"
            f" lost, 'vault key revoke {name}' first",
        )


def limit_for(ledger: Ledger, other: WriterInfo, datasets: Sequence[str]) -> tuple[str, ...]:
    """The datasets that a host has published, to which a limit would end its overlap with these.

    None where it has published none, or some that overlap too: then a limit is no way out.
    """
    done = published(ledger, other)
    meets = any(overlap(each, pattern) for each in done for pattern in datasets)
    return () if meets else done


def require_limit(
    ledger: Ledger, key_id: str, datasets: Sequence[str], shared: Collection[str]
) -> None:
    """Pass if a host may get these patterns: within its own, or without overlaps not agreed to.

    Args:
        ledger: The ledger that the statement would extend.
        key_id: The key id of the host.
        datasets: The new patterns.
        shared: Names of hosts that it may share datasets with.

    Raises:
        ConfigError: Its key is not live, or patterns overlap without agreement.
    """
    writer = live_writers(ledger).get(key_id)
    if writer is None:
        raise ConfigError("only a live key can be limited", found=key_id)
    more = [each for each in datasets if not any(covers(had, each) for had in writer.datasets)]
    require_apart(ledger, more, besides={*shared, writer.name})


def require_apart(ledger: Ledger, datasets: Sequence[str], *, besides: Collection[str]) -> None:
    """Pass if these patterns overlap with no live host, except those in ``besides``.

    Raises:
        ConfigError: They do.
    """
    found = overlapping(ledger, datasets, besides=besides)
    if not found:
        return
    names = " ".join(f"--share-datasets {each.writer.name}" for each in found)
    raise ConfigError(
        f"patterns overlap: {', '.join(map(str, found))}",
        hint=f"'vault key limit {found[0].writer.name} --dataset PATTERN' narrows that host;"
        f" {names} agrees that they write the same datasets",
    )
