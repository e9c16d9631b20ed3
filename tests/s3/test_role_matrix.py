"""Every command with the credentials of every role, on a Ceph with its users.

The bucket's policy is the one that ``vault store iam`` prints. The table says what each command
comes to: its exit code with the key files that belong to the role and, where that was for want of
a key, behind a slash the one with all key files, as if they were stolen. What was refused has left
the repository as it was, by boto3's own reading.
"""

import dataclasses
import importlib.util
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import click
import pytest

import cli.commands.init
from cli import main
from tests.support.second_holder import add_holder
from vault.crypto.key_file_bytes import Argon2Cost
from vault.crypto.key_files import load_request, load_root
from vault.crypto.keys import VerifyKey
from vault.model import LockMode
from vault.parameters import Parameters
from vault.repository.enrolment import InitRequest, create_repository
from vault.storage import s3
from vault.storage.iam import AccessRole

pytestmark = [
    pytest.mark.s3,
    pytest.mark.skipif(
        os.environ.get("VAULT_TEST_S3_SERVER") != "ceph", reason="needs the users of ceph-up.sh"
    ),
]

Arguments: TypeAlias = Sequence[object]
State: TypeAlias = dict[tuple[str, str], object]

PREFIX = "repository"
CHEAP = Argon2Cost(memory=64, iterations=1, lanes=1)
ALL_KEYS = ("writer.key", "recovery.key", "root.key", "log.key", "verifier.key")
ROLES = ("writer", "restorer", "auditor", "pruner", "verifier", "log")
WHO = (
    *("writer", "restorer", "auditor", "reading", "pruner", "verifier", "log"),
    *("administrator", "stranger"),
)
OWN_KEYS = {
    "writer": ALL_KEYS[:1],
    "restorer": ALL_KEYS[1:2],
    "administrator": ALL_KEYS[2:3],
    "log": ALL_KEYS[3:4],
    "verifier": ALL_KEYS[4:],
}
USERS = {"reading": "vault-auditor", "administrator": "vault"}  # others: vault-ROLE
NO_KEY, REFUSED, INTERRUPTED = 12, 13, 130
CAN_MOUNT = (
    os.access("/dev/fuse", os.R_OK | os.W_OK)
    and bool(shutil.which("fusermount") or shutil.which("fusermount3"))
    and importlib.util.find_spec("mfusepy") is not None
)

# In this order, for each role on a repository of its own. "8/9": with its own keys, with all keys.
TABLE = """
command                              writer  restorer  auditor  reading  pruner  verifier  log    administrator  stranger
list                                 0       0         0        0        0       0         0      0              13
list DATASET                         0       0         0        0        0       0         0      0              13
log                                  0       0         0        0        0       0         13     0              13
show                                 0       0         0        0        0       0         0      0              13
status                               0       0         0        0        0       0         0      0              13
status --locks                       0       0         0        0        0       0         13     0              13
stats                                0       0         0        0        0       0         13     0              13
key list                             0       0         0        0        0       0         0      0              13
ls                                   12/13   0         12/13    12/0     12/13   12/0      12/13  12/0           13
cat                                  12/13   0         12/13    12/0     12/13   12/0      12/13  12/0           13
find                                 12/13   0         12/13    12/0     12/13   12/0      12/13  12/0           13
diff                                 12/13   0         12/13    12/0     12/13   12/0      12/13  12/0           13
export-checksums                     12/13   0         12/13    12/0     12/13   12/0      12/13  12/0           13
mount                                12/13   0         12/13    12/0     12/13   12/0      12/13  12/0           13
verify                               13      0         13       0        13      0         13     0              13
verify --no-key                      13      0         13       0        13      0         13     0              13
audit                                0       0         0        0        13      0         13     0              13
audit --read-data                    13      0         13       0        13      0         13     0              13
heal                                 0       0         0        0        0       0         13     0              13
restore --dry-run                    12/13   0         12/13    12/0     12/13   12/0      12/13  12/0           13
restore                              12/13   0         12/13    12/3     12/13   12/0      12/13  12/0           13
snapshot --dry-run                   0       12/0      12/0     12/0     12/0    12/0      12/13  12/0           13
snapshot                             0       12/13     12/13    12/13    12/13   12/13     12/13  12/0           13
snapshot --retain                    0       12/13     12/13    12/13    12/13   12/13     12/13  12/0           13
index rebuild                        0       12/0      12/0     12/0     12/13   12/0      12/13  12/0           13
attest push                          12/0    0         12/13    12/13    12/0    12/0      12/13  12/0           13
key request                          2       0         0        0        0       0         0      0              13
key add                              12/0    12/13     12/13    12/13    12/13   12/13     12/13  0              13
key limit                            12/0    12/0      12/13    12/13    12/0    12/0      12/13  0              13
key revoke                           12/0    12/0      12/13    12/13    12/0    12/0      12/13  0              13
key reseal                           12/13   0         12/13    12/13    12/13   12/13     12/13  12/0           13
key root show                        0       0         0        0        0       0         0      0              13
key root propose                     0       0         0        0        0       0         0      0              13
key root apply                       12/0    12/0      12/13    12/13    12/0    12/0      12/13  0              13
key export                           0       0         0        0        0       0         0      0              13
key new                              0       0         0        0        0       0         0      0              13
key passwd                           0       0         0        0        0       0         0      0              0
checkpoint                           12/13   12/13     12/13    12/13    12/13   12/13     0      12/0           13
checkpoint --attach                  13      13        13       13       13      13        0      0              13
witness init                         0       0         0        0        0       0         0      0              0
witness cosign                       0       0         0        0        0       0         0      0              13
witness log                          0       0         0        0        0       0         0      0              0
heartbeat                            0       12/0      12/13    12/13    12/0    12/0      12/13  12/0           13
approve list                         0       0         0        0        0       0         0      0              13
approve request writer.add           12/0    12/13     12/13    12/13    12/13   12/13     12/13  0              13
approve request writer.limit         12/0    12/0      12/0     12/0     12/0    12/0      12/0   0              13
approve request writer.revoke        12/0    12/0      12/0     12/0     12/0    12/0      12/0   0              13
approve request root                 12/0    12/0      12/0     12/0     12/0    12/0      12/0   0              13
approve request recipient.remove     12/0    12/0      12/0     12/0     12/0    12/0      12/0   0              13
approve request policy.apply         12/0    12/0      12/0     12/0     12/0    12/0      13     0              13
approve request policy.weaken        12/0    12/0      12/0     12/0     12/0    12/0      12/0   0              13
approve request reseal               12/0    0         12/0     12/0     12/0    12/0      12/0   12/0           13
approve request restore.replace      12/0    0         12/0     12/0     12/0    12/0      12/0   12/0           13
approve show                         0       0         0        0        0       0         0      0              0
approve sign                         0       0         0        0        0       0         0      0              0
approve merge                        0       0         0        0        0       0         0      0              0
policy show                          0       0         0        0        0       0         13     0              13
policy schema                        0       0         0        0        0       0         0      0              0
policy validate                      0       0         0        0        0       0         0      0              0
policy simulate                      0       0         0        0        0       0         0      0              0
policy check                         0       0         0        0        0       0         13     0              13
policy apply                         12/0    12/0      12/13    12/13    12/0    12/0      13     0              13
policy withdraw                      12/0    12/0      12/13    12/13    12/0    12/0      12/13  0              13
policy retire                        12/0    12/0      12/13    12/13    12/0    12/0      12/13  0              13
key split                            12/0    12/0      12/13    12/13    12/0    12/0      12/13  0              13
heal --execute                       4       4         4        4        0       4         13     0              13
store check                          13      13        13       13       13      13        13     0              13
store iam                            0       0         0        0        0       0         0      0              0
init                                 13      13        13       13       13      13        13     0              13
completion                           0       0         0        0        0       0         0      0              0
"""  # noqa: E501 - a table

# Where hosts may extend locks, what writes or locks is tried again.
EXTENDING = (
    *("snapshot", "snapshot --retain", "verify", "restore", "attest push"),
    *("key limit", "key revoke", "key reseal"),
)

# What is refused, yet says so in the ledger: a restore that the store ended counts for nothing.
RECORDED = {("restore", "writer"), ("restore", "pruner"), ("heal --execute", "restorer")}
# "key request" of a host that has a key says so; "heal --execute" names what stays hidden.
NAMED = {2: "has a key already", 3: "not recorded", 4: "hidden", 12: ".key", 13: "AccessDenied"}


def cells() -> dict[tuple[str, str], tuple[int, ...]]:
    """Exit codes by command and role: with its own keys, and where that is 12, with all keys."""
    head, *rows = (re.split(" {2,}", line) for line in TABLE.strip().splitlines())
    return {
        (row[0], who): tuple(map(int, cell.split("/")))
        for row in rows
        for who, cell in zip(head[1:], row[1:], strict=True)
    }


def leaves(group: click.Group, above: str = "") -> set[str]:
    """The commands of the program, with what they stand under."""
    found: set[str] = set()
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        full = f"{above} {name}".lstrip()
        found |= leaves(command, full) if isinstance(command, click.Group) else {full}
    return found


# --- a repository and who comes to it ---


@dataclasses.dataclass(kw_only=True)
class Scene:
    """A bucket under its policy, a repository with all that commands want, and its key files."""

    client: Any  # of the bucket's owner
    endpoint: str
    bucket: str
    base: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    root: str = ""
    count: int = 0  # of what is made anew each time
    calls: list[str] = dataclasses.field(default_factory=list)  # of the last command, to the store

    @property
    def url(self) -> str:
        """Of the repository."""
        return f"s3://{self.bucket}/{PREFIX}"

    @property
    def keys(self) -> Path:
        """Where all key files are."""
        return self.base / "keys"

    def run(
        self, user: str, home: str, *arguments: object, keys: Path | None = None
    ) -> tuple[int, str, str]:
        """A command line with a user's credentials of the store, on a machine of its own."""
        self.settle(user, home, keys)
        self.capsys.readouterr()
        self.calls.clear()
        code = main.run([str(argument) for argument in arguments])
        return code, *self.capsys.readouterr()

    def settle(self, user: str, home: str, keys: Path | None = None) -> None:
        """The environment of that user at that machine."""
        place = self.base / home
        (place / "keys").mkdir(parents=True, exist_ok=True)
        patch = self.monkeypatch
        for name in [name for name in os.environ if name.startswith(("VAULT_", "XDG_", "AWS_END"))]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", user)
        patch.setenv("AWS_SECRET_ACCESS_KEY", f"{user}-secret")
        patch.setenv("HOME", str(place))
        for kind in ("CONFIG", "STATE", "CACHE"):
            patch.setenv(f"XDG_{kind}_HOME", str(place / kind.lower()))
        patch.setenv("VAULT_KEYS", str(keys or place / "keys"))
        patch.setenv("VAULT_PASSPHRASE_FILE", str(self.base / "passphrase"))

    def well(self, user: str, home: str, *arguments: object) -> str:
        """What must succeed, with all key files."""
        place = ("--repo", self.url, "--endpoint-url", self.endpoint)
        trust = ("--trust", self.root) if self.root else ()
        code, out, err = self.run(user, home, *place, *trust, *arguments, keys=self.keys)
        assert code == 0, (arguments, out, err)
        return out

    def state(self, *, locks: bool) -> State:
        """Every version in the bucket, and the lock of each."""
        found: State = {}
        for page in self.client.get_paginator("list_object_versions").paginate(Bucket=self.bucket):
            for marker in page.get("DeleteMarkers", ()):
                found[marker["Key"], marker["VersionId"]] = "marker"
            for item in page.get("Versions", ()):
                at = {"Key": item["Key"], "VersionId": item["VersionId"]}
                found[item["Key"], item["VersionId"]] = (item["ETag"], locks and self._lock(at))
        return found

    def _lock(self, at: dict[str, str]) -> object:
        try:
            answer = self.client.get_object_retention(Bucket=self.bucket, **at)
        except self.client.exceptions.ClientError as error:
            return error.response["Error"]["Code"]
        return answer["Retention"]

    def put_policy(self, *options: str) -> None:
        """The policy that the program prints."""
        principals = [f"--principal={role}=arn:aws:iam:::user/vault-{role}" for role in ROLES]
        asked = ("store", "iam", self.url, "--bucket-policy", "--dialect", "ceph", *principals)
        owner = "--administrator=arn:aws:iam:::user/vault"
        code, out, err = self.run("vault", "owner", *asked, owner, *options)
        assert code == 0, err
        self.client.put_bucket_policy(Bucket=self.bucket, Policy=out)

    def fresh(self, name: str) -> Path:
        """A path where nothing is."""
        self.count += 1
        return self.base / f"{name}-{self.count}"


@pytest.fixture
def make_scene(  # noqa: PLR0917 - fixtures
    tmp_path: Path,
    endpoint: str,
    client: Any,
    make_source: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Scene]:
    """Makes the bucket, its policy, a repository of three hosts, two snapshots, restores."""
    monkeypatch.setattr(cli.commands.init, "COST", CHEAP)

    def make(*options: str) -> Scene:
        bucket = f"vault-matrix-{secrets.token_hex(6)}"
        client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
        scene = Scene(
            client=client,
            endpoint=endpoint,
            bucket=bucket,
            base=tmp_path,
            monkeypatch=monkeypatch,
            capsys=capsys,
        )
        monkeypatch.setattr(s3.S3Store, "request", recording(scene.calls))
        secret = tmp_path / "passphrase"
        secret.write_text("correct horse\n")
        secret.chmod(0o600)
        scene.put_policy(*options)
        store = s3.S3Store(client, bucket, PREFIX)
        request = InitRequest(
            url=scene.url,
            endpoint=endpoint,
            parameters=Parameters(lock_mode=LockMode.GOVERNANCE, extend="--extend" in options),
            host="first",
            keys=scene.keys,
            passphrase=b"correct horse",
            tool="vault test",
            cost=CHEAP,
        )
        repository = create_repository(store, request, clock=store.now)
        scene.root = f"0:{repository.ledger.records[0].head.digest}"
        source = make_source()
        for number in (1, 2):
            (source / "number").write_text(str(number))
            scene.well("vault-writer", "writer", "snapshot", source, "--name", "data")
            if number == 1:
                root_key = load_root(scene.keys / "root.key", b"correct horse")
                add_holder(repository, root_key, tmp_path / "second-holder")
            ask(scene, f"spare{number}")
            scene.well("vault", "owner", "key", "add", *agreed(tmp_path / f"spare{number}"))
            ask(scene, f"new{number}")
            ask(scene, f"wish{number}")
        witnessed(scene)
        govern(scene)
        keep_request(scene)
        keep_attestations(scene)
        return scene

    return make


def recording(calls: list[str]) -> Callable[..., Any]:
    """The method that asks the store, which also writes down what is asked."""
    asked = s3.S3Store.request

    def request(store: s3.S3Store, action: str, name: str, operation: str, **given: Any) -> Any:
        calls.append(f"{operation} {name}")
        return asked(store, action, name, operation, **given)

    return request


def ask(scene: Scene, name: str) -> None:
    """A request to enrol a host of that name; FILE is NAME."""
    place = ("--repo", scene.url, "--endpoint-url", scene.endpoint, "--trust", scene.root)
    wish = ("--name", name, "--dataset", f"{name}-*", "--out", scene.base / name)
    asked = ("key", "request", *wish)
    code, _, err = scene.run("vault-writer", f"machine-{name}", *place, *asked)
    assert code == 0, err


def agreed(request: Path) -> list[object]:
    """What a script says to add the host of a request; `first` may write everything."""
    key = VerifyKey.from_der(load_request(request).public).id
    return [request, "--key", key, "--share-datasets", "first"]


def witnessed(scene: Scene) -> None:
    """A log, a verifier and a witness; the log has asked the witness, who has answered."""
    scene.well("vault", "owner", "key", "split", "--role", "log", "--role", "verifier", "--yes")
    state = scene.base / "witness"
    scene.well("vault", "owner", "witness", "init", "--state", state, "--name", "w")
    vkey = (state / "vkey").read_text().strip()
    proposal = propose(scene, f"--witness=w={vkey}")
    scene.well("vault", "owner", "key", "root", "apply", proposal, "--yes")
    scene.well("vault-log", "log", "checkpoint", "--out", scene.base / "note")
    ask = ("witness", "cosign", "--state", state, scene.base / "note")
    scene.well("vault-auditor", "auditor", *ask, "--out", scene.base / "answer")


def propose(scene: Scene, change: str) -> Path:
    """A proposal of the next root."""
    file = scene.fresh("proposal")
    scene.well("vault", "owner", "key", "root", "propose", change, "--out", file, "--yes")
    return file


def keep_attestations(scene: Scene) -> None:
    """Two restores while the store takes nothing: each leaves its attestation in a file."""
    opened = scene.client.get_bucket_policy(Bucket=scene.bucket)["Policy"]
    closed = json.loads(opened)
    for statement in closed["Statement"]:
        if statement["Effect"] == "Allow" and "s3:PutObject" in statement["Action"]:
            statement["Effect"] = "Deny"
    scene.client.put_bucket_policy(Bucket=scene.bucket, Policy=json.dumps(closed))
    for number in (1, 2):
        place = ("--repo", scene.url, "--endpoint-url", scene.endpoint, "--trust", scene.root)
        asked = ("restore", "data", scene.base / f"restored{number}")
        home = f"closed{number}"
        code, _, err = scene.run("vault-restorer", home, *place, *asked, keys=scene.keys)
        assert code == 3, err
        (kept,) = (scene.base / home).rglob("attestations/*.json")
        shutil.copy(kept, scene.base / f"attestation{number}")
    scene.client.put_bucket_policy(Bucket=scene.bucket, Policy=opened)


def govern(scene: Scene) -> None:
    """A policy in force for the dataset, and two that may be withdrawn."""
    for name in ("data", "spare1", "spare2"):
        file = policy_file(scene, name)
        scene.well("vault", "owner", "policy", "apply", file, "--yes")


def keep_request(scene: Scene) -> None:
    """A request for an act as it was asked for, and a copy that one more has signed."""
    asked = ("approve", "request", "writer.limit", "spare1", "--dataset", "spare1-2")
    scene.well("vault", "owner", *asked, "--reason", "test", "--out", scene.base / "asked")
    shutil.copy(scene.base / "asked", scene.base / "signed")
    scene.well("vault-log", "log", "approve", "sign", scene.base / "signed", *signing(scene))


# --- the commands ---


POLICY = """
policy = 1
name = "{name}"
timezone = "UTC"
[schedule]
cron = "17 4 * * *"
[retention]
within = "7d"
[[dataset]]
name = "{name}"
paths = ["/srv"]
"""


def policy_file(scene: Scene, name: str) -> Path:
    """A policy for the dataset of that name."""
    file = scene.base / f"{name}.toml"
    file.write_text(POLICY.format(name=name))
    return file


def passphrase(scene: Scene) -> Path:
    """A file with another passphrase."""
    file = scene.fresh("passphrase")
    file.write_text("battery staple\n")
    file.chmod(0o600)
    return file


def another(file: Path, scene: Scene) -> Path:
    """A copy of a file, which may be changed."""
    return Path(shutil.copy(file, scene.fresh(file.name)))


def asking(scene: Scene) -> Arguments:
    """What every request says."""
    return "--reason", "test", "--out", scene.fresh("request")


def signing(scene: Scene) -> Arguments:
    """A key of its own signs: who agrees needs no credentials of the store."""
    return "--key", f"file:{scene.keys / 'recovery.key'}#restorer", "--yes"


def change(scene: Scene) -> Path:
    """The source, with a file that is not stored yet."""
    (scene.base / "source" / secrets.token_hex(4)).write_bytes(secrets.token_bytes(3000))
    return scene.base / "source"


def hide(scene: Scene) -> None:
    """Put a delete marker over a pack."""
    packs = scene.client.list_objects_v2(Bucket=scene.bucket, Prefix=f"{PREFIX}/packs/")
    scene.client.delete_object(Bucket=scene.bucket, Key=packs["Contents"][0]["Key"])


def numbered(scene: Scene, name: str, turn: int) -> Path:
    """One of the two that were prepared: own keys take the first, stolen ones the second."""
    return scene.base / f"{name}{turn}"


# a line of the table, without what stands behind #, and what it is called with
COMMANDS: dict[str, Callable[[Scene, int], Arguments]] = {
    "list": lambda scene, turn: [],
    "list DATASET": lambda scene, turn: ["data"],
    "log": lambda scene, turn: [],
    "show": lambda scene, turn: ["2"],
    "status": lambda scene, turn: [],
    "status --locks": lambda scene, turn: ["--locks"],
    "stats": lambda scene, turn: [],
    "key list": lambda scene, turn: [],
    "ls": lambda scene, turn: ["data"],
    "cat": lambda scene, turn: ["data", "number"],
    "find": lambda scene, turn: ["number"],
    "diff": lambda scene, turn: ["2", "data"],
    "export-checksums": lambda scene, turn: ["data"],
    "mount": lambda scene, turn: ["data"],
    "verify": lambda scene, turn: [],
    "verify --no-key": lambda scene, turn: ["--no-key"],
    "audit": lambda scene, turn: [],
    "audit --read-data": lambda scene, turn: ["--read-data", "all"],
    "heal": lambda scene, turn: [],
    "restore --dry-run": lambda scene, turn: ["data", scene.fresh("target"), "--dry-run"],
    "restore": lambda scene, turn: ["data", scene.fresh("target")],
    "snapshot --dry-run": lambda scene, turn: [change(scene), "--name", "data", "--dry-run"],
    "snapshot": lambda scene, turn: [change(scene), "--name", "data"],
    "snapshot --retain": lambda scene, turn: [
        *(change(scene), "--name", "data", "--retain", "60d")
    ],
    "index rebuild": lambda scene, turn: [],
    "attest push": lambda scene, turn: [numbered(scene, "attestation", turn)],
    "key request": lambda scene, turn: [
        *("--name", f"asked{turn}", "--dataset", "*", "--out", scene.fresh("request"))
    ],
    "key add": lambda scene, turn: agreed(numbered(scene, "new", turn)),
    "key limit": lambda scene, turn: [f"spare{turn}", "--dataset", f"spare{turn}-1"],
    "key revoke": lambda scene, turn: [f"spare{turn}"],
    "key reseal": lambda scene, turn: ["--to", "bob"],
    "key root show": lambda scene, turn: [],
    "key root propose": lambda scene, turn: [
        *("--checkpoint-age", "20h", "--out", scene.fresh("proposal"), "--yes")
    ],
    "key root apply": lambda scene, turn: [
        propose(scene, f"--checkpoint-age={turn + 1}d"),
        "--yes",
    ],
    "key export": lambda scene, turn: ["--pem", scene.fresh("pem")],
    "key new": lambda scene, turn: [
        *("--role", "pruner", "--out", scene.fresh("new-key"), "--public", scene.fresh("public"))
    ],
    "key passwd": lambda scene, turn: [
        *(another(scene.keys / "root.key", scene), "--new-passphrase-file", passphrase(scene))
    ],
    "checkpoint": lambda scene, turn: [],
    "checkpoint --attach": lambda scene, turn: ["--attach", scene.base / "answer"],
    "witness init": lambda scene, turn: ["--state", scene.fresh("state"), "--name", "w"],
    "witness cosign": lambda scene, turn: [
        *("--state", scene.base / "witness", scene.base / "note", "--out", scene.fresh("answer"))
    ],
    "witness log": lambda scene, turn: ["--state", scene.base / "witness"],
    "heartbeat": lambda scene, turn: ["--every", "1d"],
    "approve list": lambda scene, turn: [],
    "approve request writer.add": lambda scene, turn: [
        *(numbered(scene, "wish", turn), "--share-datasets", "first", *asking(scene))
    ],
    "approve request writer.limit": lambda scene, turn: [
        *("spare1", "--dataset", "spare1-2", *asking(scene))
    ],
    "approve request writer.revoke": lambda scene, turn: ["first", *asking(scene)],
    "approve request root": lambda scene, turn: [
        *(propose(scene, "--checkpoint-age=20h"), *asking(scene))
    ],
    "approve request recipient.remove": lambda scene, turn: [
        *(propose(scene, "--recipient-remove=bob"), *asking(scene))
    ],
    "approve request policy.apply": lambda scene, turn: [
        *(policy_file(scene, f"applied{turn}"), *asking(scene))
    ],
    "approve request policy.weaken": lambda scene, turn: [
        *("--withdraw", f"spare{turn}", *asking(scene))
    ],
    "approve request reseal": lambda scene, turn: ["--to", "bob", *asking(scene)],
    "approve request restore.replace": lambda scene, turn: ["2", *asking(scene)],
    "approve show": lambda scene, turn: [scene.base / "asked"],
    "approve sign": lambda scene, turn: [another(scene.base / "asked", scene), *signing(scene)],
    "approve merge": lambda scene, turn: [
        *(scene.base / "asked", scene.base / "signed", "--out", scene.fresh("merged"))
    ],
    "policy show": lambda scene, turn: [],
    "policy schema": lambda scene, turn: [],
    "policy validate": lambda scene, turn: [policy_file(scene, "data")],
    "policy simulate": lambda scene, turn: [policy_file(scene, "data")],
    "policy check": lambda scene, turn: [],
    "policy apply": lambda scene, turn: [policy_file(scene, f"applied{turn}"), "--yes"],
    "policy withdraw": lambda scene, turn: [f"spare{turn}", "--yes"],
    "policy retire": lambda scene, turn: ["data", "--yes"],
    "key split": lambda scene, turn: ["--role", "pruner", "--yes"],
    "heal --execute": lambda scene, turn: ["--execute"],
    "store check": lambda scene, turn: [scene.url],
    "store iam": lambda scene, turn: [scene.url, "--role", "writer"],
    "init": lambda scene, turn: [
        *(f"s3://{scene.bucket}/other{turn}", "--host", "h", "--keys", scene.fresh("made"))
    ],
    "completion": lambda scene, turn: ["bash"],
}


# They work on files alone: the store is asked for nothing, so none of its roles matters.
OFFLINE = {
    *("key passwd", "approve merge", "policy schema", "policy validate", "policy simulate"),
    *("witness init", "witness log", "store iam", "completion"),
}


def words(line: str) -> list[str]:
    """The command itself: what a label adds in capitals or with dashes stands in its arguments."""
    return [word for word in line.split() if word.islower() and not word.startswith("--")]


def given(scene: Scene, home: str, keys: Sequence[str]) -> None:
    """Put key files on a machine."""
    place = scene.base / home / "keys"
    place.mkdir(parents=True, exist_ok=True)
    for name in keys:
        (place / name).write_bytes((scene.keys / name).read_bytes())
        (place / name).chmod(0o600)


def attempt(scene: Scene, who: str, line: str, turn: int) -> tuple[int, str, str]:
    """Run one line of the table as one of the roles; ``turn`` 2 has all key files."""
    is_other_machine = line == "key request" and who != "writer"  # whose host has a key
    home = scene.fresh("machine").name if is_other_machine else f"{who}{turn}"
    given(scene, home, ALL_KEYS if turn == 2 else OWN_KEYS.get(who, ()))
    user = USERS.get(who, f"vault-{who}")
    place = ("--repo", scene.url, "--endpoint-url", scene.endpoint, "--trust", scene.root)
    arguments = list(COMMANDS[line](scene, turn))
    command = (*place, *words(line), *arguments)
    if line == "mount":
        return mounted(scene, user, home, command)
    return scene.run(user, home, *command)


def mounted(scene: Scene, user: str, home: str, command: Sequence[object]) -> tuple[int, str, str]:
    """Mount, read a file, unmount: by a process of its own, as it goes on until then."""
    point = scene.fresh("mountpoint")
    point.mkdir()
    scene.settle(user, home)
    messages = scene.fresh("messages")
    with messages.open("w") as stream:
        running = subprocess.Popen(
            [sys.executable, "-m", "cli.main", *map(str, command), str(point)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    try:
        while running.poll() is None and not point.is_mount():
            time.sleep(0.05)
        if point.is_mount():
            assert (point / "number").read_text() == "2"
    finally:
        if running.poll() is None:
            running.send_signal(signal.SIGINT)
        running.wait(timeout=60)
    code = running.returncode
    return 0 if code == INTERRUPTED else code, "", messages.read_text()


@pytest.mark.parametrize(
    ("who", "dialect"),
    [*((who, "--no-extend") for who in WHO), ("writer", "--extend"), ("restorer", "--extend")],
)
def test_each_role_does_its_work_and_nothing_else(
    make_scene: Callable[..., Scene], who: str, dialect: str
) -> None:
    """What is refused says what, without a traceback, and has changed nothing.

    Where nothing extends a lock, all are looked at once, at the end.
    """
    extends = dialect == "--extend"
    scene = make_scene(dialect, *(["--read-data"] if who == "reading" else []))
    table = cells()
    wrong: list[str] = []
    locked = scene.state(locks=True)
    before = scene.state(locks=extends)
    for line in EXTENDING if extends else COMMANDS:
        if line == "mount" and not CAN_MOUNT:
            continue
        if line == "heal --execute":
            hide(scene)
            before = scene.state(locks=extends)
        for turn, wanted in enumerate(table[line, who], start=1):
            code, out, err = attempt(scene, who, line, turn)
            after = scene.state(locks=extends)
            faults = faults_of(line, who, wanted, (code, out + err), is_same=before == after)
            wrong += [f"{line}, keys {turn}: {fault}\n{out}{err}" for fault in faults]
            is_seen = not code and line != "mount"  # which is a process of its own
            if is_seen and bool(scene.calls) == (line in OFFLINE):
                wrong.append(f"{line}: it asked the store {scene.calls or 'nothing'}")
            before = after
    assert wrong == []
    assert extends or scene.state(locks=True).items() >= locked.items()


def faults_of(
    line: str, who: str, wanted: int, came: tuple[int, str], *, is_same: bool
) -> Iterator[str]:
    """What is not as the table says."""
    code, said = came
    if code != wanted:
        yield f"exit {code}, wanted {wanted}"
    if "Traceback" in said or "this is a bug" in said:
        yield "a traceback"
    if code and NAMED.get(code, "?") not in said:
        yield "the refusal names nothing"
    if code in {NO_KEY, REFUSED} and "hint:" not in said:
        yield "no hint"
    if code and not is_same and (line, who) not in RECORDED:
        yield "refused, and the repository has changed"


def test_every_command_has_its_row() -> None:
    """A new command is put into the table, and what each role comes to with it."""
    lines = list(dict.fromkeys(line for line, _ in cells()))
    assert lines == list(COMMANDS)
    assert {" ".join(words(line)) for line in lines} == leaves(main.app)
    assert {who for _, who in cells()} == set(WHO)
    assert {role.value for role in AccessRole} <= set(WHO)
