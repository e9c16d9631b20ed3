"""What a stream is stored as."""

import os
from pathlib import Path

import pytest

from tests.support.lab import Lab
from vault.errors import ConfigError
from vault.ledger.statements import SnapshotBody
from vault.snapshot.pieces import PIECE
from vault.snapshot.stream import NamedStream, StandardInput


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "/a", "a\0b", "n" * 256, "ü" * 128], ids=lambda name: name[:9]
)
def test_a_stream_gets_no_name_that_a_restore_could_not_make(name: str) -> None:
    """Refused before anything is read of it; the longest that a directory can hold is taken."""
    with open(os.devnull, "rb") as file:  # noqa: PTH123 - a device
        given = StandardInput(file)
        NamedStream(name="n" * 255, stream=given)
        with pytest.raises(ConfigError, match="plain file name"):
            NamedStream(name=name, stream=given)


def test_the_manifest_counts_a_stream_as_one_file_in_one_directory(
    lab: Lab, tmp_path: Path
) -> None:
    """With all its bytes, of one piece or of many: what is counted is signed."""
    dump = tmp_path / "dump"
    for size in (1, PIECE + 1):
        dump.write_bytes(os.urandom(size))
        with dump.open("rb") as file:
            lab.snapshot(stream=NamedStream(name="dump", stream=StandardInput(file)))
        body = lab.open().ledger.snapshots()[-1].body
        assert isinstance(body, SnapshotBody)
        counts = body.counts
        assert (counts.files, counts.directories, counts.size) == (1, 1, size)
        assert (counts.symlinks, counts.others) == (0, 0)
