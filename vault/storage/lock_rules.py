"""The lock rules of a store that enforces them itself; no I/O.

They are those of S3 Object Lock, less the governance bypass: what a real bucket
refuses to a writer, the memory and directory stores refuse as well.
"""

import dataclasses
import hashlib
from datetime import datetime, timedelta

from vault.clock import to_rfc3339
from vault.errors import ConfigError, DigestMismatchError, RetentionError
from vault.model import Buffer, LockMode, Retention

_STRICTNESS = {LockMode.NONE: 0, LockMode.GOVERNANCE: 1, LockMode.COMPLIANCE: 2}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """Everything that forbids the deletion of one object version."""

    retention: Retention | None = None
    hold: bool = False

    def extended(self, asked: Retention, now: datetime) -> "Lock":
        """The lock after ``asked`` was applied; itself where it already lasts longer.

        Raises:
            RetentionError: ``asked`` is over already, or would go on from a
                compliance lock in governance mode.
        """
        check_lock(asked)
        current = self.retention
        if current is None or current.until <= now:
            return dataclasses.replace(self, retention=check_future(asked, now))
        if asked.until < current.until or asked == current:
            return self
        if not is_weaker(asked.mode, current.mode):
            return dataclasses.replace(self, retention=asked)
        if asked.until == current.until:
            return self
        raise RetentionError(
            "lock can't be extended in a weaker mode", expected=current.mode, found=asked.mode
        )

    def check_deletable(self, name: str, now: datetime) -> None:
        """Pass if nothing forbids the deletion.

        Raises:
            RetentionError: A legal hold or an unexpired retention is in force.
        """
        if self.hold:
            raise RetentionError(f"{name} is under a legal hold")
        if self.retention is not None and now < self.retention.until:
            until = to_rfc3339(self.retention.until)
            raise RetentionError(f"{name} is locked until {until} ({self.retention.mode})")


UNLOCKED = Lock()


def is_weaker(mode: LockMode, other: LockMode) -> bool:
    """Whether ``mode`` binds less strictly than ``other``."""
    return _STRICTNESS[mode] < _STRICTNESS[other]


def check_lock(retention: Retention) -> None:
    """Pass if the retention is one that a store can keep to the second.

    Raises:
        ConfigError: No mode, no time zone, or fractions of a second.
    """
    until = retention.until
    if retention.mode is LockMode.NONE:
        raise ConfigError("a retention needs a mode", found=retention.mode)
    if until.utcoffset() != timedelta(0) or until.microsecond:
        raise ConfigError("a lock date must be whole seconds in UTC", found=until.isoformat())


def check_future(retention: Retention, now: datetime) -> Retention:
    """The retention itself, if it has not run out.

    Raises:
        RetentionError: It ends now or earlier.
    """
    if retention.until <= now:
        raise RetentionError(
            "lock date is not in the future",
            expected=f"after {to_rfc3339(now)}",
            found=to_rfc3339(retention.until),
        )
    return retention


def check_sha256(name: str, data: Buffer, sha256: bytes) -> None:
    """Pass if ``data`` has that SHA-256.

    Raises:
        DigestMismatchError: It has another.
    """
    found = hashlib.sha256(data).digest()
    if found != sha256:
        raise DigestMismatchError(
            f"{name} was changed on its way to the store", expected=sha256.hex(), found=found.hex()
        )
