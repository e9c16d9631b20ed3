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


# --- what is in force ---


@pytest.fixture
def laptop(vault: Vault, home: Path) -> Path:
    """A repository, and a policy of a dataset `home` that may be edited."""
    assert vault("init", "repository", "--host", "web")[0] == 0
    path = home / "laptop.toml"
    path.write_text(LAPTOP.read_text())
    return path


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_an_applied_policy_is_a_floor_for_snapshots(
    vault: Vault, vault_json: VaultJson, laptop: Path, source: Path
) -> None:
    """Of its datasets, whatever --retain says; others go by --retain as before."""
    assert vault("policy", "apply", laptop, "--reason", "first")[0] == 0
    body = vault_json("snapshot", source, "--name", "home", "--retain", "1d")["snapshot"]
    assert body["retention"]["tiers"] == ["daily", "monthly"]
    assert body["retention"]["keep"] == 372 * 86_400
    [shown] = vault_json("policy", "show")["policies"]
    assert body["policy"] == shown["sha256"]
    code, _, err = vault("snapshot", source, "--name", "home", "--retain", "1d")
    assert code == 0
    assert "policy laptop keeps home longer than --retain: 7d or more" in err
    body = vault_json("snapshot", source, "--name", "home")["snapshot"]
    assert (body["retention"]["keep"], body["retention"]["tiers"]) == (7 * 86_400, [])
    body = vault_json("snapshot", source, "--name", "other", "--retain", "10d")["snapshot"]
    assert (body["retention"]["keep"], body["policy"]) == (10 * 86_400, "")


def test_a_weaker_policy_is_listed_and_asked_for_twice(vault: Vault, laptop: Path) -> None:
    """First --weaken, then a terminal or --yes; until then nothing is signed."""
    assert vault("policy", "apply", laptop)[0] == 0
    _edit(laptop, "monthly = 12", "monthly = 6")
    code, _, err = vault("policy", "apply", laptop)
    assert code == 2
    assert "weaker: home: monthly from 372d to 186d" in err
    assert "--weaken agrees to it" in err
    code, _, err = vault("policy", "apply", laptop, "--weaken")
    assert (code, "needs a confirmation" in err) == (2, True)
    assert "monthly=372d" in vault("policy", "show")[1]
    code, out, _ = vault("policy", "apply", laptop, "--weaken", "--yes")
    assert (code, "apply laptop, statement 3" in out) == (0, True)
    assert "monthly=186d" in vault("policy", "show", "laptop")[1]
    assert "weaker: home: monthly from 372d to 186d" in vault("log", "--type", "policy")[1]


def test_show_says_how_the_local_file_differs(
    vault: Vault, vault_json: VaultJson, laptop: Path, home: Path
) -> None:
    """Of the file of that name beside the key files."""
    assert vault("policy", "show")[1] == "no policy is in force\n"
    assert vault("policy", "apply", laptop)[0] == 0
    assert vault_json("policy", "show")["policies"][0]["differs"] is None
    local = home / "config/vault/policies/laptop.toml"
    local.parent.mkdir()
    local.write_text(laptop.read_text())
    assert vault_json("policy", "show")["policies"][0]["differs"] == ""
    _edit(local, "daily = 30", "daily = 3")
    assert "says otherwise; weaker: home: daily from 30d to 3d" in vault("policy", "show")[1]
    local.write_text("junk")
    assert "can't be used" in vault("policy", "show")[1]
    code, _, err = vault("policy", "show", "web")
    assert (code, "in force: laptop" in err) == (2, True)


def test_a_policy_ends_and_a_dataset_is_given_up_only_if_that_is_agreed_to(
    vault: Vault, vault_json: VaultJson, laptop: Path, source: Path
) -> None:
    """Each is a statement; what was stored keeps its time."""
    assert vault("policy", "apply", laptop)[0] == 0
    until = vault_json("snapshot", source, "--name", "home")["snapshot"]["until"]
    assert vault("policy", "withdraw", "laptop")[0] == 2
    assert vault("policy", "retire", "home")[0] == 2
    assert vault("policy", "retire", "home", "--yes", "--reason", "moved")[0] == 0
    assert vault("policy", "withdraw", "laptop", "--yes")[0] == 0
    shown = vault_json("policy", "show")
    assert (shown["policies"], shown["retired"]) == ([], ["home"])
    assert [each["until"] for each in vault_json("list")["snapshots"]] == [until]
    assert vault("policy", "withdraw", "laptop", "--yes")[0] == 2
    assert vault("audit")[0] == 0


def test_what_the_repository_can_not_keep_is_refused(vault: Vault, laptop: Path) -> None:
    """With every reason; nothing is signed. Nor is a reason that is too long."""
    _edit(laptop, "monthly = 12", 'monthly = "9y"\nlock = "compliance"')
    code, _, err = vault("policy", "apply", laptop)
    assert code == 2
    assert "monthly is longer than the repository's maximum of 400 days" in err
    assert "asks for compliance locks, and the repository has lock mode" in err
    _edit(laptop, 'monthly = "9y"\nlock = "compliance"', "monthly = 12")
    assert vault("policy", "apply", laptop, "--reason", "x" * 201)[0] == 2
    assert vault("policy", "show")[1] == "no policy is in force\n"


def test_check_says_what_is_missed_short_or_different(
    vault: Vault, vault_json: VaultJson, laptop: Path, source: Path, home: Path
) -> None:
    """And ends with the gravest of it: 6 an objective or a file, 5 a snapshot kept too short."""
    assert vault("policy", "check")[:2] == (0, "no policy is in force\n")
    _edit(laptop, 'drill = "90d"\n', "")
    assert vault("policy", "apply", laptop)[0] == 0
    code, out, _ = vault("policy", "check")
    assert (code, "rpo MISSED: never, allowed 3d" in out) == (6, True)
    assert vault("snapshot", source, "--name", "home")[0] == 0
    assert vault("policy", "check", "laptop")[0] == 0
    local = home / "config/vault/policies/laptop.toml"
    local.parent.mkdir()
    local.write_text(LAPTOP.read_text())
    code, out, _ = vault("policy", "check")
    assert (code, "laptop.toml says otherwise" in out) == (6, True)
    local.unlink()
    assert vault("policy", "check", "web")[0] == 2
    found = vault_json("policy", "check")
    assert found["kept_short"] == found["drift"] == found["not_used"] == []
