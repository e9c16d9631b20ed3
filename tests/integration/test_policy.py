"""`vault policy`: what it says of files, and how it ends."""

import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

Vault: TypeAlias = Callable[..., tuple[int, str, str]]
VaultJson: TypeAlias = Callable[..., Any]

POLICIES = Path(__file__).parents[2] / "policies"
LAPTOP = POLICIES / "laptop.toml"


def test_every_example_is_valid(vault: Vault) -> None:
    """Without a repository, and without a warning."""
    files = sorted(POLICIES.glob("*.toml"))
    code, out, err = vault("policy", "validate", *files)
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"{file}: valid" for file in files]


def test_what_is_wrong_is_named_by_file_and_line(vault: Vault, home: Path) -> None:
    """All of it, also where another file is good or can't be read; exit 2."""
    wrong = home / "laptop.toml"
    text = LAPTOP.read_text().replace("within", "witin").replace('"3d"', "3")
    wrong.write_text(text.replace("[retention]", "[retentions]"))
    os.mkfifo(home / "pipe.toml")
    code, out, _ = vault("policy", "validate", wrong, LAPTOP, home / "pipe.toml", home / "none")
    number = LAPTOP.read_text().splitlines().index("[retention]") + 1
    assert code == 2
    assert f"{wrong}:{number}: retentions: there is no such key (did you mean retention?)" in out
    assert f"{wrong}:14: objectives.rpo: can't be 3 (give a number and one of s, m" in out
    assert f"{LAPTOP}: valid" in out
    assert "pipe.toml is no plain file" in out
    assert "none can't be read" in out


def test_a_warning_leaves_a_file_valid(vault: Vault, vault_json: VaultJson, home: Path) -> None:
    """It is said as a warning, and exit 0."""
    short = home / "laptop.toml"
    short.write_text(LAPTOP.read_text().replace('within = "7d"', 'within = "1d"'))
    code, out, _ = vault("policy", "validate", short)
    assert code == 0
    assert "warning: retention.within" in out
    assert out.endswith(f"{short}: valid\n")
    [file] = vault_json("policy", "validate", short)["files"]
    assert (file["valid"], file["name"]) == (True, "laptop")
    assert [each["severity"] for each in file["problems"]] == ["warning"]


def test_a_simulation_shows_what_would_be_kept(vault: Vault, vault_json: VaultJson) -> None:
    """For each dataset by its own schedule, without a repository; compliance is said."""
    code, out, err = vault("policy", "simulate", POLICIES / "web-postgresql.toml", "--days", "40")
    assert (code, err) == (0, "")
    blocks = out.split("\n\n")
    assert [block.partition(":")[0] for block in blocks] == [
        "www",
        "shop-db",
        "pg-globals",
        "pg-base",
    ]
    assert blocks[0].splitlines()[3].split()[:4] == ["8", "days", "192", "192"]
    found = vault_json("policy", "simulate", POLICIES / "sec-17a-4.toml", "--days", "40")
    assert found["datasets"][0]["days"][-1]["snapshots"] == 40
    out = vault("policy", "simulate", POLICIES / "sec-17a-4.toml", "--days", "40")[1]
    assert "2,193 days from now; under compliance locks nothing removes it earlier" in out


def test_a_simulation_needs_a_valid_policy_with_a_schedule(vault: Vault, home: Path) -> None:
    """Exit 2, and the same lines as `validate` has."""
    (home / "a.toml").write_text('policy = 1\nname = "b"\n[[dataset]]\nname = "A"\n')
    code, _, err = vault("policy", "simulate", "a.toml")
    assert code == 2
    assert "a.toml:4: dataset[0].name: can't be 'A'" in err
    (home / "a.toml").write_text(
        'policy = 1\nname = "a"\n[[dataset]]\nname = "b"\npaths = ["/b"]\n'
    )
    code, _, err = vault("policy", "simulate", "a.toml")
    assert code == 2
    assert "dataset b has no schedule" in err


@pytest.mark.parametrize("text", ['"\\u001b[2J" = 1', "name = '\x1b[2J'", "policy = 1\x1b"])
def test_text_of_a_file_can_not_steer_the_terminal(vault: Vault, home: Path, text: str) -> None:
    """Escapes are shown as such."""
    (home / "a.toml").write_text(text)
    code, out, err = vault("policy", "validate", home / "a.toml")
    assert code == 2
    assert "\x1b" not in out + err


def test_the_schema_is_printed_as_it_is_published(vault: Vault) -> None:
    """For editors and other programs."""
    code, out, _ = vault("policy", "schema")
    assert code == 0
    published = (POLICIES.parent / "docs/policy.schema.json").read_text("utf-8")
    assert json.loads(out) == json.loads(published)
    assert "PolicyTable" in json.loads(out)["$defs"]
    assert tomllib.loads(LAPTOP.read_text())["policy"] == 1
