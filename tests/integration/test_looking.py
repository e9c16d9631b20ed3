"""Looking into snapshots: ls, cat, diff, find, stats, status, and what each prints."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

Vault: TypeAlias = Callable[..., tuple[int, str, str]]
VaultJson: TypeAlias = Callable[..., Any]

EVIL = "red\x1b[31m\nnew\u202eline"
BAD = os.fsdecode(b"bad\xff")


@pytest.fixture
def taken(vault: Vault, repository: Path, source: Path) -> Path:
    """The source with names that are no text, and a snapshot of it: number 2."""
    (source / EVIL).write_text("x")
    (source / BAD).touch()
    os.mkfifo(source / "fifo")
    (source / "etc/big").write_bytes(os.urandom(3_000_000))
    code, _, err = vault("snapshot", source, "--name", "data")
    assert code == 0, err
    return source


@pytest.fixture
def changed(vault: Vault, taken: Path) -> Path:
    """The source changed in every way, and a second snapshot of it: number 3."""
    (taken / "fifo").unlink()
    (taken / "fifo").mkdir()
    (taken / "link").unlink()
    (taken / "etc/hosts").write_text("127.0.0.1 localhost changed\n")
    (taken / "readme").chmod(0o600)
    (taken / "new").write_text("new\n")
    assert vault("snapshot", taken, "--name", "data")[0] == 0
    return taken


# --- ls ---


def test_ls_lists_a_directory(vault: Vault, taken: Path) -> None:
    """Names in order, directories marked; with any writing of the path."""
    _, out, _ = vault("ls", "data")
    assert out.splitlines()[0] == "again"
    assert "etc/" in out.splitlines()
    for path in ("etc", "/etc/", "./etc/."):
        assert vault("ls", "data", path)[1] == "etc/big\netc/hosts\n"
    assert vault("ls", "data", "etc/hosts")[1] == "etc/hosts\n"
    _, deep, _ = vault("ls", "data", "--recursive")
    assert {"etc/", "etc/big", "etc/hosts"} <= set(deep.splitlines())


def test_no_name_reaches_the_terminal_as_it_is(vault: Vault, taken: Path) -> None:
    """Controls, escapes, line ends, direction marks and broken bytes are written out."""
    for options in ([], ["--long"], ["--recursive"]):
        _, out, _ = vault("ls", "data", *options)
        assert r"red\x1b[31m\x0anew\u202eline" in out
        assert r"bad\xff" in out
        assert all(line.isprintable() for line in out.splitlines())
    _, out, _ = vault("find", "red*")
    assert r"red\x1b[31m\x0anew\u202eline" in out
    assert vault("diff", "2", "2")[1] == ""


def test_ls_long_says_what_ls_does(vault: Vault, taken: Path) -> None:
    """Mode, owner, size, time, where links lead."""
    _, out, _ = vault("ls", "data", "--long")
    assert re.search(r"^prw.* fifo$", out, re.MULTILINE)
    assert re.search(r"^lrwxrwxrwx .* link -> etc/hosts$", out, re.MULTILINE)
    assert re.search(r"^-rw\S+ .* readme = again$", out, re.MULTILINE)
    _, below, _ = vault("ls", "2", "etc", "-l")
    assert re.search(r"^-rw\S+ .* 3,000,000 .* etc/big$", below, re.MULTILINE)


def test_ls_long_fits_the_terminal(
    vault: Vault, source: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long names are cut there, and only there."""
    name = "n" * 200
    (source / name).touch()
    assert vault("snapshot", source, "--name", "data")[0] == 0
    assert name in vault("ls", "data", "-l")[1]
    monkeypatch.setattr("cli.output.render.terminal_width", lambda: 70)
    _, out, _ = vault("ls", "data", "-l")
    assert all(len(line) <= 70 for line in out.splitlines())
    assert "nnn…" in out


def test_ls_json_has_names_as_they_are(vault_json: VaultJson, taken: Path) -> None:
    """Text where it is text, else the bytes."""
    entries = vault_json("ls", "data")["entries"]
    names = {entry["path"] for entry in entries}
    assert EVIL in names
    (bad,) = [entry for entry in entries if "path_base64" in entry]
    assert bad["path_base64"] == "YmFk/w=="
    (link,) = [entry for entry in entries if entry["path"] == "link"]
    assert (link["type"], link["link"]["path"]) == ("symlink", "etc/hosts")
    (readme,) = [entry for entry in entries if entry["path"] == "readme"]
    assert (readme["type"], readme["link"]["path"]) == ("hard link", "again")
    real = (taken / "again").stat().st_mtime_ns
    (again,) = [entry for entry in entries if entry["path"] == "again"]
    assert again["mtime"].endswith(f".{real % 10**9:09}Z")


def test_a_path_that_is_not_there(vault: Vault, taken: Path) -> None:
    """Exit 2."""
    for command in (["ls"], ["cat"]):
        code, out, err = vault(*command, "data", "nothing\x1b")
        assert (code, out) == (2, "")
        assert r"nothing\x1b is not in snapshot 2" in err


def test_many_entries_are_one_table_and_one_object(
    vault: Vault, vault_json: VaultJson, taken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However they are divided for printing."""
    whole, listed = vault("ls", "data", "-lR")[1], vault_json("ls", "data", "-R")
    monkeypatch.setattr("cli.output.long_output._BATCH", 2)
    assert vault_json("ls", "data", "-R") == listed
    assert vault("ls", "data", "-R")[1].splitlines() == [
        line.split()[-1] for line in vault("ls", "data", "-R")[1].splitlines()
    ]
    parts = vault("ls", "data", "-lR")[1]
    assert parts.count("modified") == whole.count("modified") == 1
    assert [line.split() for line in parts.splitlines()] == [
        line.split() for line in whole.splitlines()
    ]


# --- cat ---


def _cat(*arguments: str) -> "subprocess.Popen[bytes]":
    """The program as a process, as stdout is bytes."""
    command = [sys.executable, "-m", "cli.main", "cat", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize(
    ("path", "kept"), [("etc/big", "etc/big"), ("readme", "again"), (BAD, BAD)], ids=repr
)
def test_cat_writes_the_bytes(taken: Path, path: str, kept: str) -> None:
    """Of a file by any of its names, and of an empty one nothing."""
    with _cat("data", path) as running:
        out, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (0, b"")
    assert out == (taken / kept).read_bytes()


def test_cat_of_what_is_no_file(vault: Vault, taken: Path) -> None:
    """Exit 2 and what it is; a symlink is not followed out of one's sight."""
    for path, what in (("etc", "directory"), ("fifo", "fifo"), ("link", "symlink to etc/hosts")):
        code, out, err = vault("cat", "data", path)
        assert (code, out) == (2, "")
        assert f"found a {what}" in err
    assert vault("--json", "cat", "data", "readme")[0] == 2


def _flip(repository: Path, size: int) -> Path:
    """Change one byte in the middle of each pack over that size."""
    (pack,) = [p for p in repository.rglob("packs/*/*") if p.stat().st_size > size]
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    mode = pack.stat().st_mode
    pack.chmod(0o600)
    pack.write_bytes(data)
    pack.chmod(mode)
    return pack


def test_cat_writes_nothing_wrong(taken: Path, repository: Path) -> None:
    """Exit 4; what was written before is the right beginning."""
    pack = _flip(repository, 2_000_000)
    with _cat("data", "etc/big") as running:
        out, err = running.communicate(timeout=60)
    whole = (taken / "etc/big").read_bytes()
    assert running.returncode == 4
    assert len(out) < len(whole)
    assert whole.startswith(out)
    assert pack.name.encode() in err


def test_cat_to_a_reader_who_leaves(taken: Path) -> None:
    """No traceback."""
    with _cat("data", "etc/big") as running:
        assert running.stdout is not None
        running.stdout.read(10)
        running.stdout.close()
        assert running.stderr is not None
        assert b"Traceback" not in running.stderr.read()
    assert running.returncode == 0


def test_only_the_tree_is_read(vault: Vault, changed: Path, repository: Path, home: Path) -> None:
    """ls, find and diff work without a single data pack; cat says what is missing."""
    before = [
        vault(*command) for command in (["ls", "2", "-lR"], ["find", "*"], ["diff", "2", "3"])
    ]
    for pack in repository.rglob("packs/*/*"):
        if pack.read_bytes()[14] == 1:
            pack.unlink()
    after = [vault(*command) for command in (["ls", "2", "-lR"], ["find", "*"], ["diff", "2", "3"])]
    assert [item[:2] for item in after] == [item[:2] for item in before]
    assert before[0][0] == 0
    assert vault("cat", "2", "etc/big")[0] == 4


def test_looking_needs_the_recovery_key(vault: Vault, changed: Path, keys: Path) -> None:
    """Exit 12; the public state does not."""
    (keys / "recovery.key").unlink()
    for command in (["ls", "2"], ["cat", "2", "new"], ["diff", "2", "3"], ["find", "*"]):
        assert vault(*command)[0] == 12, command
    for command in (["status"], ["stats"], ["stats", "2"]):
        assert vault(*command)[0] == 0, command


# --- diff ---


def test_diff_tells_what_differs(vault: Vault, changed: Path) -> None:
    """One line a path; counts on stderr."""
    code, out, err = vault("diff", "2", "data")
    assert code == 0
    lines = out.splitlines()
    assert "M etc/hosts (20 B → 28 B)" in lines
    assert "T fifo/ (fifo → directory)" in lines
    assert "- link" in lines
    assert "+ new (4 B)" in lines
    assert "U again (mode)" in lines
    assert "1 added, 1 removed, 1 type, 1 content" in err
    _, fewer, _ = vault("diff", "2", "data", "--no-metadata")
    assert fewer.splitlines() == [line for line in lines if not line.startswith("U")]


def test_diff_back_is_the_reverse(vault_json: VaultJson, changed: Path) -> None:
    """Added is removed, old is new."""
    there, back = vault_json("diff", "2", "3"), vault_json("diff", "3", "2")
    reverse = {"added": "removed", "removed": "added"}
    assert [change["path"] for change in there["changes"]] == [
        change["path"] for change in back["changes"]
    ]
    for one, other in zip(there["changes"], back["changes"], strict=True):
        assert one["old"] == other["new"]
        assert one["kind"] == reverse.get(other["kind"], other["kind"])
    assert there["summary"]["added_size"] == back["summary"]["removed_size"]


# --- find ---


def test_find_looks_in_all_snapshots(vault: Vault, vault_json: VaultJson, changed: Path) -> None:
    """Newest first; by name, or with a slash by path."""
    found = vault_json("find", "h*sts")["matches"]
    assert [(item["snapshot"], item["entry"]["path"]) for item in found] == [
        (3, "etc/hosts"),
        (2, "etc/hosts"),
    ]
    sums = {item["snapshot"]: item["entry"]["sha256"] for item in found}
    assert sums[3] == hashlib.sha256((changed / "etc/hosts").read_bytes()).hexdigest()
    assert [item["snapshot"] for item in vault_json("find", "link")["matches"]] == [2]
    assert vault_json("find", "etc/*", "--dataset", "data")["matches"]
    assert vault_json("find", "nothing", code=2)["matches"] == []
    assert vault("find", "*", "--dataset", "nobody")[0] == 2
    assert vault("find", "")[0] == 2


def test_find_goes_on_after_a_damaged_snapshot(
    vault: Vault, changed: Path, repository: Path, home: Path
) -> None:
    """What can be searched is; the exit code tells."""
    listed = json.loads(vault("--json", "list")[1])["snapshots"]
    inventory = repository / "inventory" / listed[1]["inventory"]["sha256"]
    inventory.unlink()
    code, out, err = vault("find", "h*sts")
    assert code == 4
    assert len(out.splitlines()) == 2
    assert "snapshot 3 can't be searched" in err
    code, out, _ = vault("--json", "find", "h*sts")
    assert (code, json.loads(out)["failed"]) == (4, [3])


# --- stats and status ---


def test_stats_count_what_is_stored(vault_json: VaultJson, changed: Path, repository: Path) -> None:
    """Every object once, and the ratios that follow."""
    stats = vault_json("stats")
    (data,) = stats["datasets"]
    assert stats["total"] == {key: data[key] for key in data if key != "dataset"}
    stored = sum(
        path.stat().st_size
        for folder in ("packs", "inventory", "domains")
        for path in (repository / folder).rglob("*")
        if path.is_file()
    )
    assert data["stored"] == stored
    assert data["deduplication"] == round(data["size"] / stored, 3)
    assert data["snapshots"] == [2, 3]
    assert vault_json("stats", "2")["total"]["snapshots"] == [2]


def test_stats_of_several_datasets_share_objects(
    vault: Vault, vault_json: VaultJson, taken: Path
) -> None:
    """The total is less than the sum."""
    assert vault("snapshot", taken, "--name", "other")[0] == 0
    stats = vault_json("stats")
    assert [item["dataset"] for item in stats["datasets"]] == ["data", "other"]
    assert stats["total"]["stored"] < sum(item["stored"] for item in stats["datasets"])
    assert "(all)" in vault("stats")[1]


def test_status_tells_and_warns(
    vault: Vault, vault_json: VaultJson, taken: Path, keys: Path
) -> None:
    """Newest snapshot, last proofs; keys that lie together."""
    assert vault("verify")[0] == 0
    assert vault("restore", "data", "target")[0] == 0
    code, out, err = vault("status")
    assert code == 0
    assert "recovery.key and root.key" in err
    assert "passed" in out
    (data,) = vault_json("status")["datasets"]
    assert (data["newest"], data["host"], data["snapshots"]) == (2, "first", 1)
    assert data["verification"]["verdict"] == data["restore"]["verdict"] == "passed"
    (keys / "recovery.key").unlink()
    (keys / "root.key").unlink()
    assert vault("status")[2] == ""


def test_status_of_an_empty_repository(vault: Vault, repository: Path) -> None:
    """Says so."""
    code, out, _ = vault("status")
    assert code == 0
    assert "no snapshots yet" in out
    assert vault("stats")[0] == 0


def test_status_warns_of_an_incomplete_snapshot(
    vault: Vault, vault_json: VaultJson, taken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And names the newest complete one."""
    from vault.snapshot import safe_open

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    (taken / "new").write_text("unreadable")
    with monkeypatch.context() as patch:
        patch.setattr(safe_open, "open_source", refuse)
        assert vault("snapshot", taken, "--name", "data")[0] == 3
    _, _, err = vault("status")
    assert "snapshot 3 of data is incomplete; the newest complete one is 2" in err
    assert vault_json("status")["datasets"][0]["incomplete"] == 3
