"""Where a user's files are."""

from pathlib import Path

import pytest

from cli.user_places import Places, home_directory
from vault.errors import ConfigError

HOME = Path("/home/ann")


def places(*, is_root: bool, **environment: str) -> Places:
    """Of a machine."""
    return Places.of(environment, home=HOME, is_root=is_root)


def test_root_keeps_its_files_where_the_system_does() -> None:
    """docs/design.md "Keys and hosts"."""
    found = places(is_root=True)
    assert (found.keys, found.state, found.cache) == (
        Path("/etc/vault"),
        Path("/var/lib/vault"),
        Path("/var/cache/vault"),
    )


def test_others_keep_them_at_home() -> None:
    """The XDG defaults."""
    found = places(is_root=False)
    assert (found.keys, found.state, found.cache) == (
        HOME / ".config/vault",
        HOME / ".local/state/vault",
        HOME / ".cache/vault",
    )


def test_without_any_home_a_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """HOME unset or relative, and no entry in the list of users; XDG variables do without."""

    def none(_: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", none)
    environments: list[dict[str, str]] = [{}, {"HOME": ""}, {"HOME": "relative"}]
    for environment in environments:
        assert home_directory(environment) is None
    with pytest.raises(ConfigError, match="XDG_"):
        Places.of({}, home=None, is_root=False)
    assert Places.of({}, home=None, is_root=True).state == Path("/var/lib/vault")
    xdg = {f"XDG_{name}_HOME": f"/{name}" for name in ("CONFIG", "STATE", "CACHE")}
    assert Places.of(xdg, home=None, is_root=False).state == Path("/STATE/vault")


def test_xdg_variables_decide_for_root_too() -> None:
    """Where they are absolute; others are ignored, as the specification says."""
    found = places(is_root=True, XDG_STATE_HOME="/x", XDG_CACHE_HOME="relative")
    assert found.state == Path("/x/vault")
    assert found.cache == Path("/var/cache/vault")


def test_vault_keys_is_the_directory_itself() -> None:
    """Nothing is appended."""
    assert places(is_root=True, VAULT_KEYS="/k", XDG_CONFIG_HOME="/x").keys == Path("/k")
