"""Statements in words: what is said, what is escaped, what is cut."""

from datetime import UTC, datetime
from typing import Any

import pytest

from cli.output import render, statement
from vault.ledger.statements import (
    Counts,
    DomainRef,
    EventBody,
    HeartbeatBody,
    HoldBody,
    InventoryRef,
    PolicyBody,
    PruneBody,
    RetentionTerms,
    SnapshotBody,
    TreeRef,
    VerificationBody,
    WriterBody,
)
from vault.model import Body, LockMode

DIGEST = "ab" * 32
WHEN = render.moment(datetime(2026, 1, 2, tzinfo=UTC))
SPAN = {"started": datetime(2026, 1, 1, tzinfo=UTC), "finished": datetime(2026, 1, 2, tzinfo=UTC)}
EVENT: dict[str, Any] = {"verdict": "failed", "attestation": DIGEST, "bad_count": 3, **SPAN}
VERIFICATION: dict[str, Any] = {
    "verdict": "partial",
    "attestation": DIGEST,
    "snapshots": ((2, 2), (5, 9)),
    **SPAN,
    "share": 50_000,
    "opened": False,
    "read": 1,
    "through": 9,
}
WRITER: dict[str, Any] = {"name": "web", "public": "x", "datasets": ("www", "db-*")}
DOMAIN = DomainRef(name="d", object="domains/d/x", sha256="x", size=1, version="1")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (WriterBody(action="add", **WRITER, domain=DOMAIN), "enrols web for www db-*, domain d"),
        (
            WriterBody(action="add", **WRITER, replaces=DIGEST),
            "replaces the key of web for www db-*",
        ),
        (WriterBody(action="limit", **WRITER), "limits web to www db-*"),
        (WriterBody(action="limit", name="web", public="x"), "limits web to nothing"),
        (WriterBody(action="revoke", name="web", public="x"), "revokes web"),
        (
            WriterBody(action="revoke", name="web", public="x", distrust_from=7, reason="stolen"),
            "revokes web, distrusts it from 7 on: stolen",
        ),
        (EventBody(**EVENT, snapshot=2), "failed: snapshot 2, 3 packs wrong"),
        (EventBody(**EVENT), "failed, 3 packs wrong"),
        (
            VerificationBody(**VERIFICATION),
            "partial: snapshots 2, 5-9, 5 % read, not opened",
        ),
        (
            VerificationBody(**{**VERIFICATION, "slice": (0, 30), "opened": True}),
            "partial: snapshots 2, 5-9, slice 1 of 30",
        ),
        (HeartbeatBody(note="alive"), "alive"),
        (HeartbeatBody(note="went on", accepted=f"3:{DIGEST}"), f"went on, accepts 3:{DIGEST}"),
        (
            PolicyBody(action="apply", name="web", sha256=DIGEST, reason="less"),
            f"applies policy web {DIGEST[:16]}: less",
        ),
        (
            PolicyBody(
                action="apply", name="web", sha256=DIGEST, weaker=("daily", "rpo"), weakens=True
            ),
            f"applies policy web {DIGEST[:16]}, weaker: daily; rpo",
        ),
        (
            PolicyBody(action="apply", name="web", sha256=DIGEST, weakens=True),
            f"applies policy web {DIGEST[:16]}, weaker",
        ),
        (
            PolicyBody(action="withdraw", name="web", sha256=DIGEST, weakens=True),
            f"withdraws policy web {DIGEST[:16]}",
        ),
        (
            PolicyBody(action="retire", name="db", weakens=True, reason="moved"),
            "gives up dataset db: moved",
        ),
        (
            HoldBody(action="add", snapshot=2, reason="court", author="legal"),
            "legal holds snapshot 2: court",
        ),
        (
            HoldBody(
                action="add",
                snapshot=2,
                dataset="web",
                until=datetime(2026, 1, 2, tzinfo=UTC),
                case="7",
                reason="",
                author="legal",
            ),
            f"legal holds snapshot 2 and all of dataset web until {WHEN}, case 7",
        ),
        (
            HoldBody(action="release", snapshot=2, hold=5, reason="", author="legal"),
            "legal releases snapshot 2, held by 5",
        ),
        (PruneBody(phase="plan", plan=DIGEST), f"plan, {DIGEST[:16]}"),
        (
            PruneBody(phase="plan", plan=DIGEST, part=2, parts=3, objects=1),
            f"plan, {DIGEST[:16]}, part 2 of 3, 1 object",
        ),
        (
            PruneBody(phase="result", plan=DIGEST, deleted=4000, gone=1, refused=2, complete=True),
            f"result, {DIGEST[:16]}, 4,000 deleted, 1 already gone, 2 refused, complete",
        ),
        (
            HeartbeatBody(note="alive", next_by=datetime(2026, 1, 2, tzinfo=UTC)),
            f"alive, next by {WHEN}",
        ),
        (
            EventBody(**{**EVENT, "bad_count": 0}, rto=90, objective=3600, replaced=True),
            "failed, ready after 90 s of 3,600 s, replaced what was there",
        ),
        (EventBody(**{**EVENT, "bad_count": 0}, objective=3600), "failed"),
        (
            SnapshotBody(
                dataset="web",
                created=datetime(2026, 1, 1, tzinfo=UTC),
                complete=True,
                counts=Counts(files=1),
                tree=TreeRef(id=DIGEST, level=0, commitment=DIGEST),
                inventory=InventoryRef(sha256=DIGEST, size=1, version="1", objects=1, bytes=1),
                mode=LockMode.NONE,
                until=datetime(2026, 1, 2, tzinfo=UTC),
                retention=RetentionTerms(keep=1, tiers=("daily", "monthly")),
                label="before",
                purpose="safety",
            ),
            (
                "web 'before' for safety, complete, 1 file, 0 directories, 0 B,"
                f" until {WHEN}, first daily monthly"
            ),
        ),
        (None, ""),
    ],
)
def test_what_was_done_is_said_in_a_few_words(body: Body | None, said: str) -> None:
    """By type; nothing of what has not the shape of its type."""
    assert statement.deed(body) == said


@pytest.mark.parametrize(
    ("doomed", "said"),
    [
        (0, ""),
        (1, "doomed: prune plans name 1 object of it"),
        (2, "doomed: prune plans name 2 objects of it"),
        (None, "it is unknown whether a prune plan dooms it"),
    ],
)
def test_what_is_doomed_is_said(doomed: int | None, said: str) -> None:
    """Also where it can't be told."""
    assert statement.doom_text(doomed) == said


def test_what_a_plan_means_for_writers_is_said() -> None:
    """Also of a void one: a stolen pruner's key may keep its rights at the store for a while."""
    assert (
        statement.plan_text(2, dooms=True)
        == "names 2 objects: doomed, writers do not build on them"
    )
    assert statement.plan_text(1, dooms=False) == "names 1 object, dooms none"


def test_every_signed_value_is_told_with_its_place() -> None:
    """Members of members, of lists, and what is nothing."""
    body = {
        "a": {"b": 0, "c": False, "d": None, "e": "", "f": {}, "g": []},
        "h": [1, 2],
        "i": [{"j": "x"}, {"j": "y"}],
        "k": [[2, 3], [5, 9]],
    }
    assert list(statement.flat(body)) == [
        ("a.b", "0"),
        ("a.c", "no"),
        ("a.d", "none"),
        ("a.e", "none"),
        ("a.f", "none"),
        ("a.g", "none"),
        ("h", "1 2"),
        ("i.0.j", "x"),
        ("i.1.j", "y"),
        ("k.0", "2 3"),
        ("k.1", "5 9"),
    ]


def test_what_is_long_is_cut_and_says_so() -> None:
    """A key of 1,600 characters, and thousands of pack ids."""
    told = dict(statement.flat({"key": "x" * 1600, "packs": ["p"] * 20, "rows": [[1]] * 9}))
    assert told["key"] == f"{'x' * 200}… (1,600 characters, see --json)"
    assert told["packs"] == "p p p p p p p p"
    assert told["packs …"] == "12 more, see --json"
    assert told["rows …"] == "1 more, see --json"
    assert "rows.8" not in told


def test_who_is_to_sign_sees_what_is_long_as_a_whole() -> None:
    """What is cut could hide a key."""
    told = dict(
        statement.flat(
            {"key": "x" * 1600, "packs": ["p"] * 20, "rows": [["y" * 300]] * 9}, whole=True
        )
    )
    assert told["key"] == "x" * 1600
    assert told["packs"] == " ".join(["p"] * 20)
    assert told["rows.8"] == "y" * 300
    assert not any("…" in each for each in (*told, *told.values()))
