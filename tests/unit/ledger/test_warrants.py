"""Warrants: what people signed, whether an act may rest on it, and who counts."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.agreed_ledgers import (
    NOW,
    Book,
    begun,
    key_id,
    ledgers,
    not_understood,
    root_of_people,
)
from vault.errors import ConfigError, FormatError
from vault.ledger.chain import Ledger
from vault.ledger.envelope import parse_envelope
from vault.ledger.remembered import LedgerMemory
from vault.ledger.statements import HeartbeatBody

LEDGERS = ledgers()
NOT_UNDERSTOOD = not_understood()


def linked(book: Book) -> Ledger:
    """The whole of it."""
    ledger = Ledger(parse_envelope(book.statements[0]).digest)
    for envelope in book.statements:
        ledger.link(envelope, version="1", modified=NOW)
    return ledger


@pytest.mark.parametrize("name", LEDGERS)
def test_each_statement_amounts_to_what_it_must(name: str) -> None:
    """Valid or void, and void for its own reason."""
    book = LEDGERS[name]
    ledger = linked(book)
    for record, expected in zip(ledger.records, book.expected, strict=True):
        about = (record.seq, book.names[record.seq], record.reason)
        assert record.status.value == expected, about
        assert book.reasons.get(record.seq, "") in record.reason, about


@pytest.mark.parametrize("name", NOT_UNDERSTOOD)
def test_what_is_not_understood_ends_reading_if_enough_people_agreed_to_it(name: str) -> None:
    """By the warrant's signers too; else a later program's keys would be unlisted here."""
    book, ends = NOT_UNDERSTOOD[name]
    if not ends:
        ledger = linked(book)
        assert ledger.records[-1].status.value == "unknown"
        ledger.may_read()
        return
    with pytest.raises(ConfigError) as failure:
        linked(book).may_read()
    assert "upgrade" in str(failure.value.hint)


def test_statement_0_names_no_warrant() -> None:
    """Nothing precedes it that could carry one."""
    book = Book()
    book.add("root", root_of_people(), "alice-root", "bob-root", warrant=0)
    with pytest.raises(FormatError, match="names a warrant"):
        linked(book)
    book = Book()
    book.add("root", root_of_people(), "alice-root", "bob-root")
    assert linked(book).records[0].status.value == "valid"


@pytest.mark.parametrize(
    ("people", "act", "counts"),
    [
        (("alice-root", "bob-root"), "later.kind", True),
        (("alice-root", "bob-root"), "later", True),
        (("alice-root",), "later", False),
        (("alice-root", "bob-root"), "lateral", False),
        (("alice-root", "bob-root"), "root", False),
    ],
)
def test_critical_counts_from_who_signs_and_who_agreed(
    people: tuple[str, ...],
    act: str,
    counts: bool,  # noqa: FBT001  # of a case
) -> None:
    """Of a type to come: by people who signed exactly that body, for that type."""
    book = begun(root_of_people())
    fields = {"new": [1, 2]}

    def edit(statement: dict[str, Any]) -> None:
        statement["predicateType"] = "urn:vault:later:v1"
        statement["predicate"] |= {"body": fields, "critical": True}

    book.agreed(
        act,
        HeartbeatBody(note="x"),
        "alice-root",
        kind="heartbeat",
        edit=edit,
        expect="unknown",
        people=people,
        values=fields,
        requester=key_id("alice-root"),
    )
    ledger = linked(book)
    assert ledger.records[-1].critical is counts
    if counts:
        with pytest.raises(ConfigError, match="critical"):
            ledger.may_write("heartbeat")
    else:
        ledger.may_write("heartbeat")


@pytest.mark.parametrize("name", ["acts", "distrust"])
def test_what_was_used_is_known_to_a_machine_that_remembers_the_ledger(
    name: str, tmp_path: Path
) -> None:
    """Of acts of all types, whose envelopes it does not keep."""
    ledger = linked(LEDGERS[name])
    root, head = ledger.records[0].digest, ledger.head
    assert head is not None
    memory = LedgerMemory(tmp_path)
    memory.remember(root, ledger, [], until=head)
    remembered = memory.recall(root)
    assert remembered is not None
    again = Ledger(root)
    remembered.replay(again)
    seen = again.records
    assert [(each.seq, each.warrant) for each in seen] == [
        (each.seq, each.warrant) for each in ledger.records[:-1]
    ]
    used = {each.warrant: each.seq for each in ledger.records[:-1] if each.warrant is not None}
    counted = 0
    for warrant in used:
        request = again.carried(warrant)
        if request is not None and ledger.used_by(request) != head.seq:
            assert again.used_by(request) == ledger.used_by(request)
            counted += again.used_by(request) is not None
    assert counted > 0
