"""Files whose chunks or holes are too many for an entry, and such that are mostly hole."""

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from vault.format.chunker import Chunker

Vault: TypeAlias = Callable[..., tuple[int, str, str]]
VaultJson: TypeAlias = Callable[..., Any]
Process: TypeAlias = Callable[..., "subprocess.Popen[str]"]

MIB = 1 << 20
TIB = 1 << 40
MANY = 135_000  # chunks: more than an entry holds, and more than is read whole
LISTED = 34_000  # chunks: more than an entry holds


@pytest.fixture
def _tiny_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunker that cuts data into pieces of 64 bytes; that of trees stays as it is."""
    real = Chunker.cut

    def cut(self: Chunker, data: Any, *, final: bool) -> list[int]:
        if self.sizes.max < MIB:
            return real(self, data, final=final)
        whole, rest = divmod(len(data), 64)
        return [64] * whole + ([rest] if final and rest else [])

    monkeypatch.setattr(Chunker, "cut", cut)


def _listed(vault_json: VaultJson, snapshot: str) -> dict[str, Any]:
    entries = vault_json("ls", "-R", snapshot)["entries"]
    return {entry["path"]: entry for entry in entries}


def _sparse(path: Path, size: int, data: dict[int, bytes]) -> None:
    """A file with some data in it; skips where none can be that large."""
    with path.open("wb") as file:
        try:
            file.truncate(size)
        except OSError as error:
            pytest.skip(f"no file of {size:,} bytes here: {error.strerror}")
        for offset, some in data.items():
            file.seek(offset)
            file.write(some)
    if path.stat().st_blocks * 512 > sum(map(len, data.values())) + MIB:
        pytest.skip("this file system keeps no holes")


@pytest.mark.usefixtures("_tiny_chunks", "repository")
def test_a_file_of_very_many_chunks_comes_back(
    vault: Vault, vault_json: VaultJson, source: Path
) -> None:
    """Its ids are a list of their own: listed, restored, verified, printed, exported, unchanged."""
    data = random.Random(1).randbytes(64 * MANY + 5)
    (source / "giant").write_bytes(data)
    code, _, err = vault("snapshot", source, "--name", "d")
    assert code == 0, err
    assert _listed(vault_json, "d")["giant"]["sha256"] == hashlib.sha256(data).hexdigest()
    code, _, err = vault("verify")
    assert code == 0, err
    target = source.parent / "out"
    code, _, err = vault("restore", "d", target)
    assert code == 0, err
    assert (target / "giant").read_bytes() == data
    sums = vault_json("export-checksums", "d")["files"]
    assert {"path": "giant", "sha256": hashlib.sha256(data).hexdigest(), "tree_hash": None} in sums
    report = vault_json("snapshot", source, "--name", "d")["snapshot"]
    assert report["counts"]["added_size"] == 0
    (source / "giant").write_bytes(data[:-64] + bytes(64))
    report = vault_json("snapshot", source, "--name", "d")["snapshot"]
    assert report["counts"]["added_size"] < 200
    code, out, err = vault("diff", "2", "d")
    assert code == 0, err
    assert "giant" in out


@pytest.mark.usefixtures("_tiny_chunks", "repository")
def test_a_stream_of_very_many_chunks_comes_back(
    vault: Vault, source: Path, tmp_path: Path
) -> None:
    """`--command` as well."""
    data = random.Random(2).randbytes(64 * LISTED)
    (tmp_path / "dump").write_bytes(data)
    code, _, err = vault(
        "snapshot",
        "--name",
        "d",
        "--command",
        "--file-name",
        "dump",
        "--",
        "cat",
        tmp_path / "dump",
    )
    assert code == 0, err
    code, _, err = vault("restore", "d", source.parent / "out")
    assert code == 0, err
    assert (source.parent / "out/dump").read_bytes() == data


@pytest.mark.usefixtures("repository")
def test_a_file_of_very_many_holes_comes_back(
    vault: Vault, vault_json: VaultJson, source: Path
) -> None:
    """Holes as many as chunks, both in lists; every byte is right, and the holes are there."""
    block = 4096
    with (source / "comb").open("wb") as file:
        for number in range(33_000):
            file.seek(2 * number * block)
            file.write(b"%d" % number)
        file.truncate(66_000 * block)
    if (source / "comb").stat().st_blocks * 512 > 34_000 * block:
        pytest.skip("this file system keeps no holes of a page")
    code, _, err = vault("snapshot", source, "--name", "d")
    assert code == 0, err
    code, _, err = vault("verify")
    assert code == 0, err
    target = source.parent / "out"
    code, _, err = vault("restore", "d", target)
    assert code == 0, err
    assert (target / "comb").read_bytes() == (source / "comb").read_bytes()
    assert (target / "comb").stat().st_blocks <= (source / "comb").stat().st_blocks + 8
    assert _listed(vault_json, "d")["comb"]["sha256"]


@pytest.mark.usefixtures("repository")
def test_fifteen_tebibytes_of_hole_take_no_time(
    vault: Vault, vault_json: VaultJson, source: Path
) -> None:
    """Snapshot, verification, restore and proof; what is not a hole is read."""
    data = os.urandom(3 * MIB + 7)
    size = 15 * TIB
    _sparse(source / "vast", size, {7 * TIB + 4096: data, size - 5: b"end"})
    (source / "vast.again").hardlink_to(source / "vast")
    code, _, err = vault("snapshot", source, "--name", "d")
    assert code == 0, err
    entry = _listed(vault_json, "d")["vast"]
    assert entry["sha256"] is None
    assert entry["size"] == size
    code, _, err = vault("verify")
    assert code == 0, err
    target = source.parent / "out"
    code, _, err = vault("restore", "d", target)
    assert code == 0, err
    with (target / "vast").open("rb") as file:
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 7 * TIB + 4096
        file.seek(7 * TIB + 4096)
        assert file.read(len(data)) == data
        file.seek(-5, os.SEEK_END)
        assert file.read() == b"end\0\0"
    assert (target / "vast.again").stat().st_ino == (target / "vast").stat().st_ino
    assert vault_json("snapshot", source, "--name", "d")["snapshot"]["counts"]["added_size"] == 0
    code, out, err = vault("export-checksums", "d")
    assert code == 3
    assert "vast is left out" in err
    assert "vast" not in out
    files = {item["path"]: item for item in vault_json("export-checksums", "d")["files"]}
    assert files["vast"]["tree_hash"] == files["vast.again"]["tree_hash"] == entry["tree_hash"]


@pytest.mark.usefixtures("repository")
def test_a_link_restored_without_its_vast_file_is_proven_as_that_file(
    vault: Vault, source: Path
) -> None:
    """`--include` of the second name only, and `--finalize --prove` of the whole."""
    _sparse(source / "vast", 2 * TIB, {TIB: b"x"})
    (source / "zz").hardlink_to(source / "vast")
    assert vault("snapshot", source, "--name", "d")[0] == 0
    target = source.parent / "out"
    code, _, err = vault("restore", "d", target, "--include", "/zz")
    assert code in {0, 3}, err
    assert (target / "zz").stat().st_size == 2 * TIB


@pytest.mark.usefixtures("repository")
def test_a_vast_file_with_one_wrong_byte_is_not_proven(
    vault: Vault, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a byte in what should be a hole; TARGET stays missing."""
    from vault.restore.stage import Stager

    _sparse(source / "vast", 2 * TIB, {TIB: b"x"})
    assert vault("snapshot", source, "--name", "d")[0] == 0
    real = Stager.finish_file

    def finish_file(self: Stager, fd: int, entry: Any) -> None:
        if entry.path == b"vast":
            os.pwrite(fd, b"y", TIB + TIB // 2)
        real(self, fd, entry)

    monkeypatch.setattr(Stager, "finish_file", finish_file)
    code, _, err = vault("restore", "d", source.parent / "out")
    assert code == 4, err
    assert not (source.parent / "out").exists()


@pytest.mark.usefixtures("repository")
def test_a_file_whose_holes_grow_while_it_is_read_is_stored(
    vault: Vault, vault_json: VaultJson, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From fewer than a SHA-256 is made over to more: it is read once more."""
    from vault.snapshot import file_reader

    path = source / "grows"
    _sparse(path, MIB, {0: bytes(range(256))})
    real = os.preadv

    def read(fd: int, *rest: Any) -> int:
        if os.path.samestat(os.fstat(fd), path.stat()):
            monkeypatch.setattr(file_reader, "MAX_ZEROS", 4096)
        return real(fd, *rest)

    monkeypatch.setattr(os, "preadv", read)
    code, _, err = vault("snapshot", source, "--name", "d")
    assert code == 0, err
    entry = _listed(vault_json, "d")["grows"]
    assert (entry["sha256"], entry["size"]) == (None, MIB)
    target = source.parent / "out"
    code, _, err = vault("restore", "d", target)
    assert code == 0, err
    assert (target / "grows").read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize("command", ["snapshot", "restore"])
def test_a_stop_is_heard_at_once(
    vault: Vault, source: Path, process: Process, command: str
) -> None:
    """While a large file is read: ended by SIGTERM, nothing is left."""
    with (source / "large").open("wb") as file:
        for _ in range(600):
            file.write(os.urandom(MIB) if command == "snapshot" else bytes(MIB))
    target = source.parent / "room/out"
    target.parent.mkdir()
    if command == "restore":
        assert vault("snapshot", source, "--name", "d")[0] == 0
        running = process("restore", "d", target)
        while not any(target.parent.glob(".out.vault-*/tree/large")):
            assert running.poll() is None
    else:
        running = process("snapshot", source, "--name", "d")
        while not any("large" in name for name in _open_files(running.pid)):
            assert running.poll() is None
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate()
    assert running.returncode == 143, err
    assert not list(target.parent.iterdir())


def _open_files(pid: int) -> Iterator[str]:
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            yield str(each.readlink())


def test_json_of_a_vast_file_is_json(vault: Vault, repository: Path, source: Path) -> None:
    """Both digests are there, one of them null."""
    _sparse(source / "vast", 2 * TIB, {})
    assert vault("snapshot", source, "--name", "d")[0] == 0
    entries = json.loads(vault("--json", "ls", "d")[1])["entries"]
    found = {entry["path"]: (entry["sha256"], entry["tree_hash"]) for entry in entries}
    assert [value is None for value in found["vast"]] == [True, False]
    assert [value is None for value in found["again"]] == [False, True]
