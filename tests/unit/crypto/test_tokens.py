"""Keys in a token, on SoftHSM: they sign, and errors name what is wrong with a token."""

import sys

import pytest

from tests.support.tokens import MODULE, PIN, SoftToken
from vault.crypto.keys import SigningKey
from vault.crypto.token_uri import TokenUri
from vault.crypto.tokens import TokenKey, open_token_key
from vault.errors import ConfigError, VaultError, WrongKeyError

URI = f"pkcs11:token=vault%20test;object=policy?module-path={MODULE}"


def opened(uri: str, pin: str = PIN) -> TokenKey:
    """The key, with the PIN as a person would give it."""
    return open_token_key(TokenUri.parse(uri), lambda _: pin.encode())


def test_its_signatures_are_right_and_differ_at_each_try(token: SoftToken) -> None:
    """In DER, as every verifier of the ledger checks them."""
    key = opened(token.uri("policy"))
    signatures = [key.sign(b"message") for _ in range(3)]
    assert len(set(signatures)) == 3
    assert all(key.public.verify(each, b"message") for each in signatures)
    assert not any(key.public.verify(each, b"other") for each in signatures)
    alike = SigningKey.generate()  # the control: a key in a file gives the same bytes
    assert alike.sign(b"message") == alike.sign(b"message")


@pytest.mark.parametrize(
    "part",
    ["token=vault%20test;object=policy", "object=policy", "id=%03", "token=vault%20test;id=%03"],
)
def test_a_key_is_named_by_label_or_id(token: SoftToken, part: str) -> None:
    """Of several tokens the one that is named has it."""
    if "token" not in part:
        part += ";serial=" + _serial()
    assert opened(f"pkcs11:{part}?module-path={MODULE}").public == opened(URI).public


def _serial() -> str:
    import pkcs11

    return pkcs11.lib(str(MODULE)).get_token(token_label="vault test").serial.decode()


@pytest.mark.parametrize(
    ("uri", "kind", "text"),
    [
        (URI.replace("vault%20test", "nowhere"), WrongKeyError, "no such token"),
        (URI.replace("token=vault%20test;", ""), WrongKeyError, "more than one such token"),
        (URI.replace("policy", "absent"), WrongKeyError, "no such private key"),
        (URI.replace("policy", "twin"), WrongKeyError, "more than one such private key"),
        (URI.replace("policy", "p384"), WrongKeyError, "another curve"),
        (URI.replace("policy", "rsa"), WrongKeyError, "a key of type RSA"),
        (URI.replace("policy", "lonely"), WrongKeyError, "no public key"),
        (URI.replace(str(MODULE), "/usr/lib/none.so"), ConfigError, "can't be loaded"),
        (URI.replace(str(MODULE), "/etc/passwd"), ConfigError, "can't be loaded"),
        (URI.replace(str(MODULE), "/usr/lib"), ConfigError, "can't be loaded"),
    ],
)
def test_what_is_wrong_with_a_token_is_told(
    token: SoftToken, uri: str, kind: type[VaultError], text: str
) -> None:
    """Which token, key or module, in the words of the URI."""
    with pytest.raises(kind, match=text):
        opened(uri)


@pytest.mark.parametrize("pin", ["guessed", "0000", "9" * 300])
def test_a_wrong_pin_is_refused_and_not_shown(token: SoftToken, pin: str) -> None:
    """A token may lock itself after a few."""
    with pytest.raises(WrongKeyError, match="refuses the PIN") as caught:
        opened(URI, pin)
    assert pin not in f"{caught.value} {caught.value.hint}"


def test_a_token_that_is_missing_asks_for_no_pin(token: SoftToken) -> None:
    """A PIN typed for nothing might be typed into the wrong window."""
    asked: list[TokenUri] = []

    def ask(uri: TokenUri) -> bytes:
        asked.append(uri)
        return PIN.encode()

    with pytest.raises(WrongKeyError, match="no such token"):
        open_token_key(TokenUri.parse(URI.replace("vault%20test", "x")), ask)
    assert asked == []
    open_token_key(TokenUri.parse(URI), ask)  # the control
    assert len(asked) == 1


def test_a_signature_by_another_key_than_the_public_one_is_not_used(token: SoftToken) -> None:
    """The statement would be void, or junk."""
    key = opened(URI.replace("policy", "crossed"))
    with pytest.raises(WrongKeyError, match="another key"):
        key.sign(b"message")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with pytest.raises(ConfigError, match="python-pkcs11") as caught:
        opened(URI)
    assert "vault-backup[pkcs11]" in str(caught.value.hint)


def test_its_repr_has_no_pin(token: SoftToken) -> None:
    """Nor the place of the PIN."""
    key = opened(token.uri("policy"))
    assert PIN not in repr(key)
    assert "pin" not in repr(key)
