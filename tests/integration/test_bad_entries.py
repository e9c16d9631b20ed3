"""A snapshot some of whose entries break a rule, or whose bytes are damaged: the rest is given."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.support.forgery import Fields, ForgedTree, forge_snapshot
from tests.support.forgery import forged_entry as entry
from vault.crypto.key_files import load_writer
from vault.model import Digest, EntryType
from vault.repository.repository import Repository
from vault.storage.choose_store import open_store

Vault: TypeAlias = Callable[..., tuple[int, str, str]]
Part: TypeAlias = tuple[Fields, Fields]
DIRECTORY, SYMLINK, LINK = EntryType.DIRECTORY, EntryType.SYMLINK, EntryType.HARD_LINK

GOOD, OTHER = b"good\n", b"other\n"
EVIL = b"m/evil\x1b[31m\n"
SHOWN = r"m/evil\x1b[31m\x0a"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forge:
    """Publishes snapshots of dataset ``old`` with the keys of this host."""

    repository: Path
    keys: Path

    def open(self) -> tuple[Repository, Any]:
        """What is needed to publish."""
        key = load_writer(self.keys / "writer.key")
        store = open_store(str(self.repository))
        root = Digest.parse(key.repository.root)
        return Repository.open(store, root, clock=lambda: datetime.now(UTC)), key

    def tree(self, *bad: Part | bytes, at: int = 3) -> list[Part | bytes]:
        """Good entries, and these in the middle of them."""
        good: list[Part | bytes] = [
            entry(b"", DIRECTORY),
            entry(b"a", data=GOOD),
            entry(b"m", DIRECTORY),
            entry(b"m/z", data=OTHER),
            entry(b"n", SYMLINK, link=b"a", mode=0o777),
        ]
        return [*good[:at], *bad, *good[at:]]

    def __call__(self, *entries: Part | bytes, **options: Any) -> ForgedTree:
        """Publish."""
        return forge_snapshot(*self.open(), entries, data=[GOOD, OTHER], dataset="old", **options)


@pytest.fixture
def forger(repository: Path, keys: Path) -> Forge:
    """Trees without the writer's checks."""
    return Forge(repository=repository, keys=keys)


def _bad() -> dict[str, tuple[Part | bytes, bytes | None]]:
    """By name: an entry that breaks a rule, and the path that can be told of it."""
    here = EVIL
    long = b"m/" + b"/".join([b"n" * 200] * 330)
    parts = entry(here, data=GOOD)
    return {
        "hole past the end": (entry(here, data=GOOD, holes=((0, 100),)), here),
        "time beyond 64 bits": (entry(here, data=GOOD, ctime=2**63 + 5), here),
        "path too long": (entry(long, data=GOOD), long),
        "empty link": (entry(here, SYMLINK, link=b""), here),
        "doubled attribute": (
            entry(here, data=GOOD, xattrs=((b"user.a", b"1"), (b"user.a", b"2"))), here),
        "link to nothing": (entry(here, LINK, link=b"nowhere"), here),
        "out of order": (entry(b"Z", data=GOOD), b"Z"),
        "twice": (entry(b"a", data=OTHER), b"a"),
        "dots": (entry(b"m/../../etc/evil", data=GOOD), b"m/../../etc/evil"),
        "absolute": (entry(b"/etc/evil", data=GOOD), b"/etc/evil"),
        "unknown type": (entry(here, 9), here),
        "below a file": (entry(b"a/evil", data=GOOD), b"a/evil"),
        "no digest": (entry(here, data=GOOD, sha256=None), here),
        "another shape": (((here, "x"), parts[1]), None),
        "one field more": ((parts[0], (*parts[1], 1)), here),
        "no msgpack": (b"\x02\0\0\0\x01\0\0\0\xc1\xc1\xc1", None),
    }  # fmt: skip


CASES = list(_bad())


def _signs(out: str) -> list[str]:
    return [line for line in out.splitlines() if not line.isprintable()]


def test_a_tree_that_is_forged_honestly_is_whole(vault: Vault, forger: Forge, home: Path) -> None:
    """The control: what fails below fails for its own reason."""
    seq = forger(*forger.tree()).record.seq
    assert vault("ls", "old", "-R")[:2] == (0, "a\nm/\nm/z\nn\n")
    assert vault("cat", "old", "m/z")[:2] == (0, OTHER.decode())
    code, _, err = vault("restore", seq, home / "target")
    assert code == 0, err
    assert (home / "target/m/z").read_bytes() == OTHER
    assert vault("verify", seq)[0] == 0


@pytest.mark.parametrize("case", CASES)
def test_others_are_given_and_the_bad_one_is_named(
    vault: Vault, forger: Forge, home: Path, case: str
) -> None:
    """By ls, cat, find, export-checksums, restore --include, and verify."""
    bad, path = _bad()[case]
    entries = forger.tree(bad)
    if isinstance(bad, bytes):  # the content root covers what it holds
        entries = forger.tree(((0,), ()))
    record = forger(*entries).record
    name = "without a legible name" if path is None else None
    if path == EVIL:
        name = SHOWN
    elif path is not None:
        name = path[:100].decode()

    code, out, err = vault("ls", "old", "-R")
    assert code == 3, err
    assert out == "a\nm/\nm/z\nn\n"
    assert f"snapshot {record.seq}: " in err
    assert "stepped over" in err
    assert name is not None
    assert name in err
    assert not _signs(err)

    for command, expected in (
        (("cat", "old", "m/z"), OTHER.decode()),
        (("cat", "old", "a"), GOOD.decode()),
        (("export-checksums", "old"), f"{hashlib.sha256(GOOD).hexdigest()}  a\n"),
        (("find", "z"), "m/z\n"),
    ):
        code, out, err = vault(*command)
        assert code == 3, (command, err)
        assert expected in out
        assert "stepped over" in err

    code, out, _ = vault("--json", "ls", "old")
    (told,) = json.loads(out)["stepped_over"]
    assert json.loads(out)["stepped_over_count"] == 1
    assert told["problem"]
    assert told["path"] == (None if path is None else path.decode())

    target = home / "target"
    code, out, err = vault("restore", record.seq, target)
    assert code == 4
    assert "TARGET is as it was" in err
    assert "--include" in err
    assert name in err
    assert not target.exists()
    code, out, err = vault("--json", "restore", record.seq, target, "--include", "*")
    assert code == 3, err
    found = json.loads(out)["restore"]
    assert found["outcome"] == "partial"
    assert found["proof"]["root_matches"] is True
    assert found["stepped_over_count"] == 1
    assert (target / "a").read_bytes() == GOOD
    assert (target / "m/z").read_bytes() == OTHER
    assert sorted(each.name for each in target.rglob("*")) == ["a", "m", "n", "z"]

    code, out, err = vault("verify", record.seq)
    assert code == 4
    assert "a tree entry" in err
    assert not _signs(out + err)
    assert vault("list")[0] == 0


def test_verify_names_no_file_in_what_it_publishes(
    vault: Vault, forger: Forge, repository: Path
) -> None:
    """The finding on the screen names the entry; the attestation anyone may read does not."""
    seq = forger(*forger.tree(entry(b"m/secret-name", SYMLINK, link=b""))).record.seq
    code, _, err = vault("verify", seq)
    assert code == 4
    assert "secret-name" in err
    evidence = [path.read_bytes() for path in (repository / "evidence").iterdir()]
    assert evidence
    import base64

    texts = [base64.b64decode(json.loads(each)["payload"]) for each in evidence]
    assert any(b"impossible link target" in text for text in texts)
    assert not any(b"secret-name" in text for text in texts)


def test_the_bad_one_itself_is_refused_with_its_reason(
    vault: Vault, forger: Forge, home: Path
) -> None:
    """It is not said to be missing; what really is, is."""
    seq = forger(*forger.tree(entry(EVIL, data=GOOD, holes=((0, 9),)))).record.seq
    code, out, err = vault("cat", "old", os.fsdecode(EVIL))
    assert (code, out) == (4, "")
    assert "impossible holes" in err
    assert SHOWN in err
    assert vault("cat", "old", "m/nothing")[0] == 2
    code, _, err = vault("restore", seq, home / "target", "--include", "evil*")
    assert code == 4
    assert "impossible holes" in err
    assert not (home / "target").exists()
    assert vault("restore", seq, home / "target", "--include", "nothing")[0] == 2


def test_a_refusal_names_the_file_and_its_fault_as_sentences(
    vault: Vault, forger: Forge, home: Path
) -> None:
    """Not as Python writes bytes, and the subject once."""
    bad = _bad()
    for case in ("unknown type", "another shape"):
        part, path = bad[case]
        seq = forger(*forger.tree(part)).record.seq
        _, _, err = vault("restore", seq, home / "target")
        assert "tree entry" not in err
        assert "first b'" not in err
        assert "its entry has an unknown type" in err or "its entry is malformed" in err
        assert path is None or "that can't be restored, first 'm/evil" in err


def test_a_bad_directory_still_gives_its_members(vault: Vault, forger: Forge, home: Path) -> None:
    """As one without attributes, closed to others; so also the top, and one that is missing."""
    twice = ((b"user.a", b"1"), (b"user.a", b"2"))
    a, z = entry(b"a", data=GOOD), entry(b"m/z", data=OTHER)
    top, m = entry(b"", DIRECTORY), entry(b"m", DIRECTORY)
    trees = {
        "bad": ([top, a, entry(b"m", DIRECTORY, xattrs=twice), z], 1),
        "bad top": ([entry(b"", DIRECTORY, xattrs=twice), a, m, z], 1),
        "missing": ([top, a, z], 1),
        "nothing but files": ([a, z], 2),
        "top is a file": ([entry(b"", data=GOOD), a, m, z], 2),
    }
    for number, (name, (entries, count)) in enumerate(trees.items()):
        record = forger(*entries).record
        code, out, err = vault("--json", "ls", record.seq, "-R")
        assert code == 3, (name, err)
        assert [each["path"] for each in json.loads(out)["entries"]] == ["a", "m", "m/z"], name
        assert json.loads(out)["stepped_over_count"] == count, name
        assert any(each["replaced"] for each in json.loads(out)["stepped_over"])
        target = home / f"target{number}"
        code, _, err = vault("restore", record.seq, target, "--include", "/m")
        assert code == 3, (name, err)
        assert (target / "m/z").read_bytes() == OTHER
        replaced = target if "top" in name else target / "m"
        assert replaced.stat().st_mode & 0o777 == 0o700, name


def test_one_bad_entry_does_not_make_others_bad(vault: Vault, forger: Forge) -> None:
    """A bad one that claims a late place, or leaves a directory, moves nothing."""
    bad = [entry(b"zzz", LINK, link=b"nowhere"), entry(b"x", SYMLINK, link=b"")]
    forger(*forger.tree(*bad))
    code, out, _ = vault("ls", "old", "-R")
    assert (code, out) == (3, "a\nm/\nm/z\nn\n")


def test_one_entry_in_the_wrong_place_displaces_no_other(
    vault: Vault, forger: Forge, home: Path
) -> None:
    """A well-formed one, or a whole directory, far before its place; the shorter row gives way."""
    late = [
        entry(b"zz", DIRECTORY),
        *(entry(b"zz/%03d" % number, data=GOOD) for number in range(2)),
    ]
    for count in (1, 3):
        record = forger(*forger.tree(*late[:count], at=1)).record
        code, out, err = vault("--json", "ls", record.seq, "-R")
        assert code == 3
        assert [each["path"] for each in json.loads(out)["entries"]] == ["a", "m", "m/z", "n"]
        assert json.loads(out)["stepped_over_count"] == count
        assert "zz is stepped over: its entry is out of order" in err
        assert vault("cat", record.seq, "m/z")[:2] == (3, OTHER.decode())
        target = home / f"target{count}"
        assert vault("restore", record.seq, target, "--include", "*")[0] == 3
        assert (target / "m/z").read_bytes() == OTHER
        assert not (target / "zz").exists()


def test_diff_says_nothing_of_what_it_can_not_read(vault: Vault, forger: Forge) -> None:
    """An entry that is bad in one of two snapshots was neither removed nor added."""
    good = forger(*forger.tree(entry(b"m/b", data=GOOD))).record.seq
    bad = forger(*forger.tree(entry(b"m/b", data=GOOD, holes=((0, 9),)))).record.seq
    gone = forger(*forger.tree()).record.seq
    assert vault("diff", good, gone)[:2] == (0, "- m/b (5 B)\n")
    for pair in ((good, bad), (bad, good), (bad, gone)):
        code, out, err = vault("diff", *pair)
        assert (code, out) == (3, ""), err
        assert f"snapshot {bad}: m/b is stepped over" in err
    code, out, _ = vault("--json", "diff", good, bad)
    assert json.loads(out)["flaws"][0]["snapshot"] == bad


def test_find_goes_on_in_other_snapshots(vault: Vault, forger: Forge) -> None:
    """And says which had a bad entry; nothing found is graver than that."""
    forger(*forger.tree())
    bad = forger(*forger.tree(entry(b"m/b", SYMLINK, link=b""))).record.seq
    code, out, _ = vault("--json", "find", "/m/z/")
    found = json.loads(out)
    assert code == 3
    assert [each["snapshot"] for each in found["matches"]] == [bad, bad - 1]
    assert [each["snapshot"] for each in found["flaws"]] == [bad]
    code, out, err = vault("find", "no-such-name")
    assert (code, out) == (2, "")
    assert "nothing matches" in err


@pytest.mark.parametrize(
    "rest",
    [b"\xff\xff\xff\xff\xff\xff\xff\xff", b"\x20\0\0\0\x20\0\0\0cut", b"\x01"],
    ids=["lengths beyond all", "cut off", "a byte too many"],
)
def test_broken_framing_gives_what_came_before(
    vault: Vault, forger: Forge, home: Path, rest: bytes
) -> None:
    """Exit 4; where it ends is said; nothing is restored, as nothing of it can be proven whole."""
    record = forger(*forger.tree(rest, at=3)[:4]).record
    code, out, err = vault("ls", "old", "-R")
    assert (code, out) == (4, "a\nm/\n"), err
    assert "nothing after m can be read" in err
    assert vault("cat", "old", "a")[:2] == (4, GOOD.decode())
    code, _, err = vault("cat", "old", "n")
    assert code == 4
    assert "ends after m" in err
    code, out, _ = vault("--json", "find", "a")
    assert (code, json.loads(out)["failed"]) == (4, [record.seq])
    assert len(json.loads(out)["matches"]) == 1
    code, out, _ = vault("--json", "export-checksums", "old")
    assert (code, json.loads(out)["ends_after"]) == (4, {"path": "m"})
    for include in ((), ("--include", "/a")):
        code, _, err = vault("restore", record.seq, home / "target", *include)
        assert code == 4
        assert "TARGET is as it was" in err
        assert not (home / "target").exists()
    code, _, err = vault("verify", record.seq)
    assert code == 4
    assert "can't be read to its end" in err


@pytest.mark.parametrize("damage", ["gone", "flipped"])
def test_a_damaged_part_of_the_tree_leaves_what_lies_before(
    vault: Vault, forger: Forge, repository: Path, damage: str
) -> None:
    """The rest is not guessed at: bytes behind the hole may be a user's."""
    made = forger(*forger.tree(), cuts=(3, 4))
    assert vault("ls", "old", "-R")[:2] == (0, "a\nm/\nm/z\nn\n")
    _spoil(repository / made.packs[2], damage)
    code, out, err = vault("ls", "old", "-R")
    assert (code, out) == (4, "a\nm/\n"), err
    assert "nothing after m can be read" in err
    assert vault("cat", "old", "a")[:2] == (4, GOOD.decode())
    assert vault("cat", "old", "m/z")[0] == 4
    whole = forger(*forger.tree()).record.seq
    code, out, err = vault("diff", made.record.seq, whole)
    assert (code, out) == (4, ""), err


@pytest.mark.parametrize("damage", ["gone", "flipped"])
def test_a_damaged_pack_concerns_the_files_in_it(
    vault: Vault, repository: Path, source: Path, home: Path, damage: str
) -> None:
    """With an index and without: the tree and all other files are given."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    before = set((repository / "packs").rglob("*"))
    (source / "new").write_bytes(os.urandom(100_000))
    assert vault("snapshot", source, "--name", "data")[0] == 0
    added = [path for path in (repository / "packs").rglob("*") if path.is_file()]
    (pack,) = [p for p in added if p not in before and p.stat().st_size > 100_000]
    _spoil(pack, damage)
    for index in (True, False):
        if not index:
            for path in (repository / "index").rglob("*"):
                if path.is_file():
                    _spoil(path, "gone")
        code, out, err = vault("ls", "data")
        assert code == 0, err
        assert "new" in out
        assert vault("cat", "data", "readme")[:2] == (0, "read me\n")
        assert vault("find", "readme")[0] == 0
        code, out, err = vault("cat", "data", "new")
        assert code == 4
        assert pack.name in err
        target = home / f"target {index}"
        code, _, err = vault("restore", "data", target, "--include", "/readme")
        assert code == 0, err
        assert (target / "readme").read_text() == "read me\n"
        for include in ((), ("--include", "/new")):
            code, _, err = vault("restore", "data", home / "other", *include)
            assert code == 4
            assert not (home / "other").exists()
        code, _, err = vault("verify", "data")
        assert code == 4
        assert pack.name in err


def _spoil(path: Path, damage: str) -> None:
    path.chmod(0o600)
    if damage == "gone":
        path.unlink()
        return
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)


# --- what else one bad thing must not take with it ---


def test_one_missing_inventory_leaves_the_other_snapshots(
    vault: Vault, vault_json: Any, repository: Path, source: Path
) -> None:
    """Of stats, list, and all that looks into one of them."""
    for number in range(3):
        (source / "new").write_bytes(os.urandom(1_000 + number))
        assert vault("snapshot", source, "--name", "data")[0] == 0
    whole = vault_json("stats")["total"]
    bad = vault_json("list")["snapshots"][1]
    _spoil(repository / "inventory" / bad["inventory"]["sha256"], "gone")
    found = vault_json("stats", code=4)
    assert found["total"]["failed"] == found["datasets"][0]["failed"] == [bad["seq"]]
    assert found["total"]["snapshots"] == [n for n in whole["snapshots"] if n != bad["seq"]]
    assert 0 < found["total"]["stored"] < whole["stored"]
    _, out, err = vault("stats")
    assert "data" in out
    assert f"snapshot {bad['seq']} is left out" in err
    assert vault("list")[0] == 0
    for number in found["total"]["snapshots"]:
        assert vault("ls", number)[0] == 0
    assert vault("ls", bad["seq"])[0] == 4


@pytest.mark.parametrize("name", ["writer.key", "recovery.key", "root.key"])
def test_one_bad_key_file_stops_only_who_needs_it(
    vault: Vault, repository: Path, keys: Path, source: Path, name: str
) -> None:
    """The others still say where the repository is."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    key = keys / name
    kept = key.read_bytes()
    key.write_text("{junk")
    needs = {
        ("list",): "",
        ("ls", "data"): "recovery.key",
        ("snapshot", source, "--name", "data"): "writer.key",
        ("verify", "--no-key"): "",
    }
    for command, needed in needs.items():
        code, _, err = vault(*command)
        assert (code == 0) == (needed != name), (command, err)
        assert name in err
    for other in keys.glob("*.key"):
        other.write_text("{junk")
    assert vault("list")[0] == 4
    key.write_bytes(kept)
    assert vault("list")[0] == 0


# --- how a snapshot and a path in it are written ---


def test_a_snapshot_and_its_directory_in_one_word(
    vault: Vault, repository: Path, source: Path
) -> None:
    """``SNAPSHOT:/dir`` for ls and cat; the first ``:/`` divides."""
    (source / "etc/a:").mkdir()
    (source / "etc/a:/b").write_text("b\n")
    assert vault("snapshot", source, "--name", "data")[0] == 0
    assert vault("ls", "data:/etc")[1] == vault("ls", "data", "etc")[1] == "etc/a:/\netc/hosts\n"
    assert vault("ls", "data@latest:/etc/a:/")[:2] == (0, "etc/a:/b\n")
    assert vault("cat", "2:/etc/a:/b")[:2] == (0, "b\n")
    assert vault("ls", "data:/")[1] == vault("ls", "data")[1]
    assert vault("ls", "data:/etc", "hosts")[0] == 2
    assert vault("cat", "data")[0] == 2
    code, _, err = vault("restore", "data:/etc", source.parent / "target")
    assert code == 2
    assert "--include" in err


def test_latest_alone_is_the_one_dataset(vault: Vault, repository: Path, source: Path) -> None:
    """Exit 2 naming them where there are several; no dataset has that name, nor is a number."""
    for name in ("latest", "17"):
        assert vault("snapshot", source, "--name", name)[0] == 2
        assert vault("snapshot", source, "--name", name, "--dry-run")[0] == 2
    assert vault("ls", "latest")[0] == 2
    assert vault("snapshot", source, "--name", "data")[0] == 0
    assert vault("ls", "latest")[1] == vault("ls", "data")[1]
    assert vault("cat", "latest:/readme")[1] == "read me\n"
    assert vault("snapshot", source, "--name", "web")[0] == 0
    code, _, err = vault("ls", "latest")
    assert code == 2
    assert "data, web" in err


@pytest.mark.parametrize(
    "pattern",
    ["/etc/hosts", "etc/hosts", "./etc/hosts", "/etc/h*", "//etc/hosts/", "hosts", "hosts/"],
)
def test_find_takes_paths_as_others_do(
    vault: Vault, repository: Path, source: Path, pattern: str
) -> None:
    """With a slash it is the whole path."""
    assert vault("snapshot", source, "--name", "data")[0] == 0
    code, out, err = vault("find", pattern)
    if pattern == "hosts/":
        assert code == 2, "a slash makes it a whole path"
    else:
        assert (code, out.split()[-1]) == (0, "etc/hosts"), err
    assert vault("find", "/hosts")[0] == 2
    for empty in ("", "/", "./"):
        assert vault("find", empty)[0] == 2
