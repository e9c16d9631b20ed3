"""Files of public keys that people hand over."""

import subprocess
from collections.abc import Callable, Mapping

import pytest

from vault.crypto.keys import RecipientKey, SigningKey
from vault.crypto.public_keys import parse_public_file, public_file, to_pem
from vault.errors import FormatError, SignatureError, VaultError

KEY = SigningKey.generate()
HERE, ELSEWHERE = "ab" * 16, "cd" * 16
RECIPIENT = RecipientKey.generate().public_raw


def test_a_public_file_gives_key_recipient_and_proof() -> None:
    """As its holder made it."""
    found = parse_public_file(public_file(KEY, HERE, RECIPIENT), HERE)
    assert (found.key, found.recipient, found.proven) == (KEY.public, RECIPIENT, True)


def test_openssl_reads_it() -> None:
    """The lines before the PEM are passed over, so that any tool shows the key."""
    done = subprocess.run(
        ["openssl", "pkey", "-pubin", "-outform", "DER"],
        input=public_file(KEY, HERE, RECIPIENT).encode(),
        capture_output=True,
        check=True,
    )
    assert done.stdout == KEY.public.der


def test_a_plain_pem_proves_nothing() -> None:
    """It is taken, and said to be unproven."""
    found = parse_public_file(to_pem(KEY.public), HERE)
    assert (found.key, found.recipient, found.proven) == (KEY.public, None, False)


WRONG: Mapping[str, Callable[[str], str]] = {
    "empty": lambda _: "",
    "no PEM": lambda _: "key",
    "two keys": lambda text: text + to_pem(SigningKey.generate().public),
    "cut": lambda text: text[:-40],
    "another key": lambda text: text[: text.index("-----")] + to_pem(SigningKey.generate().public),
    "another recipient": lambda text: text.replace(text.split("recipient: ")[1][:8], "AAAAAAAA"),
    "recipient left out": lambda text: "\n".join(
        line for line in text.split("\n") if not line.startswith("recipient")
    ),
    "proof left out": lambda text: "\n".join(
        line for line in text.split("\n") if not line.startswith("proof")
    ),
    "short recipient": lambda text: text.replace(text.split("recipient: ")[1][:8], ""),
}


@pytest.mark.parametrize("what", WRONG)
def test_an_altered_file_is_refused(what: str) -> None:
    """Whatever was exchanged on its way."""
    with pytest.raises(VaultError):
        parse_public_file(WRONG[what](public_file(KEY, HERE, RECIPIENT)), HERE)


def test_a_proof_is_good_for_one_repository() -> None:
    """It can't be carried to another, where its holder agreed to nothing."""
    with pytest.raises(SignatureError, match="does not hold"):
        parse_public_file(public_file(KEY, ELSEWHERE), HERE)


def test_a_key_of_another_kind_is_refused() -> None:
    """P-256 only."""
    made = subprocess.run(
        "openssl genpkey -algorithm ed25519 | openssl pkey -pubout",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    with pytest.raises(FormatError, match="P-256"):
        parse_public_file(made.stdout, HERE)
