"""A journal that is not what a run of this user wrote is refused, whatever is wrong with it."""

import os
from pathlib import Path

import pytest

from vault.encoding import dumps
from vault.errors import FormatError, LocalError
from vault.model import body_to_json
from vault.restore.journal import Journal, Journals, KeptMeta, State, Subject
from vault.restore.syscalls import Fs

TARGET = b"/srv/target"
META = KeptMeta(mode=0o755, uid=0, gid=0, mtime="5", xattrs=(("75736572", "00ff"),))


def _journal(**changes: str) -> Journal:
    subject = Subject(repository="ab" * 16, snapshot=7, digest="cd" * 32)
    journal = Journal(
        id="0123abcd", target=TARGET.decode(), state=State.STAGED, subject=subject, top=META
    )
    return journal.replace(**changes)


def test_attributes_of_a_directory_round_trip() -> None:
    """Names and values of extended attributes are bytes."""
    meta = META.meta()
    assert (meta.mode, meta.mtime, meta.xattrs) == (0o755, 5, ((b"user", b"\0\xff"),))
    assert KeptMeta.of(meta) == META


@pytest.mark.parametrize(
    ("mtime", "xattrs"),
    [
        ("soon", ()),
        ("", ()),
        ("5", (("zz", "00"),)),
        ("5", (("75736572", "0"),)),
        ("5", (("75736572", "0g"),)),
    ],
)
def test_damaged_attributes_are_a_format_error(
    mtime: str, xattrs: tuple[tuple[str, str], ...]
) -> None:
    """No crash: a person has to be told that the journal is damaged."""
    with pytest.raises(FormatError, match="damaged"):
        KeptMeta(mode=0, uid=0, gid=0, mtime=mtime, xattrs=xattrs).meta()


def test_a_journal_of_another_restore_is_refused(tmp_path: Path) -> None:
    """Its id is that of its name, and its target the one that is asked for."""
    tmp_path.chmod(0o700)
    with Journals(tmp_path, TARGET, Fs()) as journals:
        journals.save(_journal())
        assert journals.load() == [_journal()]
        (path,) = (tmp_path / "restores").glob("*.json")
        right = path.read_bytes()
        for wrong in (_journal(id="deadbeef"), _journal(target="/srv/other")):
            journals.remove(_journal())
            path.write_bytes(dumps(body_to_json(wrong)))
            path.chmod(0o600)
            with pytest.raises(FormatError, match="of another restore"):
                journals.load()
        path.write_bytes(right)
        assert journals.load() == [_journal()]


def test_a_journal_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    """Not even as far as its end."""
    tmp_path.chmod(0o700)
    with Journals(tmp_path, TARGET, Fs()) as journals:
        journals.save(_journal())
        (path,) = (tmp_path / "restores").glob("*.json")
        os.truncate(path, (16 << 20) + 1)
        with pytest.raises(FormatError, match="too long"):
            journals.load()


def test_a_journal_that_would_be_too_long_is_not_written(tmp_path: Path) -> None:
    """What is there stays, so that there is a way back."""
    tmp_path.chmod(0o700)
    with Journals(tmp_path, TARGET, Fs()) as journals:
        journals.save(_journal())
        with pytest.raises(FormatError, match="too much"):
            journals.save(_journal(attestation="x" * (16 << 20)))
        assert journals.load() == [_journal()]


def test_what_was_left_of_a_journal_goes_with_the_next_restore_to_that_target(
    tmp_path: Path,
) -> None:
    """A run that is killed leaves what it had written; what is of another TARGET stays."""

    class Cut(Fs):
        def rename(self, source: int, old: bytes, directory: int, new: bytes) -> None:
            raise OSError(5, "Input/output error")

    tmp_path.chmod(0o700)
    room = tmp_path / "restores"
    left: list[Path] = []
    for target in (TARGET, b"/srv/other"):
        with Journals(tmp_path, target, Cut()) as journals, pytest.raises(LocalError):
            journals.save(_journal(target=target.decode()))
        (fresh,) = set(room.glob("*.json.new")).difference(left)
        left.append(fresh)
    mine, others = left
    assert mine.exists()
    with Journals(tmp_path, TARGET, Fs()) as journals:
        assert not mine.exists()
        assert others.exists()
        assert journals.load() == []


def test_journals_leak_no_descriptor(tmp_path: Path) -> None:
    """Neither those that are written nor those that can't be."""

    class Full(Fs):
        def fsync(self, fd: int) -> None:
            raise OSError(28, "No space left on device")

    tmp_path.chmod(0o700)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with Journals(tmp_path, TARGET, Fs()) as journals:
        journals.save(_journal())
        journals.load()
        journals.remove(_journal())
    with Journals(tmp_path, TARGET, Full()) as journals, pytest.raises(LocalError):
        journals.save(_journal())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
