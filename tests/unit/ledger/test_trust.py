"""Remembered and demanded heads: an older or different history is an error."""

import contextlib
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.errors import ConfigError, IntegrityError, LocalError, RollbackError, VaultError
from vault.ledger.envelope import Head
from vault.ledger.trust import HeadMemory, check_floor, parse_trust
from vault.model import Digest

ROOT = Digest(b"\xab" * 32)


def digest(number: int) -> Digest:
    """A digest made of one number."""
    return Digest(bytes([number]) * 32)


def head(seq: int, number: int | None = None) -> Head:
    """The head that `FakeHistory` has at this seq, or another one there."""
    return Head(seq=seq, digest=digest(seq if number is None else number), version=f"v{seq}")


@dataclass
class FakeHistory:
    """A ledger of so many statements."""

    length: int
    signed: set[bytes] = field(default_factory=set)

    @property
    def head(self) -> Head | None:
        """The last one."""
        return head(self.length - 1) if self.length else None

    def digest_at(self, seq: int) -> Digest | None:
        """Each has its number as digest."""
        return digest(seq) if seq < self.length else None


def test_trust_is_read_as_it_is_printed() -> None:
    """SEQ:DIGEST both ways."""
    assert parse_trust(str(head(7))) == Head(seq=7, digest=digest(7))
    assert parse_trust(f" {head(0)}\n").seq == 0


@pytest.mark.parametrize(
    "text", ["", "7", "7:", ":" + "0" * 64, "07:" + "0" * 64, "-1:" + "0" * 64, "7:" + "G" * 64]
)
def test_other_spellings_of_trust_are_usage_errors(text: str) -> None:
    """No guessing at what was meant."""
    with pytest.raises(ConfigError, match="SEQ:DIGEST"):
        parse_trust(text)


@pytest.mark.parametrize("seq", [0, 3, 4])
def test_history_that_holds_the_floor_passes(seq: int) -> None:
    """At or before the head, with that digest."""
    check_floor(FakeHistory(5), head(seq))


def test_shorter_history_is_a_rollback() -> None:
    """The store serves an older ledger."""
    with pytest.raises(RollbackError, match="an older history") as caught:
        check_floor(FakeHistory(5), head(5))
    assert "--accept-head" in str(caught.value.hint)


def test_different_history_is_a_rollback() -> None:
    """A fork at or below the floor."""
    with pytest.raises(RollbackError, match="another history"):
        check_floor(FakeHistory(5), head(3, 99))


def test_empty_history_is_a_rollback() -> None:
    """Something was known and nothing is left."""
    with pytest.raises(RollbackError, match="no statement"):
        check_floor(FakeHistory(0), head(0))


def test_nothing_is_remembered_of_a_repository_never_seen(tmp_path: Path) -> None:
    """The first contact needs the pinned root."""
    assert HeadMemory(tmp_path).recall(ROOT) is None


def test_highest_head_is_remembered(tmp_path: Path) -> None:
    """An older one never lowers it, and repositories do not mix."""
    memory = HeadMemory(tmp_path / "state")
    memory.remember(ROOT, head(5))
    memory.remember(ROOT, head(4))
    assert HeadMemory(tmp_path / "state").recall(ROOT) == head(5)
    memory.remember(ROOT, head(6))
    assert memory.recall(ROOT) == head(6)
    assert memory.recall(Digest(b"\xcd" * 32)) is None


def test_accepted_head_replaces_a_higher_one(tmp_path: Path) -> None:
    """Only the explicit way goes back."""
    memory = HeadMemory(tmp_path)
    memory.remember(ROOT, head(5))
    memory.replace(ROOT, head(2))
    assert memory.recall(ROOT) == head(2)


def test_memory_is_private_and_leaves_no_temporary_files(tmp_path: Path) -> None:
    """Mode 0600 in a directory of mode 0700."""
    memory = HeadMemory(tmp_path / "state")
    memory.remember(ROOT, head(5))
    (path,) = (tmp_path / "state" / "heads").iterdir()
    assert path.name == f"{ROOT}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_crash_before_the_exchange_keeps_the_old_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old file or the new one, never a part; the new one is synced before it takes over."""
    memory = HeadMemory(tmp_path)
    memory.remember(ROOT, head(5))

    def fail(_descriptor: int) -> None:
        raise OSError(5, "I/O error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(LocalError, match="remembered head"):
        memory.remember(ROOT, head(6))
    assert memory.recall(ROOT) == head(5)
    assert len(list((tmp_path / "heads").iterdir())) == 1


DAMAGED = [
    b"",
    b"{}",
    b"[]",
    b"\0" * 100,
    b'{"digest":"00","seq":1,"version":""}',
    b'{"digest":"' + b"0" * 64 + b'","seq":-1,"version":""}',
    b'{"digest":"' + b"0" * 64 + b'","seq":"1","version":""}',
    b" " * 10_000,
]


@pytest.mark.parametrize("data", DAMAGED)
def test_damaged_memory_is_an_error_that_says_how_to_go_on(tmp_path: Path, data: bytes) -> None:
    """Forgetting silently would let a rollback pass."""
    memory = HeadMemory(tmp_path)
    memory.remember(ROOT, head(5))
    (tmp_path / "heads" / f"{ROOT}.json").write_bytes(data)
    for use in (memory.recall, lambda name: memory.remember(name, head(6))):
        with pytest.raises(IntegrityError, match="damaged") as caught:
            use(ROOT)
        assert "--accept-head" in str(caught.value.hint)
    memory.replace(ROOT, head(6))
    assert memory.recall(ROOT) == head(6)


def test_unreadable_memory_is_a_local_error(tmp_path: Path) -> None:
    """A directory where the file should be."""
    (tmp_path / "heads" / f"{ROOT}.json").mkdir(parents=True)
    with pytest.raises(LocalError, match="can't read"):
        HeadMemory(tmp_path).recall(ROOT)


def test_processes_that_remember_at_once_never_lower_it(tmp_path: Path) -> None:
    """Each looks and writes under a lock: whoever comes last, the highest stays."""
    memory = HeadMemory(tmp_path)
    gate = threading.Barrier(8)

    def remember(number: int) -> None:
        gate.wait()
        for seq in range(number, 160, 8):
            memory.remember(ROOT, head(seq))
            found = memory.recall(ROOT)
            assert found is not None
            assert found.seq >= seq

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(remember, range(8)))
    assert memory.recall(ROOT) == head(159)


def test_a_slow_writer_does_not_lower_what_another_remembered_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has looked; before it holds the lock, the other one is done."""
    memory, other = HeadMemory(tmp_path), HeadMemory(tmp_path)
    memory.remember(ROOT, head(1))
    real = HeadMemory.recall
    done: list[bool] = []

    def overtaken(self: HeadMemory, root: Digest) -> Head | None:
        found = real(self, root)
        if not done:
            done.append(True)
            other.remember(ROOT, head(9))
        return found

    monkeypatch.setattr(HeadMemory, "recall", overtaken)
    memory.remember(ROOT, head(5))
    assert memory.recall(ROOT) == head(9)


def test_a_head_that_is_remembered_already_needs_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is to be written, so a directory that can't be written is no trouble."""
    memory = HeadMemory(tmp_path)
    memory.remember(ROOT, head(5))

    def refuse(*_: object) -> int:
        raise PermissionError(13, "permission denied")

    monkeypatch.setattr(os, "open", refuse)
    memory.remember(ROOT, head(4))
    with pytest.raises(LocalError, match="remembered head"):
        memory.remember(ROOT, head(6))


@given(st.binary(max_size=200))
def test_arbitrary_memory_raises_nothing_but_vault_errors(data: bytes) -> None:
    """Whatever a crash or another program left there."""
    from vault.ledger.trust import _decode

    with contextlib.suppress(VaultError):
        _decode(data)
