"""A witness signs only growth, and never goes back: the vault's, and the one in docs/."""

import dataclasses
import hashlib
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from vault.crypto.keys import SigningKey
from vault.errors import ConfigError, FormatError, LocalError, WrongKeyError
from vault.ledger import witness_state
from vault.ledger.merkle import tree_root
from vault.ledger.notes import (
    NoteSignature,
    SignedNote,
    cosigned_at,
    log_mark,
    log_origin,
    log_vkey,
    parse_note,
    vkey_parts,
)
from vault.ledger.witness import (
    Answer,
    LogState,
    Refused,
    encode_request,
    judge_request,
    parse_request,
)
from vault.ledger.witness_state import WitnessState
from vault.machine import durable

ALONE = Path(__file__).parents[3] / "docs" / "witness.py"
REPOSITORY = "00112233445566778899aabbccddeeff"
LOG = SigningKey.generate()
ORIGIN = log_origin(REPOSITORY, LOG.public.id)
VKEY = log_vkey(ORIGIN, LOG.public)
NOW = datetime(2030, 1, 1, tzinfo=UTC)
DIGESTS = [hashlib.sha256(bytes([at])).digest() for at in range(20)]
FORKED = [*DIGESTS[:3], bytes(32), *DIGESTS[4:]]


def note(digests: Sequence[bytes], key: SigningKey = LOG) -> SignedNote:
    """Signed by the log's key, or by another one under its name."""
    unsigned = SignedNote(origin=ORIGIN, size=len(digests), root=tree_root(digests))
    mark = log_mark(key.public)
    return unsigned.with_lines(
        [NoteSignature(name=ORIGIN, mark=mark, data=key.sign(unsigned.text))]
    )


def asked(old: int, digests: Sequence[bytes], key: SigningKey = LOG) -> bytes:
    """A request, with the right proof for these digests."""
    return encode_request(old, digests, note(digests, key))


class Own:
    """The vault's own witness, as a function of files."""

    def __init__(self, base: Path) -> None:
        self.path = base / "state"
        self.state = WitnessState(self.path)

    def init(self, *logs: str) -> str:
        """Make it, or add logs; gives its verifier key."""
        vkey = self.state.vkey() if self.state.exists else self.state.create("w")
        for log in logs:
            self.state.add_log(log)
        return vkey

    def cosign(self, request: bytes) -> bytes | int:
        """The cosigned note, or the answer's number."""
        parsed = parse_request(request)
        with self.state.judging():
            known = self.state.log(parsed.note.origin)
            refused = judge_request(known, parsed)
            if refused is not None:
                self.state.refuse(refused, parsed.note, NOW)
                return int(refused.answer)
            assert known is not None
            line = self.state.cosign(known, parsed.note, NOW)
        return parsed.note.with_lines([line]).encode()


class Alone(Own):
    """docs/witness.py, with the same directory."""

    def init(self, *logs: str) -> str:
        """As above."""
        name = () if self.state.exists else ("--name", "w")
        done = self.run("init", *name, *[word for log in logs for word in ("--log", log)])
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    def cosign(self, request: bytes) -> bytes | int:
        """As above."""
        file = self.path.with_name("request")
        file.write_bytes(request)
        done = self.run("cosign", str(file))
        if done.returncode == 0:
            return done.stdout
        assert done.returncode == 4, done.stderr
        return int(done.stderr.split(b"(")[1][:3])

    def run(self, command: str, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        """One command of it."""
        line = [sys.executable, str(ALONE), command, "--state", str(self.path), *arguments]
        return subprocess.run(line, capture_output=True, check=False)


@pytest.fixture(params=[Own, Alone])
def witness(request: pytest.FixtureRequest, tmp_path: Path) -> Own:
    """Knows the log."""
    made = request.param(tmp_path)
    assert isinstance(made, Own)
    made.init(VKEY)
    return made


def is_cosigned(witness: Own, answer: bytes | int) -> bool:
    """By this witness, over what the log signed."""
    if isinstance(answer, int):
        return False
    name, public = vkey_parts(witness.state.vkey())
    return cosigned_at(parse_note(answer), name, public) is not None


def test_witness_signs_only_growth(witness: Own) -> None:
    """The answers of the protocol, one after the other; what was refused changes nothing."""
    stranger = SigningKey.generate()
    assert witness.cosign(asked(0, DIGESTS[:5], stranger)) == Answer.NOT_SIGNED
    assert is_cosigned(witness, witness.cosign(asked(0, DIGESTS[:5])))
    assert is_cosigned(witness, witness.cosign(asked(5, DIGESTS[:12])))
    assert is_cosigned(witness, witness.cosign(asked(12, DIGESTS[:12])))  # with a newer time
    assert witness.cosign(asked(12, DIGESTS[:5])) == Answer.OLD_IS_LARGER
    assert witness.cosign(asked(5, DIGESTS[:15])) == Answer.OTHER_SIZE
    assert witness.cosign(asked(0, DIGESTS[:15])) == Answer.OTHER_SIZE
    assert witness.cosign(asked(12, FORKED[:12])) == Answer.NOT_CONSISTENT  # same size
    assert witness.cosign(asked(12, FORKED[:20])) == Answer.NOT_CONSISTENT
    assert witness.cosign(asked(12, DIGESTS[:20], stranger)) == Answer.NOT_SIGNED
    other = SigningKey.generate()
    unsigned = SignedNote(
        origin=log_origin(REPOSITORY, other.public.id), size=1, root=note(DIGESTS).root
    )
    line = NoteSignature(
        name=unsigned.origin, mark=log_mark(other.public), data=other.sign(unsigned.text)
    )
    request = encode_request(0, DIGESTS[:1], unsigned.with_lines([line]))
    assert witness.cosign(request) == Answer.UNKNOWN_LOG
    state = witness.state.log(ORIGIN)
    assert state is not None
    assert (state.size, state.root) == (12, tree_root(DIGESTS[:12]))
    assert is_cosigned(witness, witness.cosign(asked(12, DIGESTS)))
    answers = [each.answer for each in witness.state.journal()]
    assert answers == [403, 200, 200, 200, 400, 409, 409, 422, 422, 403, 404, 200]


def test_both_witnesses_go_on_with_one_directory(tmp_path: Path) -> None:
    """One key, one memory: what the one has seen binds the other."""
    own, alone = Own(tmp_path), Alone(tmp_path)
    vkey = alone.init(VKEY)
    assert own.init(VKEY) == vkey
    assert is_cosigned(own, own.cosign(asked(0, DIGESTS[:5])))
    assert alone.cosign(asked(0, DIGESTS[:9])) == Answer.OTHER_SIZE
    assert is_cosigned(own, alone.cosign(asked(5, DIGESTS[:9])))
    assert own.cosign(asked(5, DIGESTS[:12])) == Answer.OTHER_SIZE
    assert alone.cosign(asked(9, FORKED[:12])) == Answer.NOT_CONSISTENT
    assert is_cosigned(own, own.cosign(asked(9, DIGESTS[:12])))


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "zero": lambda data: data.replace(b"old 5\n", b"old 05\n"),
    "word": lambda data: data.replace(b"old 5\n", b"old x\n"),
    "sign": lambda data: data.replace(b"old 5\n", b"old -5\n"),
    "short node": lambda data: data.replace(b"old 5\n", b"old 5\nAAAA\n"),
    "stray bits": lambda data: data.replace(b"old 5\n", b"old 5\n" + b"A" * 42 + b"B=\n"),
    "long proof": lambda data: data.replace(b"old 5\n", b"old 5\n" + (b"A" * 43 + b"=\n") * 65),
    "no gap": lambda data: data.replace(b"\n\n", b"\n", 1),
    "cut": lambda data: data[:-1],
    "no note": lambda data: b"old 5\n",
    "empty": lambda data: b"",
    "huge": lambda data: data + b"x" * 30_000,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_no_request_is_refused(witness: Own, change: str) -> None:
    """Nothing is seen and nothing signed."""
    request = CHANGES[change](asked(5, DIGESTS[:12]))
    if isinstance(witness, Alone):
        file = witness.path.with_name("request")
        file.write_bytes(request)
        done = witness.run("cosign", str(file))
        assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
    else:
        with pytest.raises(FormatError):
            witness.cosign(request)
    assert witness.state.journal() == []


def test_witness_state_survives_a_kill_between_check_and_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was seen is on the disk before anything is signed: nothing smaller or other follows."""
    witness = Own(tmp_path)
    witness.init(VKEY)

    def killed(*_: object) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(witness_state, "cosign", killed)
        with pytest.raises(KeyboardInterrupt):
            witness.cosign(asked(0, DIGESTS[:12]))
    again = Own(tmp_path)
    assert again.cosign(asked(0, FORKED[:12])) == Answer.OTHER_SIZE
    assert again.cosign(asked(12, FORKED[:12])) == Answer.NOT_CONSISTENT
    assert is_cosigned(again, again.cosign(asked(12, DIGESTS[:12])))


def test_a_full_disk_signs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be remembered is not cosigned; the control: with room it is."""
    witness = Own(tmp_path)
    witness.init(VKEY)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "replace", full)
        with pytest.raises(LocalError):
            witness.cosign(asked(0, DIGESTS[:12]))
    assert is_cosigned(witness, witness.cosign(asked(0, DIGESTS[:12])))


def test_no_other_process_judges_meanwhile(witness: Own) -> None:
    """While one judges, another witness of the directory waits."""
    with witness.state.judging():
        file = witness.path.with_name("request")
        file.write_bytes(asked(0, DIGESTS[:3]))
        line = [sys.executable, str(ALONE), "cosign", "--state", str(witness.path), str(file)]
        with subprocess.Popen(line, stdout=subprocess.PIPE) as other:
            with pytest.raises(subprocess.TimeoutExpired):  # it must not end
                other.wait(timeout=1)
            request = parse_request(asked(0, DIGESTS[:5]))
            known = witness.state.log(ORIGIN)
            assert known is not None
            witness.state.cosign(known, request.note, NOW)
            other.kill()


def test_two_requests_at_once_never_go_back(witness: Own) -> None:
    """Of two histories that are asked for at the same time, one is cosigned."""
    assert is_cosigned(witness, witness.cosign(asked(0, DIGESTS[:3])))
    start = threading.Barrier(2)
    answers: list[bytes | int] = []

    def ask(digests: list[bytes]) -> None:
        other = type(witness)(witness.path.parent)
        if isinstance(other, Alone):  # a request file of its own
            other.path = other.path.with_name("state")
        start.wait()
        answers.append(run(other, digests))

    def run(other: Own, digests: list[bytes]) -> bytes | int:
        if not isinstance(other, Alone):
            return other.cosign(asked(3, digests))
        file = other.path.with_name(f"request-{threading.get_ident()}")
        file.write_bytes(asked(3, digests))
        done = other.run("cosign", str(file))
        return done.stdout if done.returncode == 0 else int(done.stderr.split(b"(")[1][:3])

    threads = [threading.Thread(target=ask, args=(each,)) for each in (DIGESTS, FORKED)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(isinstance(each, int) for each in answers) == [False, True]
    assert Answer.OTHER_SIZE in answers


@pytest.mark.parametrize(
    "data",
    [b"", b"x", f"{VKEY}\n5\n-\n".encode(), f"{VKEY}\n0\nAAAA\n".encode(), b"\xff\n0\n-\n"],
    ids=["empty", "word", "no root", "root of nothing", "bytes"],
)
def test_a_damaged_memory_signs_nothing(witness: Own, data: bytes) -> None:
    """It might have seen more."""
    (file,) = (witness.path / "logs").iterdir()
    file.write_bytes(data)
    request = asked(0, DIGESTS[:12])
    if isinstance(witness, Alone):
        path = witness.path.with_name("request")
        path.write_bytes(request)
        done = witness.run("cosign", str(path))
        assert done.returncode in {2, 4}
        assert done.stdout == b""
    else:
        with pytest.raises(FormatError):
            witness.cosign(request)


def test_a_key_is_made_once_and_for_its_owner_alone(witness: Own) -> None:
    """Mode 0600 in a directory of mode 0700; another one is not made over it."""
    vkey = witness.state.vkey()
    with pytest.raises(ConfigError, match="already"):
        witness.state.create("other")
    assert witness.state.vkey() == vkey
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in witness.path.iterdir()}
    assert {modes["key.pem"], modes["vkey"], modes["logs"] & 0o77} == {0o600, 0}
    assert stat.S_IMODE(witness.path.stat().st_mode) == 0o700


def test_there_is_no_witness_until_one_is_made(tmp_path: Path) -> None:
    """Exit 12 on the command line."""
    with pytest.raises(WrongKeyError):
        WitnessState(tmp_path / "none").vkey()


def test_another_key_of_a_known_log_is_refused(witness: Own) -> None:
    """A name ends with digits of its key, which could be ground."""
    witness.state.add_log(VKEY)
    (file,) = (witness.path / "logs").iterdir()
    file.write_text(file.read_text().replace(VKEY, VKEY[:-8] + "AAAAAAA="))
    with pytest.raises((ConfigError, FormatError)):
        witness.state.add_log(VKEY)


def test_a_judgement_needs_no_files() -> None:
    """It is a function of what was seen and what is asked."""
    known = LogState(origin=ORIGIN, key=LOG.public, size=5, root=tree_root(DIGESTS[:5]))
    request = parse_request(asked(5, DIGESTS))
    assert judge_request(known, request) is None
    assert isinstance(judge_request(None, request), Refused)
    cut_short = dataclasses.replace(request, proof=request.proof[:-1])
    refused = judge_request(known, cut_short)
    assert refused is not None
    assert refused.answer is Answer.NOT_CONSISTENT
