"""Who owns a name of the ledger when others put things there (I4)."""

import pytest

from tests.support.lab import Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.encoding import b64encode, dumps
from vault.errors import LedgerMovedError
from vault.ledger.envelope import PAYLOAD_TYPE, STATEMENT_TYPE, parse_envelope, parse_statement
from vault.model import LockMode
from vault.repository.ledgerobjects import may_be_statement


@pytest.fixture(params=["cold", "warm"])
def lab(make_repository: MakeRepository, request: pytest.FixtureRequest) -> Lab:
    """A repository without locks: they play no part here; known to the host already, or not."""
    made: Lab = make_repository(LockMode.NONE)
    return made.warmed() if request.param == "warm" else made


def test_junk_at_the_next_name_stops_nobody(lab: Lab, make_source: MakeSource) -> None:
    """The snapshot lands at the same name in a later version, and the junk is reported."""
    name = f"ledger/{lab.open().head.seq + 1:016d}"
    lab.store.plant(name, b"junk")
    record = lab.snapshot(make_source()).record
    repository = lab.open()
    assert repository.head.digest == record.digest
    assert [finding.subject for finding in repository.findings] == [name]
    assert lab.verify(record).passed


def test_the_smallest_envelope_that_parses_is_large_enough_to_be_read() -> None:
    """What is smaller need not be: of thousands of planted versions, most cost nothing then."""
    predicate = {"by": ["0" * 64], "repository": "0" * 32, "seq": 0}
    fields = {"_type": STATEMENT_TYPE, "predicate": predicate}
    payload = dumps(fields)
    assert parse_statement(payload).seq == 0
    parts = {
        "payload": b64encode(payload),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": "", "sig": ""}],
    }
    envelope = dumps(parts)
    assert parse_envelope(envelope).payload == payload
    assert may_be_statement(len(envelope))
    assert not may_be_statement(len(b"junk"))


def test_a_later_version_of_a_statement_takes_nothing_over(
    lab: Lab, make_source: MakeSource
) -> None:
    """Two link-valid statements at one name: the oldest owns it for everyone."""
    source = make_source()
    fork = lab.fork(lab.base / "fork")
    first = lab.snapshot(source).record
    other = fork.snapshot(source, dataset="other").record
    assert other.seq == first.seq
    lab.store.plant(f"ledger/{other.seq:016d}", other.envelope)
    repository = lab.open()
    assert repository.head.digest == first.digest
    assert repository.ledger.datasets() == ["data"]


def test_a_writer_that_always_loses_gives_up(lab: Lab, make_source: MakeSource) -> None:
    """Nothing of it is in the chain, and the error says to try again."""
    source = make_source()
    attempts: list[str] = []
    put = lab.store.put

    def overtaken(name: str, data: bytes, **options: object) -> object:
        if name.startswith("ledger/"):
            attempts.append(name)
            winner = lab.fork(lab.base / f"winner{len(attempts)}")
            won = winner.snapshot(source, dataset=f"other{len(attempts)}").record
            lab.store.plant(name, won.envelope)
        return put(name, data, **options)

    class Overtaken:
        """The store, with somebody faster in front of it."""

        def __getattr__(self, name: str) -> object:
            return overtaken if name == "put" else getattr(lab.store, name)

    with pytest.raises(LedgerMovedError):
        lab.with_store(Overtaken()).snapshot(source)  # type: ignore[arg-type]
    assert "data" not in lab.open().ledger.datasets()
