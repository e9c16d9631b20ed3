"""Envelopes and the statement grammar: what is one statement, and what is refused."""

import base64
import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.crypto.keys import SigningKey
from vault.encoding import b64encode, dumps
from vault.errors import ConfigError, FormatError, VaultError
from vault.ledger.envelope import (
    MAX_PAE,
    MAX_ROOT_PAE,
    PAYLOAD_TYPE,
    Head,
    build_statement,
    max_envelope,
    pae,
    parse_envelope,
    parse_statement,
    seal_envelope,
)
from vault.ledger.statements import HeartbeatBody
from vault.model import Digest

KEY = SigningKey.generate()
OTHER_KEY = SigningKey.generate()
REPOSITORY = "ab" * 16
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PREV = Head(seq=6, digest=Digest(bytes(32)), version="v1")


def payload_of(note: str = "x", **changes: Any) -> bytes:
    """A heartbeat at seq 7."""
    fields: dict[str, Any] = {
        "type": "heartbeat",
        "repository": REPOSITORY,
        "seq": 7,
        "prev": PREV,
        "time": NOW,
        "tool": "vault 0.1.0",
        "subject": [("repository", Digest(bytes(32)))],
        "body": HeartbeatBody(note=note),
        "by": [KEY.public.id],
    }
    return build_statement(**(fields | changes))


def edited(**changes: Any) -> bytes:
    """A sealed envelope with members replaced; None removes one."""
    fields = json.loads(seal_envelope(payload_of(), [KEY])) | changes
    return dumps({name: value for name, value in fields.items() if value is not None})


def predicate_edited(**changes: Any) -> bytes:
    """A payload with members of its predicate replaced; None stays null."""
    fields = json.loads(payload_of())
    fields["predicate"] |= changes
    return dumps(fields)


def test_pae_is_that_of_the_dsse_specification() -> None:
    """The example that DSSE's specification gives."""
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pae("http://example.com/HelloWorld", b"hello world") == expected


def test_pae_counts_bytes_not_characters() -> None:
    """A payload type beyond ASCII has more bytes than characters."""
    assert pae("é", b"") == b"DSSEv1 2 \xc3\xa9 0 "


def test_statement_round_trips() -> None:
    """What was built is what is read, member by member."""
    statement = parse_statement(payload_of())
    assert (statement.type, statement.type_version, statement.seq) == ("heartbeat", 1, 7)
    assert (statement.prev, statement.prev_version) == (PREV.digest, "v1")
    assert (statement.repository, statement.time, statement.tool) == (
        REPOSITORY,
        NOW,
        "vault 0.1.0",
    )
    assert statement.body == {"note": "x", "accepted": "", "next_by": None}
    assert statement.subject == (("repository", Digest(bytes(32))),)
    assert (statement.flaw, statement.critical) == ("", False)


def test_the_same_statement_gives_the_same_bytes() -> None:
    """A retry after a lost answer is the same envelope."""
    assert seal_envelope(payload_of(), [KEY]) == seal_envelope(payload_of(), [KEY])


def test_openssl_would_read_the_envelope_signature() -> None:
    """The signature is over the PAE and verifies with the public key alone."""
    envelope = parse_envelope(seal_envelope(payload_of(), [KEY]))
    assert envelope.pae == pae(PAYLOAD_TYPE, payload_of())
    assert KEY.public.verify(envelope.signatures[0].sig, envelope.pae)


def test_one_key_given_twice_signs_once() -> None:
    """Repeats would only look like more signers."""
    assert len(parse_envelope(seal_envelope(payload_of(), [KEY, KEY])).signatures) == 1


def test_pae_of_4096_bytes_is_signed_and_of_4097_is_refused() -> None:
    """The limit is that of a KMS; it holds when building, sealing and parsing."""
    base = len(pae(PAYLOAD_TYPE, payload_of("x" * 2000))) - 2000
    fits = payload_of("x" * (MAX_PAE - base))
    assert len(pae(PAYLOAD_TYPE, fits)) == MAX_PAE
    seal_envelope(fits, [KEY])
    with pytest.raises(ConfigError, match="too large"):
        payload_of("x" * (MAX_PAE - base + 1))
    too_long = fits.replace(b'"note":"', b'"note":"x')
    with pytest.raises(ConfigError, match="too large"):
        seal_envelope(too_long, [KEY])
    oversize = parse_envelope(seal_envelope(too_long, [KEY], limit=MAX_PAE + 1))
    with pytest.raises(FormatError, match="too large"):
        parse_statement(oversize.payload).check_size(oversize)


def test_root_may_be_larger() -> None:
    """A root lists keys; its limit is 64 KiB."""
    root = payload_of().replace(b":heartbeat:v1", b":root:v1")
    large = root.replace(b'"note":"x"', b'"note":"%s"' % (b"x" * 60_000))
    envelope = parse_envelope(seal_envelope(large, [KEY]))
    parse_statement(envelope.payload).check_size(envelope)
    with pytest.raises(ConfigError, match="too large"):
        seal_envelope(root.replace(b'"note":"x"', b'"note":"%s"' % (b"x" * MAX_ROOT_PAE)), [KEY])


def test_envelope_padded_beyond_its_types_limit_is_refused() -> None:
    """A long key id must not make readers load megabytes for one statement."""
    entry = json.loads(seal_envelope(payload_of(), [KEY]))["signatures"][0]
    padded = edited(signatures=[entry | {"keyid": "x" * max_envelope(MAX_PAE)}])
    envelope = parse_envelope(padded)
    with pytest.raises(FormatError, match="too large"):
        parse_statement(envelope.payload).check_size(envelope)


def test_ten_megabyte_envelope_is_refused_before_it_is_parsed() -> None:
    """The size is checked first."""
    with pytest.raises(FormatError, match="envelope is too large"):
        parse_envelope(b" " * 10_000_000)


def test_no_key_and_seventeen_signatures_are_refused() -> None:
    """1 to 16 signatures, when sealing and when parsing."""
    with pytest.raises(ConfigError, match="1 to 16"):
        seal_envelope(payload_of(), [])
    entry = json.loads(seal_envelope(payload_of(), [KEY]))["signatures"][0]
    assert len(parse_envelope(edited(signatures=[entry] * 16)).signatures) == 16
    for count in (0, 17):
        with pytest.raises(FormatError, match="1 to 16"):
            parse_envelope(edited(signatures=[entry] * count))


def test_key_id_may_be_empty() -> None:
    """It is only a hint."""
    entry = json.loads(seal_envelope(payload_of(), [KEY]))["signatures"][0]
    envelope = parse_envelope(edited(signatures=[entry | {"keyid": ""}]))
    assert envelope.signatures[0].keyid == ""


BAD_ENVELOPES = {
    "empty": b"",
    "not JSON": b"{",
    "a list": b"[]",
    "no payload": edited(payload=None),
    "payload a number": edited(payload=7),
    "other payload type": edited(payloadType="text/plain"),
    "no payload type": edited(payloadType=None),
    "url-safe base64": edited(payload="-_8="),
    "base64 without padding": edited(payload="AA"),
    "base64 with stray bits": edited(payload="AB=="),
    "base64 with white space": edited(payload="AA==\n"),
    "signatures an object": edited(signatures={}),
    "signature a text": edited(signatures=["x"]),
    "white space": edited().replace(b":", b": ", 1),
    "another member": edited(comment="later"),
    "key id missing": edited(signatures=[{"sig": "AA=="}]),
    "another member of a signature": edited(signatures=[{"keyid": "", "sig": "AA==", "x": 1}]),
    "sig missing": edited(signatures=[{"keyid": "x"}]),
    "keyid a number": edited(signatures=[{"keyid": 1, "sig": "AA=="}]),
    "trailing bytes": edited() + b"x",
    "trailing NUL": edited() + b"\0",
    "byte order mark": b"\xef\xbb\xbf" + edited(),
    "UTF-16": edited().decode().encode("utf-16"),
    "duplicate member": edited().replace(b'"payloadType"', b'"payload":"AA==","payloadType"'),
    "NaN": edited(x="N").replace(b'"N"', b"NaN"),
    "infinity": edited(x="N").replace(b'"N"', b"-Infinity"),
    "float": edited(x="N").replace(b'"N"', b"1.5"),
    "1e400": edited(x="N").replace(b'"N"', b"1e400"),
    "2^53": edited(x=2**53),
    "lone surrogate": edited(x="N").replace(b'"N"', b'"\\ud800"'),
    "depth bomb": edited(x="N").replace(b'"N"', b"[" * 50_000 + b"]" * 50_000),
}


@pytest.mark.parametrize("name", BAD_ENVELOPES)
def test_malformed_envelopes_are_format_errors(name: str) -> None:
    """Strict JSON, strict base64, the right members."""
    with pytest.raises(FormatError):
        parse_envelope(BAD_ENVELOPES[name])


FROZEN = {
    "not JSON": b"x",
    "a list": b"[]",
    "other _type": payload_of().replace(b"Statement/v1", b"Statement/v2"),
    "no predicate": dumps({"_type": "https://in-toto.io/Statement/v1"}),
    "seq a bool": predicate_edited(seq=True),
    "seq a text": predicate_edited(seq="7"),
    "seq negative": predicate_edited(seq=-1),
    "seq absent": predicate_edited(seq=None),
    "repository upper case": predicate_edited(repository="AB" * 16),
    "repository short": predicate_edited(repository="ab"),
    "repository a number": predicate_edited(repository=1),
    "prev null": predicate_edited(prev=None),
    "prev at seq 0": predicate_edited(seq=0),
    "prev a text": predicate_edited(prev="ab" * 32),
    "prev short": predicate_edited(prev={"sha256": "ab"}),
    "prev without digest": predicate_edited(prev={"version": "v1"}),
    "duplicate member": payload_of().replace(b'"seq":7', b'"seq":7,"seq":8'),
    "float": predicate_edited(x="N").replace(b'"N"', b"1.0"),
    "lone surrogate": predicate_edited(x="N").replace(b'"N"', b'"\\udfff"'),
}


@pytest.mark.parametrize("name", FROZEN)
def test_breaches_of_the_frozen_grammar_are_format_errors(name: str) -> None:
    """These statements own no seq."""
    with pytest.raises(FormatError):
        parse_statement(FROZEN[name])


FLAWED: dict[str, dict[str, Any]] = {
    "time absent": {"time": None},
    "time with offset": {"time": "2026-01-01T00:00:00+00:00"},
    "time with fraction": {"time": "2026-01-01T00:00:00.5Z"},
    "tool a number": {"tool": 1},
    "body absent": {"body": None},
    "body a list": {"body": []},
}


@pytest.mark.parametrize("name", FLAWED)
def test_other_defects_are_flaws_and_still_own_the_seq(name: str) -> None:
    """Void, not skipped: skipping would fork the chain between versions."""
    statement = parse_statement(predicate_edited(**FLAWED[name]))
    assert statement.flaw
    assert statement.seq == 7


@pytest.mark.parametrize("value", ["x", 1, {}, None, True, []])
def test_anything_but_false_is_critical(value: object) -> None:
    """A mark that is not understood counts as set."""
    assert parse_statement(predicate_edited(critical=value)).critical


@pytest.mark.parametrize("value", [b'"urn:other:x:v1"', b"7", b'"urn:vault:heartbeat:v0"', b"null"])
def test_predicate_types_of_others_are_unknown(value: bytes) -> None:
    """They own their seq and mean nothing here."""
    payload = payload_of().replace(b'"urn:vault:heartbeat:v1"', value)
    assert parse_statement(payload).type_version == 0


def test_text_that_is_not_utf8_is_a_usage_error() -> None:
    """File names and reasons from a command line may hold surrogates."""
    with pytest.raises(ConfigError, match="JSON"):
        payload_of("\udc80")


def test_statement_that_could_not_be_read_back_is_not_built() -> None:
    """A writer reads what it wrote before it signs."""
    with pytest.raises(ConfigError, match="not be readable"):
        payload_of(seq=2**60)
    with pytest.raises(ConfigError, match="not be readable"):
        payload_of(repository="x")


def test_head_prints_as_seq_and_digest() -> None:
    """The form that --trust takes."""
    assert str(PREV) == "6:" + "00" * 32


@given(st.binary(max_size=400))
def test_arbitrary_bytes_raise_nothing_but_vault_errors(data: bytes) -> None:
    """Envelopes and payloads come from the store."""
    for parse in (parse_envelope, parse_statement):
        with contextlib.suppress(VaultError):
            parse(data)


SCALARS: list[Any] = [None, True, -1, 2**53, 1.5, "", "x", "ab" * 32]
JSON = st.sampled_from([*SCALARS, [], {}, *([value] for value in SCALARS), {"sha256": "ab"}])
MEMBERS = ["_type", "subject", "predicateType", "predicate", "payload", "payloadType", "signatures"]


@given(st.dictionaries(st.sampled_from(MEMBERS), JSON), st.sampled_from(MEMBERS))
def test_arbitrary_members_raise_nothing_but_vault_errors(
    changes: dict[str, Any], removed: str
) -> None:
    """Right names with wrong values, in envelope, statement and predicate."""
    statement = json.loads(payload_of())
    for fields in (
        json.loads(seal_envelope(payload_of(), [KEY])) | changes,
        statement | changes,
        statement | {"predicate": statement["predicate"] | changes},
    ):
        fields.pop(removed, None)
        text = json.dumps(fields).encode()
        for data in (text, dumps({"payload": b64encode(text), "payloadType": PAYLOAD_TYPE})):
            for parse in (parse_envelope, parse_statement):
                with contextlib.suppress(VaultError):
                    parse(data)


def test_payload_is_the_bytes_that_were_verified() -> None:
    """Nothing is re-encoded between the check and the use; what is spelled otherwise is refused."""
    payload = payload_of()
    envelope = seal_envelope(payload, [KEY])
    assert parse_envelope(envelope).payload == payload
    assert base64.b64encode(payload) in envelope
    with pytest.raises(FormatError, match="canonical"):
        parse_statement(json.dumps(json.loads(payload), indent=3).encode())
