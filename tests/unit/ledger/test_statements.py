"""Shapes of statement bodies, and what shapes can't say."""

from datetime import UTC, datetime
from typing import Any

import pytest

from vault.errors import FormatError
from vault.ledger.kinds import parse_body
from vault.ledger.statements import EventBody
from vault.model import body_to_json


def test_times_of_a_body_are_parsed_when_it_is_read_and_written_as_they_were() -> None:
    """Readers have moments, not texts; other spellings and other types are no body."""
    fields = {
        "verdict": "passed",
        "snapshot": 1,
        "started": "2026-01-01T00:00:00Z",
        "finished": "0999-12-31T23:59:59Z",
        "attestation": "ab" * 32,
    }
    body = parse_body("restore", fields)
    assert isinstance(body, EventBody)
    assert body.started == datetime(2026, 1, 1, tzinfo=UTC)
    assert body.finished.year == 999
    written = body_to_json(body)
    assert [written[name] for name in fields] == list(fields.values())
    others: list[Any] = ["2026-01-01T00:00:00+00:00", "2026-01-01 00:00:00Z", "", 1, 1.5, None, {}]
    for wrong in others:
        with pytest.raises(FormatError):
            parse_body("restore", {**fields, "started": wrong})


def test_fractions_of_a_second_are_not_written() -> None:
    """The format has whole seconds."""
    moment = datetime(2026, 1, 1, 0, 0, 0, 999_999, tzinfo=UTC)
    body = EventBody(verdict="failed", started=moment, finished=moment, attestation="")
    assert body_to_json(body)["started"] == "2026-01-01T00:00:00Z"
