"""The top of what is restored: closed to others until the moment of the exchange (ADR 0013).

Staging's own top is 0700 and of the user who restores, so that its members can't be reached.
What the file system makes of the attributes that it is to get is found out on an empty
directory in it, and set right before the exchange.
"""

import os
from typing import Final

from vault import fsmeta
from vault.errors import LocalError
from vault.restore.fs import Fs

_TRIAL: Final = b".vault-top"


def try_attributes(
    staging: int, wanted: fsmeta.Attributes, fs: Fs
) -> tuple[fsmeta.Meta, tuple[str, ...]]:
    """What a directory in ``staging``, which is empty, has after ``wanted`` was applied to it.

    Returns:
        Its attributes, and omissions: what could not be applied.

    Raises:
        OSError: The disk failed.
    """
    fs.mkdir(staging, _TRIAL)
    fd = fs.open_directory(staging, _TRIAL)
    try:
        omitted = fs.apply_fd(fd, wanted, directory=True)
        meta = read(fd, wanted)
    finally:
        os.close(fd)
    fs.rmdir(staging, _TRIAL)
    return meta, omitted


def read(fd: int, wanted: fsmeta.Attributes) -> fsmeta.Meta:
    """Attributes of an open directory, without labels of this kernel that are not in ``wanted``."""
    found = fsmeta.read_meta(fd, os.fstat(fd))
    xattrs = fsmeta.without_kernel_labels(found.xattrs, wanted.xattrs)
    return fsmeta.Meta(
        mode=found.mode, uid=found.uid, gid=found.gid, mtime=found.mtime, xattrs=xattrs
    )


def open_to_others(fd: int, attributes: fsmeta.Meta, fs: Fs) -> None:
    """Give the top the attributes that `try_attributes` found, durably.

    Raises:
        LocalError: It has others now.
        OSError: The disk failed.
    """
    fs.apply_fd(fd, attributes, directory=True)
    found = read(fd, attributes)
    differences = [each.field for each in fsmeta.differences(attributes, found)]
    if differences:
        raise LocalError(
            "the top of what is staged can't be given its attributes",
            found=", ".join(differences),
            hint="they could be set when that was tried before; nothing was exchanged",
        )
    fs.fsync(fd)


def close_to_others(fd: int, fs: Fs) -> None:
    """Make it this user's alone again, so that nothing below it can be reached.

    Raises:
        OSError: The disk failed, or it is another user's.
    """
    status = os.fstat(fd)
    if status.st_uid != os.geteuid():
        fs.chown(fd, os.geteuid())
    fs.chmod(fd, 0o700)
    fs.fsync(fd)
