"""Rules of a bucket that would take a repository's objects away are named; others are not."""

from typing import Any

import pytest

from vault.storage.lifecycle import hazards

EXPIRES = {"Expiration": {"Days": 30}}


def rule(**members: Any) -> dict[str, Any]:
    """In force, for the whole bucket unless said."""
    return {"ID": "tidy", "Status": "Enabled", "Filter": {"Prefix": ""}, **members}


HARMFUL = {
    "expiration in days": (rule(**EXPIRES), "expires objects after 30 days"),
    "expiration on a date": (rule(Expiration={"Date": "2030-01-01"}), "expires objects on a date"),
    "older versions": (
        rule(NoncurrentVersionExpiration={"NoncurrentDays": 1}),
        "deletes older versions after 1 days",
    ),
    "archive": (rule(Transitions=[{"Days": 1, "StorageClass": "DEEP_ARCHIVE"}]), "DEEP_ARCHIVE"),
    "archive of older versions": (
        rule(NoncurrentVersionTransitions=[{"NoncurrentDays": 1, "StorageClass": "GLACIER"}]),
        "GLACIER",
    ),
    "the repository's own prefix": (rule(Filter={"Prefix": "some/prefix/"}, **EXPIRES), "expires"),
    "part of the repository": (rule(Filter={"Prefix": "some/prefix/packs/"}, **EXPIRES), "expires"),
    "a prefix above it": (rule(Filter={"Prefix": "some"}, **EXPIRES), "expires"),
    "the older spelling": ({"Status": "Enabled", "Prefix": "", **EXPIRES}, "expires"),
    "a size beside the prefix": (
        rule(Filter={"And": {"Prefix": "", "ObjectSizeGreaterThan": 1}}, **EXPIRES),
        "expires",
    ),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_a_rule_that_takes_objects_away_is_named(name: str) -> None:
    """By its id, with what it does."""
    found, what = HARMFUL[name]
    (text,) = hazards([found], "some/prefix/")
    assert what in text


HARMLESS = {
    "off": rule(Status="Disabled", **EXPIRES),
    "another prefix": rule(Filter={"Prefix": "logs/"}, **EXPIRES),
    "a prefix that begins alike": rule(Filter={"Prefix": "some/prefix-2/"}, **EXPIRES),
    "objects with a tag": rule(Filter={"Tag": {"Key": "a", "Value": "b"}}, **EXPIRES),
    "a tag beside the prefix": rule(
        Filter={"And": {"Prefix": "", "Tags": [{"Key": "a"}]}}, **EXPIRES
    ),
    "uploads in parts": rule(AbortIncompleteMultipartUpload={"DaysAfterInitiation": 7}),
    "markers without versions": rule(Expiration={"ExpiredObjectDeleteMarker": True}),
    "a class that is read at once": rule(Transitions=[{"Days": 1, "StorageClass": "STANDARD_IA"}]),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_other_rules_are_not(name: str) -> None:
    """A warning that is always there is read by nobody."""
    assert hazards([HARMLESS[name]], "some/prefix/") == []


def test_each_act_of_each_rule_is_named() -> None:
    """Also of a rule without an id."""
    both = {"Status": "Enabled", **EXPIRES, "NoncurrentVersionExpiration": {"NoncurrentDays": 2}}
    assert len(hazards([rule(**EXPIRES), both], "")) == 3
