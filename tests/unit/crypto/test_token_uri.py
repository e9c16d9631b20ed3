"""PKCS#11 URIs: what is taken, what is refused, and what is shown of them."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.crypto.token_uri import TokenUri
from vault.errors import ConfigError

WHOLE = (
    "pkcs11:token=My%20token;manufacturer=M;serial=0123;model=v2;object=a%3bb;id=%01%ff;"
    "type=private?module-path=/usr/lib/m.so&pin-source=file:/etc/vault/pin"
)


def test_every_attribute_is_read() -> None:
    """Decoded, as RFC 7512 writes them."""
    uri = TokenUri.parse(WHOLE)
    assert (uri.token, uri.manufacturer, uri.serial, uri.model) == ("My token", "M", "0123", "v2")
    assert (uri.object, uri.id) == ("a;b", b"\x01\xff")
    assert (uri.module, uri.pin_file) == (Path("/usr/lib/m.so"), Path("/etc/vault/pin"))


def test_people_see_the_path_alone() -> None:
    """No place of a PIN, no module; and it names the same key."""
    text = str(TokenUri.parse(WHOLE))
    expected = "pkcs11:token=My%20token;manufacturer=M;serial=0123;model=v2;object=a%3Bb;id=%01%ff"
    assert text == expected
    again = TokenUri.parse(f"{text}?module-path=/usr/lib/m.so")
    assert (again.object, again.id) == ("a;b", b"\x01\xff")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("pkcs11:", "names no key"),
        ("pkcs11:token=x?module-path=/m.so", "names no key"),
        ("pkcs11:object=x", "names no module"),
        ("pkcs11:object=x?module-path=m.so", "absolute path"),
        ("pkcs11:object=x?module-path=/m.so&pin-source=pin", "absolute path"),
        ("pkcs11:object=x?module-path=/m.so&pin-source=%7Ccat%20/pin", "names a command"),
        ("pkcs11:object=x?module-path=/m.so&pin-value=1234", "holds the PIN itself"),
        ("pkcs11:object=x;pin-value=1234?module-path=/m.so", "holds the PIN itself"),
        ("pkcs11:object=x;object=y?module-path=/m.so", "object twice"),
        ("pkcs11:object=x?module-path=/m.so&module-path=/n.so", "module-path twice"),
        ("pkcs11:object=x;slot-id=1?module-path=/m.so", "not understood"),
        ("pkcs11:object=x;vendor?module-path=/m.so", "not understood"),
        ("pkcs11:object=x;type=cert?module-path=/m.so", "private key"),
        ("pkcs11:object=%zz?module-path=/m.so", "two hex digits"),
        ("pkcs11:object=%ff?module-path=/m.so", "not UTF-8"),
        ("pkcs11:object=x?module-path=/m%00.so", "absolute path"),
        ("pkcs11:object=a b?module-path=/m.so", "not a PKCS#11 URI"),
        ("http:object=x", "not a PKCS#11 URI"),
        ("pkcs11:object=" + "x" * 5000 + "?module-path=/m.so", "not a PKCS#11 URI"),
    ],
)
def test_what_is_no_uri_of_a_key_is_refused(text: str, problem: str) -> None:
    """And a PIN that was in it is not shown."""
    with pytest.raises(ConfigError, match=problem) as caught:
        TokenUri.parse(text)
    assert "1234" not in f"{caught.value} {caught.value.hint}"


@given(st.text(max_size=80))
def test_any_text_is_taken_or_refused(text: str) -> None:
    """Never another error."""
    for each in (text, f"pkcs11:{text}", f"pkcs11:object=x?module-path=/m&{text}"):
        with contextlib.suppress(ConfigError):
            TokenUri.parse(each)
