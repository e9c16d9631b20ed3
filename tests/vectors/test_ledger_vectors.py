"""The ledger vectors are what the generator writes, and mean what they say."""

import base64
import importlib.util
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from vault import errors
from vault.ledger.chain import Ledger
from vault.model import Digest
from vault.storage.names import ledger_name

HERE = Path(__file__).parent
VECTORS = HERE / "ledger"
EXPECTED = json.loads((VECTORS / "ledger.json").read_text())
BODIES = json.loads((VECTORS / "bodies.json").read_text())
IN_FORCE = ("hold-of-a-dataset", "hold-reason-long")  # of the bodies, in the end
NEGATIVE = sorted((VECTORS / "negative").glob("*.json"))
MODIFIED = datetime(2026, 1, 1, tzinfo=UTC)


def _files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def _linked(count: int, directory: Path = VECTORS) -> Ledger:
    ledger = Ledger(Digest.parse(EXPECTED["root"]))
    for seq in range(count):
        envelope = (directory / "store" / ledger_name(seq)).read_bytes()
        ledger.link(envelope, version="1", modified=MODIFIED)
    return ledger


def _read_on(ledger: Ledger, envelope: bytes) -> None:
    ledger.link(envelope, version="1", modified=MODIFIED)
    ledger.may_read()


def test_the_generator_reproduces_every_byte(tmp_path: Path) -> None:
    """Fixed keys and deterministic signatures: no byte of the vectors is left to chance."""
    spec = importlib.util.spec_from_file_location("ledger_vectors", HERE / "ledger_vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.generate_ledger(tmp_path)
    assert _files(tmp_path) == _files(VECTORS)


def test_every_statement_links_with_its_digest_and_status() -> None:
    """The chain in the vectors folds to what is written beside it."""
    ledger = _linked(len(EXPECTED["statements"]))
    found = [
        {"seq": r.seq, "type": r.type, "digest": str(r.digest), "status": r.status.value}
        for r in ledger.records
    ]
    assert found == EXPECTED["statements"]


def test_bodies_amount_to_what_is_written_beside_them() -> None:
    """Each rule of docs/format.md 2.3 for what keeps, holds and deletes: kept once, broken once."""
    ledger = _linked(BODIES[-1]["seq"] + 1, VECTORS / "bodies")
    assert len(BODIES) > 70
    found = [{**each, "status": ledger.records[each["seq"]].status.value} for each in BODIES]
    assert found == BODIES
    left = {each["seq"] for each in BODIES if each["name"] in IN_FORCE}
    assert (set(ledger.holds()), ledger.held()) == (left, {2})


def test_roots_of_several_people_count_by_their_rules() -> None:
    """Each in its turn is valid or void."""
    ledger = _linked(len(EXPECTED["statements"]))
    for root in json.loads((VECTORS / "roots.json").read_text()):
        _read_on(ledger, base64.b64decode(root["envelope"]))
        assert (root["name"], ledger.records[-1].status.value) == (root["name"], root["expect"])


@pytest.mark.parametrize("path", NEGATIVE, ids=lambda path: path.stem)
def test_negative_vectors_end_as_expected(path: Path) -> None:
    """Each is refused with its error, or links with its status."""
    vector = json.loads(path.read_text())
    envelope = base64.b64decode(vector["envelope"])
    ledger = _linked(vector["after"])
    if vector["expect"] in ("valid", "void", "unknown"):
        record = ledger.link(envelope, version="1", modified=MODIFIED)
        assert record.status.value == vector["expect"]
        return
    if vector["expect"] == "upgrade":
        with pytest.raises(errors.ConfigError, match="not understood"):
            _read_on(ledger, envelope)
        return
    with pytest.raises(getattr(errors, vector["expect"])):
        ledger.link(envelope, version="1", modified=MODIFIED)
    assert len(ledger.records) == vector["after"]
