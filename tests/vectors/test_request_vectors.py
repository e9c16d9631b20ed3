"""The vectors of requests are what the generator writes, and mean what they say."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.agreed_ledgers import key
from tests.vectors.request_vectors import SHORT, generate_requests
from vault.errors import FormatError, IntegrityError
from vault.ledger.chain import Ledger
from vault.ledger.envelope import parse_envelope
from vault.ledger.request_files import encode_request_file, parse_request_file
from vault.ledger.warrants import parse_request_terms

VECTORS = Path(__file__).parent / "requests"
REQUESTS = json.loads((VECTORS / "requests.json").read_text())
LEDGERS = json.loads((VECTORS / "ledgers.json").read_text())
MODIFIED = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_the_generator_writes_the_same_again(tmp_path: Path) -> None:
    """Byte for byte; a difference is a change of the format."""
    generate_requests(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in VECTORS.iterdir()
    }


@pytest.mark.parametrize("name", REQUESTS)
def test_a_payload_is_a_request_or_is_none(name: str) -> None:
    """Each by one rule."""
    payload = base64.b64decode(REQUESTS[name]["payload"])
    if REQUESTS[name]["is_request"]:
        assert parse_request_terms(payload).root == 1
    else:
        with pytest.raises(FormatError):
            parse_request_terms(payload)


def test_a_request_file_is_read_and_what_people_signed_cannot_change() -> None:
    """Of places all over it: refused, or without a signature that holds, or the same request."""
    data = (VECTORS / "signed.request").read_bytes()
    file = parse_request_file(data)
    assert encode_request_file(file) == data
    keys = {key(name).public.id: key(name).public for name in ("alice-policy", "bob-policy")}
    assert set(file.request.signers(keys)) == set(keys)
    for place in range(0, len(data) - 1, 23):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        try:
            other = parse_request_file(changed)
        except IntegrityError:
            continue
        is_same = other.request.id == file.request.id
        assert other.values == file.values if is_same else not other.request.signers(keys)


@pytest.mark.parametrize("name", SHORT)
def test_a_ledger_is_judged_as_it_says(name: str) -> None:
    """From the stored bytes alone."""
    envelopes = [base64.b64decode(each["envelope"]) for each in LEDGERS[name]]
    ledger = Ledger(parse_envelope(envelopes[0]).digest)
    for envelope in envelopes:
        ledger.link(envelope, version="1", modified=MODIFIED)
    found = [(record.status.value, record.seq) for record in ledger.records]
    assert found == [(each["expect"], seq) for seq, each in enumerate(LEDGERS[name])]
