"""Finds the snapshot that a SNAPSHOT argument names. Pure.

See docs/design.md "The command line".
"""

import difflib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo

from vault.errors import ConfigError, SignatureError
from vault.ledger.beyond import Beyond, refuse_older
from vault.ledger.chain import Ledger
from vault.ledger.records import Record, Status
from vault.ledger.statements import SnapshotBody, StatementType
from vault.model import LATEST

_NUMBER = re.compile(r"0|[1-9][0-9]{0,15}")
_DATE = re.compile(r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}")
_MINUTE = re.compile(r"[^T ]+[T ][0-9]{2}:?[0-9]{2}(Z|[+-][0-9:]+)?")


def split_path(spec: str) -> tuple[str, str | None]:
    """SNAPSHOT, and the directory of ``SNAPSHOT:/dir`` with its slash; None where none is named.

    The first ``:/`` divides, as neither datasets nor times contain one.
    """
    snapshot, found, directory = spec.partition(":/")
    return (snapshot, f"/{directory}") if found else (spec, None)


def select_snapshot(
    ledger: Ledger,
    spec: str,
    *,
    beyond: Sequence[Beyond] = (),
    zone: tzinfo | None = None,
    void: bool = False,
) -> Record:
    """The snapshot that a SNAPSHOT argument names.

    Args:
        ledger: Where to look.
        spec: ``DATASET``, ``DATASET@latest``, ``DATASET@TIME`` or a ledger number.
            TIME is ISO 8601, and means the end of the day, minute or second that it
            names, by the store's clock. ``latest`` alone means
            that of the only dataset.
        void: Whether a number may be that of a void snapshot.
        beyond: What stands beyond a hole in the ledger.
        zone: The zone of a TIME without one; None is the zone of this machine.

    Raises:
        ConfigError: No such snapshot, or the newest is incomplete and an older one is not, or
            a newer one of the dataset stands beyond a hole.
        SignatureError: The ledger number is that of a void snapshot.
    """
    if _NUMBER.fullmatch(spec):
        return _by_number(ledger, int(spec), void=void)
    if split_path(spec)[1] is not None:
        raise ConfigError(
            "this takes a whole snapshot",
            found=repr(spec[:80]),
            hint="of 'ls', 'cat' and 'find', SNAPSHOT:/dir is one directory;"
            " 'restore' takes --include '/dir'",
        )
    dataset, at, moment = spec.partition("@")
    if spec == LATEST:
        dataset, at, moment = _only_dataset(ledger), "@", LATEST
    snapshots = ledger.snapshots(dataset)
    if not at:
        refuse_older(beyond, dataset, snapshots[-1].seq if snapshots else None)
    if not snapshots:
        raise _unknown_dataset(ledger, dataset)
    if not at:
        return _newest_or_refuse(dataset, snapshots)
    if moment == LATEST:
        return _newest_complete(dataset, snapshots, "")
    end = end_of_moment(moment, zone)
    stored = ledger.before(end)  # what the store got later was not there, whatever it claims
    earlier = [each for each in snapshots if each.seq < stored and ledger.when(each) < end]
    return _newest_complete(dataset, earlier, f" before {end.isoformat()}")


def is_at_time(spec: str) -> bool:
    """Whether a SNAPSHOT argument names a snapshot by a time."""
    _, at, moment = spec.partition("@")
    return bool(at) and moment != LATEST


def end_of_moment(text: str, zone: tzinfo | None) -> datetime:
    """The end, in UTC, of the day, minute or second that an ISO 8601 text names.

    Raises:
        ConfigError: It names none.
    """
    unit = timedelta(seconds=1)
    if _DATE.fullmatch(text):
        unit = timedelta(days=1)
    elif _MINUTE.fullmatch(text):
        unit = timedelta(minutes=1)
    try:
        moment = datetime.fromisoformat(text) + unit
        if moment.tzinfo is None and zone is not None:
            moment = moment.replace(tzinfo=zone)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            "time of a snapshot is not ISO 8601",
            expected="for example 2026-01-31 or 2026-01-31T06:30",
            found=repr(text[:40]),
        ) from error


def _only_dataset(ledger: Ledger) -> str:
    """The only dataset, which ``latest`` alone refers to.

    Raises:
        ConfigError: There are several datasets, or none.
    """
    names = ledger.datasets()
    if len(names) == 1:
        return names[0]
    raise ConfigError(
        f"'{LATEST}' alone does not say of which dataset",
        found=f"datasets {', '.join(names[:10])}" if names else "no snapshot",
        hint=f"say for example {names[0]}@{LATEST}" if names else None,
    )


def _by_number(ledger: Ledger, seq: int, *, void: bool) -> Record:
    record = ledger.records[seq] if seq < len(ledger.records) else None
    if record is None or record.type != StatementType.SNAPSHOT:
        raise ConfigError(
            f"ledger number {seq} is not a snapshot",
            found=record.type if record else f"a ledger of {len(ledger.records)} statements",
            hint="'vault list' shows the numbers",
        )
    is_taken = void and record.status is Status.VOID and record.body is not None
    if record.status is not Status.VALID and not is_taken:
        raise SignatureError(
            f"snapshot {seq} does not count: {record.reason}",
            hint="'vault restore --void' reads it all the same" if record.body else None,
        )
    return record


def _newest_or_refuse(dataset: str, snapshots: list[Record]) -> Record:
    """The newest snapshot; refuses to choose if it is incomplete and there is a complete one."""
    newest = snapshots[-1]
    if _body(newest).complete or not any(_body(record).complete for record in snapshots):
        return newest
    complete = _newest_complete(dataset, snapshots, "")
    raise ConfigError(
        f"the newest snapshot {newest.seq} of {dataset} is incomplete;"
        f" the newest complete one is {complete.seq}",
        hint=f"say {dataset}@latest for snapshot {complete.seq},"
        f" or {newest.seq} for the incomplete one",
    )


def _newest_complete(dataset: str, snapshots: list[Record], when: str) -> Record:
    found = next((record for record in reversed(snapshots) if _body(record).complete), None)
    if found is not None:
        return found
    raise ConfigError(
        f"dataset {dataset} has no complete snapshot{when}",
        found=f"incomplete {', '.join(str(r.seq) for r in snapshots[-5:])}" if snapshots else None,
        hint="an incomplete snapshot is restored by its ledger number" if snapshots else None,
    )


def _unknown_dataset(ledger: Ledger, dataset: str) -> ConfigError:
    void = next(ledger.published_before(dataset, len(ledger.records)), None)
    if void is not None:
        return ConfigError(
            f"no snapshot of dataset {dataset} counts any more",
            found=f"snapshot {void.seq}: {void.reason}",
            hint=f"'vault show {void.seq}' says more; 'restore --void {void.seq}' reads it",
        )
    names = ledger.datasets()
    near = difflib.get_close_matches(dataset, names, n=3, cutoff=0.5)
    return ConfigError(
        f"there is no snapshot of dataset {dataset[:80]!r}",
        hint=f"did you mean {' or '.join(near)}?"
        if near
        else f"datasets here: {', '.join(names[:10]) or 'none'}",
    )


def _body(record: Record) -> SnapshotBody:
    assert isinstance(record.body, SnapshotBody)
    return record.body
