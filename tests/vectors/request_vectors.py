"""Generator of the vectors of requests and warrants (docs/format.md 2.9).

``requests.json`` has payloads, and whether each is a request. ``signed.request`` is a file as
people pass it around. ``ledgers.json`` has small ledgers, envelope by envelope, with what each
statement amounts to and what it shows.
"""

import json
from pathlib import Path

from tests.support.agreed_ledgers import begun, key, ledgers, limited, no_requests, root_of_people
from vault.encoding import b64encode
from vault.ledger.request_files import RequestFile, encode_request_file
from vault.ledger.warrants import add_signature, signed_request
from vault.model import body_to_json

SHORT = ("distrust", "wider", "thresholds")


def generate_requests(directory: Path) -> None:
    """Write all of them."""
    directory.mkdir(parents=True, exist_ok=True)
    book = begun(root_of_people())
    body = body_to_json(limited("db", "db-1"))
    good = book.request("writer.limit", body)
    payloads = {"a request": good, "with a member that is not known": book.request("x", {}, zz=1)}
    found = {
        name: {"payload": b64encode(payload), "is_request": name in payloads}
        for name, payload in (payloads | no_requests(book)).items()
    }
    _write(directory / "requests.json", found)
    request = signed_request(good)
    for name in ("alice-policy", "bob-policy"):
        request = add_signature(request, key(name))
    file = encode_request_file(RequestFile(request=request, values=body))
    (directory / "signed.request").write_bytes(file)
    every = ledgers()
    statements = {
        name: [
            {"envelope": b64encode(envelope), "expect": expected, "shows": every[name].names[seq]}
            for seq, (envelope, expected) in enumerate(
                zip(every[name].statements, every[name].expected, strict=True)
            )
        ]
        for name in SHORT
    }
    _write(directory / "ledgers.json", statements)


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    generate_requests(Path(__file__).parent / "requests")
