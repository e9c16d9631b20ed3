"""SNAPSHOT arguments: the one that is meant, never one that is silently older."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from vault.clock import from_rfc3339
from vault.errors import ConfigError, SignatureError
from vault.ledger.chain import Ledger
from vault.ledger.records import Record, Status
from vault.ledger.statements import Counts, InventoryRef, SnapshotBody, TreeRef
from vault.model import Digest, LockMode
from vault.repository.snapshot_spec import end_of_moment, select_snapshot

NOW = datetime(2026, 1, 10, tzinfo=UTC)
DIGEST = "cd" * 32


class History:
    """A ledger filled with records directly: the fold is tested elsewhere."""

    def __init__(self) -> None:
        self.ledger = Ledger(None)
        self.now = datetime(2026, 1, 1, tzinfo=UTC)  # the store's clock
        self.other()

    def _append(self, kind: str, body: SnapshotBody | None, status: Status) -> Record:
        record = Record(
            seq=len(self.ledger.records),
            digest=Digest(bytes(32)),
            type=kind,
            status=status,
            reason="" if status is Status.VALID else "its writer is distrusted",
            body=body,
            by=(),
            key_id="",
            time=self.now,
            modified=self.now,
            version="",
            envelope=b"",
            critical=False,
        )
        self.ledger.records.append(record)
        return record

    def other(self) -> Record:
        """A statement that is no snapshot."""
        return self._append("heartbeat", None, Status.VALID)

    def snapshot(
        self, created: str, *, dataset: str = "web", complete: bool = True, void: bool = False
    ) -> Record:
        """One snapshot, stored when it says that it was taken, or on the tenth."""
        self.now = max(self.now, min(from_rfc3339(created), NOW))
        body = SnapshotBody(
            dataset=dataset,
            created=from_rfc3339(created),
            complete=complete,
            counts=Counts(),
            tree=TreeRef(id=DIGEST, level=0, commitment=DIGEST),
            inventory=InventoryRef(sha256=DIGEST, size=1, version="1", objects=1, bytes=1),
            mode=LockMode.NONE,
            until=from_rfc3339("2026-02-01T00:00:00Z"),
        )
        record = self._append("snapshot", body, Status.VOID if void else Status.VALID)
        self.ledger._datasets.setdefault(dataset, []).append(record.seq)
        return record


@pytest.fixture
def history() -> History:
    """Snapshots at three and a half days, statements between them."""
    made = History()
    for day in ("01", "02", "03"):
        made.snapshot(f"2026-01-{day}T03:00:00Z")
        made.other()
    return made


def test_dataset_is_its_newest_snapshot(history: History) -> None:
    """The plain case."""
    assert select_snapshot(history.ledger, "web").seq == 5
    assert select_snapshot(history.ledger, "web@latest").seq == 5


def test_newer_incomplete_snapshot_is_never_passed_over_silently(history: History) -> None:
    """Both are named, and how to say which."""
    newest = history.snapshot("2026-01-04T03:00:00Z", complete=False)
    with pytest.raises(ConfigError, match=f"snapshot {newest.seq} .* one is 5") as caught:
        select_snapshot(history.ledger, "web")
    assert "web@latest" in str(caught.value.hint)
    assert select_snapshot(history.ledger, "web@latest").seq == 5
    assert select_snapshot(history.ledger, str(newest.seq)) == newest


def test_older_incomplete_snapshot_does_not_matter(history: History) -> None:
    """A complete one came after it."""
    history.snapshot("2026-01-04T03:00:00Z", complete=False)
    newest = history.snapshot("2026-01-05T03:00:00Z")
    assert select_snapshot(history.ledger, "web") == newest


def test_a_time_in_the_future_is_no_time(history: History) -> None:
    """A snapshot that says 2099 counts as taken when it was stored."""
    newest = history.snapshot("2099-01-01T00:00:00Z")
    assert select_snapshot(history.ledger, "web@2026-01-09", zone=UTC).seq == 5
    assert select_snapshot(history.ledger, "web@2026-01-10", zone=UTC) == newest


def test_void_snapshots_are_not_chosen(history: History) -> None:
    """Nor do they hide the one before, and by number they are an error."""
    void = history.snapshot("2026-01-04T03:00:00Z", void=True)
    assert select_snapshot(history.ledger, "web").seq == 5
    with pytest.raises(SignatureError, match="distrusted"):
        select_snapshot(history.ledger, str(void.seq))


@pytest.mark.parametrize(
    ("time", "seq"),
    [
        ("2026-01-02", 3),
        ("2026-01-02T03:00", 3),
        ("2026-01-02T02:59:59", 1),
        ("2026-01-02T03:00:00Z", 3),
        ("2026-01-02T04:00+01:00", 3),
        ("2026-01-02T03:59+01:00", 1),
        ("2030-01-01", 5),
    ],
)
def test_time_is_the_newest_complete_at_or_before(history: History, time: str, seq: int) -> None:
    """A date means the end of its day."""
    assert select_snapshot(history.ledger, f"web@{time}", zone=UTC).seq == seq


def test_what_the_store_got_later_is_never_picked(history: History) -> None:
    """Whatever it claims: a thief today can't publish a snapshot of last week."""
    history.now = NOW
    lure = history.snapshot("2026-01-02T12:00:00Z")
    for moment in ("2026-01-02", "2026-01-05", "2026-01-09"):
        assert select_snapshot(history.ledger, f"web@{moment}", zone=UTC).seq < lure.seq
    assert select_snapshot(history.ledger, "web@2026-01-10", zone=UTC) == lure


def test_a_time_is_before_what_is_stored_at_its_end(history: History) -> None:
    """Of a day, a minute, a second: what came with the next one is out."""
    assert select_snapshot(history.ledger, "web@2026-01-02T02:59", zone=UTC).seq == 1
    assert select_snapshot(history.ledger, "web@2026-01-02T02:59:59", zone=UTC).seq == 1
    assert select_snapshot(history.ledger, "web@2026-01-01", zone=UTC).seq == 1
    assert select_snapshot(history.ledger, "web@20260102T0300", zone=UTC).seq == 3


def test_in_a_copy_the_signers_clocks_count() -> None:
    """The store got all at once; none counts as earlier than the one before it."""
    made = History()
    for day in ("01", "02", "03"):
        made.snapshot(f"2026-01-{day}T03:00:00Z")
    for seq, record in enumerate(made.ledger.records):
        made.ledger.records[seq] = replace(record, modified=NOW)
    assert made.ledger.is_copy
    assert select_snapshot(made.ledger, "web@2026-01-02", zone=UTC).seq == 2
    made.ledger.records[2] = replace(made.ledger.records[2], time=NOW - timedelta(days=6))
    assert made.ledger.before(from_rfc3339("2026-01-03T23:00:00Z")) == 2, "nor what follows it"


def test_time_without_zone_is_local(history: History) -> None:
    """In the zone that is given."""
    east = timezone(timedelta(hours=5))
    assert select_snapshot(history.ledger, "web@2026-01-02T08:00", zone=east).seq == 3
    assert select_snapshot(history.ledger, "web@2026-01-02T07:59", zone=east).seq == 1


def test_zone_of_the_machine_is_used_where_none_is_given() -> None:
    """As `datetime` knows it."""
    expected = datetime(2026, 7, 1, 12, 0).astimezone(UTC)  # local on purpose
    assert end_of_moment("2026-07-01T12:00:00", None) == expected + timedelta(seconds=1)


def test_time_skips_incomplete_snapshots(history: History) -> None:
    """The newest complete one at that time."""
    history.snapshot("2026-01-04T03:00:00Z", complete=False)
    assert select_snapshot(history.ledger, "web@2026-01-05", zone=UTC).seq == 5


def test_time_before_the_first_snapshot_is_refused(history: History) -> None:
    """There was nothing yet."""
    with pytest.raises(ConfigError, match="no complete snapshot before 2026-01-01T00"):
        select_snapshot(history.ledger, "web@2025-12-31", zone=UTC)


@pytest.mark.parametrize("time", ["", "yesterday", "2026-13-01", "2026-01-01T25:00", "9999-12-31"])
def test_malformed_times_are_usage_errors(history: History, time: str) -> None:
    """Not guessed at; the end of time is no time."""
    with pytest.raises(ConfigError, match="ISO 8601"):
        select_snapshot(history.ledger, f"web@{time}", zone=timezone(timedelta(hours=-1)))


def test_dataset_with_only_incomplete_snapshots_is_the_newest_of_them() -> None:
    """Nothing better is passed over; who asks for a complete one is refused."""
    history = History()
    history.snapshot("2026-01-01T00:00:00Z", complete=False)
    history.snapshot("2026-01-02T00:00:00Z", complete=False)
    assert select_snapshot(history.ledger, "web").seq == 2
    for spec in ("web@latest", "web@2026-01-03"):
        with pytest.raises(ConfigError, match=r"no complete snapshot.*incomplete 1, 2"):
            select_snapshot(history.ledger, spec, zone=UTC)
    assert select_snapshot(history.ledger, "1").seq == 1


def test_unknown_dataset_lists_near_names(history: History) -> None:
    """Typing errors are common in an incident."""
    history.snapshot("2026-01-01T00:00:00Z", dataset="database")
    with pytest.raises(ConfigError, match="'databse'") as caught:
        select_snapshot(history.ledger, "databse")
    assert caught.value.hint == "did you mean database?"
    with pytest.raises(ConfigError) as caught:
        select_snapshot(history.ledger, "zzz@latest")
    assert caught.value.hint == "datasets here: database, web"


@pytest.mark.parametrize("spec", ["0", "2", "999", "9" * 16])
def test_number_of_no_snapshot_is_refused(history: History, spec: str) -> None:
    """Other statements, and beyond the head."""
    with pytest.raises(ConfigError, match="is not a snapshot"):
        select_snapshot(history.ledger, spec)


def test_number_is_that_snapshot(history: History) -> None:
    """An older one too."""
    assert select_snapshot(history.ledger, "3").seq == 3
