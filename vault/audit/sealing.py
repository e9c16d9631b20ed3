"""To whom packs and domain objects are sealed, by their headers (docs/format.md 3).

A header is not secret and lists the recipients of the key in it. Only `verify`, which opens it,
can tell whether that key is the right one.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from vault.crypto.keys import recipient_id
from vault.crypto.sealed import Header, header_length
from vault.encoding import b64decode_strict
from vault.errors import FormatError
from vault.ledger.chain import Ledger
from vault.ledger.statements import RootBody, StatementType
from vault.model import Id

HEAD = 4096  # bytes: a header with three recipients
_LONG_RUN = timedelta(days=7)  # a run seals to the root that it began with


class Recipients:
    """The recipients that an object must be sealed to, by the time when it was stored.

    Args:
        ledger: Its roots list the recipients.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._roots: list[tuple[datetime, Mapping[Id, str]]] = []  # stored, recipient and name
        for record in ledger.valid(StatementType.ROOT):
            assert isinstance(record.body, RootBody)
            listed = {
                recipient_id(b64decode_strict(each.public)): each.name
                for each in record.body.recipients
            }
            self._roots.append((ledger.stored(record), listed))
        self._is_copy = ledger.is_copy

    def objection(self, sealed: frozenset[Id], modified: datetime) -> str:
        """Names of recipients that the object lacks; empty if it has all. Pure.

        Args:
            sealed: Recipients in the object's header.
            modified: When the store received it; for a copy the time of the copying.
        """
        missing = ""
        for number, (_, listed) in enumerate(self._roots):
            later = self._roots[number + 1][0] if number + 1 < len(self._roots) else None
            if later is not None and not self._is_copy and later + _LONG_RUN < modified:
                continue  # another root was in force long before it was stored
            lacking = [name for key, name in listed.items() if key not in sealed]
            if not lacking:
                return ""
            missing = ", ".join(lacking)
        return missing


def sealed_to(read: Callable[[int], bytes]) -> frozenset[Id]:
    """Recipients that an object is sealed to.

    Args:
        read: Returns that many bytes of its beginning, fewer if it is shorter.

    Raises:
        FormatError: It has no header.
    """
    head = read(HEAD)
    length = header_length(head)
    if length > len(head):
        head = read(length)
    header = Header.parse(head)
    if not header.sealed:
        raise FormatError("sealed to no recipient")
    return frozenset(name for name, _ in header.sealed)
