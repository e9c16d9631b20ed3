"""Every exception of the vault, in one tree.

::

    VaultError                      unexpected failure of the vault itself
    ├─ ConfigError                  usage, configuration, a target or source not as required
    ├─ IntegrityError               stored or restored bytes are not what was signed
    │  ├─ FormatError               bytes that do not follow docs/format.md
    │  ├─ DigestMismatchError       a digest, size or authentication tag differs
    │  ├─ SignatureError            a signature, role or threshold fails
    │  ├─ RollbackError             an older or different history than the one remembered
    │  └─ MissingObjectError        the ledger names an object that the store does not have
    ├─ RetentionError               a lock or hold forbids the act, or is weaker than required
    ├─ RepositoryNotFoundError      no repository at that address
    ├─ LedgerMovedError             other writers appended faster; try again
    ├─ WrongKeyError                wrong key or passphrase, or none given
    ├─ StorageError                 the store is unreachable or refused
    │  ├─ ObjectNotFoundError       no such object or version
    │  ├─ NameTakenError            a PUT that asked for a new name met a taken one
    │  │  └─ NameContestedError     it met another PUT that is still under way
    │  └─ StorageUnavailableError   worth a retry
    ├─ LocalError                   local disk or I/O failure
    ├─ BusyError                    already running for this dataset or target
    └─ SourceCommandError           a hook or source command failed or timed out

A broken promise is an exception; what an audit finds is data (`vault.model.Finding`).
The command line maps the tree to exit codes (docs/design.md "The command line") in `cli.main`.
"""

import contextlib
from collections.abc import Iterator


class VaultError(Exception):
    """Root of the tree.

    Args:
        message: What failed, on which object; lower case, no full stop.
        expected: What was required, where that helps.
        found: What was there instead.
        hint: One sentence that says what to do next.
    """

    def __init__(
        self,
        message: str,
        *,
        expected: object = None,
        found: object = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.expected = expected
        self.found = found
        self.hint = hint

    def __str__(self) -> str:
        """Message with expected and found; the hint is left to the caller."""
        text = self.message
        if self.expected is not None:
            text += f": expected {self.expected}"
            text += f", found {self.found}" if self.found is not None else ""
        elif self.found is not None:
            text += f": found {self.found}"
        return text


class ConfigError(VaultError):
    """Usage, configuration, or a target or source that is not as required."""


class IntegrityError(VaultError):
    """Bytes are not what was signed."""


class FormatError(IntegrityError):
    """Bytes do not follow docs/format.md."""


class DigestMismatchError(IntegrityError):
    """A digest, size or authentication tag differs."""


class SignatureError(IntegrityError):
    """A signature, role or threshold fails."""


class RollbackError(IntegrityError):
    """The store shows an older or different history than the one remembered."""


class MissingObjectError(IntegrityError):
    """The ledger names an object that the store does not have."""


class RetentionError(VaultError):
    """A lock or legal hold forbids the act, or is weaker than required."""


class RepositoryNotFoundError(VaultError):
    """No repository at that address."""


class LedgerMovedError(VaultError):
    """Other writers appended faster than this one could."""


class WrongKeyError(VaultError):
    """Wrong key or passphrase, or none where one is needed."""


class StorageError(VaultError):
    """The store is unreachable or refused."""


class ObjectNotFoundError(StorageError):
    """No such object or version."""


class NameTakenError(StorageError):
    """A PUT that asked for a new name met a taken one; nothing was stored."""


class NameContestedError(NameTakenError):
    """A PUT that asked for a new name met another that is still under way."""


class StorageUnavailableError(StorageError):
    """The store did not answer; worth a retry."""


class LocalError(VaultError):
    """Local disk or I/O failure."""


class BusyError(VaultError):
    """Already running for this dataset or target."""


class SourceCommandError(VaultError):
    """A hook or source command failed or timed out."""


@contextlib.contextmanager
def naming(subject: object) -> Iterator[None]:
    """Name the subject in format errors of a block that sees bytes only.

    Raises:
        FormatError: The block raised one; its message now begins with the subject.
    """
    try:
        yield
    except FormatError as error:
        raise FormatError(
            f"{subject}: {error.message}",
            expected=error.expected,
            found=error.found,
            hint=error.hint,
        ) from error
