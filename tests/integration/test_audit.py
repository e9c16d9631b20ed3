"""`vault audit`, `vault heal` and `vault status --locks` as users run them."""

import hashlib
import random
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from vault.crypto.key_files import load_recovery
from vault.errors import StorageError
from vault.ledger.statements import EventBody
from vault.model import Digest, LockMode, Retention
from vault.repository.append_statements import Draft
from vault.repository.enrolment import existing_root
from vault.repository.repository import Repository
from vault.storage.local import LocalStore

Vault: TypeAlias = Callable[..., tuple[int, str, str]]
VaultJson: TypeAlias = Callable[..., Any]


@pytest.fixture
def stored(vault: Vault, repository: Path, source: Path) -> Path:
    """A repository with a snapshot."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    return repository


@pytest.fixture
def locked(vault: Vault, home: Path, source: Path) -> Path:
    """The same with locks, as far as a directory keeps them."""
    made = home / "locked"
    code, _, err = vault("init", made, "--host", "first", "--lock", "governance")
    assert code == 0, err
    assert vault("snapshot", source, "--name", "data", "--retain", "30d")[0] == 0
    return made


def packs(repository: Path) -> list[Path]:
    """Files of packs."""
    return sorted(path for path in (repository / "packs").rglob("*") if path.is_file())


def beside(path: Path, data: bytes = b"junk") -> Path:
    """A later version of an object, as anybody who may write the directory makes it."""
    file = path.with_name(path.name + "~2")
    file.write_bytes(data)
    return file


def test_a_sound_repository_passes(vault: Vault, vault_json: VaultJson, stored: Path) -> None:
    """Advisory locks are said and are no failure."""
    code, out, err = vault("audit", "--read-data", "all")
    assert code == 0, err
    assert out.splitlines()[0].split("  ")[0] == "verdict"
    assert "passed; all packs read" in out.splitlines()[0]
    assert "info: advisory-locks" in out
    result = vault_json("audit")["audit"]
    assert (result["advisory"], result["lock"]) == (True, "none")
    assert result["verdict"] == "passed; packs not read"
    assert [each["dataset"] for each in result["snapshots"]] == ["data"]


def test_only_the_pinned_root_is_needed(
    vault: Vault,
    vault_json: VaultJson,
    stored: Path,
    monkeypatch: pytest.MonkeyPatch,
    home: Path,
) -> None:
    """From --trust, on a machine without any key file."""
    pinned = existing_root(LocalStore(stored))
    monkeypatch.setenv("VAULT_KEYS", str(home / "nothing"))
    assert vault("--repo", stored, "audit")[0] == 2
    assert vault("--repo", stored, "--trust", "0:" + "0" * 64, "audit")[0] == 4
    found = vault_json("--repo", stored, "--trust", f"0:{pinned}", "audit")["audit"]
    assert found["verdict"] == "passed; packs not read"


@pytest.mark.parametrize(
    ("share", "said", "read"),
    [
        ("0%", "packs not read", 0),
        ("1%", "25 % of packs read", 1),
        ("50%", "50 % of packs read", 2),
        ("75%", "75 % of packs read", 3),
        ("all", "all packs read", 4),
    ],
)
def test_no_screen_gives_a_verdict_without_how_much_was_read(
    vault: Vault,
    vault_json: VaultJson,
    stored: Path,
    source: Path,
    home: Path,
    *,
    share: str,
    said: str,
    read: int,
) -> None:
    """Text, JSON and the page for a browser; and never more than was read."""
    (source / "more").write_bytes(b"more" * 4000)
    assert vault("snapshot", source, "--name", "data")[0] == 0
    result = vault_json("audit", "--read-data", share, "--report", "report.html")["audit"]
    assert (result["verdict"], result["packs_read"]) == (f"passed; {said}", read)
    assert result["packs"] == len(packs(stored))
    out = vault("audit", "--read-data", share)[1]
    page = (home / "report.html").read_text()
    assert f"passed; {said}" in page
    for text in (out, page):
        assert not re.search(r"passed(?!; )", text)


@pytest.mark.parametrize("act", ["overwritten", "missing", "flipped", "junk"])
def test_tampering_exits_4(vault: Vault, vault_json: VaultJson, stored: Path, act: str) -> None:
    """With what, which and when."""
    victim = packs(stored)[0]
    code = {"overwritten": "other-bytes", "missing": "missing", "flipped": "wrong-bytes"}.get(act)
    if act == "overwritten":
        beside(victim)
    elif act == "missing":
        victim.unlink()
    elif act == "flipped":
        victim.chmod(0o600)
        victim.write_bytes(victim.read_bytes()[:-1] + b"\0")
    else:
        (stored / "ledger" / f"{7:016d}").write_text("{}")
        code = "junk-statement"
    result = vault_json("audit", "--read-data", "all", code=4)["audit"]
    assert [each["code"] for each in result["findings"]] == [code, "advisory-locks"]
    found = vault("audit", "--read-data", "all")
    assert found[0] == 4
    assert f"error: {code}: " in found[1]


def test_a_gap_exits_5_from_audit_and_status(
    vault: Vault, vault_json: VaultJson, locked: Path
) -> None:
    """Until when, by which object, and how many days are left."""
    code, out, _ = vault("status", "--locks")
    assert code == 0
    (watched,) = vault_json("status", "--locks")["snapshots"]
    assert watched["protection"]["days_to_gap"] is None
    assert watched["protection"]["weakest"] in out
    assert "gap in days" in out
    assert vault("audit")[0] == 0
    pack = packs(locked)[0]
    (locked / ".retention" / pack.relative_to(locked)).unlink()
    result = vault_json("audit", code=5)["audit"]
    assert result["verdict"] == "failed: retention; packs not read"
    (snapshot,) = result["snapshots"]
    name = str(pack.relative_to(locked))
    assert snapshot["protection"] == {"until": None, "weakest": name, "days_to_gap": 0}
    code, out, err = vault("status", "--locks")
    assert code == 5
    assert f"needs {name}, which is locked until no time at all" in err
    assert [*out.splitlines()[-1].split()[-4:-1]] == ["not", "locked", "0"]
    assert name in out
    (found,) = vault_json("status", "--locks", code=5)["snapshots"]
    fields = ("seq", "dataset", "until", "protection")
    assert found == {field: snapshot[field] for field in fields}
    assert vault_json("status")["snapshots"] == []


def test_the_report_is_escaped_and_loads_nothing(vault: Vault, stored: Path, home: Path) -> None:
    """Names in a store are anybody's."""
    (stored / "<script>alert(1)<").mkdir()
    (stored / "<script>alert(1)<" / "script>\x1b[31m\u202e").write_bytes(b"x")
    assert vault("audit", "--report", "report.html")[0] == 0
    page = (home / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)=|url\(", page)
    assert "<td>data</td>" in page


def test_a_report_that_can_not_be_written(vault: Vault, stored: Path) -> None:
    """An error of the local disk."""
    assert vault("audit", "--report", "missing/report.html")[0] == 14


def test_an_audit_accepts_no_head(vault: Vault, stored: Path) -> None:
    """It changes nothing, here or there."""
    assert vault("--accept-head", "0:" + "0" * 64, "audit")[0] == 2


def test_a_rolled_back_ledger_is_a_finding_and_is_not_remembered(
    vault: Vault, vault_json: VaultJson, stored: Path
) -> None:
    """The head that was seen here before is owed."""
    newest = max((stored / "ledger").iterdir())
    kept = newest.read_bytes()
    newest.unlink()
    result = vault_json("audit", code=4)["audit"]
    assert "other-history" in [each["code"] for each in result["findings"]]
    assert vault("list")[0] == 4
    newest.write_bytes(kept)
    assert vault("list")[0] == 0
    assert vault("audit")[0] == 0


def test_a_head_is_remembered_only_of_a_sound_ledger(
    vault: Vault, stored: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that lacks what was asked for may be another history."""
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "other state"))
    assert vault("--trust", "2:" + "0" * 64, "audit")[0] == 4
    assert not (home / "other state").exists()
    assert vault("audit")[0] == 0
    assert len(list((home / "other state/vault/heads").iterdir())) == 1


def test_heal_shows_then_heals_then_is_attested(
    vault: Vault, vault_json: VaultJson, stored: Path
) -> None:
    """Exit 4 while something is hidden, 0 once nothing is."""
    junk = beside(packs(stored)[0])
    code, out, _ = vault("heal")
    assert code == 4
    assert "remove junk" in out
    assert "1 needed object hidden" in out
    assert junk.exists()
    result = vault_json("heal", "--execute")["heal"]
    assert [(each["action"], each["done"]) for each in result["steps"]] == [("remove junk", True)]
    assert not junk.exists()
    assert result["statement"]
    assert vault("audit")[0] == 0
    code, out, _ = vault("heal", "--execute")
    assert (code, "0 needed objects still hidden" in out) == (0, True)
    assert vault_json("heal", "--execute")["heal"]["statement"] is None
    assert vault("verify")[0] == 0


@pytest.mark.parametrize("hidden", ["index", "packs", "expired"])
def test_an_audit_after_a_heal_that_ended_with_0_ends_with_0(
    vault: Vault, vault_json: VaultJson, stored: Path, hidden: str
) -> None:
    """Both go by the same rule of what must be visible; what hides nothing is a warning."""
    if hidden == "expired":
        digest = hashlib.sha256(b"orphan").hexdigest()
        victim = stored / "packs" / digest[:2] / digest
        victim.parent.mkdir(exist_ok=True)
        victim.write_bytes(b"orphan")
    else:
        victim = next(path for path in (stored / hidden).rglob("*") if path.is_file())
    beside(victim)
    code = vault("audit")[0]
    assert code == (4 if hidden == "packs" else 0)
    findings = vault_json("audit", code=code)["audit"]["findings"]
    (told,) = (each for each in findings if each["code"] == "other-bytes")
    assert told["severity"] == ("error" if hidden == "packs" else "warning")
    assert vault("heal", "--execute")[0] == 0
    assert vault("audit")[0] == 0


def test_heal_ends_with_4_where_it_leaves_what_an_audit_calls_an_error(
    vault: Vault, vault_json: VaultJson, stored: Path
) -> None:
    """Junk at a number beyond the head may be a statement by a host enrolled a moment ago."""
    (stored / "ledger" / f"{7:016d}").write_text("{}")
    assert vault("audit")[0] == 4
    result = vault_json("heal", "--execute", code=4)["heal"]
    assert (result["left"], result["lost"], result["steps"]) == ([f"ledger/{7:016d}"], [], [])
    assert (stored / "ledger" / f"{7:016d}").exists()
    out = vault("heal")[1]
    assert out.splitlines()[0] == "0 needed objects hidden, 1 left"
    assert "'vault audit' says what is left" in out.splitlines()[-1]


@pytest.mark.parametrize("kept", ["copy", "locked"])
def test_heal_promises_and_attests_nothing_that_it_can_not_do(
    vault: Vault, vault_json: VaultJson, stored: Path, kept: str
) -> None:
    """A copied statement, or locked junk, beside a statement: shown once, and never advised."""
    victim = stored / "ledger" / f"{1:016d}"
    if kept == "copy":
        beside(victim, (stored / "ledger" / f"{2:016d}").read_bytes())
    else:
        store = LocalStore(stored)
        until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=40)
        lock = Retention(mode=LockMode.GOVERNANCE, until=until)
        store.put(f"ledger/{1:016d}", b"{}", sha256=Digest.of(b"{}"), retention=lock)
    assert vault("audit")[0] == vault("heal")[0] == 4
    first = vault_json("heal", "--execute")["heal"]
    assert [(each["action"], each["done"]) for each in first["steps"]] == [("expose", True)]
    assert first["statement"]
    before = sorted((stored / "ledger").iterdir())
    assert vault("audit")[0] == 0
    for options in ((), ("--execute",)):
        code, out, _ = vault("heal", *options)
        assert code == 0
        assert "--execute" not in out
        assert "0 needed objects" in out.splitlines()[0]
        assert ", 1 left" in out.splitlines()[0]
        assert f"left: ledger/{1:016d}: a version " in out
    result = vault_json("heal", "--execute")["heal"]
    assert (result["steps"], result["left"]) == ([], [f"ledger/{1:016d}"])
    assert result["statement"] is None
    assert sorted((stored / "ledger").iterdir()) == before


def test_heal_whose_steps_are_all_refused_attests_nothing(
    vault: Vault, vault_json: VaultJson, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has done nothing."""
    beside(packs(stored)[0])

    put = LocalStore.put

    def refuse(*_: object, **__: object) -> None:
        raise StorageError("403")

    def refuse_packs(store: LocalStore, name: str, *rest: Any, **options: Any) -> Any:
        return (refuse if name.startswith("packs/") else put)(store, name, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "delete", refuse)
        patch.setattr(LocalStore, "put", refuse_packs)
        result = vault_json("heal", "--execute", code=4)["heal"]
    assert [each["done"] for each in result["steps"]] == [False, False]
    assert (len(result["hidden"]), result["statement"]) == (1, None)


def test_heal_without_a_key_records_nothing(
    vault_json: VaultJson, stored: Path, keys: Path
) -> None:
    """Not even where recovery.key is, if told so."""
    before = sorted((stored / "ledger").iterdir())
    beside(packs(stored)[0])
    assert vault_json("heal", "--execute", "--no-key")["heal"]["statement"] is None
    (keys / "recovery.key").unlink()
    beside(packs(stored)[0])
    assert vault_json("heal", "--execute")["heal"]["statement"] is None
    assert sorted((stored / "ledger").iterdir()) == before


def test_heal_says_what_is_lost(vault: Vault, stored: Path) -> None:
    """No version can bring it back."""
    victim = packs(stored)[0]
    victim.unlink()
    code, out, _ = vault("heal", "--execute")
    assert code == 4
    assert f"lost: packs/{victim.parent.name}/{victim.name}" in out


@pytest.mark.parametrize("harm", ["lost", "changed"])
def test_what_to_do_about_evidence(
    vault: Vault, vault_json: VaultJson, stored: Path, home: Path, harm: str
) -> None:
    """No snapshot needs it, so a verification would pass: an audit names it, a copy has it."""
    assert vault("restore", "data", home / "target")[0] == 0
    (evidence,) = (path for path in (stored / "evidence").iterdir() if path.is_file())
    name, data = f"evidence/{evidence.name}", evidence.read_bytes()
    assert "nothing is known to be wrong" in vault("status")[1]  # the control
    if harm == "lost":
        evidence.unlink()
    else:
        flip(evidence)
    code, out, err = vault("status")
    assert code == 0
    assert "ledger 3: restore is not believed" in err
    first, second = out.splitlines()[:2]
    assert first.startswith("wrong ")
    assert first.endswith("missing or says something else: ledger 3")
    assert "'vault audit'" in second
    assert "second copy" in second
    assert vault_json("status")["not_believed"] == [3]
    for command in "heal", "audit":
        code, out, _ = vault(command)
        assert code == 4
        assert name in out
        (step,) = (line for line in out.splitlines() if line.startswith("next"))
        assert "second copy" in step
        assert "verify" not in step
    evidence.unlink(missing_ok=True)
    evidence.write_bytes(data)
    assert vault_json("status")["not_believed"] == []
    assert vault("heal")[0] == vault("audit")[0] == 0


def test_heal_speaks_of_one_snapshot_as_of_one(vault: Vault, stored: Path, source: Path) -> None:
    """Its inventory is lost; then two are."""
    for path in (stored / "inventory").iterdir():
        path.unlink()
    assert "not looked at: what snapshot 2 needs: its inventory can't be used" in vault("heal")[1]
    assert vault("snapshot", source, "--name", "other")[0] == 0
    for path in (stored / "inventory").iterdir():
        path.unlink()
    told = "not looked at: what snapshots 2-3 need: their inventories can't be used"
    assert told in vault("heal")[1]


def test_heal_that_can_not_be_recorded_is_degraded(
    vault: Vault, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attestation is kept for later."""

    def refuse(*_: object, **__: object) -> None:
        raise StorageError("read only")

    beside(packs(stored)[0])
    monkeypatch.setattr("vault.repository.attestations.record_attestation", refuse)
    code, _, err = vault("heal", "--execute")
    assert code == 3
    assert "vault attest push" in err


def test_an_audit_of_a_hole_in_the_ledger(
    vault: Vault, vault_json: VaultJson, stored: Path
) -> None:
    """Every other command stops; this one says what is there."""
    assert vault("verify")[0] == 0
    (stored / "ledger" / f"{2:016d}").unlink()
    assert vault("list")[0] == 4
    result = vault_json("audit", code=4)["audit"]
    assert {"beyond-gap", "other-history"} <= {each["code"] for each in result["findings"]}
    assert result["head"].startswith("1:")


# --- status --check ---


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the program's clock ahead."""

    def ahead(**span: float) -> None:
        then = datetime.now(UTC) + timedelta(**span)
        monkeypatch.setattr("cli.session.wall_clock", lambda: then)

    return ahead


@pytest.fixture
def forge_event(stored: Path, keys: Path) -> Callable[..., int]:
    """Appends an event by the restorer's own key that cites bytes of no attestation."""

    def forge(kind: str, **fields: Any) -> int:
        recovery = load_recovery(keys / "recovery.key", b"correct horse")
        store = LocalStore(stored)
        root = existing_root(store)
        assert root is not None
        repository = Repository.open(store, root, clock=lambda: datetime.now(UTC))
        digest = repository.put_evidence(b"no envelope at all")
        now = repository.clock()
        body = EventBody(started=now, finished=now, attestation=str(digest), **fields)
        draft = Draft(type=kind, subject=[(f"evidence/{digest}", digest)], body=body)
        return repository.append(lambda _: draft, [recovery.restorer], tool="test").seq

    return forge


def flip(path: Path) -> None:
    """Change a byte of a file that the vault made read-only."""
    path.chmod(0o600)
    data = path.read_bytes()
    half = len(data) // 2
    path.write_bytes(data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :])


@pytest.fixture
def damaged(vault: Vault, stored: Path, source: Path) -> Path:
    """Two snapshots; a pack that only the newest needs is damaged, and was found so."""
    before = set(packs(stored))
    (source / "more").write_bytes(bytes(random.Random(7).randbytes(50_000)))
    assert vault("snapshot", source, "--name", "data")[0] == 0
    flip(max(set(packs(stored)) - before, key=lambda path: path.stat().st_size))
    assert vault("verify")[0] == 4
    return stored


def test_a_failed_check_of_the_newest_stays_until_it_passes(
    vault: Vault, vault_json: VaultJson, damaged: Path, home: Path
) -> None:
    """Whatever passes of older ones; plain status ends with 0 and says it."""
    assert vault("verify", "2")[0] == 0
    assert vault("restore", "2", home / "target")[0] == 0
    code, out, err = vault("status")
    assert code == 0
    assert out.splitlines()[0].startswith("wrong ")
    assert "a check of the newest snapshot failed: data" in out.splitlines()[0]
    assert "'vault verify 3'" in out.splitlines()[1]
    assert "the last verification of snapshot 3 of data failed" in err
    assert "(snapshot 2)" in out.splitlines()[-1]  # what was restored is named
    assert vault("status", "--check")[0] == 4
    (state,) = vault_json("status")["datasets"]
    assert (state["verification"]["verdict"], state["verification"]["snapshot"]) == ("failed", 3)
    assert (state["restore"]["verdict"], state["restore"]["snapshot"]) == ("passed", 2)
    assert vault_json("status")["exit_code"] == 4


def test_an_audit_that_reads_no_pack_repeats_what_was_found_wrong(
    vault: Vault, vault_json: VaultJson, damaged: Path
) -> None:
    """Else it would pass what the ledger calls damaged; once it is read right, it does."""
    result = vault_json("audit", code=4)["audit"]
    (told,) = (each for each in result["findings"] if each["code"] == "called-bad")
    assert "statement 4 found it wrong" in told["problem"]
    assert [(each["seq"], each["bad"]) for each in result["snapshots"]] == [(2, 0), (3, 1)]
    codes = {
        each["code"]
        for each in vault_json("audit", "--read-data", "all", code=4)["audit"]["findings"]
    }
    assert codes == {"wrong-bytes", "advisory-locks"}
    flip(damaged / told["subject"])  # back
    assert (
        vault("audit", "--read-data", "all")[0] == 4
    )  # who found it had a key, and this look has none
    assert vault("verify")[0] == 0
    assert vault("audit")[0] == 0


def test_a_sample_hides_no_failure(vault: Vault, damaged: Path) -> None:
    """Samples that happen to miss what is damaged pass; the failure stays."""
    seeds = (f"{number:032x}" for number in range(12))
    missed = [vault("verify", "3", "--read-data", "30%", "--seed", seed)[0] for seed in seeds]
    assert 0 in missed
    assert vault("status", "--check")[0] == 4


def test_a_restore_that_ended_for_a_local_reason_stands_against_nothing(
    vault: Vault, vault_json: VaultJson, stored: Path, home: Path
) -> None:
    """An occupied target, a wrong passphrase, a full disk: none is about the snapshot."""
    assert vault("restore", "data", home / "first")[0] == 0
    assert vault("restore", "data", home / "first")[0] == 2
    with pytest.MonkeyPatch.context() as patch:
        (home / "wrong").write_text("another passphrase, quite long\n")
        (home / "wrong").chmod(0o600)
        patch.setenv("VAULT_PASSPHRASE_FILE", str(home / "wrong"))
        assert vault("restore", "data", home / "second")[0] == 12
    with pytest.MonkeyPatch.context() as patch:

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr("vault.restore.restore_attempt.Spool", full)
        assert vault("restore", "data", home / "third")[0] == 14
    code, out, err = vault("status", "--check")
    assert (code, "failed" in out, "failed" in err) == (0, False, False)
    (state,) = vault_json("status")["datasets"]
    assert state["restore"]["verdict"] == "passed"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--check",), 0),
        (("--check", "--locks"), 5),
        (("--locks",), 5),
        (("--check", "--max-age", "26h"), 0),
        (("--max-age", "26h"), 0),
        (("--check", "--locks", "--max-age", "26h"), 5),
        ((), 0),
    ],
)
def test_what_is_asked_for_ends_it(
    vault: Vault, locked: Path, arguments: tuple[str, ...], code: int
) -> None:
    """Locks are looked at only when they are asked for."""
    pack = packs(locked)[0]
    (locked / ".retention" / pack.relative_to(locked)).unlink()
    assert vault("status", *arguments)[0] == code


def test_an_age_is_an_objective(
    vault: Vault, vault_json: VaultJson, repository: Path, source: Path, later: Callable[..., None]
) -> None:
    """Also where there is no snapshot at all."""
    assert vault("status", "--check")[0] == 0
    assert vault("status", "--check", "--max-age", "26h")[0] == 6
    assert vault("snapshot", source, "--name", "data")[0] == 0
    assert vault("status", "--check", "--max-age", "26h")[0] == 0
    later(hours=27)
    assert vault("status", "--check")[0] == 0
    code, out, err = vault("status", "--check", "--max-age", "26h")
    assert code == 6
    assert "no complete snapshot young enough: data" in out.splitlines()[0]
    assert "older than asked for" in err
    assert vault_json("status", "--max-age", "26h", code=6)["datasets"][0]["troubles"] == [
        "objective"
    ]
    assert vault("status", "--max-age", "soon")[0] == 2


def test_a_drill_that_cites_junk_is_not_shown_as_passed(
    vault: Vault, vault_json: VaultJson, stored: Path, forge_event: Callable[..., int]
) -> None:
    """Audit reports it, status believes the honest restore."""
    forged = forge_event("drill", snapshot=2, verdict="passed")
    code, out, err = vault("status")
    assert code == 0
    assert f"ledger {forged}: drill is not believed" in err
    assert vault_json("status")["datasets"][0]["restore"] is None
    assert out.splitlines()[-1].endswith("never")
