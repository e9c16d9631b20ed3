"""Lock dates, and what follows from them (I7, I8, I9, docs/invariants.md)."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.errors import ConfigError, RetentionError
from vault.model import LAST_LOCK, LockMode
from vault.parameters import Parameters
from vault.retention import (
    PRUNE_GRACE,
    REUSE_GRACE,
    check_retention,
    fits_default,
    lock_target,
    prunable,
    reusable,
    snapshot_until,
)

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
GRID = 864_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

moments = st.datetimes(
    min_value=datetime(2020, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(2099, 12, 31),  # noqa: DTZ001
    timezones=st.just(UTC) | st.just(timezone(timedelta(hours=5, minutes=30))),
)
digests = st.binary(min_size=32, max_size=32)
grids = st.integers(min_value=1, max_value=4_000_000)


@given(need=moments, digest=digests, grid=grids)
def test_target_covers_the_need_within_one_period(need: datetime, digest: bytes, grid: int) -> None:
    """Never earlier than needed, never a whole period later, whole seconds of UTC."""
    target = lock_target(need, digest, grid)
    assert need <= target < need + timedelta(seconds=grid) + SECOND
    assert target <= LAST_LOCK
    assert target.microsecond == 0
    assert target.utcoffset() == timedelta(0)


@given(need=moments, digest=digests, grid=grids)
def test_target_is_a_fixed_point(need: datetime, digest: bytes, grid: int) -> None:
    """A date on the grid stays, so an object locked for the same need is not extended."""
    target = lock_target(need, digest, grid)
    assert lock_target(target, digest, grid) == target


@given(first=moments, second=moments, digest=digests, grid=grids)
def test_targets_of_one_object_share_a_phase(
    first: datetime, second: datetime, digest: bytes, grid: int
) -> None:
    """Whole periods apart, except where the last possible date cuts in; and monotonous."""
    targets = [lock_target(need, digest, grid) for need in sorted((first, second))]
    assert targets[0] <= targets[1]
    if LAST_LOCK not in targets:
        assert (targets[1] - targets[0]) % timedelta(seconds=grid) == timedelta(0)


def test_phases_spread_the_extends() -> None:
    """Objects of different digest move on different days of the period."""
    targets = {lock_target(NOW, bytes([i]) * 32, GRID).date() for i in range(256)}
    assert len(targets) >= 10


def test_target_rounds_a_fraction_up() -> None:
    """A lock that ends in the second before the need is too short."""
    assert lock_target(NOW + timedelta(microseconds=1), bytes(32), 1) == NOW + SECOND
    assert lock_target(NOW, bytes(32), 1) == NOW


def test_target_ends_with_the_last_lock() -> None:
    """The grid is cut off there; a later need can't be met."""
    assert lock_target(LAST_LOCK - SECOND, b"\xaa" * 32, GRID) == LAST_LOCK
    assert lock_target(LAST_LOCK, b"\xaa" * 32, GRID) == LAST_LOCK
    with pytest.raises(RetentionError):
        lock_target(LAST_LOCK + timedelta(microseconds=1), bytes(32), GRID)


@pytest.mark.parametrize("grid", [0, -5])
def test_target_needs_a_period(grid: int) -> None:
    """The grid comes from a signed root, which may still be nonsense."""
    with pytest.raises(ConfigError):
        lock_target(NOW, bytes(32), grid)


def test_snapshot_until_is_start_retention_and_a_day() -> None:
    """Publishing within the day changes nothing, so both ends of the run agree."""
    expected = NOW + 31 * DAY
    assert snapshot_until(NOW, 30 * DAY) == expected
    assert snapshot_until(NOW, 30 * DAY, NOW + DAY) == expected


def test_snapshot_until_moves_with_late_publishing() -> None:
    """The retention asked for is kept from the publishing on."""
    published = NOW + 3 * DAY + timedelta(microseconds=1)
    assert snapshot_until(NOW, 30 * DAY, published) == NOW + 33 * DAY + SECOND


def test_snapshot_until_is_whole_seconds() -> None:
    """Rounded up."""
    assert snapshot_until(NOW + timedelta(microseconds=1), DAY) == NOW + 2 * DAY + SECOND


@pytest.mark.parametrize("retention", [timedelta(days=40_000), timedelta.max])
def test_snapshot_until_ends_with_the_last_lock(retention: timedelta) -> None:
    """Also where the sum is no date any more."""
    with pytest.raises(RetentionError):
        snapshot_until(NOW, retention)
    assert snapshot_until(LAST_LOCK - 2 * DAY, DAY) == LAST_LOCK


def test_retention_is_kept_between_minimum_and_maximum() -> None:
    """Less is raised, more is refused."""
    parameters = Parameters(lock_mode=LockMode.GOVERNANCE, min_retention=100, max_retention=1000)
    assert check_retention(0, parameters) == 100
    assert check_retention(100, parameters) == 100
    assert check_retention(1000, parameters) == 1000
    for seconds in (1001, -1):
        with pytest.raises(ConfigError):
            check_retention(seconds, parameters)


def test_nothing_is_both_reusable_and_prunable() -> None:
    """Two days lie between the last reuse and the first deletion."""
    assert reusable(NOW, NOW - DAY)
    assert reusable(NOW, NOW + REUSE_GRACE - SECOND)
    assert not reusable(NOW, NOW + REUSE_GRACE)
    assert not prunable(NOW, NOW + PRUNE_GRACE - SECOND)
    assert prunable(NOW, NOW + PRUNE_GRACE)
    assert PRUNE_GRACE - REUSE_GRACE >= 2 * DAY


@pytest.mark.parametrize("days", [7, 30, 400])
def test_a_default_retention_lies_between_the_shortest_and_the_longest(days: int) -> None:
    """Both ends are allowed."""
    assert fits_default(_of(days))


@pytest.mark.parametrize("days", [6, 401])
def test_a_default_retention_that_is_too_short_or_too_long_does_not_fit(days: int) -> None:
    """By a day."""
    assert not fits_default(_of(days))


def _of(days: int) -> Parameters:
    return Parameters(lock_mode=LockMode.NONE, default_retention=days * 86_400)
