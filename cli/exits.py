"""Exit codes of errors and of results, and which of several the process ends with.

See docs/design.md "The command line".
"""

from collections.abc import Iterable, Mapping
from typing import Final

from vault.errors import (
    BusyError,
    ConfigError,
    IntegrityError,
    LedgerMovedError,
    LocalError,
    RepositoryNotFoundError,
    RetentionError,
    SourceCommandError,
    StorageError,
    VaultError,
    WrongKeyError,
)

EXIT_CODES: Final[Mapping[type[VaultError], int]] = {
    VaultError: 1,
    ConfigError: 2,
    IntegrityError: 4,
    RetentionError: 5,
    RepositoryNotFoundError: 10,
    LedgerMovedError: 11,
    WrongKeyError: 12,
    StorageError: 13,
    LocalError: 14,
    BusyError: 15,
    SourceCommandError: 16,
}

EXIT_USAGE: Final = 2  # also: nothing matches
EXIT_DEGRADED: Final = 3  # done, and something is not as it should be
EXIT_INTEGRITY: Final = 4  # findings
EXIT_RETENTION: Final = 5  # a lock is weaker than required, or a store can't keep one
EXIT_OBJECTIVE: Final = 6  # an objective is missed
EXIT_LOCAL: Final = 14  # the disk, or stdout, did not take something
EXIT_STORAGE: Final = 13  # the store did not show what was to be looked at
EXIT_INTERRUPTED: Final = 130
EXIT_TERMINATED: Final = 143

# The order of gravity, which is not that of the numbers: a lost byte comes before a lock, then a
# bug, then reasons why the command could not look, its findings, and another run that is busy.
GRAVITY: Final = (4, 5, 1, 12, 10, 13, 14, 2, 16, 11, 17, 6, 3, 15)


def gravest(codes: Iterable[int]) -> int:
    """The code with which a command ends to which several apply; 0 if none does."""
    return min((code for code in codes if code), key=GRAVITY.index, default=0)


def exit_code_of(error: VaultError) -> int:
    """The exit code of an error, by its nearest ancestor in the table."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)
