"""Request files: what people pass around and sign (docs/format.md 2.9). No I/O.

A request holds a digest of the values that it binds, since a root would not fit; the file holds
the values beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from vault.encoding import b64encode, dumps, loads_canonical
from vault.errors import DigestMismatchError, FormatError
from vault.ledger.acts import bound_digest
from vault.ledger.envelope import MAX_PAE, PAYLOAD_TYPE, parse_envelope
from vault.ledger.warrants import Request, parse_request_terms

MAX_REQUEST_FILE: Final = 1 << 20  # bytes
_TYPE: Final = "vault/request/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFile:
    """A request and the values that it binds."""

    request: Request
    values: Mapping[str, Any]


def encode_request_file(file: RequestFile) -> bytes:
    """One line of canonical JSON."""
    signatures = [
        {"keyid": each.keyid, "sig": b64encode(each.sig)}
        for each in file.request.envelope.signatures
    ]
    envelope = {
        "payload": b64encode(file.request.envelope.payload),
        "payloadType": PAYLOAD_TYPE,
        "signatures": signatures,
    }
    return dumps({"envelope": envelope, "type": _TYPE, "values": file.values}) + b"\n"


def parse_request_file(data: bytes) -> RequestFile:
    """The inverse; who signed is for a ledger to say.

    Raises:
        FormatError: It is no request file.
        DigestMismatchError: Its values are not those that people signed.
    """
    if len(data) > MAX_REQUEST_FILE:
        raise FormatError("request file is too large", expected=MAX_REQUEST_FILE, found=len(data))
    fields = loads_canonical(data.removesuffix(b"\n"))
    if not isinstance(fields, dict) or fields.get("type") != _TYPE:
        raise FormatError("this is no request for several people to sign", expected=_TYPE)
    values = fields.get("values")
    if fields.keys() != {"envelope", "type", "values"} or not isinstance(values, dict):
        raise FormatError("request file has other members", found=str(sorted(fields))[:80])
    envelope = parse_envelope(dumps(fields["envelope"]), limit=MAX_PAE)
    request = Request(terms=parse_request_terms(envelope.payload), envelope=envelope)
    if bound_digest(values) != request.terms.bound:
        raise DigestMismatchError(
            "the values in the request file are not those that were signed",
            expected=request.terms.bound,
            found=bound_digest(values),
            hint="the file was changed: sign nothing, and ask the requester for another",
        )
    return RequestFile(request=request, values=values)
