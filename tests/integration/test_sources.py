"""What a snapshot may be taken of, and how it says what it would do."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

Vault: TypeAlias = Callable[..., tuple[int, str, str]]
VaultJson: TypeAlias = Callable[..., Any]
Start: TypeAlias = Callable[..., subprocess.Popen[str]]


OF_ROOT = (
    0 if os.geteuid() == 0 else 3
)  # of what restores what is root's: owners are root's to give


def _restored(vault: Vault, home: Path, dataset: str, *, code: int = 0) -> list[str]:
    target = home / f"out-{dataset}"
    found, out, err = vault("restore", dataset, target)
    assert found == code, err
    assert not code or "owner" in out
    return sorted(str(path.relative_to(target)) for path in target.rglob("*"))


# --- selection ---


def test_patterns_come_from_options_and_files(
    vault: Vault, repository: Path, source: Path, home: Path
) -> None:
    """As in a .gitignore, from both places."""
    (home / "patterns").write_text("# comment\nlink\n\nag*\n")
    arguments = ["--exclude", "/etc/", "--exclude-from", home / "patterns"]
    assert vault("snapshot", source, "--name", "d", *arguments)[0] == 0
    assert _restored(vault, home, "d") == ["readme"]


def test_caches_and_marked_directories_are_left_out(
    vault: Vault, repository: Path, source: Path, home: Path
) -> None:
    """The tag and the marker stay, so that it is the same after a restore."""
    (source / "etc/CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55")
    (source / "tmp").mkdir()
    (source / "tmp/.nobackup").touch()
    (source / "tmp/scratch").touch()
    options = ["--exclude-caches", "--exclude-if-present", ".nobackup", "--one-file-system"]
    assert vault("snapshot", source, "--name", "d", *options)[0] == 0
    found = _restored(vault, home, "d")
    assert found == ["again", "etc", "etc/CACHEDIR.TAG", "link", "readme", "tmp", "tmp/.nobackup"]


def test_sockets_are_said_to_be_skipped(
    vault: Vault,
    vault_json: VaultJson,
    repository: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a word a person would miss them. Control: where there is none, none is spoken of."""
    assert "skipped" not in vault("snapshot", source, "--name", "none")[1]
    monkeypatch.chdir(source)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
        one.bind("one")
        two.bind("two")
    out = vault("snapshot", source, "--name", "some")[1]
    assert re.search("^skipped +2 sockets: ", out, re.MULTILINE)
    counts = vault_json("snapshot", source, "--name", "some")["snapshot"]["counts"]
    assert counts["sockets"] == 2


def test_one_unreadable_inventory_is_one_warning(
    vault: Vault, repository: Path, source: Path, tmp_path: Path
) -> None:
    """Whether this host knows what it needs, or has to look at all."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    for path in (repository / "inventory").iterdir():
        path.unlink()
    for _ in range(2):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        code, _, err = vault("snapshot", source, "--name", "other")
        assert code == 0
        assert err.count("inventory of snapshot 2 is unreadable") == 1


def test_paths_come_from_files(vault: Vault, repository: Path, source: Path, home: Path) -> None:
    """One a line, or ended by NULs where names have newlines in them."""
    (source / "new\nline").touch()
    (home / "list").write_text(f"{source}/readme\n")
    (home / "list0").write_bytes(os.fsencode(source / "new\nline") + b"\0")
    options = ["--files-from", home / "list", "--files-from0", home / "list0"]
    code, _, err = vault("snapshot", "--name", "d", *options)
    assert code == 0, err
    assert [name for name in _restored(vault, home, "d", code=OF_ROOT) if "source/" in name] == [
        f"{str(source)[1:]}/new\nline",
        f"{str(source)[1:]}/readme",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--name", "d"],
        ["--name", "d", "--files-from", "nowhere"],
        ["--name", "d", "--stdin", "a/b", "--allow-empty"],
        ["--name", "d", "--stdin", "x", "path"],
        ["--name", "d", "--command"],
        ["--name", "d", "--timeout", "5s", "path"],
    ],
)
def test_sources_that_make_no_sense_are_usage_errors(
    vault: Vault, repository: Path, arguments: list[str]
) -> None:
    """Exit 2, and nothing is published."""
    assert vault("snapshot", *arguments)[0] == 2
    assert vault("list", "d")[1].count("\n") <= 1


def test_a_dry_run_says_what_would_be_done_and_stores_nothing(
    vault: Vault, vault_json: VaultJson, repository: Path, source: Path
) -> None:
    """Read, unchanged, left out and why; the repository is as it was."""
    settled = (1_000_000_000, 1_000_000_000)
    os.utime(source / "readme", settled)
    (source / "new\x1b[31m").touch()
    before = sorted(repository.rglob("*"))
    arguments = ("snapshot", source, "--name", "d", "--exclude", "link", "--dry-run")
    found = vault_json(*arguments)
    assert sorted(repository.rglob("*")) == before
    assert found["schema"] == "vault/snapshot-dry-run/v1"
    actions = {entry["path"]: entry["action"] for entry in found["planned"]}
    assert actions["readme"] == "read"
    assert actions["etc"] == "stored"
    assert actions["link"] == "skipped"
    code, out, err = vault(*arguments)
    assert code == 0, err
    assert "excluded by a pattern" in out
    assert "\x1b" not in out


# --- streams ---


def test_standard_input_becomes_a_file(
    vault: Vault, repository: Path, home: Path, process: Start
) -> None:
    """Byte by byte what was piped in."""
    piped = bytes(range(256)) * 100_000
    (home / "piped").write_bytes(piped)
    with (home / "piped").open("rb") as file:
        started = process("snapshot", "--name", "d", "--stdin", "dump.sql", stdin=file)
        _, err = started.communicate()
    assert started.returncode == 0, err
    assert _restored(vault, home, "d") == ["dump.sql"]
    assert (home / "out-d/dump.sql").read_bytes() == piped


def test_a_command_that_succeeds_becomes_a_file(
    vault: Vault, vault_json: VaultJson, repository: Path, home: Path
) -> None:
    """Its output under its own name; the second run stores nothing new."""
    arguments = ["--name", "d", "--command", "--", sys.executable, "-c", "print('x' * 3_000_000)"]
    assert vault("snapshot", *arguments)[0] == 0
    again = vault_json("snapshot", "--file-name", "out.txt", *arguments)
    assert again["snapshot"]["counts"]["added_size"] == 0
    assert _restored(vault, home, "d") == ["out.txt"]
    assert (home / "out-d/out.txt").read_bytes() == b"x" * 3_000_000 + b"\n"


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("print('half'); raise SystemExit(3)", "failed"),
        ("import os, signal; print('half'); os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("import time; print('half', flush=True); time.sleep(60)", "ran out of time"),
    ],
)
def test_a_command_that_does_not_end_well_publishes_nothing(
    vault: Vault, vault_json: VaultJson, repository: Path, program: str, said: str
) -> None:
    """Failing, killed or timed out: exit 16, and no snapshot."""
    options = ["--name", "d", "--timeout", "1s", "--command"]
    code, _, err = vault("snapshot", *options, "--", sys.executable, "-c", program)
    assert code == 16
    assert said in err
    assert vault_json("list")["snapshots"] == []


def test_a_command_that_is_not_there_is_said_so(vault: Vault, repository: Path) -> None:
    """Exit 16 before anything is stored."""
    code, _, err = vault("snapshot", "--name", "d", "--command", "--", "no-such-program")
    assert code == 16
    assert "can't be started" in err


def test_a_command_leaves_no_children_behind(vault: Vault, repository: Path, home: Path) -> None:
    """Also those that ignore being asked: the whole process group ends with the timeout."""
    script = f"trap '' TERM; sh -c 'echo $$ > {home}/child; exec sleep 60' & echo half; wait; wait"
    options = ["--name", "d", "--timeout", "1s", "--command"]
    assert vault("snapshot", *options, "--", "sh", "-c", script)[0] == 16
    status = Path("/proc") / (home / "child").read_text().strip() / "stat"
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


def test_an_empty_stream_is_refused_unless_allowed(vault: Vault, repository: Path) -> None:
    """A dump of nothing is rarely what was meant."""
    arguments = ["snapshot", "--name", "d", "--command", "--", "true"]
    assert vault(*arguments)[0] == 2
    assert vault(*arguments[:3], "--allow-empty", *arguments[3:])[0] == 0


def test_a_time_beyond_all_that_can_be_stored_costs_no_more_than_itself(
    vault: Vault, vault_json: VaultJson, repository: Path
) -> None:
    """The nearest one is stored, and it is listed; tmpfs keeps times of any size."""
    if not Path("/dev/shm").is_dir():
        pytest.skip("no tmpfs here")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        for name, seconds in (("late", 2**40), ("early", -(2**40)), ("now", 1_700_000_000)):
            (Path(directory) / name).write_text(name)
            os.utime(Path(directory) / name, (seconds, seconds))
        assert vault("snapshot", directory, "--name", "data", "--strict")[0] == 3
        report = vault_json("snapshot", directory, "--name", "data")
    assert report["snapshot"]["complete"]
    assert [(each["path"], each["kind"]) for each in report["problems"]] == [
        ("early", "attributes"),
        ("late", "attributes"),
    ]
    times = {each["path"]: each["mtime"] for each in vault_json("ls", "data")["entries"]}
    assert times == {
        "early": "1677-09-21T00:12:43.145224192Z",
        "late": "2262-04-11T23:47:16.854775807Z",
        "now": "2023-11-14T22:13:20.000000000Z",
    }
    assert vault("ls", "data", "--long")[0] == 0
    assert vault("restore", "data", "target")[0] in {0, 3}  # 3: this file system holds less
    assert (Path("target") / "now").stat().st_mtime == 1_700_000_000


def test_a_list_of_paths_may_name_what_has_a_carriage_return(
    vault: Vault, repository: Path, home: Path
) -> None:
    """Only a newline ends a name; halves of one must not be taken for names of other files."""
    for name in ("one", "two", "one\rtwo"):
        (home / name).write_text(name)
    (home / "list").write_bytes(b"one\rtwo\n\n")
    assert vault("snapshot", "--name", "d", "--files-from", home / "list")[0] == 0
    assert _restored(vault, home, "d") == ["one\rtwo"]


# --- what is left out, and told ---


def test_the_repository_and_its_cache_and_state_are_left_out_and_told(
    vault: Vault, vault_json: VaultJson, repository: Path, source: Path, home: Path
) -> None:
    """Else each run stores the one before; here the home holds everything."""
    code, _, err = vault("snapshot", home, "--name", "d")
    assert code == 0, err
    for name, what in (("repository", "this repository"), ("state/vault", "state directory")):
        assert f"left out: {name}: its members: it is {what}" in err.replace("the state", "state")
    found = vault_json("snapshot", home, "--name", "d")["left_out"]
    assert {(each["path"], each["reason"]) for each in found} == {
        ("repository", "own"),
        ("state/vault", "own"),
        ("cache/vault", "own"),
    }
    listed = vault("ls", "-R", "d")[1].splitlines()
    assert "source/readme" in "\n".join(listed)
    for place in ("repository/", "state/vault/", "cache/vault/"):
        assert not [line for line in listed if place in line and line.split(place)[-1]]
    assert vault("snapshot", home / "repository", "--name", "e")[0] == 2
    assert vault("snapshot", home / "cache/vault", "--name", "e", "--dry-run")[0] == 2


def test_cache_and_state_say_that_other_programs_can_leave_them_out(
    vault: Vault, repository: Path, source: Path, home: Path
) -> None:
    """By CACHEDIR.TAG; keys are nothing to leave out."""
    assert vault("snapshot", source, "--name", "d")[0] == 0
    for place in ("cache/vault", "state/vault"):
        tag = home / place / "CACHEDIR.TAG"
        assert tag.read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55")
    assert not (home / "config/vault/CACHEDIR.TAG").exists()
    assert not (repository / "CACHEDIR.TAG").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_another_file_system_that_is_left_out_is_told(
    vault: Vault, vault_json: VaultJson, repository: Path, source: Path
) -> None:
    """In text and JSON; without -x it is in the snapshot, and nothing is told."""
    (source / "volume").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", source / "volume"], check=True)
    try:
        (source / "volume/precious").touch()
        _, _, err = vault("snapshot", source, "--name", "d", "-x")
        assert "left out: volume: its members: it is on another file system" in err
        (found,) = vault_json("snapshot", source, "--name", "d", "-x")["left_out"]
        assert (found["path"], found["reason"]) == ("volume", "file-system")
        assert not vault_json("snapshot", source, "--name", "d")["left_out"]
        assert "volume/precious" in vault("ls", "-R", "d")[1]
    finally:
        subprocess.run(["umount", source / "volume"], check=True)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_at_the_beginning_of_a_list_is_skipped(
    vault: Vault, repository: Path, source: Path, home: Path, mark: bytes
) -> None:
    """Of patterns and of PATHs, as git does."""
    (home / "patterns").write_bytes(mark + b"/etc/\r\n/link\r\n")
    arguments = ["--exclude-from", home / "patterns"]
    assert vault("snapshot", source, "--name", "d", *arguments)[0] == 0
    assert _restored(vault, home, "d") == ["again", "readme"]
    (home / "paths").write_bytes(mark + os.fsencode(source / "etc") + b"\n")
    assert vault("snapshot", "--files-from", home / "paths", "--name", "e")[0] == 0
    assert _restored(vault, home, "e") == ["hosts"]


def test_lists_in_another_encoding_are_refused(
    vault: Vault, repository: Path, source: Path, home: Path
) -> None:
    """No line of them would mean what it says."""
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        (home / "patterns").write_text("etc/\nlink\n", encoding=encoding)
        assert vault("snapshot", source, "--name", "d", "--exclude-from", home / "patterns")[0] == 2


def _runs(pid: str) -> bool:
    status = Path("/proc") / pid.strip() / "stat"
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("setsid sh -c 'echo $$ > {child}; exec sleep 60' & echo half; sleep 60", 16),
        (
            "(setsid sh -c 'trap \"\" TERM; echo $$ > {child}; sleep 60' &); sleep 60",
            16,
        ),
        ("setsid sh -c 'echo $$ > {child}; exec sleep 60' > /dev/null & sleep 0.3; echo all", 0),
        (
            "(setsid sh -c 'echo $$ > {child}; exec sleep 60' > /dev/null &); sleep 0.3; exit 1",
            16,
        ),
    ],
)
def test_a_child_in_a_session_of_its_own_ends_with_its_command(
    vault: Vault, repository: Path, home: Path, script: str, code: int
) -> None:
    """At the time-out, after success and after failure; a child is no part of the result."""
    child = home / "child"
    options = ["--name", "d", "--timeout", "2s", "--command"]
    found, _, err = vault("snapshot", *options, "--", "sh", "-c", script.format(child=child))
    assert found == code, err
    assert not _runs(child.read_text())
    child.unlink()
    control = subprocess.Popen(
        ["sh", "-c", script.format(child=child)], stdout=subprocess.DEVNULL, start_new_session=True
    )
    while not (child.exists() and (pid := child.read_text()).endswith("\n")):
        pass
    os.killpg(control.pid, 9)
    control.wait()
    assert _runs(pid)  # the same without the vault: it stays
    os.kill(int(pid), 9)


@pytest.mark.skipif(not Path("/proc/sys/kernel/ostype").exists(), reason="needs procfs")
@pytest.mark.parametrize("name", ["/proc/sys/kernel/ostype", "/proc/kallsyms", "/sys/kernel/mm"])
def test_content_beyond_the_size_is_read_to_its_end(
    vault: Vault, vault_json: VaultJson, repository: Path, home: Path, name: str
) -> None:
    """Files of /proc say that they are empty, those of /sys that they have 4,096 bytes."""
    code, _, err = vault("snapshot", name, "--name", "d")
    assert code in {0, 3}, err
    assert "changed" not in err
    assert vault("restore", "d", home / "out")[0] == OF_ROOT
    stored = [path for path in (home / "out").rglob("*") if path.is_file()]
    assert stored
    for path in stored:
        original = Path(name)
        if original.is_dir():
            original /= path.relative_to(home / "out")
        assert path.read_bytes() == original.read_bytes()


@pytest.mark.parametrize("name", ["postmaster.pid", "app.db-wal", "app.db-shm", "app.db-journal"])
def test_a_database_in_use_is_warned_of(
    vault: Vault, repository: Path, source: Path, name: str
) -> None:
    """With the recipe; a database at rest, or a name alone, says nothing."""
    (source / "other-wal").touch()
    (source / "app.db").touch()
    assert "Databases" not in vault("snapshot", source, "--name", "d")[2]
    (source / name).touch()
    assert "Databases" in vault("snapshot", source, "--name", "d")[2]


def test_databases_in_use_are_listed_for_programs(
    vault: Vault, repository: Path, source: Path
) -> None:
    """Each with its engine; one at rest is none of them, nor is a name that only looks so."""
    for name in "cluster", "at-rest":
        (source / name).mkdir()
        (source / name / "PG_VERSION").write_text("15")
    (source / "cluster/postmaster.pid").write_text("1")
    for name in "app.db", "app.db-wal", "b\udcff.db", "b\udcff.db-journal", "quiet.db", "odd-wal":
        (source / name).touch()
    code, out, err = vault("--json", "snapshot", source, "--name", "d")
    assert code == 0
    assert json.loads(out)["databases_in_use"] == [
        {"path": "app.db", "engine": "sqlite"},
        {"path": "b\\xff.db", "path_base64": "Yv8uZGI=", "engine": "sqlite"},
        {"path": "cluster", "engine": "postgresql"},
    ]
    assert err.count("Databases") == 2  # for people one of a directory is enough
    for name in "cluster/postmaster.pid", "app.db-wal", "b\udcff.db-journal":
        (source / name).unlink()
    again = json.loads(vault("--json", "snapshot", source, "--name", "d")[1])
    assert again["databases_in_use"] == []
