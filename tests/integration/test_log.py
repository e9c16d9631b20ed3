"""`vault log` and `vault show`: what warnings name can be looked up."""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vault.clock import utc_now
from vault.crypto.key_files import load_root
from vault.format import inventory
from vault.ledger.statements import PruneBody
from vault.model import Digest
from vault.repository.append_statements import Draft
from vault.repository.repository import Repository
from vault.storage.choose_store import open_store
from vault.storage.names import ledger_name

PASSPHRASE = b"correct horse"  # as the conftest's file has it

Vault = Callable[..., tuple[int, str, str]]


@pytest.fixture
def told(vault: Vault, repository: Path, source: Path) -> Path:
    """Snapshots 2 and 3 of two datasets, a restore of each: 4 and 5."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    assert vault("snapshot", source, "--name", "other")[0] == 0
    assert vault("restore", "2", "first")[0] == 0
    assert vault("restore", "3", "second")[0] == 0
    return repository


def lines(out: str) -> list[dict[str, Any]]:
    """One object a line."""
    documents = [json.loads(line) for line in out.splitlines()]
    assert {each["schema"] for each in documents} <= {"vault/log/v1"}
    return [each["statement"] for each in documents]


def test_the_ledger_is_told_line_by_line(vault: Vault, told: Path) -> None:
    """Who, when, what, and how far it was checked."""
    code, out, err = vault("log")
    assert (code, err) == (0, "")
    rows = out.splitlines()
    assert re.match(r"seq +stored \(UTC[+-]..:..\) +type +signed by +outcome +what$", rows[0])
    assert [row.split()[0] for row in rows[1:]] == ["0", "1", "2", "3", "4", "5"]
    assert re.search(r"snapshot +first [0-9a-f]{16} +valid +data, complete, ", rows[3])
    assert re.search(r"restore +restorer [0-9a-f]{16} +valid, evidence checked +passed: ", rows[5])


def test_programs_get_one_object_a_statement(vault: Vault, told: Path) -> None:
    """The body as signed, and whether what it cites bears it out."""
    code, out, _ = vault("--json", "log", "--dataset", "data")
    assert code == 0
    found = lines(out)
    assert [each["seq"] for each in found] == [1, 2, 4]
    assert found[1]["body"]["dataset"] == "data"
    assert found[1]["signers"][0]["name"] == "first"
    assert found[2]["cites"]["borne_out"] is True
    assert [each["effect"] for each in found] == ["valid"] * 3


def test_the_log_is_narrowed(vault: Vault, told: Path) -> None:
    """By type, number and time; what is none of these is a usage error."""
    assert [each["seq"] for each in lines(vault("--json", "log", "--type", "restore")[1])] == [4, 5]
    assert [each["seq"] for each in lines(vault("--json", "log", "5")[1])] == [5]
    assert len(lines(vault("--json", "log", "--since", "1d")[1])) == 6
    assert lines(vault("--json", "log", "--since", "2099-01-01")[1]) == []
    assert vault("log", "--since", "yesterday")[0] == 2
    assert vault("log", "--type", "backup")[0] == 2
    assert vault("log", "--dataset", "nothing")[0] == 2
    code, _, err = vault("log", "99")
    assert code == 2
    assert "the ledger has no statement 99" in err


def test_one_statement_is_shown_whole(vault: Vault, told: Path) -> None:
    """Every signed member, what it cites, and what came of it."""
    code, out, _ = vault("show", "2")
    assert code == 0
    for wanted in (
        r"^statement +2:[0-9a-f]{64}$",
        r"^outcome +valid$",
        r"^signed by +first, role writer$",
        r"^signed at +\S+Z by the signer's clock$",
        r"^stored at +\S+Z by the store's clock",
        r"^later +4 restore$",
        r"^tree\.commitment +[0-9a-f]{64}$",
    ):
        assert re.search(wanted, out, re.MULTILINE), wanted
    code, out, _ = vault("show", "4")
    assert code == 0
    assert re.search(r"^evidence +[0-9a-f]{64}: opened, says the same$", out, re.MULTILINE)
    assert re.search(r"^proof +passed$", out, re.MULTILINE)
    code, _, err = vault("show", "6")
    assert code == 2
    assert "statements 0 to 5" in err


def test_evidence_that_is_gone_is_told(vault: Vault, told: Path) -> None:
    """Neither command repeats a verdict that nothing bears out. The control: the other restore."""
    cited = lines(vault("--json", "log", "4")[1])
    (told / "evidence" / cited[0]["cites"]["digest"]).unlink()
    code, out, err = vault("log", "4")
    assert code == 0
    assert "NOT BELIEVED" in out.splitlines()[1]
    assert "valid, evidence checked" in out.splitlines()[2]
    assert "ledger 4: what it cites does not bear it out" in err
    code, out, _ = vault("show", "4")
    assert code == 4
    assert re.search(r"^outcome +NOT BELIEVED$", out, re.MULTILINE)
    assert vault("show", "5")[0] == 0


def test_what_a_revocation_took_back_is_told_as_that(vault: Vault, told: Path) -> None:
    """The number in the warning of `list` leads to it, and it leads to the revocation."""
    assert vault("key", "revoke", "first", "--distrust-from", "3", "--reason", "stolen")[0] == 0
    assert "ledger 3: 1 statement does not count" in vault("list")[2]
    rows = vault("log")[1].splitlines()
    assert re.search(r"snapshot +first \S+ +distrusted by 6 ", rows[4])
    assert "revokes first, distrusts it from 3 on: stolen" in rows[7]
    code, out, _ = vault("show", "3")
    assert code == 0
    assert re.search(r"^outcome +distrusted by 6$", out, re.MULTILINE)
    assert re.search(r"^later +5 restore, 6 writer$", out, re.MULTILINE)


def test_what_a_prune_plan_dooms_is_told(vault: Vault, told: Path, keys: Path) -> None:
    """The plan says how much, and each snapshot that needs it; the control: one that does not."""
    root_key = load_root(keys / "root.key", PASSPHRASE)
    repository = Repository.open(
        open_store(str(told)), Digest.parse(root_key.repository.root), clock=utc_now
    )
    mine = repository.inventory(repository.ledger.records[2]).objects
    others = {ref.name for ref in repository.inventory(repository.ledger.records[3]).objects}
    wanted = [ref for ref in mine if ref.name not in others]
    assert wanted
    digest = repository.put_evidence(inventory.encode(wanted))
    body = PruneBody(phase="plan", plan=str(digest))
    draft = Draft(type="prune", subject=[(f"evidence/{digest}", digest)], body=body)
    repository.append(lambda _: draft, [root_key.pruner], tool="vault test")
    rows = vault("log")[1].splitlines()
    count = len(wanted)
    assert f"doomed: prune plans name {count} object" in rows[3]
    assert "doomed" not in rows[4]
    assert re.search(rf"names {count} objects?: doomed", rows[7])
    assert lines(vault("--json", "log", "2", "--type", "snapshot")[1])[0]["doomed"] == count
    assert re.search(rf"^doomed +doomed: .* {count} object", vault("show", "2")[1], re.MULTILINE)
    assert not re.search(r"^doomed", vault("show", "3")[1], re.MULTILINE)


def test_a_copied_store_shows_the_signers_times(vault: Vault, told: Path) -> None:
    """Its own are those of the copying; the heading says whose clock it is."""
    before = vault("log")[1].splitlines()
    assert " stored (" in before[0]
    later = time.time() + 3 * 86_400
    for path in (told / "ledger").iterdir():
        subprocess.run(["chattr", "-i", str(path)], check=False, capture_output=True)
        os.utime(path, (later, later))
    after = vault("log")[1].splitlines()
    assert " signed (" in after[0]
    assert [row.split()[:3] for row in after[1:]] == [row.split()[:3] for row in before[1:]]
    assert "its own time" not in "".join(after)


def test_untrusted_words_steer_no_terminal(vault: Vault, told: Path) -> None:
    """A reason is anybody's text: it can't turn the direction of what follows, or end a line."""
    assert vault("key", "revoke", "first", "--reason", "a\u202eb\u2028c")[0] == 0
    for command in (("log",), ("show", "6")):
        out = vault(*command)[1]
        assert "\u202e" not in out
        assert r"a\u202eb\u2028c" in out


def test_a_log_needs_no_key(vault: Vault, told: Path, keys: Path) -> None:
    """The root's digest is enough."""
    root = json.loads(vault("--json", "log", "--type", "root")[1])["statement"]["head"]
    for file in keys.iterdir():
        file.unlink()
    (told / ledger_name(0)).stat()
    code, out, _ = vault("--repo", told, "--trust", root, "log")
    assert code == 0
    assert len(out.splitlines()) == 7
    assert vault("--repo", told, "--trust", root, "show", "5")[0] == 0


def test_a_dataset_of_which_nothing_counts_is_told_with_the_way_to_it(
    vault: Vault, told: Path
) -> None:
    """After a revocation with distrust the number still leads to what was published."""
    assert vault("key", "revoke", "first", "--distrust-from", "2")[0] == 0
    code, _, err = vault("restore", "data", "third")
    assert code == 2
    assert "no snapshot of dataset data counts any more" in err
    assert "found snapshot 2: its writer is distrusted by statement 6" in " ".join(err.split())
    assert "restore --void 2" in err
    assert vault("restore", "nosuch", "third")[2].count("there is no snapshot of dataset") == 1
    assert vault("restore", "--void", "2", "third")[0] in (0, 3)
