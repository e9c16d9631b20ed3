"""Checkpoints and witnesses by command: a log, a witness with a directory, and who reads."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.support.lab import Lab
from tests.support.witnesses import Council, beat, cut, file_council, file_lab, govern, save_log
from vault.clock import utc_now
from vault.crypto.keys import WitnessKey
from vault.model import Digest

Vault: TypeAlias = Callable[..., tuple[int, str, str]]
VaultJson: TypeAlias = Callable[..., Any]

ALONE = Path(__file__).parents[2] / "docs" / "witness.py"


@pytest.fixture
def lab(repository: Path, keys: Path) -> Lab:
    """The repository that the program made, with its keys."""
    return file_lab(repository, keys)


@pytest.fixture
def council(lab: Lab, vault: Vault, home: Path, keys: Path) -> Council:
    """A log, and the witness in the directory `witness`."""
    code, vkey, err = vault("witness", "init", "--state", home / "witness", "--name", "w0")
    assert code == 0, err
    council = file_council(lab, home / "witness")
    govern(lab, council)
    save_log(council, keys)
    assert [each.vkey for each in lab.open().ledger.root.witnesses] == [vkey.strip()]
    return council


def cosigned(vault: Vault, home: Path, *more: object) -> None:
    """One whole round: note, cosignature, stored again."""
    code, _, err = vault("checkpoint", "--out", home / "note", *more)
    assert code == 0, err
    ask = ("witness", "cosign", "--state", home / "witness", home / "note")
    code, _, err = vault(*ask, "--out", home / "answer")
    assert code == 0, err
    code, _, err = vault("checkpoint", "--attach", home / "answer")
    assert code == 0, err


def know_log(vault: Vault, council: Council, home: Path) -> None:
    """The witness is set up with the log's key."""
    ask = ("witness", "init", "--state", home / "witness", "--log", council.log_vkey)
    code, _, err = vault(*ask)
    assert code == 0, err


def test_a_checkpoint_goes_to_a_witness_and_back_by_files(
    vault: Vault, vault_json: VaultJson, council: Council, home: Path
) -> None:
    """The log says its verifier key, the witness is set up with it; then three commands a round."""
    first = vault_json("checkpoint", "--out", home / "note")["checkpoint"]
    assert (first["counts"], first["cosignatures"], first["quorum"]) == (False, [], 1)
    assert first["log"] == council.log_vkey
    ask = ("witness", "cosign", "--state", home / "witness", home / "note")
    code, out, err = vault(*ask)
    assert (code, out) == (4, "")
    assert "404" in err
    know_log(vault, council, home)
    code, answer, err = vault(*ask)
    assert code == 0, err
    (home / "answer").write_text(answer)
    attached = vault_json("checkpoint", "--attach", home / "answer")["checkpoint"]
    assert (attached["counts"], attached["size"]) == (True, first["size"])
    assert [each["name"] for each in attached["cosignatures"]] == ["w0"]
    status = vault_json("status")
    assert status["witnessed"]["standing"] == "vouched"
    beat(council.lab)
    cosigned(vault, home)
    journal = vault_json("witness", "log", "--state", home / "witness")["witness"]
    assert [each["answer"] for each in journal["answers"]] == [404, 200, 200]
    assert [each["size"] for each in journal["logs"]] == [first["size"] + 1]


def test_a_witness_in_one_file_does_the_same(
    vault: Vault, vault_json: VaultJson, council: Council, home: Path
) -> None:
    """docs/witness.py with the directory of the vault's own witness, in turns."""
    know_log(vault, council, home)
    cosigned(vault, home)
    beat(council.lab)
    assert vault("checkpoint", "--out", home / "note")[0] == 0
    alone = [sys.executable, str(ALONE), "cosign", "--state", str(home / "witness")]
    done = subprocess.run(
        [*alone, str(home / "note"), "--out", str(home / "answer")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert vault_json("checkpoint", "--attach", home / "answer")["checkpoint"]["counts"]
    beat(council.lab)
    cosigned(vault, home)


def test_what_is_no_file_is_written_into(vault: Vault, council: Council, home: Path) -> None:
    """Root would put a file in the place of /dev/null, for all programs of the machine."""
    know_log(vault, council, home)
    assert vault("checkpoint", "--out", home / "note")[0] == 0
    ask = ["cosign", "--state", str(home / "witness"), str(home / "note"), "--out"]
    reader, writer = os.openpty()
    try:
        device = os.ttyname(writer)
        (home / "device").symlink_to(device)
        assert vault("checkpoint", "--out", home / "device")[0] == 0
        alone = [sys.executable, str(ALONE), *ask, str(home / "device")]
        done = subprocess.run(alone, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert (home / "device").is_symlink()
        told = os.read(reader, 1 << 16)
        assert told.startswith(b"old ")
        assert council.names[0].encode() in told
    finally:
        os.close(reader)
        os.close(writer)


def test_a_witness_that_reads_the_ledger_needs_no_proof(
    vault: Vault, council: Council, home: Path, repository: Path
) -> None:
    """It learns the log from the root, and tells who may sign since."""
    assert vault("checkpoint", "--out", home / "note", "--old", 1)[0] == 0
    root = f"0:{council.lab.root}"
    read = ("--repo", repository, "--trust", root)
    ask = ("witness", "cosign", "--state", home / "witness", home / "note", "--out", home / "a")
    code, _, err = vault(*read, *ask)
    assert code == 0, err
    assert "new: statement 2: root 2" in err
    cut(council.lab, 1)
    beat(council.lab, "forged")
    code, _, err = vault(*read, *ask)
    assert code == 4


def test_a_witness_says_which_size_it_wants(vault: Vault, council: Council, home: Path) -> None:
    """A note whose proof begins elsewhere is refused, and the log writes another."""
    know_log(vault, council, home)
    cosigned(vault, home)
    beat(council.lab)
    assert vault("checkpoint", "--out", home / "note", "--old", 1)[0] == 0
    ask = ("witness", "cosign", "--state", home / "witness", home / "note", "--out", home / "a")
    code, _, err = vault(*ask)
    assert (code, "409" in err, "--old" in err) == (4, True, True)
    size = len(council.lab.open().ledger.records) - 1
    assert vault("checkpoint", "--out", home / "note", "--old", size)[0] == 0
    assert vault(*ask)[0] == 0


def test_a_cold_machine_is_told_what_vouches_for_the_newest(
    vault: Vault,
    council: Council,
    home: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A checkpoint, a head that is named, what this machine remembers; else one line, once."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    know_log(vault, council, home)

    def restored(name: str, *options: object) -> tuple[str | None, str]:
        monkeypatch.setenv("XDG_STATE_HOME", str(home / name / "state"))
        code, out, err = vault("--json", *options, "restore", "data", home / name / "target")
        assert code == 0, err
        assert json.loads(out)["restore"]["proven_newest"] is ("not proven newest" not in err)
        return json.loads(out)["restore"]["newest_by"], err

    by, err = restored("cold")
    assert (by, err.count("not proven newest"), err.count("witness cosign")) == (None, 1, 2)
    assert restored("cold2", "--trust", f"{council.lab.open().head}")[0] == "trust"
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    cosigned(vault, home)
    by, err = restored("cold3")
    assert (by, "newest as of" in err) == ("checkpoint", True)


def test_frozen_ends_status_and_audit_with_6_and_refuses_nothing(
    vault: Vault, vault_json: VaultJson, council: Council, home: Path
) -> None:
    """A list goes on, with one line."""
    council.checkpoint(now=utc_now() - timedelta(hours=26))
    assert vault_json("status", code=6)["witnessed"]["standing"] == "frozen"
    assert vault("status", "--check")[0] == 6
    audit = vault_json("audit", code=6)["audit"]
    assert audit["verdict"].startswith("failed: objective")
    assert [each["code"] for each in audit["findings"] if each["severity"] == "error"] == ["frozen"]
    code, _, err = vault("list")
    assert (code, err.count("frozen")) == (0, 1)


@pytest.mark.parametrize("what", ["truncated", "forked"])
def test_what_contradicts_a_checkpoint_ends_with_4(
    vault: Vault, vault_json: VaultJson, council: Council, home: Path, what: str
) -> None:
    """By name; an audit keeps what convicts, and a head that is accepted goes on."""
    beat(council.lab, "honest")
    note = council.checkpoint()
    cut(council.lab, 1)
    if what == "forked":
        beat(council.lab, "forged")
    for command in ("list", "status", "stats"):
        code, _, err = vault(command)
        assert (code, what in err) == (4, True)
    report = home / "report.html"
    audit = vault_json("audit", "--report", report, code=4)["audit"]
    assert what in [each["code"] for each in audit["findings"]]
    kept = report.with_name(f"{report.name}.{note.size}.note")
    assert kept.read_bytes() == note.encode()
    head = council.lab.open().head
    code, _, err = vault("--accept-head", head, "list")
    assert code == 0, err
    assert vault("list")[0] == 0


def test_a_note_that_does_not_count_changes_the_exit_of_audits_alone(
    vault: Vault, vault_json: VaultJson, council: Council
) -> None:
    """A stolen log key without a witness."""
    council.checkpoint()
    council.store(council.note([Digest.of(b"forged")] * 9))
    code, _, err = vault("status")
    assert (code, "the key may be stolen" in err) == (0, True)
    audit = vault_json("audit", code=4)["audit"]
    assert [each["code"] for each in audit["findings"] if each["severity"] == "error"] == [
        "checkpoint"
    ]


def test_who_requires_witnesses_is_refused_without_one(
    vault: Vault, vault_json: VaultJson, council: Council, home: Path
) -> None:
    """Exit 4; a warning for all others. A pinned policy stands in place of the root's list."""
    code, _, err = vault("list")
    assert (code, "unwitnessed" in err) == (0, True)
    assert vault("--require-witnesses", "list")[0] == 4
    assert vault("audit")[0] == 0
    vault_json("--require-witnesses", "audit", code=4)
    council.checkpoint()
    assert vault("--require-witnesses", "list")[0] == 0
    stranger = dataclasses.replace(council, witnesses=(WitnessKey.generate(),))
    policy = home / "policy"
    policy.write_text(stranger.policy())
    assert vault("--witness-policy", policy, "--require-witnesses", "list")[0] == 4
    policy.write_text(council.policy())
    assert vault("--witness-policy", policy, "--require-witnesses", "list")[0] == 0
    for wrong in ("", "quorum x", "witness w\n", "witness w abc\nquorum w\n", "nonsense\n"):
        policy.write_text(wrong)
        code, _, err = vault("--witness-policy", policy, "list")
        assert (code, "policy" in err) == (2, True)
    assert vault("--witness-policy", home / "none", "list")[0] == 2


def test_a_repository_without_witnesses_says_nothing_of_them(
    vault: Vault, vault_json: VaultJson, repository: Path
) -> None:
    """As before."""
    code, _, err = vault("list")
    assert (code, "witness" in err) == (0, False)
    assert vault_json("status")["witnessed"]["standing"] == "unasked"
    assert vault("checkpoint")[0] == 12


@pytest.mark.parametrize(
    "arguments",
    [
        ("witness", "init", "--state", "x"),
        ("witness", "init", "--state", "x", "--name", "a b"),
        ("witness", "init", "--state", "x", "--log", "y"),
        ("witness", "cosign", "--state", "x", "missing"),
        ("checkpoint", "--attach", "missing"),
        ("checkpoint", "--attach", "x", "--out", "y"),
        ("checkpoint", "--old", "3"),
    ],
)
def test_what_is_not_said_right_is_usage(
    vault: Vault, repository: Path, arguments: tuple[str, ...]
) -> None:
    """Exit 2, and nothing is written."""
    code, out, err = vault(*arguments)
    assert (code, out, "Traceback" in err) == (2, "", False)
    assert not Path("x/vkey").exists()


def test_a_silent_host_ends_status_check_and_audit_with_6(
    vault: Vault, vault_json: VaultJson, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gave itself a second; nothing else is the matter."""
    assert vault("heartbeat", "--every", "1s")[0] == 0
    later = utc_now() + timedelta(minutes=1)
    monkeypatch.setattr("cli.session.wall_clock", lambda: later)
    status = vault_json("status", "--check", code=6)
    assert [each["host"] for each in status["silent"]] == ["first"]
    assert vault("status")[0] == 0
    audit = vault_json("audit", code=6)["audit"]
    assert [each["code"] for each in audit["findings"] if each["severity"] == "error"] == ["silent"]


def test_a_machine_that_has_the_log_s_key_alone_needs_no_address(
    vault: Vault, council: Council, keys: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key file names repository and root, as each does."""
    (home / "cron").mkdir()
    (keys / "log.key").rename(home / "cron/log.key")
    monkeypatch.setenv("VAULT_KEYS", str(home / "cron"))
    code, _, err = vault("checkpoint")
    assert code == 0, err
