"""The vault, the second verifier and the shell script give the same verdict on every ledger.

A ledger here is a directory store with what must be said of it: its head, how many statements
are valid, void and not understood, and its faults. All of that follows from how the ledger was
built, or is written beside it; none of the three judges is asked.
"""

import base64
import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.agreed_ledgers import ledgers, not_understood
from vault.audit import audit_repository
from vault.custody.sampling import WHOLE
from vault.encoding import dumps, loads_strict
from vault.errors import ConfigError, VaultError
from vault.ledger import statements
from vault.ledger.envelope import seal_envelope
from vault.machine.workers import make_workers
from vault.model import Digest, Severity
from vault.repository.repository import Repository
from vault.storage.local import LocalStore

HERE = Path(__file__).parent
VECTORS = HERE.parent / "vectors" / "ledger"
SCRIPT = HERE.parents[1] / "docs" / "offline-check.sh"
EXPECTED = json.loads((VECTORS / "ledger.json").read_text())
STATUS = [each["status"] for each in EXPECTED["statements"]]
NEGATIVE = {path.stem: json.loads(path.read_text()) for path in (VECTORS / "negative").iterdir()}
LINKING = ("valid", "void", "unknown")
SIGNED_BEYOND = {"other-prev"}  # what does not link, and yet a listed key signed it for that name
NOW = datetime(2026, 6, 1, tzinfo=UTC)
SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}
AGREED = ledgers()
AWKS = {"mawk": ["mawk"], "gawk": ["gawk"], "busybox": ["busybox", "awk"]}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a judge says of a ledger."""

    head: str  # SEQ:DIGEST; empty without one
    counts: tuple[int, int, int]  # valid, void, not understood
    faults: frozenset[str]  # "CODE SUBJECT"


def _loaded(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles of it look it up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """What writes the vectors: it holds the keys."""
    return _loaded("ledger_vectors_for_verifiers", VECTORS.parent / "ledger_vectors.py")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A copy of the vectors' store to do harm to."""
    return Path(shutil.copytree(VECTORS / "store", tmp_path / "store"))


def expected(linked: int, *faults: str, more: str = "", digest: str = "") -> Verdict:
    """Of so many statements of the vectors, and one ``more`` of that status and digest."""
    counts = Counter([*STATUS[:linked], *([more] if more else [])])
    head = f"{linked}:{digest}"
    if not more:
        head = f"{linked - 1}:{EXPECTED['statements'][linked - 1]['digest']}" if linked else ""
    return Verdict(
        head=head,
        counts=(counts["valid"], counts["void"], counts["unknown"]),
        faults=frozenset(faults),
    )


# --- the three judges ---


def _parsed(output: str) -> Verdict:
    head = re.search(r"^head (.*)$", output, re.MULTILINE)
    counts = re.search(r": (\d+) valid, (\d+) void, (\d+) not understood;", output)
    assert counts, output
    return Verdict(
        head=head[1] if head else "",
        counts=(int(counts[1]), int(counts[2]), int(counts[3])),
        faults=frozenset(
            re.findall(r"^fault (\S+ (?:ledger \d+|\S+?))(?:: .*)?$", output, re.MULTILINE)
        ),
    )


def by_python(store: Path, root: str = EXPECTED["root"]) -> Verdict:
    """`verify_ledger.py`."""
    command = [sys.executable, *map(str, (HERE / "verify_ledger.py", store, root, NOW.isoformat()))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    verdict = _parsed(done.stdout)
    assert done.returncode == bool(verdict.faults), done.stderr
    return verdict


def by_shell(
    store: Path, root: str = EXPECTED["root"], shell: str = "dash", path: str = ""
) -> Verdict:
    """`offline-check.sh`."""
    now = NOW.strftime("%Y-%m-%dT%H:%M:%SZ")
    environment = os.environ | ({"PATH": path} if path else {})
    done = subprocess.run(
        [*SHELLS[shell], SCRIPT, store, root, now],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.stderr == ""
    verdict = _parsed(done.stdout)
    assert done.returncode == bool(verdict.faults)
    return verdict


COMPARED = {"void-statement", "beyond-gap", "inventory", "missing", "wrong-bytes", "wrong-size"}
OBJECT = re.compile("missing|wrong-bytes|wrong-size")


def by_vault(store: Path, root: str = EXPECTED["root"]) -> Verdict:
    """`vault audit --read-data all`."""
    try:
        repository = Repository.open(
            LocalStore(store, clock=lambda: NOW),
            Digest.parse(root),
            clock=lambda: NOW,
            tolerant=True,
        )
    except VaultError:
        return Verdict(head="", counts=(0, 0, 0), faults=frozenset({"no-root ledger 0"}))
    with make_workers(0) as workers:
        found = audit_repository(repository, sample=WHOLE, workers=workers).findings
    counts = Counter(record.status.value for record in repository.ledger.records)
    faults = {
        f"{code} {each.subject}"
        for each in found
        if (code := each.code.value) in COMPARED and each.severity is Severity.ERROR
    }
    return Verdict(
        head=str(repository.head),
        counts=(counts["valid"], counts["void"], counts["unknown"]),
        faults=frozenset(faults),
    )


JUDGES = [by_python, by_shell, by_vault]


def require_verdict(store: Path, wanted: Verdict, root: str = EXPECTED["root"]) -> None:
    """All three say it."""
    for judge in (by_python, by_shell):
        assert judge(store, root) == wanted, judge.__name__
    assert _of_objects(by_vault(store, root)) == _of_objects(without_junk(wanted))


def without_junk(verdict: Verdict) -> Verdict:
    """The vault has several words for what does not link; test_audit.py looks at them."""
    kept = {each for each in verdict.faults if not each.startswith("junk-statement")}
    return replace(verdict, faults=frozenset(kept))


def junk(after: int, count: int) -> list[str]:
    """Faults of so many versions of a name, the first of them."""
    name = f"ledger/{after:016d}"
    return [f"junk-statement {name}", *(f"junk-statement {name}~{n}" for n in range(2, count + 1))][
        :count
    ]


def _of_objects(verdict: Verdict) -> Verdict:
    """The vault says more of an object that is wrong than the others; one word here."""
    return replace(verdict, faults=frozenset(OBJECT.sub("object", each) for each in verdict.faults))


# --- statements, one by one ---


def _digest(envelope: bytes) -> str:
    payload = base64.b64decode(json.loads(envelope)["payload"])
    kind = b"application/vnd.in-toto+json"
    return str(Digest.of(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)))


def _offer(store: Path, after: int, *envelopes: bytes) -> None:
    """The vectors' ledger cut, and versions of the next name."""
    for later in sorted((store / "ledger").iterdir())[after:]:
        later.unlink()
    for number, envelope in enumerate(envelopes, start=1):
        suffix = "" if number == 1 else f"~{number}"
        (store / "ledger" / f"{after:016d}{suffix}").write_bytes(envelope)


@pytest.mark.thorough
@pytest.mark.parametrize("name", sorted(n for n, v in NEGATIVE.items() if v["expect"] in LINKING))
def test_a_statement_that_links_is_judged_the_same(store: Path, name: str) -> None:
    """Valid, void or not understood, for all three."""
    vector = NEGATIVE[name]
    after, envelope = vector["after"], base64.b64decode(vector["envelope"])
    _offer(store, after, envelope)
    faults = [f"void-statement ledger {after}"] if vector["expect"] == "void" else []
    require_verdict(
        store, expected(after, *faults, more=vector["expect"], digest=_digest(envelope))
    )


def test_bodies_are_judged_the_same() -> None:
    """What keeps, holds and deletes, each rule kept and broken, in one ledger."""
    bodies = json.loads((VECTORS / "bodies.json").read_text())
    store = VECTORS / "bodies" / "store"
    envelope = (store / f"ledger/{bodies[-1]['seq']:016d}").read_bytes()
    counts = Counter([*STATUS, *(each["status"] for each in bodies)])
    wanted = Verdict(
        head=f"{bodies[-1]['seq']}:{_digest(envelope)}",
        counts=(counts["valid"], counts["void"], counts["unknown"]),
        faults=frozenset(
            f"void-statement ledger {each['seq']}" for each in bodies if each["status"] == "void"
        ),
    )
    require_verdict(store, wanted)


def test_roots_of_several_people_are_judged_the_same(store: Path) -> None:
    """One chain of roots that keep or break each rule: persons, approvals, witnesses, quorum."""
    roots = json.loads((VECTORS / "roots.json").read_text())
    end = len(STATUS)
    for seq, root in enumerate(roots, start=end):
        _offer(store, seq, base64.b64decode(root["envelope"]))
    void = [seq for seq, root in enumerate(roots, start=end) if root["expect"] == "void"]
    last = base64.b64decode(roots[-1]["envelope"])
    wanted = Verdict(
        head=f"{end + len(roots) - 1}:{_digest(last)}",
        counts=(
            STATUS.count("valid") + len(roots) - len(void),
            STATUS.count("void") + len(void),
            STATUS.count("unknown"),
        ),
        faults=expected(end).faults | {f"void-statement ledger {seq}" for seq in void},
    )
    require_verdict(store, wanted)


def _refused(after: int) -> dict[str, bytes]:
    return {
        name: base64.b64decode(vector["envelope"])
        for name, vector in sorted(NEGATIVE.items())
        if vector["expect"] not in (*LINKING, "upgrade") and vector["after"] == after
    }


AFTERS: list[int] = [after for after in range(1, len(STATUS) + 1) if _refused(after)]


@pytest.mark.parametrize("after", AFTERS)
def test_what_does_not_link_is_passed_over_and_the_next_version_owns_the_name(
    store: Path, after: int
) -> None:
    """Every refused envelope before a good one: the good one links."""
    good = (
        (VECTORS / "store" / "ledger" / f"{after:016d}").read_bytes()
        if after < len(STATUS)
        else (base64.b64decode(NEGATIVE["spelled-text-with-a-slash"]["envelope"]))
    )
    refused = _refused(after)
    _offer(store, after, *refused.values(), good)
    faults = junk(after, len(refused))
    status = STATUS[after] if after < len(STATUS) else "valid"
    require_verdict(store, expected(after, *faults, more=status, digest=_digest(good)))


@pytest.mark.parametrize("after", AFTERS)
def test_what_does_not_link_is_no_head(store: Path, after: int) -> None:
    """Every refused envelope alone: the ledger ends before it."""
    refused = _refused(after)
    _offer(store, after, *refused.values())
    beyond = [
        f"beyond-gap ledger/{after:016d}{'' if number == 1 else f'~{number}'}"
        for number, name in enumerate(refused, start=1)
        if name in SIGNED_BEYOND
    ]
    wanted = expected(after, *beyond, *junk(after, len(refused)))
    assert by_python(store) == by_shell(store) == wanted
    found = by_vault(store)  # it names the object, not the version
    assert (found.head, found.counts) == (wanted.head, wanted.counts)
    assert bool(found.faults) is bool(beyond)


@pytest.mark.parametrize("name", sorted(n for n, v in NEGATIVE.items() if v["expect"] == "upgrade"))
def test_a_statement_about_keys_that_is_not_understood_ends_reading(store: Path, name: str) -> None:
    """No verdict: exit 2 of both programs, an error of the vault that says "upgrade"."""
    vector = NEGATIVE[name]
    _offer(store, vector["after"], base64.b64decode(vector["envelope"]))
    for command in ([sys.executable, HERE / "verify_ledger.py"], [*SHELLS["dash"], SCRIPT]):
        done = subprocess.run(
            [*map(str, command), store, EXPECTED["root"]],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (2, "")
        assert f"fault upgrade ledger {vector['after']}" in done.stdout
        assert "1 faults" in done.stdout
    with pytest.raises(ConfigError) as failure:
        Repository.open(LocalStore(store), Digest.parse(EXPECTED["root"]), clock=lambda: NOW)
    assert "upgrade" in str(failure.value.hint)


def _distrusting(generator: ModuleType, *names: str, start: int) -> Any:
    entries = [
        statements.DistrustedKey(public=generator._public(name), start=start) for name in names
    ]
    return generator.replace_body(generator._root(3, "root-a", "root-b"), distrust=tuple(entries))


def test_a_root_distrusts_by_type_and_lifts_what_an_enroller_spoke(
    generator: ModuleType, written: Any
) -> None:
    """Of three judges: events become void, the writers that the enroller distrusted count again."""
    revoked = generator.WriterBody(
        action="revoke", name="alpha", public=generator._public("alpha"), distrust_from=2
    )
    events = sum(
        each["type"] in ("restore", "drill", "verification") for each in EXPECTED["statements"]
    )
    of_alpha = {2, 3, 4}
    valid = STATUS.count("valid")
    written.append("writer", revoked, "enroller")
    seq = len(written.envelopes) - 1

    def counts() -> set[tuple[int, int, int]]:
        store = Path(written.store)
        return {judge(store, _root(store)).counts for judge in JUDGES}

    ((found, void, unknown),) = counts()
    assert (found, void, unknown) == (valid + 1 - len(of_alpha), len(of_alpha), 1)
    root = _distrusting(generator, "enroller", "restorer", start=5)
    written.append("root", root, "root-a", "root-b")
    assert counts() == {(valid + 2 - events, events, 1)}, "alpha's count again, the events do not"
    later = generator.replace_body(_distrusting(generator, "enroller", start=seq + 1), version=4)
    written.append("root", later, "root-a", "root-b")
    assert counts() == {(valid + 3 - len(of_alpha), len(of_alpha), 1)}, "the list is the whole list"


def test_another_root_is_no_root(store: Path) -> None:
    """Signed well, by a key that it lists itself: the pinned digest decides."""
    _offer(store, 0, base64.b64decode(NEGATIVE["not-the-pinned-root"]["envelope"]))
    wanted = expected(0, "no-root ledger 0", *junk(0, 1))
    require_verdict(store, wanted)
    require_verdict(store, wanted, root="0" * 64)


# --- agreement of several people ---


def _short_ones_always() -> Iterator[Any]:
    """The long ledgers take a shell half a minute each."""
    for name, book in AGREED.items():
        is_long = len(book.statements) > 40
        yield pytest.param(name, marks=[pytest.mark.thorough] if is_long else [])


@pytest.mark.parametrize("name", list(_short_ones_always()))
def test_what_people_agreed_to_is_judged_the_same(tmp_path: Path, name: str) -> None:
    """Requests, warrants, approvals and thresholds: each act is valid or void for all three."""
    book = AGREED[name]
    counts = Counter(book.expected)
    wanted = Verdict(
        head=str(book.head),
        counts=(counts["valid"], counts["void"], counts["unknown"]),
        faults=frozenset(
            f"void-statement ledger {seq}"
            for seq, status in enumerate(book.expected)
            if status == "void"
        ),
    )
    require_verdict(book.write(tmp_path / "store"), wanted, root=str(book.digests[0]))


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["a root of two by a warrant", "a root of which one signed"])
def test_people_who_signed_a_warrant_count_where_a_root_is_not_understood(
    tmp_path: Path, name: str
) -> None:
    """With them it would count, so reading ends there; the vault's own tests have more of these."""
    book, ends = not_understood()[name]
    store = book.write(tmp_path / "store")
    for command in ([sys.executable, HERE / "verify_ledger.py"], [*SHELLS["dash"], SCRIPT]):
        done = subprocess.run(
            [*map(str, command), store, str(book.digests[0])],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (2 if ends else 0, "")


# --- shells and awks ---


@pytest.fixture
def awk_path(tmp_path: Path) -> Callable[[str], str]:
    """A PATH on which ``awk`` is the one named."""

    def make(name: str) -> str:
        folder = tmp_path / "bin"
        folder.mkdir()
        program, *rest = AWKS[name]
        found = shutil.which(program)
        assert found, f"{program} is not installed"
        (folder / "awk").write_text(f'#!/bin/sh\nexec {" ".join([found, *rest])} "$@"\n')
        (folder / "awk").chmod(0o755)
        return f"{folder}:{os.environ['PATH']}"

    return make


MISSING_BASE = f"missing inventory/{'ab' * 32}"


@dataclass(frozen=True, kw_only=True)
class Rich:
    """One ledger with every statement that links, every one that does not, every bad inventory."""

    store: Path
    root: str
    wanted: Verdict


@pytest.fixture(scope="module")
def rich(generator: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Rich:
    """The vectors' ledger, and at its end all versions that do not link before all that do."""
    writer = generator._build_store(tmp_path_factory.mktemp("rich"))
    end = len(STATUS)
    counts, faults = Counter(STATUS), junk(end, len(_refused(end)))
    for name in _chained():
        seq, status = len(writer.envelopes), NEGATIVE[name]["expect"]
        _append_carried(generator, writer, base64.b64decode(NEGATIVE[name]["envelope"]))
        counts[status] += 1
        faults += [f"void-statement ledger {seq}"] if status == "void" else []
    lines = _lines(writer.store)
    for change in LINES.values():
        text = "".join(f"{line}\n" for line in change(lines)).encode() or b"\n"
        faults.append(f"inventory ledger {len(writer.envelopes)}")
        counts["valid"] += 1
        _publish(generator, writer, text)
    first = writer.store / "ledger" / f"{end:016d}"
    for number, envelope in enumerate([*_refused(end).values(), first.read_bytes()], start=1):
        version = first if number == 1 else first.with_name(f"{first.name}~{number}")
        version.write_bytes(envelope)
    pack = _name(writer.store, "packs/*/*")
    pack.write_bytes(b"junk")
    return Rich(
        store=writer.store,
        root=_root(writer.store),
        wanted=Verdict(
            head=str(writer.head),
            counts=(counts["valid"], counts["void"], counts["unknown"]),
            faults=frozenset(
                [
                    *faults,
                    f"wrong-bytes {pack.relative_to(writer.store)}",
                    MISSING_BASE,
                ]
            ),
        ),
    )


def _chained() -> list[str]:
    """Vectors that may follow each other: they list no key and change none."""
    return [
        name
        for name, vector in sorted(NEGATIVE.items())
        if vector["after"] == len(STATUS)
        and vector["expect"] in LINKING
        and not (vector["expect"] == "valid" and _type_of(vector) in ("root", "writer"))
    ]


def _type_of(vector: dict[str, Any]) -> str:
    payload = base64.b64decode(json.loads(base64.b64decode(vector["envelope"]))["payload"])
    return str(json.loads(payload)["predicateType"]).split(":")[2]


def _append_carried(generator: ModuleType, writer: Any, envelope: bytes) -> None:
    """Append a vector's statement; all its spelling stays, but for its place in the chain."""
    fields = json.loads(envelope)
    payload = base64.b64decode(fields["payload"])
    said = json.loads(payload)["predicate"]
    place = str(len(writer.envelopes)).encode()
    payload = payload.replace(said["prev"]["sha256"].encode(), str(writer.head.digest).encode(), 1)
    payload = re.sub(rb"(?<=[:\[,])%d(?=[,\]}])" % said["seq"], place, payload)
    names = {generator._key(name).public.id: name for name in generator.KEYS}
    writer.append_payload(payload, *(names[key_id] for key_id in said["by"]))
    fields["payload"] = base64.b64encode(payload).decode()
    signed = json.loads(writer.envelopes[-1])["signatures"]
    for entry, new in zip(fields["signatures"], signed, strict=True):
        entry["sig"] = new["sig"]  # the key id stays as the vector has it
    (writer.store / "ledger" / f"{len(writer.envelopes) - 1:016d}").write_bytes(dumps(fields))


def _diagonal_first() -> Iterator[Any]:
    """Each shell and each awk once in every run of the tests; the other pairs in the long one."""
    for row, shell in enumerate(SHELLS):
        for column, awk in enumerate(AWKS):
            marks = [] if row == column else [pytest.mark.thorough]
            yield pytest.param(shell, awk, marks=marks)


@pytest.mark.parametrize(("shell", "awk"), list(_diagonal_first()))
def test_the_script_says_of_a_rich_ledger_what_is_in_it_under_every_shell_and_awk(
    rich: Rich, awk_path: Callable[[str], str], shell: str, awk: str
) -> None:
    """Every fault is named, each at its place, and no other."""
    assert by_shell(rich.store, rich.root, shell=shell, path=awk_path(awk)) == rich.wanted


def test_the_other_judges_say_of_a_rich_ledger_what_is_in_it(rich: Rich) -> None:
    """Head, counts and faults; a vector that one of them takes wrongly shifts them."""
    assert by_python(rich.store, rich.root) == rich.wanted
    found, wanted = by_vault(rich.store, rich.root), without_junk(rich.wanted)
    # the vault names the inventory that has no base, and not the base
    wanted = replace(wanted, faults=wanted.faults - {MISSING_BASE})
    assert _of_objects(found) == _of_objects(wanted)


# --- objects ---


def _name(store: Path, pattern: str, index: int = 0) -> Path:
    return sorted(store.glob(pattern))[index]


def _append_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


ATTESTATION = f"evidence/{Digest.of(b'attestation')}"
HARM: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "pack changed": ("packs/*/*", _append_byte, "wrong-bytes"),
    "pack missing": ("packs/*/*", Path.unlink, "missing"),
    "domain object missing": ("domains/*/*", Path.unlink, "missing"),
    "attestation changed": (ATTESTATION, _append_byte, "wrong-bytes"),
    "attestation missing": (ATTESTATION, Path.unlink, "missing"),
}


@pytest.mark.parametrize("name", HARM)
def test_harm_to_an_object_is_named_by_all(store: Path, name: str) -> None:
    """Each is one fault, of that object."""
    pattern, harm, code = HARM[name]
    path = _name(store, pattern)
    harm(path)
    require_verdict(store, expected(len(STATUS), f"{code} {path.relative_to(store)}"))


@pytest.mark.parametrize("at", [1, 4, 9])
def test_a_hole_ends_the_ledger_and_is_told(store: Path, at: int) -> None:
    """Statements beyond it that a key of the head signed are named."""
    (store / "ledger" / f"{at:016d}").unlink()
    found = {judge.__name__: judge(store) for judge in JUDGES}
    assert found["by_python"] == found["by_shell"]
    head, counts = expected(at).head, expected(at).counts
    assert {(each.head, each.counts) for each in found.values()} == {(head, counts)}
    assert any(fault.startswith("beyond-gap") for fault in found["by_shell"].faults)
    assert any(fault.startswith("beyond-gap") for fault in found["by_vault"].faults)


def test_right_bytes_under_a_later_version_are_found(store: Path) -> None:
    """The digest decides, not the place in the list; version 10 comes after 2."""
    statement = _name(store, "ledger/*", 5)
    for path in (
        _name(store, "packs/*/*"),
        _name(store, "inventory/*"),
        statement,
    ):
        path.rename(path.with_name(path.name + "~10"))
        path.with_name(path.name + "~2").write_bytes(b"junk")
    wanted = expected(len(STATUS), f"junk-statement {statement.relative_to(store)}~2")
    assert by_python(store) == by_shell(store) == wanted


def test_expired_snapshots_are_owed_nothing(store: Path) -> None:
    """What was pruned after its time is no fault."""
    shutil.rmtree(store / "packs")
    command = [*SHELLS["dash"], SCRIPT, store, EXPECTED["root"], "2100-01-01T00:00:00Z"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


# --- inventories ---

LINES: dict[str, Callable[[list[str]], list[str]]] = {  # what a writer may sign and no reader takes
    "unsorted": lambda lines: [*lines[:3], *lines[:2:-1]],
    "line twice": lambda lines: [*lines, lines[-1]],
    "other magic": lambda lines: ["# vault-inventory 2", *lines[1:]],
    "count too great": lambda lines: [lines[0], "# objects 5", *lines[2:]],
    "count with a zero in front": lambda lines: [
        lines[0],
        lines[1].replace("s ", "s 0"),
        *lines[2:],
    ],
    "bytes too few": lambda lines: [*lines[:2], "# bytes 1", *lines[3:]],
    "name that climbs": lambda lines: [*lines[:-1], lines[-1].rpartition("/")[0] + "/../x"],
    "name with a space": lambda lines: [*lines[:-1], lines[-1] + " x"],
    "name in upper case": lambda lines: [*lines[:-1], lines[-1] + "X"],
    "line end of another system": lambda lines: [line + "\r" for line in lines],
    "vertical tab": lambda lines: [*lines[:3], "\v".join(lines[3:])],
    "removes without a base": lambda lines: [*lines, "-" + lines[-1]],
    "base of another name": lambda lines: [
        *lines[:3],
        "# base " + lines[3].rpartition("\t")[0] + "\tpacks/x",
        *lines[4:],
    ],
    "base missing": lambda lines: [
        *lines[:3],
        "# base " + "ab" * 32 + "\t1\t1\tinventory/" + "ab" * 32,
        *lines[3:],
    ],
    "index twice": lambda lines: [*lines, "# index", "# index"],
    "index unsorted": lambda lines: [*lines, "# index", lines[4], lines[3]],
    "digest too short": lambda lines: [*lines[:3], lines[3][1:], *lines[4:]],
    "size negative": lambda lines: [*lines[:3], lines[3].replace("\t", "\t-", 1), *lines[4:]],
    "version missing": lambda lines: [
        *lines[:3],
        re.sub("\t1-[0-9a-f]*", "\t", lines[3]),
        *lines[4:],
    ],
    "no lines": lambda lines: [],
    "two lines": lambda lines: lines[:2],
}


@pytest.fixture
def written(generator: ModuleType, tmp_path: Path) -> Any:
    """The vectors' ledger, with the keys to go on."""
    return generator._build_store(tmp_path / "written")


def _publish(generator: ModuleType, writer: Any, text: bytes, **changes: Any) -> Path:
    """Append a snapshot with that inventory; it states the counts of the text, if any."""
    numbers = re.findall(rb"# (?:objects|bytes) (\d+)", text)
    count, size = map(int, [*numbers, 0, 0][:2])
    listed = generator._inventory(writer, text)
    body = generator._snapshot("web", listed, [])
    stated = generator.replace_body(body.inventory, objects=count, bytes=size, **changes)
    writer.append("snapshot", generator.replace_body(body, inventory=stated), "alpha")
    return Path(writer.store)


def _lines(store: Path) -> list[str]:
    return next(
        text
        for path in sorted(store.glob("inventory/*"))
        if "# base" not in (text_ := path.read_text()) and (text := text_[:-1].split("\n"))
    )


def test_a_further_snapshot_is_sound(generator: ModuleType, written: Any) -> None:
    """The control of what follows: the same steps with a right inventory."""
    text = "".join(f"{line}\n" for line in [*_lines(written.store), "# index"]).encode()
    store = _publish(generator, written, text)
    root, head = str(_root(store)), str(written.head)
    for judge in JUDGES:
        found = judge(store, root)
        assert (found.head, found.faults) == (head, frozenset()), judge.__name__


def _root(store: Path) -> str:
    return _digest((store / "ledger" / f"{0:016d}").read_bytes())


@pytest.mark.parametrize("field", ["objects", "bytes"])
def test_sums_that_the_snapshot_states_must_be_those_of_its_inventory(
    generator: ModuleType, written: Any, field: str
) -> None:
    """An inventory may add up and still not be what was signed."""
    text = "".join(f"{line}\n" for line in _lines(written.store)).encode()
    store = _publish(generator, written, text)
    seq = len(written.envelopes)
    listed = generator._inventory(written, text)
    body = generator._snapshot("web", listed, [])
    numbers = dict(
        zip(("objects", "bytes"), map(int, re.findall(rb"# \w+ (\d+)", text)), strict=False)
    )
    numbers[field] += 1
    stated = generator.replace_body(body.inventory, **numbers)
    written.append("snapshot", generator.replace_body(body, inventory=stated), "alpha")
    for judge in JUDGES:
        found = judge(store, _root(store))
        assert found.faults == {f"inventory ledger {seq}"}, judge.__name__


# --- ledgers that no author thought of ---

ODD = (  # what a payload's bytes are replaced by, or get in between
    *(bytes([each]) for each in b'"\\{}[]:, 0129aeEzZ.+-/\x00\x1f\x7f\x80\xc3\xff'),
    *(b"\xe2\x80\xae", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"\xef\xbb\xbf"),
    *(b'"zz":1,', b",", b"null", b"true", b"[]", b"{}", b"\\u0041", b"\\\\", b"1e3", b"-0", b""),
)
SIGNERS = ("alpha", "beta", "stranger", "enroller", "root-a", "policy", "pruner", "restorer")


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A statement to be made: what it says, who signs, and what is done to its bytes."""

    kind: str
    signers: tuple[str, ...]
    flaw: str  # where its bytes are changed: nowhere, in a text, behind the last member, anywhere
    at: float  # how far into them
    length: int  # of what is replaced
    odd: bytes  # by what


DRAFTS = st.builds(
    Draft,
    kind=st.sampled_from(["heartbeat", "limit", "revoke", "policy", "hold", "plan", "root", "odd"]),
    signers=st.lists(st.sampled_from(SIGNERS), min_size=1, max_size=2, unique=True).map(tuple),
    flaw=st.sampled_from(["", "payload", "text", "text", "member", "envelope"]),
    at=st.floats(0, 1, exclude_max=True),
    length=st.integers(0, 3),
    odd=st.sampled_from(ODD),
)


class Generated:
    """A ledger that is made step by step; at each number stand several versions."""

    def __init__(self, generator: ModuleType, directory: Path) -> None:
        self._generator = generator
        writer = self._writer = generator._Writer(directory)
        self.store: Path = writer.store
        domain = writer.put(f"domains/default/{Digest.of(b'sealed')}", b"sealed")
        writer.append("root", generator._root(1, "root-a"), "root-a")
        writer.append("writer", generator._enrol("alpha", domain, "*"), "enroller")
        writer.append("writer", generator._enrol("beta", domain, "db-*"), "enroller")
        self.root = str(generator._sha(_pae(writer.envelopes[0])))

    def step(self, drafts: Sequence[Draft]) -> None:
        """Versions of the next number; the ledger goes on from the last one, which is good."""
        seq = len(self._writer.envelopes)
        versions = [self._made(draft) for draft in drafts]
        self._writer.append("heartbeat", statements.HeartbeatBody(note="good"), "alpha")
        good = self._writer.envelopes[-1]
        for number, envelope in enumerate([*versions, good], start=1):
            suffix = "" if number == 1 else f"~{number}"
            (self.store / "ledger" / f"{seq:016d}{suffix}").write_bytes(envelope)

    def _made(self, draft: Draft) -> bytes:
        keys = sorted(
            map(self._generator._key, draft.signers), key=lambda each: str(each.public.id)
        )
        kind, body = self._said(draft.kind)
        fields = loads_strict(self._writer.statement(kind, body, by=[keys[0].public.id]))
        fields["predicate"]["by"] = [key.public.id for key in keys]  # more than it may, perhaps
        if draft.kind == "odd":
            fields["predicateType"] = "urn:vault:heartbeats:v1"
        payload = dumps(fields)
        if draft.flaw == "payload":
            payload = _spoiled(payload, draft)
        elif draft.flaw == "text":  # a tool may be called anything
            payload = payload.replace(b"vault 0.1.0", _spoiled(b"vault 0.1.0", draft))
        elif draft.flaw == "member":
            end = payload.index(b'},"predicateType"')
            payload = payload[:end] + b',"zz":' + _spoiled(b"[1]", draft) + payload[end:]
        envelope = bytes(seal_envelope(payload, keys, limit=1 << 20))
        return _spoiled(envelope, draft) if draft.flaw == "envelope" else envelope

    def _said(self, kind: str) -> tuple[str, Any]:
        generator = self._generator
        public = generator._public("beta")
        said = {
            "limit": ("writer", generator._limit("beta", "db-1*")),
            "revoke": (
                "writer",
                statements.WriterBody(action="revoke", name="beta", public=public),
            ),
            "policy": ("policy", generator._policy()),
            "hold": ("hold", generator._hold()),
            "plan": ("prune", statements.PruneBody(phase="plan", plan="ab" * 32)),
            "root": ("root", generator._root(2, "root-a")),
        }
        return said.get(kind, ("heartbeat", statements.HeartbeatBody(note="generated")))


def _pae(envelope: bytes) -> bytes:
    payload = base64.b64decode(json.loads(envelope)["payload"])
    kind = b"application/vnd.in-toto+json"
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _spoiled(data: bytes, draft: Draft) -> bytes:
    at = int(draft.at * len(data))
    return data[:at] + draft.odd + data[at + draft.length :]


def _printed(command: Sequence[object], ledger: Generated) -> tuple[int, Verdict]:
    """What a program says of a ledger, whatever its exit code."""
    now = NOW.strftime("%Y-%m-%dT%H:%M:%SZ")
    words = [*map(str, command), str(ledger.store), ledger.root, now]
    done = subprocess.run(words, capture_output=True, check=False)
    assert done.stderr == b""
    return done.returncode, _parsed(done.stdout.decode())


def require_agreement(ledger: Generated) -> None:
    """Head, counts and faults are those of all three; so is the end of reading."""
    python = _printed([sys.executable, HERE / "verify_ledger.py"], ledger)
    assert _printed([*SHELLS["dash"], SCRIPT], ledger) == python
    code, verdict = python
    if code == 2:
        with pytest.raises(ConfigError):
            Repository.open(LocalStore(ledger.store), Digest.parse(ledger.root), clock=lambda: NOW)
        return
    found = by_vault(ledger.store, ledger.root)
    assert (found.head, found.counts) == (verdict.head, verdict.counts)
    for kind in ("void-statement", "beyond-gap"):
        told = [
            any(each.startswith(kind) for each in faults)
            for faults in (found.faults, verdict.faults)
        ]
        assert told[0] is told[1], kind


@pytest.mark.parametrize("count", [4, pytest.param(60, marks=pytest.mark.thorough)])
def test_generated_ledgers_are_judged_the_same(
    generator: ModuleType, tmp_path: Path, count: int
) -> None:
    """Statements of any type and signer, good or spoiled anywhere, before good ones."""
    numbers = itertools.count()

    @settings(deadline=None, max_examples=count, print_blob=True)
    @given(st.lists(st.lists(DRAFTS, min_size=3, max_size=8), min_size=1, max_size=3))
    def judged(steps: list[list[Draft]]) -> None:
        ledger = Generated(generator, tmp_path / f"{next(numbers)}")
        for drafts in steps:
            ledger.step(drafts)
        require_agreement(ledger)

    judged()
