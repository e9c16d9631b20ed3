"""Exclude patterns: full paths, and what can't match anything."""

import os
from pathlib import Path

import pytest

from vault.errors import ConfigError
from vault.patterns import Root, below, matcher
from vault.snapshot.walk import Rules, walk


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A PATH with a cache in it, beside another directory."""
    for name in ("www/cache/x", "www/src/cache/y", "other/cache/z", "with [odd] name/cache/x"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "alias").symlink_to("www")
    (tmp_path / "up").symlink_to(".")
    return tmp_path


def _kept(path: Path, *excludes: str) -> set[bytes]:
    return {item.path for item in walk([path], Rules(excludes=excludes))}


@pytest.mark.parametrize(
    "pattern",
    [
        "{top}/www/cache",
        "{top}/www/cache/",
        "{top}/www/c*",
        "{top}/w?w/cache",
        "{top}/**/cache/x",
        "{top}/up/www/cache",
        "{top}/alias/cache",
        "/cache",
    ],
)
def test_a_full_path_below_path_is_left_out(top: Path, pattern: str) -> None:
    """As restic and borg take it; other directories of that name stay."""
    path = top / ("alias/" if "alias" in pattern else "www")
    found = {
        item.path
        for item in walk([os.fsencode(path) + b"/."], Rules(excludes=[pattern.format(top=top)]))
    }
    assert b"cache/x" not in found
    assert b"src/cache/y" in found
    assert b"cache/x" in _kept(top / "www")


def test_a_full_path_can_be_taken_in_again(top: Path) -> None:
    """Negation means the same place."""
    found = _kept(top / "www", "cache/", f"!{top}/www/cache/")
    assert b"cache/x" in found
    assert b"src/cache" not in found


def test_a_full_path_below_a_path_with_odd_characters_is_left_out(top: Path) -> None:
    """With or without the backslashes that a pattern would need."""
    path = top / "with [odd] name"
    for name in (str(path), str(path).replace("[", "\\[").replace("]", "\\]").replace(" ", "\\ ")):
        assert b"cache" not in _kept(path, f"{name}/cache")


def test_of_several_paths_a_full_path_is_below_one(top: Path) -> None:
    """It leaves out nothing of the others."""
    items = walk([top / "www", top / "other"], Rules(excludes=[f"{top}/www/cache"]))
    found = {item.path for item in items}
    base = os.fsencode(top)[1:]
    assert base + b"/www/cache" not in found
    assert base + b"/other/cache/z" in found


@pytest.mark.parametrize(
    "pattern",
    [
        "{top}/other/cache",
        "{top}/wwwx/cache",
        "!{top}/other/cache",
        "{top}/www",
        "{top}/www/",
        "{top}",
        "/etc/passwd",
        "./cache",
        "../www/cache",
        "/cache/../cache",
        "cache//x",
        "~/cache",
        "\ufeffcache",
        "\ufeff/cache/",
        "c\0a\0",
    ],
)
def test_a_pattern_that_can_not_match_is_refused(top: Path, pattern: str) -> None:
    """What it was to leave out would be stored without a word."""
    with pytest.raises(ConfigError, match="can't match"):
        walk([top / "www"], Rules(excludes=[pattern.format(top=top)]))


def test_a_path_from_the_working_directory_is_refused_with_what_to_write(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As PATH itself was given; where PATH holds such a name, that is meant."""
    monkeypatch.chdir(top)
    with pytest.raises(ConfigError, match="can't match") as refused:
        walk([b"www"], Rules(excludes=["www/cache"]))
    assert "/cache" in (refused.value.hint or "")
    (top / "www/www").mkdir()
    (top / "www/www/cache").touch()
    found = _kept(Path("www"), "www/cache")
    assert b"www/cache" not in found
    assert b"cache/x" in found


@pytest.mark.parametrize(
    "pattern", ["/missing", "missing/x", "# ./x", "", " ", "*.tmp", "/c*/x", "**/x", "/[ab]"]
)
def test_a_pattern_that_may_match_some_day_is_taken(top: Path, pattern: str) -> None:
    """A directory that is not there yet is no mistake."""
    walk([top / "www"], Rules(excludes=[pattern]))


def test_a_name_below_path_wins_over_a_directory_above_it(tmp_path: Path) -> None:
    """An image of a system has an /etc of its own."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").touch()
    assert b"etc/passwd" not in _kept(tmp_path, "/etc/passwd")


def test_the_root_directory_as_path_changes_nothing() -> None:
    """There a full path and an anchored one are the same."""
    (placed,) = below(["/srv/www", "/srv/*"], [Root.of(b"/", b"/")])
    matches = matcher(placed)
    assert matches(b"srv/www", True)
    assert not matches(b"home/srv/www", True)
