"""Keys that never leave a token, by PKCS#11: the only importer of `pkcs11`, the extra ``pkcs11``.

A session is opened for each signature and closed after it, because a run may take hours and a
token may be taken out meanwhile. Each signature is checked before it is used.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeAlias

from vault.crypto.keys import VerifyKey, signature_from_raw
from vault.crypto.token_uri import TokenUri
from vault.errors import ConfigError, FormatError, LocalError, WrongKeyError
from vault.model import Buffer

if TYPE_CHECKING:
    import pkcs11

AskPin: TypeAlias = Callable[[TokenUri], bytes]

_P256: Final = bytes.fromhex("06082a8648ce3d030107")  # the OID in DER, as CKA_EC_PARAMS has it
_OCTETS: Final = b"\x04\x41"  # DER: 65 bytes follow


class TokenKey:
    """A private P-256 key in a token.

    Args:
        uri: Which one.
        pin: The token's PIN; kept in memory for later signatures.

    Raises:
        ConfigError: python-pkcs11 is not installed, or the module can't be loaded.
        WrongKeyError: No such token or key, several that match, a wrong PIN, or no P-256 key.
        LocalError: The token failed.
    """

    __slots__ = ("_pin", "public", "uri")

    def __init__(self, uri: TokenUri, pin: bytes) -> None:
        self.uri = uri
        try:
            self._pin = pin.decode()
        except UnicodeDecodeError as error:
            raise WrongKeyError(f"the PIN for {uri} is not UTF-8") from error
        with self._session() as session:
            self.public = _public_of(uri, session)

    def sign(self, message: Buffer) -> bytes:
        """A DER signature by the token; another one at each try.

        Raises:
            WrongKeyError: The token, the key or its PIN changed since.
            LocalError: The token failed.
        """
        import pkcs11  # noqa: PLC0415 - an extra

        digest = hashlib.sha256(message).digest()
        with self._session() as session:
            raw = _private(self.uri, session).sign(digest, mechanism=pkcs11.Mechanism.ECDSA)
        signature = signature_from_raw(raw)
        if not self.public.verify(signature, message):
            raise WrongKeyError(
                f"{self.uri}: the token signs with another key than its public key says",
                hint="a public key and a private key of one id must belong together",
            )
        return signature

    @contextlib.contextmanager
    def _session(self) -> "Iterator[pkcs11.Session]":
        with _errors(self.uri):
            token = _find_token(self.uri)
            with token.open(user_pin=self._pin) as session:
                yield session

    def __repr__(self) -> str:
        return f"TokenKey(uri={self.uri}, public={self.public.id})"


def open_token_key(uri: TokenUri, ask: AskPin) -> TokenKey:
    """The key that a URI names.

    Args:
        uri: Which one.
        ask: Gives the token's PIN; called once the token was found.

    Raises:
        ConfigError: As `TokenKey`.
        WrongKeyError: As `TokenKey`, or no PIN was given.
        LocalError: As `TokenKey`.
    """
    with _errors(uri):
        _find_token(uri)
    return TokenKey(uri, ask(uri))


def _find_token(uri: TokenUri) -> "pkcs11.Token":
    import pkcs11  # noqa: PLC0415 - an extra

    try:
        library = pkcs11.lib(str(uri.module))
    except (pkcs11.PKCS11Error, RuntimeError) as error:
        raise ConfigError(
            f"the PKCS#11 module {uri.module} can't be loaded", found=str(error) or type(error)
        ) from error
    tokens = [slot.get_token() for slot in library.get_slots(token_present=True)]
    found = [token for token in tokens if _matches(uri, token)]
    if len(found) != 1:
        raise WrongKeyError(
            f"{uri}: {'no' if not found else 'more than one'} such token",
            expected="one",
            found=", ".join(sorted(repr(token.label) for token in tokens)) or "no token",
            hint="name it by token, serial, manufacturer or model",
        )
    return found[0]


def _matches(uri: TokenUri, token: "pkcs11.Token") -> bool:
    pairs = (
        (uri.token, token.label),
        (uri.manufacturer, token.manufacturer_id),
        (uri.serial, token.serial.decode(errors="replace")),
        (uri.model, token.model),
    )
    return all(wanted is None or wanted == found for wanted, found in pairs)


def _private(uri: TokenUri, session: "pkcs11.Session") -> "pkcs11.SignMixin":
    """The one private key that a URI names."""
    import pkcs11  # noqa: PLC0415 - an extra

    wanted: dict[pkcs11.Attribute, object] = {
        pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY
    }
    if uri.object is not None:
        wanted[pkcs11.Attribute.LABEL] = uri.object
    if uri.id is not None:
        wanted[pkcs11.Attribute.ID] = uri.id
    found = list(session.get_objects(wanted))
    if len(found) != 1:
        raise WrongKeyError(
            f"{uri}: the token has {'no' if not found else 'more than one'} such private key",
            expected="one",
            found=len(found),
            hint="name it by object and id",
        )
    key = found[0]
    if not isinstance(key, pkcs11.SignMixin):
        raise WrongKeyError(f"{uri}: the token's key may not sign")
    if key.key_type is not pkcs11.KeyType.EC:
        raise WrongKeyError(f"{uri}: not a P-256 key", found=f"a key of type {key.key_type.name}")
    if bytes(key[pkcs11.Attribute.EC_PARAMS]) != _P256:
        raise WrongKeyError(f"{uri}: not a P-256 key", found="a key of another curve")
    return key


def _public_of(uri: TokenUri, session: "pkcs11.Session") -> VerifyKey:
    """The public key that lies beside the private one, under the same id."""
    import pkcs11  # noqa: PLC0415 - an extra

    private = _private(uri, session)
    wanted = {
        pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PUBLIC_KEY,
        pkcs11.Attribute.ID: private[pkcs11.Attribute.ID],
    }
    found = list(session.get_objects(wanted))
    if len(found) != 1:
        raise WrongKeyError(
            f"{uri}: the token has {'no' if not found else 'more than one'} public key of that id",
            expected="one",
            found=len(found),
        )
    point = bytes(found[0][pkcs11.Attribute.EC_POINT])
    try:
        return VerifyKey.from_point(point.removeprefix(_OCTETS) if len(point) == 67 else point)
    except FormatError as error:
        raise WrongKeyError(f"{uri}: {error}") from error


@contextlib.contextmanager
def _errors(uri: TokenUri) -> Iterator[None]:
    """Errors of the library as ours; none has the PIN."""
    try:
        import pkcs11  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError(
            "keys in tokens need the Python package python-pkcs11",
            hint="pip install 'vault-backup[pkcs11]'",
        ) from error
    try:
        yield
    except (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange) as error:
        raise WrongKeyError(
            f"{uri}: the token refuses the PIN",
            hint="after a few wrong ones a token locks itself",
        ) from error
    except pkcs11.PinLocked as error:
        raise WrongKeyError(f"{uri}: the token is locked after wrong PINs") from error
    except (pkcs11.TokenNotPresent, pkcs11.TokenNotRecognised, pkcs11.DeviceRemoved) as error:
        raise WrongKeyError(f"{uri}: the token is not there any more") from error
    except pkcs11.PKCS11Error as error:
        raise LocalError(
            f"{uri}: the token failed", found=str(error) or type(error).__name__
        ) from error
