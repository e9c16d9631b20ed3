"""A compromised writer can seal and sign any tree: nothing outside TARGET changes by it."""

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.support.forgery import Forger
from tests.support.lab import Lab
from vault.audit import AuditReport, Code, audit_repository
from vault.crypto.compression import compress
from vault.crypto.keys import chunk_id
from vault.crypto.sealed import Sealer
from vault.custody.sampling import Sample
from vault.errors import IntegrityError, VaultError
from vault.format.content_root import ContentRoot, commitment
from vault.format.entry import Entry, replace_entry
from vault.format.entry_encoding import encode_canonical, encode_extra, frame
from vault.format.pack import PackWriter, SealedBlock
from vault.format.tree import TreeHeader, encode_header
from vault.ledger.records import Record
from vault.ledger.statements import EventBody, TreeRef
from vault.machine.workers import make_workers
from vault.model import EntryType, ObjectType
from vault.restore import RestoreOutcome

KEY = b"k" * 32
SHA = hashlib.sha256
DIRECTORY, FILE, SYMLINK = EntryType.DIRECTORY, EntryType.FILE, EntryType.SYMLINK
LINK, DEVICE = EntryType.HARD_LINK, EntryType.CHARACTER_DEVICE
CONTENT = b"content"

Entries: TypeAlias = list[Entry]


def node(path: bytes, kind: EntryType = DIRECTORY, **fields: Any) -> Entry:
    """An entry owned by whoever runs the test."""
    return Entry(
        path=path,
        type=kind,
        mode=fields.pop("mode", 0o755),
        uid=fields.pop("uid", os.geteuid()),
        gid=fields.pop("gid", os.getegid()),
        **fields,
    )


def file(path: bytes, data: bytes = CONTENT, **fields: Any) -> Entry:
    """A file of one chunk, unless told otherwise."""
    fields = {"size": len(data), "sha256": SHA(data).digest()} | fields
    return node(path, FILE, **fields)


TOP = node(b"")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Jail:
    """Where TARGET is, and what must not change around it."""

    room: Path
    target: Path
    outside: Path

    def around(self) -> dict[str, tuple[int, bytes]]:
        """Everything outside TARGET, by path: mode and content."""
        return {
            str(path): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
            for top in (self.room, self.outside)
            for path in sorted(top.rglob("*"))
            if path != self.target and self.target not in path.parents
        }


pytestmark = pytest.mark.usefixtures("no_syncfs")


@pytest.fixture
def jail(tmp_path: Path) -> Jail:
    """TARGET missing, and something worth attacking beside it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("keep")
    room = tmp_path / "room"
    room.mkdir()
    (room / "neighbour").write_text("keep")
    return Jail(room=room, target=room / "target", outside=outside)


@pytest.fixture
def forger(lab: Lab) -> Forger:
    """With one data chunk stored."""
    forger = Forger(lab.open(), lab.host.key)
    forger.store(ObjectType.DATA, [CONTENT, b"second"])
    return forger


def audit(lab: Lab) -> AuditReport:
    """One that reads every byte, without a key."""
    with make_workers(0) as workers:
        return audit_repository(lab.open(), sample=Sample(share=1.0), workers=workers)


def test_forged_but_honest_tree(lab: Lab, forger: Forger, jail: Jail) -> None:
    """The forger's tools make trees that do restore: what fails below fails for its own reason."""
    entries = [TOP, node(b"dir"), file(b"dir/file"),
               node(b"link", SYMLINK, link=b"/etc", mode=0o777),
               node(b"other", LINK, link=b"dir/file")]  # fmt: skip
    report = lab.restore(forger.publish_entries(entries), jail.target)
    assert report.outcome is RestoreOutcome.RECOVERED
    assert (jail.target / "other").read_bytes() == CONTENT
    assert Code.CALLED_BAD not in {each.code for each in audit(lab).findings}


def _bad_trees() -> dict[str, Entries]:
    outside = b"../../outside"  # from TARGET as from staging
    huge = 2**63 - 1
    return {
        "parent": [TOP, file(b"../../outside/evil")],
        "parent inside": [TOP, node(b"a"), file(b"a/../../../outside/evil")],
        "beside": [TOP, file(b"../evil")],
        "absolute": [TOP, file(b"/etc/evil")],
        "dot": [TOP, file(b"./evil")],
        "empty part": [TOP, node(b"a"), file(b"a//evil")],
        "trailing slash": [TOP, node(b"a"), file(b"a/evil/")],
        "NUL": [TOP, file(b"a\0b")],
        "no top": [file(b"evil")],
        "top is a file": [file(b"")],
        "top is a symlink": [node(b"", SYMLINK, link=outside)],
        "two tops": [TOP, TOP],
        "twice": [TOP, file(b"a"), file(b"a")],
        "unsorted": [TOP, file(b"b"), file(b"a")],
        "orphan": [TOP, file(b"a/b")],
        "below a symlink": [TOP, node(b"d", SYMLINK, link=outside), file(b"d/secret")],
        "below a file": [TOP, file(b"d"), file(b"d/secret")],
        "below a device": [TOP, node(b"d", DEVICE, device=259), file(b"d/secret")],
        "symlink replaced by a directory": [
            TOP, node(b"d", SYMLINK, link=outside), node(b"d"), file(b"d/secret"),
        ],
        "hard link outside": [TOP, node(b"h", LINK, link=b"../../outside/secret")],
        "hard link absolute": [TOP, node(b"h", LINK, link=b"/etc/passwd")],
        "hard link to a symlink": [
            TOP, node(b"d", SYMLINK, link=b"/etc/passwd"), node(b"h", LINK, link=b"d"),
        ],
        "hard link to a directory": [TOP, node(b"d"), node(b"h", LINK, link=b"d")],
        "hard link forward": [TOP, node(b"a", LINK, link=b"b"), file(b"b")],
        "hard link to itself": [TOP, node(b"a", LINK, link=b"a")],
        "hard link without link": [TOP, node(b"a", LINK)],
        "symlink without target": [TOP, node(b"a", SYMLINK, link=b"")],
        "symlink with NUL": [TOP, node(b"a", SYMLINK, link=b"x\0y")],
        "symlink too long": [TOP, node(b"a", SYMLINK, link=b"x" * 5000)],
        "file with a device number": [TOP, file(b"a", device=2049)],
        "device without number": [TOP, node(b"a", DEVICE)],
        "device with content": [TOP, node(b"a", DEVICE, device=259, size=7)],
        "directory with content": [TOP, node(b"a", size=7, sha256=SHA(CONTENT).digest())],
        "mode beyond permissions": [TOP, node(b"a", mode=0o100644)],
        "negative size": [TOP, file(b"a", size=-1)],
        "no digest": [TOP, file(b"a", sha256=None)],
        "8 EiB": [TOP, file(b"a", size=huge)],
        "8 EiB of hole": [
            TOP, file(b"a", size=huge, chunks=b"\0" * 32, holes=((7, huge - 7),)),
        ],
        "hole beyond the end": [TOP, file(b"a", holes=((0, 100),))],
        "holes that overlap": [TOP, file(b"a", size=100, holes=((0, 50), (40, 53)))],
        "empty file with another digest": [TOP, file(b"a", b"", sha256=SHA(b"x").digest())],
        "unknown chunk": [TOP, file(b"a", b"nowhere")],
        "too short": [TOP, file(b"a", size=3)],
        "too long": [TOP, file(b"a", size=300)],
        "owner nobody can have": [TOP, file(b"a", uid=2**32 - 1)],
        "name too long": [TOP, file(b"n" * 256)],
        "path too long": [TOP, file(b"n" * 70_000)],
    }  # fmt: skip


@pytest.mark.parametrize("name", _bad_trees())
def test_bad_tree(lab: Lab, forger: Forger, jail: Jail, name: str) -> None:
    """Refused in the vault's words, nothing is left, and the failure is on record."""
    entries = _bad_trees()[name]
    if name == "8 EiB of hole":
        entries[1] = replace_entry(entries[1], chunks=forger.id_of(CONTENT))
    before = jail.around()
    with pytest.raises(VaultError) as refused:
        lab.restore(forger.publish_entries(entries), jail.target)
    assert jail.around() == before
    assert not jail.target.exists()
    (statement,) = lab.open().ledger.valid("restore")
    assert isinstance(statement.body, EventBody)
    is_wrong = isinstance(refused.value, IntegrityError)  # else a file system had no room for it
    assert statement.body.verdict == ("failed" if is_wrong else "inconclusive")
    assert (Code.CALLED_BAD in {each.code for each in audit(lab).findings}) is is_wrong


def _several(forger: Forger, *chunks: bytes, kind: ObjectType = ObjectType.DATA) -> bytes:
    return b"".join(forger.id_of(chunk, kind) for chunk in chunks)


@pytest.mark.parametrize(
    "case",
    ["swapped", "one too many", "one too few", "of a tree pack", "digest of something else"],
)
def test_bad_chunk_lists(lab: Lab, forger: Forger, jail: Jail, case: str) -> None:
    """Chunks that are stored and sound, but not the file's."""
    both = CONTENT + b"second"
    honest = file(b"a", both, chunks=_several(forger, CONTENT, b"second"))
    other = file(b"z", both, chunks=_several(forger, b"second", CONTENT))
    changes: dict[str, Entry] = {
        "swapped": other,
        "one too many": file(b"z", both, chunks=_several(forger, CONTENT, b"second", b"second")),
        "one too few": file(b"z", both + b"more", chunks=_several(forger, CONTENT, b"second")),
        "of a tree pack": file(
            b"z", both, chunks=_several(forger, CONTENT, b"second", kind=ObjectType.TREE)
        ),
        "digest of something else": file(
            b"z", both, chunks=honest.chunks, sha256=SHA(b"something else").digest()
        ),
    }
    if case == "of a tree pack":
        forger.store(ObjectType.TREE, [CONTENT, b"second"])
    before = jail.around()
    with pytest.raises(VaultError):
        lab.restore(forger.publish_entries([TOP, honest, changes[case]]), jail.target)
    assert jail.around() == before
    assert not jail.target.exists()


@pytest.mark.parametrize("kind", [ObjectType.DATA, ObjectType.TREE])
def test_verify_fails_where_file_content_lies_in_a_pack_of_another_type(
    lab: Lab, forger: Forger, kind: ObjectType
) -> None:
    """Every chunk is there, sound, and as long as the file says; no restore reads it as content."""
    chunks = [b"first", b"second"]
    forger.store(kind, chunks)
    listed = file(b"a", b"".join(chunks), chunks=_several(forger, *chunks, kind=kind))
    record = forger.publish_entries([TOP, listed])
    report = lab.verify(record)
    if kind is ObjectType.DATA:
        assert (report.verdict, report.findings) == ("passed", ())
    else:
        assert report.verdict == "failed"
        assert [each.subject for each in report.findings] == [f"ledger {record.seq}"]
        assert "a pack of another type" in report.findings[0].problem


def test_bad_streams(lab: Lab, jail: Jail) -> None:
    """Junk, cut short, longer than said, another commitment."""
    header = encode_header(TreeHeader(key=KEY, relative=True, sources=()))
    top = frame(encode_canonical(TOP), encode_extra(TOP))
    root = ContentRoot()
    root.update(encode_canonical(TOP))
    signed = commitment(KEY, root.digest())
    cases = [
        (b"junk", signed), (header, signed), (header[:9], signed), (header + top[:-1], signed),
        (header + top + b"\0", signed), (header + top, bytes(32)), (top, signed),
        (header + header + top, signed), (b"VAULTTR1\xff\xff\xff\xff", signed),
        (header + b"\xff\xff\xff\xff\0\0\0\0", signed),
    ]  # fmt: skip

    def publish(stream: bytes, claimed: bytes) -> Record:
        return Forger(lab.open(), lab.host.key).publish_stream(stream, claimed)

    before = jail.around()
    for stream, claimed in cases:
        with pytest.raises(VaultError):
            lab.restore(publish(stream, claimed), jail.target)
    report = lab.restore(publish(header + top, signed), jail.target)
    assert report.outcome is RestoreOutcome.RECOVERED
    assert jail.around() == before


@pytest.mark.parametrize("level", [1, 2, 8])
def test_levels_that_are_none(lab: Lab, forger: Forger, jail: Jail, level: int) -> None:
    """The stream taken for a list of ids: unknown chunks, or a broken length."""
    with pytest.raises(VaultError):
        lab.restore(forger.publish_entries([TOP, file(b"a")], level=level), jail.target)
    assert not jail.target.exists()


def test_levels_that_explode(lab: Lab, jail: Jail) -> None:
    """Eight levels of lists of lists that repeat: refused at the first repeated entry."""
    forger = Forger(lab.open(), lab.host.key)
    header = encode_header(TreeHeader(key=KEY, relative=True, sources=()))
    chunks = [header, frame(encode_canonical(TOP), encode_extra(TOP))]
    for kind in range(8):
        repeated = forger.id_of(chunks[-1], ObjectType.TREE) * 2000
        first = forger.id_of(header, ObjectType.TREE) if not kind else b""
        chunks.append(first + repeated)
    forger.store(ObjectType.TREE, chunks)
    name = forger.id_of(chunks[-1], ObjectType.TREE)
    record = forger.publish(TreeRef(id=name.hex(), level=8, commitment="00" * 32))
    with pytest.raises(
        VaultError, match=r"out of order|not a tree stream|before the top|to its end"
    ):
        lab.restore(record, jail.target)
    assert not jail.target.exists()


def test_a_tree_of_bad_entries_without_end_ends(
    lab: Lab, jail: Jail, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2000 to the seventh repeated entries of a few kB: read as far as entries may be bad."""
    monkeypatch.setattr("vault.format.tree.MAX_BAD_ENTRIES", 5_000)
    forger = Forger(lab.open(), lab.host.key)
    header = encode_header(TreeHeader(key=KEY, relative=True, sources=()))
    top = frame(encode_canonical(TOP), encode_extra(TOP))
    chunks = [header + top, top]
    for level in range(7):
        repeated = forger.id_of(chunks[-1], ObjectType.TREE) * 2000
        first = forger.id_of(header + top, ObjectType.TREE) if level == 6 else b""
        chunks.append(first + repeated)
    lists = [header + top]  # the same depth for what begins the stream
    for _ in range(6):
        lists.append(forger.id_of(lists[-1], ObjectType.TREE))
    chunks[-1] = forger.id_of(lists[-1], ObjectType.TREE) + repeated
    forger.store(ObjectType.TREE, [*chunks, *lists[1:]])
    name = forger.id_of(chunks[-1], ObjectType.TREE)
    record = forger.publish(TreeRef(id=name.hex(), level=7, commitment="00" * 32))
    with pytest.raises(VaultError, match="too many entries of the tree break a rule"):
        lab.restore(record, jail.target)
    assert not jail.target.exists()


ODD: dict[str, dict[str, Any]] = {
    "far future": {"mtime": 2**63 - 1},
    "far past": {"mtime": -(2**63)},
    "xattr of no namespace": {"xattrs": ((b"nonsense", b"x"),)},
    "xattr too large": {"xattrs": ((b"user.big", bytes(100_000)),)},
    "ACL that is none": {"xattrs": ((b"system.posix_acl_access", b"x"),)},
    "highest owner": {"uid": 2**32 - 2, "gid": 2**32 - 2},
    "all bits": {"mode": 0o7777},
    "no bits": {"mode": 0},
}


@pytest.mark.parametrize("name", ODD)
def test_odd_attributes(lab: Lab, forger: Forger, jail: Jail, name: str) -> None:
    """Either they are on the disk, or what is not is listed, or it fails; never unsaid."""
    before = jail.around()
    try:
        report = lab.restore(forger.publish_entries([TOP, file(b"a", **ODD[name])]), jail.target)
    except VaultError:
        assert not jail.target.exists()
    else:
        assert (report.outcome is RestoreOutcome.RECOVERED) is (not report.left_out)
        assert (jail.target / "a").lstat().st_size == len(CONTENT)
    assert jail.around() == before


def test_a_tree_that_names_packs_of_another_domain(lab: Lab, jail: Jail, tmp_path: Path) -> None:
    """A host that was taken over can't have another host's files restored into its own.

    The restorer could open those packs, and even the chunk ids are right there; but
    they are not ids of this domain.
    """
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "wages").write_bytes(b"everybody's wages")
    victim = lab.with_host(lab.enrol("victim"))
    taken = victim.snapshot(secret, dataset="victim")
    assert victim.host.key.domain is not None
    wages = (secret / "wages").read_bytes()
    digest = SHA(wages).digest()
    stolen = chunk_id(victim.host.key.domain.id_key, ObjectType.DATA, digest)
    forger = Forger(lab.open(), lab.host.key)
    forger.refs += [
        ref for ref in lab.open().inventory(taken.record).objects if ref.name.startswith("packs/")
    ]
    hole = ((len(wages), 1),)  # or the chunk id would follow from the content
    loot = file(b"loot", wages + b"\0", chunks=bytes(stolen), holes=hole)
    before = jail.around()
    with pytest.raises(VaultError):
        lab.restore(forger.publish_entries([TOP, loot]), jail.target)
    assert jail.around() == before
    assert not jail.target.exists()


@pytest.mark.parametrize("declared", [1_000, 8 << 20])
def test_a_block_that_is_a_bomb(lab: Lab, jail: Jail, declared: int) -> None:
    """64 MiB of zeros behind a directory that says less: refused by its declared size."""
    forger = Forger(lab.open(), lab.host.key)
    writer = PackWriter(
        Sealer.for_session(forger.session, ObjectType.DATA, forger.repository.id), 3
    )
    sealer = writer._sealer
    counter = writer.next_counter()
    stored = sealer.seal(counter, compress(bytes(64 << 20), 3))
    name = forger.id_of(bytes(declared))
    writer.add(SealedBlock(counter, stored, declared, [declared], [name]))
    pack = writer.finish()
    place = f"packs/{str(pack.pack_id)[:2]}/{pack.pack_id}"
    forger.refs.append(forger.repository.put(place, pack.data, forger.repository.clock()).ref)
    record = forger.publish_entries([TOP, file(b"zeros", bytes(declared))])
    with pytest.raises(IntegrityError):
        lab.restore(record, jail.target)
    assert not jail.target.exists()
