"""A token of SoftHSM with a key for each role, and keys that can't be used."""

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from vault.ledger.statements import Role

MODULE: Final = Path("/usr/lib/softhsm/libsofthsm2.so")
LABEL: Final = "vault test"
PIN: Final = "open sesame"
_INIT = ("softhsm2-util", "--init-token", "--free")
_P256, _P384 = "06082a8648ce3d030107", "06052b81040022"  # OIDs in DER


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftToken:
    """Where it is, and how its keys are named."""

    pin_file: Path

    def uri(self, key: str, *, asks: bool = False) -> str:
        """Of a key by its label; ``asks``: a person types the PIN."""
        text = f"pkcs11:token={LABEL.replace(' ', '%20')};object={key}?module-path={MODULE}"
        return text if asks else f"{text}&pin-source=file:{self.pin_file}"


def has_softhsm() -> bool:
    """Whether it is installed."""
    return MODULE.exists() and shutil.which("softhsm2-util") is not None


def make_token(place: Path) -> SoftToken:
    """A token in that directory; the variable that tells SoftHSM of it is set in this process.

    Beside a key for each role it has ``p384``, ``rsa`` and twice ``twin``; ``crossed``, whose
    public key is another's; and ``lonely`` without one.
    """
    (place / "tokens").mkdir()
    conf = place / "softhsm2.conf"
    conf.write_text(f"directories.tokendir = {place}/tokens\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(conf)
    for label in (LABEL, "another"):
        subprocess.run(
            [*_INIT, "--label", label, "--so-pin", "1234", "--pin", PIN],
            check=True,
            capture_output=True,
        )
    _fill()
    pin_file = place / "pin"
    pin_file.write_text(PIN + "\n")
    pin_file.chmod(0o600)
    return SoftToken(pin_file=pin_file)


def _fill() -> None:
    import pkcs11

    library = pkcs11.lib(str(MODULE))
    kind, attribute = pkcs11.KeyType.EC, pkcs11.Attribute
    with library.get_token(token_label=LABEL).open(rw=True, user_pin=PIN) as session:

        def pair(label: str, number: int, curve: str = _P256) -> "list[pkcs11.Object]":
            parameters = session.create_domain_parameters(
                kind, {attribute.EC_PARAMS: bytes.fromhex(curve)}, local=True
            )
            return list(parameters.generate_keypair(store=True, label=label, id=bytes([number])))

        labels = [*map(str, Role), "twin", "twin", "next"]
        for number, label in enumerate(labels, start=1):
            pair(label, number)
        pair("p384", 50, _P384)
        session.generate_keypair(pkcs11.KeyType.RSA, 2048, store=True, label="rsa", id=bytes([51]))
        pair("lonely", 52)[0].destroy()
        pair("crossed", 53)[0].destroy()
        public, private = pair("other", 54)
        private.destroy()
        public[attribute.ID] = bytes([53])
