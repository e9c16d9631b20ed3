"""What a policy publishes, and when terms are weaker than others."""

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.errors import FormatError
from vault.policy.shape import policy_of
from vault.policy.terms import MAX_TERMS, PolicyTerms, parse_terms, terms_of, weaker

EXAMPLES = sorted((Path(__file__).parents[3] / "policies").glob("*.toml"))

POLICY = """
policy = 1
name = "a"
owner = "ops"
timezone = "Europe/Berlin"
[schedule]
cron = "17 * * * *"
[objectives]
rpo = "2h"
drill = "30d"
[retention]
within = "30d"
daily = 60
monthly = 12
last = 5
lock = "governance"
incomplete = "never"
[[dataset]]
name = "www"
paths = ["/srv/secret-path"]
[[dataset.check]]
name = "counts"
kind = "sqlite"
[[dataset]]
name = "db"
command = ["secret-command"]
file = "db.dump"
retention = { within = "40d", daily = 0 }
[[notify]]
on = ["failed"]
url = "file:/etc/secret-url"
"""


def terms(text: str = POLICY) -> PolicyTerms:
    """The terms of a policy of that text."""
    return terms_of(policy_of(tomllib.loads(text)))


def test_terms_are_the_signed_part_of_a_policy() -> None:
    """Every key resolved for its dataset, in seconds, as canonical JSON."""
    day = 86_400
    schedule = {"cron": "17 * * * *", "jitter": 600, "missed": "run"}
    common = {
        "last": 5, "incomplete": "never", "lock": "governance", "schedule": schedule,
        "objectives": {"rpo": 7200, "drill": 30 * day},
    }  # fmt: skip
    check = [{"attest": [], "interval": "2s", "kind": "sqlite", "name": "counts", "path": ".",
              "required": True, "retries": 0, "timeout": "60s"}]  # fmt: skip
    digest = hashlib.sha256(json.dumps(check, separators=(",", ":")).encode()).hexdigest()
    wanted: dict[str, Any] = {
        "schema": "vault/policy-terms/v1", "name": "a", "owner": "ops", "criticality": "normal",
        "timezone": "Europe/Berlin",
        "datasets": [
            {**common, "name": "www", "within": 30 * day, "checks":
                {"digest": digest, "names": ["counts"]},
             "tiers": {"daily": 60 * day, "monthly": 372 * day}},
            {**common, "name": "db", "within": 40 * day, "tiers": {"monthly": 372 * day},
             "checks": None},
        ],
    }  # fmt: skip
    text = json.dumps(wanted, sort_keys=True, separators=(",", ":"))
    assert terms().encode() == text.encode()
    assert str(terms().digest) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_terms_hold_no_path_command_or_address(example: Path) -> None:
    """Of any example; and they are read back as they were written."""
    policy = policy_of(tomllib.loads(example.read_text()))
    data = terms_of(policy).encode()
    for secret in (b"/", b"://", b"file:", b"credential:"):
        left = data.replace(b"vault/policy-terms/v1", b"").replace(policy.timezone.encode(), b"")
        assert secret not in left.replace(b"*/", b"")
    assert b"secret" not in terms().encode()
    assert parse_terms(data) == terms_of(policy)


def test_terms_are_read_strictly() -> None:
    """They come from the store: neither more nor other keys, nor another spelling."""
    data = terms().encode()
    fields = json.loads(data)
    broken: list[bytes] = [
        b"", b"{}", b"[]", data + b" ", data[:-1], data.replace(b'"a"', b'"A"'),
        data.replace(b"7200", b"0"), data.replace(b"7200", b"1e3"), data.replace(b"v1", b"v2"),
        data.replace(b"governance", b"none"), data.replace(b"monthly", b"decennial"),
        json.dumps(fields).encode(), b" " * (MAX_TERMS + 1),
        json.dumps({**fields, "more": 1}, sort_keys=True, separators=(",", ":")).encode(),
        json.dumps({**fields, "datasets": []}, sort_keys=True, separators=(",", ":")).encode(),
        json.dumps({**fields, "datasets": fields["datasets"] * 40}, sort_keys=True,
                   separators=(",", ":")).encode(),
    ]  # fmt: skip
    for each in broken:
        with pytest.raises(FormatError):
            parse_terms(each)


@settings(max_examples=100, deadline=None)
@given(at=st.integers(0, 1400), put=st.binary(min_size=1, max_size=3))
def test_damaged_terms_are_refused_or_other_terms(at: int, put: bytes) -> None:
    """No other exception than the one for wrong formats; what is read has one form."""
    data = terms().encode()
    changed = data[:at] + put + data[at + len(put) :]
    try:
        found = parse_terms(changed)
    except FormatError:
        return
    assert found.encode() == changed


WEAKER = [
    ('within = "30d"', 'within = "29d"', ["www: within from 30d to 29d"]),
    ("daily = 60", "daily = 59", ["www: daily from 60d to 59d"]),
    ("daily = 60", "daily = 0", ["www: daily from 60d to none"]),
    ("last = 5", "last = 4", ["www: last from 5 to 4", "db: last from 5 to 4"]),
    ('lock = "governance"\n', "", ["www: lock from governance to any",
                                   "db: lock from governance to any"]),
    ('incomplete = "never"\n', "", ["www: incomplete from never to stand-in",
                                    "db: incomplete from never to stand-in"]),
    ('rpo = "2h"', 'rpo = "3h"', ["www: objective rpo from 2h to 3h",
                                  "db: objective rpo from 2h to 3h"]),
    ('drill = "30d"\n', "", ["www: objective drill from 30d to none",
                             "db: objective drill from 30d to none"]),
    ('kind = "sqlite"', 'kind = "file"\nglob = "x"', ["www: checks changed"]),
    ('name = "counts"', 'name = "other"', ["www: checks gone: counts"]),
    ('[[dataset.check]]\nname = "counts"\nkind = "sqlite"\n', "", ["www: checks gone: counts"]),
    ('name = "www"', 'name = "web"', ["www: is no longer in the policy"]),
    ('within = "40d"', 'within = "4d"', ["db: within from 40d to 4d"]),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "said"), WEAKER, ids=range(len(WEAKER)))
def test_what_is_weaker_is_listed(old: str, new: str, said: list[str]) -> None:
    """By dataset; the way back is not weaker."""
    assert old in POLICY
    changed = terms(POLICY.replace(old, new, 1))
    assert weaker(terms(), changed) == said
    if "checks" not in said[0] and "no longer" not in said[0]:
        assert weaker(changed, terms()) == []


def test_what_is_longer_or_more_is_not_weaker() -> None:
    """Nor is another owner, time zone, path or hook."""
    for old, new in [
        ("", ""), ('within = "30d"', 'within = "31d"'), ("daily = 60", "daily = 61\nyearly = 7"),
        ('"governance"', '"compliance"'), ('rpo = "2h"', 'rpo = "1h"'), ('"ops"', '"dev"'),
        ("secret-path", "other"), ("secret-url", "other"), ("last = 5", "last = 6"),
        ('name = "counts"', 'name = "counts"\nrequired = true'),
    ]:  # fmt: skip
        assert weaker(terms(), terms(POLICY.replace(old, new, 1))) == []


def test_a_dataset_for_each_host_is_compared_by_its_name() -> None:
    """{host} stands in the terms."""
    fleet = terms(POLICY.replace('"www"', '"{host}-www"'))
    assert fleet.datasets[0].name == "{host}-www"
    assert weaker(fleet, terms()) == ["{host}-www: is no longer in the policy"]
    assert msgspec.structs.replace(fleet, owner="x").digest != fleet.digest
