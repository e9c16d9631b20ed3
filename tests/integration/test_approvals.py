"""Several people agree by files: one asks, others sign on machines of their own, one acts."""

import base64
import contextlib
import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import cli.session
from vault.clock import utc_now
from vault.crypto.key_file_bytes import Argon2Cost
from vault.crypto.key_files import RootKey, load_root, save_root
from vault.crypto.keys import SigningKey
from vault.encoding import b64encode, dumps
from vault.ledger.statements import (
    Approval,
    PublicKey,
    Role,
    RootBody,
)
from vault.model import Digest, replace_body
from vault.repository.append_statements import Draft
from vault.repository.repository import Repository
from vault.storage.local import LocalStore

Vault: TypeAlias = Callable[..., tuple[int, str, str]]
VaultJson: TypeAlias = Callable[..., Any]
PASSPHRASE = b"correct horse"
CHEAP = Argon2Cost(memory=64, iterations=1, lanes=1)
WANTED = ("writer.add", "writer.limit", "writer.revoke", "restore.replace", "policy.weaken")


@dataclasses.dataclass(frozen=True, kw_only=True)
class People:
    """Alice made the repository; bob and carol have key files on machines of their own."""

    store: Path
    root: Digest
    home: Path
    monkeypatch: pytest.MonkeyPatch

    def open(self) -> Repository:
        """As it is now."""
        return Repository.open(LocalStore(self.store, clock=utc_now), self.root, clock=utc_now)

    @contextlib.contextmanager
    def as_(self, name: str) -> Iterator[Path]:
        """On that person's machine, where no other person's files are in use; gives its home."""
        place = self.home / name
        place.mkdir(exist_ok=True)
        with self.monkeypatch.context() as patch:
            patch.setenv("HOME", str(place))
            for part in ("config", "state", "cache"):
                patch.setenv(f"XDG_{part.upper()}_HOME", str(place / part))
            patch.setenv("VAULT_KEYS", str(place / "keys"))
            yield place

    def uri(self, name: str, role: str = "policy") -> str:
        """The key of a person."""
        return f"file:{self.home / name / 'own.key'}#{role}"

    def statements(self) -> int:
        """How many there are."""
        return len(list((self.store / "ledger").iterdir()))


def _listed(person: str, key: RootKey) -> list[PublicKey]:
    roles = {Role.ROOT: key.root, Role.ENROLLER: key.enroller, Role.POLICY: key.policy}
    return [
        PublicKey(
            name=f"{person}-{role}", public=b64encode(each.public.der), roles=(role,), person=person
        )
        for role, each in roles.items()
    ]


def _own_key(path: Path, of: RootKey) -> RootKey:
    own = RootKey(
        repository=of.repository,
        **{name: SigningKey.generate() for name in ("root", "enroller", "policy", "pruner")},
    )
    path.parent.mkdir(exist_ok=True)
    save_root(path, own, PASSPHRASE, cost=CHEAP)
    return own


def _govern(people: People, alice: RootKey, *, own: dict[str, RootKey], wanted: int) -> None:
    """A root in which bob and carol have keys, and acts want that many people."""
    repository = people.open()
    body = repository.ledger.root
    keys = [replace_body(each, person="alice") for each in body.keys]
    for name, key in own.items():
        keys += _listed(name, key)
    approvals = {act: Approval(role="policy", threshold=wanted) for act in WANTED}
    changed: RootBody = replace_body(
        body, version=body.version + 1, keys=tuple(keys), approvals=approvals
    )
    subject = [("repository", Digest.of(repository.id))]
    draft = Draft(type="root", subject=subject, body=changed)
    repository.append(lambda _: draft, [alice.root], tool="test")


@pytest.fixture
def people(home: Path, keys: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> People:
    """A root of three in which most acts want one person's approval."""
    address = json.loads((keys / "writer.key").read_bytes())["repository"]
    alice = load_root(keys / "root.key", PASSPHRASE)
    made = People(
        store=repository, root=Digest.parse(address["root"]), home=home, monkeypatch=monkeypatch
    )
    own = {name: _own_key(home / name / "own.key", alice) for name in ("bob", "carol")}
    _govern(made, alice, own=own, wanted=1)
    return made


@pytest.fixture
def asked(vault: Vault, people: People, home: Path) -> Path:
    """Alice asks to revoke her host."""
    file = home / "R.request"
    code, _, err = vault(
        *("approve", "request", "writer.revoke", "first", "--reason", "stolen", "--out", file)
    )
    assert code == 0, err
    return file


def test_one_asks_another_signs_elsewhere_and_the_act_counts(
    vault: Vault, vault_json: VaultJson, people: People, asked: Path
) -> None:
    """The file travels; the ledger moves on meanwhile, and the signatures stay good."""
    here = ["--repo", str(people.store), "--trust", f"0:{people.root}"]
    shown = vault_json("approve", "show", asked)["request"]
    assert (shown["act"], shown["approval"]["could"]) == ("writer.revoke", ["bob", "carol"])
    with people.as_("bob"):
        code, out, err = vault(*here, "approve", "show", asked)
        assert code == 0
        assert "host first can write no more" in out
        code, _, err = vault(*here, "approve", "sign", asked, "--key", people.uri("bob"), "--yes")
        assert code == 0, err
    code, _, err = vault("key", "revoke", "first", "--warrant", asked)
    assert code == 0, err
    (listed,) = vault_json("approve", "list", "--all")["requests"]
    assert listed["used_by"] == people.open().head.seq
    assert vault_json("approve", "list")["requests"] == []
    code, out, _ = vault("log", "--type", "warrant")
    assert (code, "2 signatures for writer.revoke, host first can write no more" in out) == (
        0,
        True,
    )
    assert vault("audit")[0] == 0
    record = people.open().ledger.records[-1]
    assert (record.warrant, record.status.value) == (listed["seq"], "valid")


def test_nothing_is_written_before_enough_have_signed(
    vault: Vault, people: People, asked: Path
) -> None:
    """Exit 2, and those who could still sign are named."""
    count = people.statements()
    code, _, err = vault("key", "revoke", "first", "--warrant", asked)
    assert code == 2
    assert "bob (policy)" in err
    assert "carol (policy)" in err
    code, _, err = vault("key", "revoke", "first")
    assert code == 2
    assert "approve request writer.revoke" in err
    assert people.statements() == count


def _signed(vault: Vault, people: People, file: Path, name: str = "bob") -> None:
    code, _, err = vault("approve", "sign", file, "--key", people.uri(name), "--yes")
    assert code == 0, err


def _changed(file: Path, **changes: Any) -> None:
    """What a person could do to a request file."""
    fields = json.loads(file.read_bytes())
    fields |= changes
    file.write_bytes(dumps(fields) + b"\n")


def test_each_refusal_says_which_and_writes_nothing(
    vault: Vault, people: People, asked: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other plan, expired, used, other root: exit 2; nothing is appended."""
    _signed(vault, people, asked)
    count = people.statements()

    def refused(wanted: int, word: str, *arguments: object) -> None:
        code, _, err = vault(*arguments)
        assert (code, word in err) == (wanted, True), err
        assert people.statements() == count

    act = ("key", "revoke", "first", "--warrant", asked)
    refused(2, "for another plan", *act, "--distrust-from", "2")
    refused(2, "for another plan", *act, "--reason", "other")
    refused(2, "writer.revoke", "key", "limit", "first", "--dataset", "a", "--warrant", asked)
    refused(2, "no file", "key", "revoke", "first", "--warrant", home / "none")
    refused(2, "carries no request", "key", "revoke", "first", "--warrant", "1")
    with monkeypatch.context() as patch:
        later = utc_now() + timedelta(hours=73)
        patch.setattr(cli.session, "wall_clock", lambda: later)
        refused(2, "expired", *act)
    assert vault(*act)[0] == 0
    count = people.statements()
    again = home / "again.request"
    shutil.copy(asked, again)
    refused(2, "revoked already", "key", "revoke", "first", "--warrant", again)


def test_what_was_forged_or_is_of_another_repository_ends_in_4(
    vault: Vault, people: People, asked: Path, home: Path
) -> None:
    """A changed value, a changed payload, a signature under another's key id."""
    good = asked.read_bytes()
    fields = json.loads(good)
    act = ("key", "revoke", "first", "--warrant", asked)
    _changed(asked, values=fields["values"] | {"name": "other"})
    for command in (act, ("approve", "show", asked)):
        code, _, err = vault(*command)
        assert (code, "not those that were signed" in err) == (4, True), err
    asked.write_bytes(good)
    _signed(vault, people, asked)
    envelope = json.loads(asked.read_bytes())["envelope"]
    first, second = envelope["signatures"]
    _changed(asked, envelope=envelope | {"signatures": [first, second | {"sig": first["sig"]}]})
    for command in (act, ("approve", "show", asked)):
        code, _, err = vault(*command)
        assert (code, "does not hold" in err) == (4, True), err
    (home / "elsewhere").mkdir()
    with people.as_("elsewhere"):
        assert vault("init", home / "other", "--host", "first")[0] == 0
        for command in (act, ("approve", "show", asked)):
            code, _, err = vault(*command)
            assert (code, "another repository" in err) == (4, True), err


def test_root_n_plus_1_ends_what_was_asked(
    vault: Vault, vault_json: VaultJson, people: People, asked: Path, keys: Path
) -> None:
    """The only way to take a signature back but time."""
    _signed(vault, people, asked)
    _govern(people, load_root(keys / "root.key", PASSPHRASE), own={}, wanted=1)
    code, _, err = vault("key", "revoke", "first", "--warrant", asked)
    assert (code, "asked under root 2, in force is 3" in err) == (2, True), err


def test_a_cut_ledger_lacks_the_floor(
    vault: Vault, people: People, asked: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 11, on a machine that remembers no head: the history that the signers knew is gone."""
    _signed(vault, people, asked)
    newest = max((people.store / "ledger").iterdir())
    subprocess.run(["chattr", "-f", "-i", str(newest)], check=False)
    newest.unlink()
    count = people.statements()
    with people.as_("elsewhere"), monkeypatch.context() as patch:
        patch.setenv("VAULT_KEYS", str(keys))
        code, _, err = vault("key", "revoke", "first", "--warrant", asked)
    assert (code, "its floor" in err) == (11, True), err
    assert people.statements() == count


def test_two_copies_signed_apart_are_merged(
    vault: Vault, vault_json: VaultJson, people: People, asked: Path, home: Path
) -> None:
    """Each signs a copy; equal signatures count once."""
    copy, both = home / "copy.request", home / "both.request"
    shutil.copy(asked, copy)
    _signed(vault, people, asked, "bob")
    _signed(vault, people, copy, "carol")
    merged = vault_json("approve", "merge", asked, copy, "--out", both)["request"]
    assert merged["signatures"] == 3
    shown = vault_json("approve", "show", both)["request"]
    assert shown["approval"]["approved"] == ["bob", "carol"]
    code, _, err = vault("approve", "merge", asked, home / "none", "--out", both)
    assert code == 2, err


def test_signing_needs_no_repository_and_says_what_it_could_not_check(
    vault: Vault, people: People, asked: Path, home: Path
) -> None:
    """A machine that knows neither store nor root."""
    with people.as_("bob"):
        code, _, err = vault("approve", "sign", asked, "--key", people.uri("bob"), "--yes")
    assert code == 0, err
    assert "not checked" in err
    assert vault("key", "revoke", "first", "--warrant", asked)[0] == 0


def test_a_key_that_nobody_lists_signs_nothing(
    vault: Vault, people: People, asked: Path, keys: Path
) -> None:
    """Its signature would not count; the file stays as it was."""
    _own_key(people.home / "eve" / "own.key", load_root(keys / "root.key", PASSPHRASE))
    before = asked.read_bytes()
    code, _, err = vault("approve", "sign", asked, "--key", people.uri("eve"), "--yes")
    assert (code, "not listed" in err) == (12, True), err
    assert asked.read_bytes() == before


def test_what_a_newer_program_asks_is_not_signed(vault: Vault, people: People, asked: Path) -> None:
    """A member that can't be shown."""
    fields = json.loads(asked.read_bytes())
    payload = json.loads(base64.b64decode(fields["envelope"]["payload"]))
    payload["predicate"]["zz"] = "all datasets too"
    signature = fields["envelope"]["signatures"][0]
    changed = {"payload": b64encode(dumps(payload)), "signatures": [signature | {"keyid": "x"}]}
    _changed(asked, envelope=fields["envelope"] | changed)
    code, _, err = vault("approve", "sign", asked, "--key", people.uri("bob"), "--yes")
    assert (code, "does not understand" in err) == (2, True), err


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (["--signer", "enroller=file:gone.key#enroller"], 12),
        (["--expires", "soon"], 2),
        ([], 0),
    ],
    ids=["no-key", "no-duration", "control"],
)
def test_a_request_that_can_t_be_made_stores_no_domain(
    vault: Vault, people: People, home: Path, wrong: list[str], code: int
) -> None:
    """Its key is open and its options are read before the repository gets anything."""
    file = home / "web.key-request"
    with people.as_("web"):
        here = ["--repo", str(people.store), "--trust", f"0:{people.root}"]
        wish = ["--name", "web", "--dataset", "web-*", "--out", file]
        assert vault(*here, "key", "request", *wish)[0] == 0

    def domains() -> set[Path]:
        return {each for each in (people.store / "domains").rglob("*") if each.is_file()}

    before = domains()
    options = ["--share-datasets", "first", "--reason", "new", "--out", home / "add.request"]
    at = ("approve", "request", "writer.add", file, *options)
    line = (*wrong, *at) if "--signer" in wrong else (*at, *wrong)
    done, _, err = vault(*line)
    assert (done, len(domains() - before)) == (code, int(not code)), err


def test_a_host_is_enrolled_by_what_people_agreed_to(
    vault: Vault, vault_json: VaultJson, people: People, home: Path
) -> None:
    """The domain object is stored with the request; another key request is another plan."""
    here = ["--repo", str(people.store), "--trust", f"0:{people.root}"]
    for name in ("web", "db"):
        with people.as_(name):
            wish = ["--name", name, "--dataset", f"{name}-*", "--out", home / f"{name}.key-request"]
            assert vault(*here, "key", "request", *wish)[0] == 0
    asked = home / "add.request"
    wanted = ("--share-datasets", "first")
    code, _, err = vault(
        *("approve", "request", "writer.add", home / "web.key-request", *wanted),
        *("--reason", "a new server", "--out", asked),
    )
    assert code == 0, err
    _signed(vault, people, asked)
    key = json.loads((home / "db.key-request").read_bytes())
    for name, wished in (("db", 2), ("web", 0)):
        key = vault_json("approve", "show", asked)["request"]["values"]
        public = json.loads((home / f"{name}.key-request").read_bytes())["public"]
        given = hashlib.sha256(base64.b64decode(public)).hexdigest()
        code, _, err = vault(
            *("key", "add", home / f"{name}.key-request", "--key", given, *wanted),
            *("--warrant", asked),
        )
        assert code == wished, err
        assert key["name"] == "web"
    assert [each.name for each in people.open().ledger.writers.values()] == ["first", "web"]


# --- policies ---


def test_a_weaker_policy_needs_what_the_root_wants(
    vault: Vault, vault_json: VaultJson, people: People, home: Path
) -> None:
    """Without a warrant nothing is signed; the agreement is to these terms, and to no others."""
    policy = home / "laptop.toml"
    text = (Path(__file__).parents[2] / "policies/laptop.toml").read_text()
    policy.write_text(text)
    assert vault("policy", "apply", policy)[0] == 0  # more needs no agreement
    policy.write_text(text.replace("monthly = 12", "monthly = 6"))
    weaken = ("policy", "apply", policy, "--weaken", "--yes")
    count = people.statements()
    code, _, err = vault(*weaken)
    assert (code, "the root wants people to approve policy.weaken" in err) == (2, True), err
    file = home / "W.request"
    ask = ("approve", "request", "policy.weaken", policy, "--reason", "less room", "--out", file)
    shown = vault_json(*ask)["request"]
    assert shown["act"] == "policy.weaken"
    assert "monthly from 372d to 186d" in shown["summary"]
    assert vault(*weaken, "--warrant", file)[0] == 2
    assert people.statements() == count
    _signed(vault, people, file)
    policy.write_text(text.replace("monthly = 12", "monthly = 5"))
    code, _, err = vault(*weaken, "--warrant", file)
    assert (code, "for another plan" in err) == (2, True), err
    assert people.statements() == count
    policy.write_text(text.replace("monthly = 12", "monthly = 6"))
    code, _, err = vault(*weaken, "--warrant", file)
    assert code == 0, err
    [applied] = vault_json("policy", "show")["policies"]
    assert applied["datasets"][0]["tiers"]["monthly"] == 186 * 86_400
    assert (
        vault_json("approve", "list", "--all")["requests"][0]["used_by"] == people.open().head.seq
    )
    assert vault("audit")[0] == 0


def test_the_end_of_a_policy_needs_it_too(vault: Vault, people: People, home: Path) -> None:
    """And so does a dataset that is given up; one agreement is for one of them."""
    policy = Path(__file__).parents[2] / "policies/laptop.toml"
    assert vault("policy", "apply", policy)[0] == 0
    assert vault("policy", "withdraw", "laptop", "--yes")[0] == 2
    file = home / "E.request"
    ask = ("approve", "request", "policy.weaken", "--reason", "over", "--out", file)
    assert vault(*ask)[0] == 2
    assert vault(*ask, "--withdraw", "laptop")[0] == 0
    _signed(vault, people, file)
    code, _, err = vault("policy", "withdraw", "laptop", "--yes", "--warrant", file)
    assert code == 0, err
    assert vault("policy", "show")[1] == "no policy is in force\n"


# --- live data, and roots ---


@pytest.fixture
def live(vault: Vault, people: People, source: Path, home: Path) -> Path:
    """A snapshot, and live data that are not it."""
    code, _, err = vault("snapshot", source, "--name", "web")
    assert code == 0, err
    target = home / "live"
    target.mkdir()
    (target / "precious").write_text("written since\n")
    return target


def test_live_data_are_replaced_only_by_what_people_agreed_to(
    vault: Vault, people: People, live: Path, home: Path
) -> None:
    """Without a request, and with one for another snapshot, TARGET stays and nothing is written."""
    count = people.statements()
    code, _, err = vault("restore", "web", live, "--replace")
    assert (code, "approve request restore.replace" in err) == (2, True), err
    asked = home / "restore.request"
    code, _, err = vault(
        *("approve", "request", "restore.replace", "web", "--reason", "broken", "--out", asked)
    )
    assert code == 0, err
    code, _, err = vault("restore", "web", live, "--replace", "--warrant", asked)
    assert (code, "bob (policy)" in err) == (2, True), err
    _signed(vault, people, asked)
    assert vault("snapshot", home / "source", "--name", "web")[0] == 0
    code, _, err = vault("restore", "web", live, "--replace", "--warrant", asked)
    assert (code, "for another plan" in err) == (2, True), err
    assert [path.name for path in live.iterdir()] == ["precious"]
    assert people.statements() == count + 1
    code, _, err = vault("restore", count - 1, live, "--replace", "--warrant", asked)
    assert code == 0, err
    record = people.open().ledger.records[-1]
    assert (record.type, record.status.value, record.warrant) == ("restore", "valid", count + 1)
    assert vault("audit")[0] == 0
    assert vault("restore", "--undo", live)[0] == 0
    code, out, err = vault("restore", "--finalize", live)
    assert (code, "used by statement" in err) == (2, True), (out, err)
    assert [path.name for path in live.iterdir()] == ["precious"]
    assert vault("restore", "--undo", live)[0] == 0
    code, _, err = vault("restore", count - 1, live, "--replace", "--warrant", str(count + 1))
    assert (code, "used by statement" in err) == (2, True), err


def test_a_restore_into_nothing_needs_nobody(
    vault: Vault, people: People, live: Path, home: Path
) -> None:
    """The root wants approval of what replaces live data, and of nothing else."""
    code, _, err = vault("restore", "web", home / "fresh")
    assert code == 0, err
    assert people.open().ledger.records[-1].status.value == "valid"


def test_a_root_by_two_of_two_who_never_meet(
    vault: Vault, people: People, home: Path, keys: Path
) -> None:
    """Alice proposes, asks and acts; bob signs the request at home. Alone she can't."""
    bob = ("--threshold", "root=2")
    assert vault("key", "root", "propose", *bob, "--out", "two", "--yes")[0] == 0
    code, _, err = vault("key", "root", "apply", "two", "--yes")
    assert code == 2, err
    asked = home / "root.request"
    code, _, err = vault("approve", "request", "root", "two", "--reason", "two", "--out", asked)
    assert code == 0, err
    code, _, err = vault("key", "root", "apply", "two", "--yes", "--warrant", asked)
    assert (code, "bob (root)" in err) == (2, True), err
    here = ["--repo", str(people.store), "--trust", f"0:{people.root}"]
    with people.as_("bob"):
        uri = people.uri("bob", "root")
        code, _, err = vault(*here, "approve", "sign", asked, "--key", uri, "--yes")
        assert code == 0, err
    code, _, err = vault("key", "root", "apply", "two", "--yes", "--warrant", asked)
    assert code == 0, err
    assert people.open().ledger.root.thresholds["root"] == 2


def test_who_is_to_sign_sees_every_key_of_a_root_and_what_changes(
    vault: Vault, people: People, home: Path
) -> None:
    """A thief who asks can't hide a key behind the eighth, or what changes in a long list."""
    assert len(people.open().ledger.root.keys) > 8
    made = ("key", "new", "--role", "restorer", "--out", "m.key", "--public", "m.pub")
    code, _, err = vault(*made)
    assert code == 0, err
    add = ["--add", "mallory=m.pub:restorer", "--recipient-add", "mallory=m.pub"]
    add += ["--person", "mallory=carol"]
    code, _, err = vault("key", "root", "propose", *add, "--out", "evil", "--yes")
    assert code == 0, err
    asked = home / "evil.request"
    code, _, err = vault("approve", "request", "root", "evil", "--reason", "x", "--out", asked)
    assert code == 0, err
    values = json.loads(asked.read_bytes())["values"]
    here = ["--repo", str(people.store), "--trust", f"0:{people.root}"]
    with people.as_("bob"):
        code, out, err = vault(*here, "approve", "show", asked)
        assert code == 0, err
        code, _, said = vault(*here, "approve", "sign", asked, "--key", people.uri("bob"))
        assert code == 2  # no terminal to ask at
    for told in (out, said):
        assert all(each["public"] in told for each in values["keys"])
        assert all(each["public"] in told for each in values["recipients"])
        assert "see --json" not in told
    for told in (err, said):
        assert "vault: key mallory " in told
        assert "vault: opens from then on  mallory" in told


@pytest.mark.parametrize(
    "wrong", [("--trust", "garbage"), ("--witness-policy", "missing"), ("--accept-head", "x")]
)
def test_nothing_is_signed_where_what_to_check_it_against_is_malformed(
    vault: Vault, people: People, asked: Path, wrong: tuple[str, str]
) -> None:
    """Who says --trust wants the ledger looked at: a slip must not end in a blind signature."""
    before = asked.read_bytes()
    with people.as_("bob"):
        at = ("--repo", str(people.store), "--trust", f"0:{people.root}")
        sign = ("approve", "sign", asked, "--key", people.uri("bob"), "--yes")
        code, _, err = vault(*at, *wrong, *sign)
        assert code == 2, err
        assert vault(*at, *wrong, "approve", "show", asked)[0] == 2
    assert asked.read_bytes() == before


def test_a_request_that_is_over_is_shown_as_over(vault: Vault, people: People, asked: Path) -> None:
    """Who reads it at the repository need not sign for nothing."""
    here = ["--repo", str(people.store), "--trust", f"0:{people.root}"]
    with people.as_("bob"):
        assert re.search(r"^state +open$", vault(*here, "approve", "show", asked)[1], re.MULTILINE)
        sign = (*here, "approve", "sign", asked, "--key", people.uri("bob"), "--yes")
        assert vault(*sign)[0] == 0
    assert vault("key", "revoke", "first", "--warrant", asked)[0] == 0
    with people.as_("bob"):
        used = f"used by statement {people.open().head.seq}: no act can rest on it"
        assert used in vault(*here, "approve", "show", asked)[1]
        assert used in vault(*sign)[2]


def test_who_did_not_sign_is_not_said_to_ask(vault: Vault, people: People, asked: Path) -> None:
    """A thief may write another's name into a request."""
    file = json.loads(asked.read_bytes())
    with people.as_("bob"):
        at = ("--repo", str(people.store), "--trust", f"0:{people.root}")
        assert vault(*at, "approve", "sign", asked, "--key", people.uri("bob"), "--yes")[0] == 0
        both = json.loads(asked.read_bytes())
        others = [
            each
            for each in both["envelope"]["signatures"]
            if each not in file["envelope"]["signatures"]
        ]
        assert len(others) == 1
        both["envelope"]["signatures"] = others
        asked.write_bytes(dumps(both) + b"\n")
        code, out, err = vault(*at, "approve", "show", asked)
    assert code == 0, err
    assert "not signed by who is said to ask" in out


def test_of_several_requests_all_are_signed_or_none(
    vault: Vault, people: People, asked: Path, home: Path
) -> None:
    """Without a repository the files alone say that one is of another."""
    file = json.loads(asked.read_bytes())
    payload = base64.b64decode(file["envelope"]["payload"])
    other = payload.replace(people.open().ledger.repository_id.encode(), b"0" * 32)
    assert other != payload
    file["envelope"]["payload"] = b64encode(other)
    (home / "other.request").write_bytes(dumps(file) + b"\n")
    before = asked.read_bytes()
    with people.as_("bob"):
        sign = ("approve", "sign", asked, home / "other.request", "--key", people.uri("bob"))
        code, _, err = vault(*sign, "--yes")
    assert (code, "different repositories" in err) == (2, True), err
    assert asked.read_bytes() == before


def test_split_leaves_no_key_behind_where_others_must_sign(
    vault: Vault, people: People, home: Path, keys: Path
) -> None:
    """It can't ask people elsewhere, and says what can."""
    two = ("--threshold", "root=2", "--out", "two", "--yes")
    assert vault("key", "root", "propose", *two)[0] == 0
    bob = people.uri("bob", "root")
    code, _, err = vault("key", "root", "apply", "two", "--key", bob, "--yes")
    assert code == 0, err
    before = sorted(keys.iterdir())
    code, _, err = vault("key", "split", "--role", "verifier", "--yes")
    assert (code, "too few sign the root" in err, "vault key new" in err) == (2, True, True), err
    assert sorted(keys.iterdir()) == before
