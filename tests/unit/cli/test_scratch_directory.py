"""Scratch directories: own, gone at the end, and swept where a kill left them."""

from pathlib import Path

import pytest

from cli.scratch_directory import scratch_directory
from vault.errors import LocalError


def test_it_is_private_and_gone_at_the_end(tmp_path: Path) -> None:
    """Names of files can be in it."""
    with scratch_directory(tmp_path / "cache") as found:
        assert found.stat().st_mode & 0o777 == 0o700
        (found / "names").write_text("secret")
    assert list((tmp_path / "cache/scratch").iterdir()) == []


def test_what_a_killed_run_left_is_removed_and_what_is_in_use_is_not(tmp_path: Path) -> None:
    """Nobody holds the former."""
    dead = tmp_path / "scratch/dead"
    (dead / "deep").mkdir(parents=True)
    (dead / "deep/names").write_text("secret")
    (tmp_path / "scratch/file").write_text("not ours")
    with scratch_directory(tmp_path) as first:
        assert not dead.exists()
        (first / "names").write_text("secret")
        with scratch_directory(tmp_path) as second:
            assert first != second
            assert (first / "names").exists()
        assert not second.exists()
    assert [each.name for each in (tmp_path / "scratch").iterdir()] == ["file"]


def test_no_place_for_it_is_an_error_of_this_machine(tmp_path: Path) -> None:
    """Exit 14."""
    (tmp_path / "cache").touch()
    with pytest.raises(LocalError, match="can't make"), scratch_directory(tmp_path / "cache"):
        pass
