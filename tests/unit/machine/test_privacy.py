"""What is made for one user stays his, under any mask; what others can change is refused."""

import errno
import grp
import os
import pwd
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.options import Options
from cli.session import Invocation
from vault.errors import ConfigError
from vault.ledger.envelope import Head
from vault.ledger.trust import HeadMemory
from vault.machine.chunk_cache import Cache
from vault.machine.privacy import check_unshared, make_private, open_lock
from vault.model import Digest

ROOT = Digest.of(b"root")
NOT_NAMED = 0xFFFFFFFF  # in an access control list: of no user or group by number


@pytest.fixture
def no_mask() -> Iterator[None]:
    """A program that is started with umask 000."""
    before = os.umask(0)
    yield
    os.umask(before)


def _open_to_others(top: Path) -> list[str]:
    """What others may write, and what they may enter."""
    return [
        str(path.relative_to(top))
        for path in top.rglob("*")
        if path.lstat().st_mode & (0o077 if path.is_dir() else 0o022)
    ]


@pytest.mark.usefixtures("no_mask")
def test_every_part_of_what_is_made_has_its_mode(tmp_path: Path) -> None:
    """Directories above as well, lock files, databases, marks."""
    make_private(tmp_path / "a" / "b" / "c")
    os.close(open_lock(tmp_path / "a" / "lock"))
    HeadMemory(tmp_path / "state" / "vault").remember(ROOT, Head(seq=1, digest=ROOT, version="1"))
    place = tmp_path / "cache" / "vault" / "default"
    with Cache.open(place, repository_id=bytes(16), domain="default"):
        assert _open_to_others(tmp_path) == []
    (tmp_path / "control").touch()
    assert _open_to_others(tmp_path) == ["control"]


def test_a_lock_is_no_symlink(tmp_path: Path) -> None:
    """What it points to is neither made nor opened."""
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        open_lock(tmp_path / "lock")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("mode", "above", "refused"),
    [
        (0o700, 0o755, False),
        (0o755, 0o755, False),
        (0o700, 0o1777, False),
        (0o777, 0o755, True),
        (0o702, 0o755, True),
        (0o1777, 0o755, True),
        (0o700, 0o777, True),
    ],
)
@pytest.mark.parametrize("variable", ["XDG_STATE_HOME", "XDG_CACHE_HOME"])
def test_directories_that_others_can_change_are_refused(
    tmp_path: Path,
    variable: str,
    mode: int,
    above: int,
    refused: bool,  # noqa: FBT001
) -> None:
    """Of state and of cache, also where only what lies around it can be exchanged."""
    base = tmp_path / "base"
    place = base / "vault"
    place.mkdir(parents=True)
    place.chmod(mode)
    base.chmod(above)
    environment = {"HOME": str(tmp_path / "home"), variable: str(base)}
    if not refused:
        with Invocation(Options(), environment):
            return
    with pytest.raises(ConfigError, match="others can"), Invocation(Options(), environment):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory away")
def test_another_user_s_directory_is_refused(tmp_path: Path) -> None:
    """He can put anything into it."""
    place = tmp_path / "state"
    place.mkdir(mode=0o700)
    check_unshared(place)
    os.chown(place, 65534, 65534)
    with pytest.raises(ConfigError, match="owner 65534"):
        check_unshared(place)


def _own_group_has(monkeypatch: pytest.MonkeyPatch, *others: str) -> None:
    """This user's group is called as he is, and has these members beside him."""
    user = pwd.getpwuid(os.geteuid())

    def known(gid: int) -> grp.struct_group:
        assert gid == user.pw_gid
        return grp.struct_group((user.pw_name, "x", gid, list(others)))

    monkeypatch.setattr(grp, "getgrgid", known)


def test_a_group_s_write_bit_is_its_own_only_without_an_access_control_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one, the bit says what the users whom it names may do, whichever group it is."""
    place = tmp_path / "state"
    place.mkdir()
    place.chmod(0o770)
    _own_group_has(monkeypatch)
    check_unshared(place)
    rows = ((0x01, 7, NOT_NAMED), (0x02, 7, 65534), (0x04, 0, NOT_NAMED), (0x10, 7, NOT_NAMED))
    listed = [struct.pack("<HHI", *row) for row in (*rows, (0x20, 0, NOT_NAMED))]
    os.setxattr(place, "system.posix_acl_access", struct.pack("<I", 2) + b"".join(listed))
    with pytest.raises(ConfigError, match="others can change"):
        check_unshared(place)


def test_a_file_system_without_access_control_lists_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so when it is asked: what only this user's own group can write is not refused."""
    tmp_path.chmod(0o770)

    def unsupported(_: object) -> list[str]:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(os, "listxattr", unsupported)
    _own_group_has(monkeypatch)
    check_unshared(tmp_path)
    _own_group_has(monkeypatch, "somebody")
    with pytest.raises(ConfigError, match="others can change"):
        check_unshared(tmp_path)


def test_a_directory_that_is_not_there_is_fine(tmp_path: Path) -> None:
    """It is made later, by `make_private`."""
    check_unshared(tmp_path / "none" / "at" / "all")
