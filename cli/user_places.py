"""Where this user's files are on this machine: keys, state, caches."""

import dataclasses
import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from vault.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where this machine keeps its files (docs/design.md "Keys and hosts")."""

    keys: Path
    state: Path  # remembered heads, entry lists, journals
    cache: Path

    @classmethod
    def of(cls, environment: Mapping[str, str], *, home: Path | None, is_root: bool) -> Self:
        """XDG variables where set; else the system's places for root, the XDG defaults for others.

        XDG Base Directory Specification 0.8: a variable that is not absolute is ignored.

        Raises:
            ConfigError: A place would be in the home directory, and there is none.
        """

        def place(variable: str, system: str, default: str) -> Path:
            base = Path(environment.get(variable, ""))
            if base.is_absolute():
                return base / "vault"
            if is_root:
                return Path(system)
            if home is None:
                raise ConfigError(
                    f"no directory for this user's files: neither HOME nor {variable} is absolute",
                    found=f"user {os.geteuid()} has no home directory by the system's list either",
                    hint="set HOME",
                )
            return home / default / "vault"

        keys = environment.get("VAULT_KEYS")
        return cls(
            keys=Path(keys) if keys else place("XDG_CONFIG_HOME", "/etc/vault", ".config"),
            state=place("XDG_STATE_HOME", "/var/lib/vault", ".local/state"),
            cache=place("XDG_CACHE_HOME", "/var/cache/vault", ".cache"),
        )


def home_directory(environment: Mapping[str, str]) -> Path | None:
    """As HOME says, else the system's list of users; None where neither gives an absolute path."""
    home = Path(environment.get("HOME", ""))
    if home.is_absolute():
        return home
    try:
        listed = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        return None
    return listed if listed.is_absolute() else None
