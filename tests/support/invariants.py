"""The invariants by other means than the vault's own: only what a store does is asked of it."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from vault.model import Digest, Retention
from vault.storage.base import ObjectStore, ObjectVersion


def assert_invariants(
    store: ObjectStore,
    root: Digest,
    *,
    before: Sequence[ObjectVersion] = (),
    void: Sequence[int] = (),
) -> int:
    """Assert I1, I2 and I3 of a whole store; gives the number of snapshots.

    Args:
        store: What to look at.
        root: Digest of statement 0.
        before: Versions that were there earlier, and must be there still.
        void: Snapshots by seq that don't count.
    """
    listed = list(store.versions(""))
    assert set(before) <= set(listed), "something stored was lost"
    _check_contents(store, listed)
    chain = _chain(store, [item for item in listed if item.name.startswith("ledger/")], root)
    parameters = chain[0][1]["predicate"]["body"]["parameters"]
    enrolments = [
        statement["predicate"]["body"]
        for _, statement in chain
        if statement["predicateType"] == "urn:vault:writer:v1"
        if statement["predicate"]["body"]["domain"]
    ]
    snapshots = 0
    for seq, (_, statement) in enumerate(chain):
        if statement["predicateType"] != "urn:vault:snapshot:v1" or seq in void:
            continue
        snapshots += 1
        body = statement["predicate"]["body"]
        needs = _needs(store, body["inventory"])
        assert any(
            enrolled["domain"]["sha256"] == line[0] for enrolled in enrolments for line in needs
        ), "the domain object is no need"
        assert any(line[3].startswith("packs/") for line in needs)
        for sha256, size, version, name in needs:
            data = store.get(name, version)
            assert len(data) == int(size), name
            assert hashlib.sha256(data).hexdigest() == sha256, name
            _check_lock(store, name, version, parameters, datetime.fromisoformat(body["until"]))
        for item, _ in chain[: seq + 1]:
            _check_lock(
                store, item.name, item.version, parameters, datetime.fromisoformat(body["until"])
            )
    _check_ledger_term(store, chain, parameters)
    return snapshots


def _check_contents(store: ObjectStore, listed: Sequence[ObjectVersion]) -> None:
    """What claims a digest in its name has it: no torn or replaced object."""
    for item in listed:
        name = item.name.rpartition("/")[2]
        if not item.name.startswith(("ledger/", "ledger-page/", "probe/")):
            found = hashlib.sha256(store.get(item.name, item.version)).hexdigest()
            assert found == name, item.name


def _chain(
    store: ObjectStore, listed: Sequence[ObjectVersion], root: Digest
) -> list[tuple[ObjectVersion, dict[str, Any]]]:
    """Owner and statement of every seq: the oldest version that follows the one before."""
    chain: list[tuple[ObjectVersion, dict[str, Any]]] = []
    expected = str(root)
    while True:
        name = f"ledger/{len(chain):016d}"
        for item in (item for item in listed if item.name == name):
            digest, statement = _statement(store.get(item.name, item.version))
            prev = (statement["predicate"]["prev"] or {}).get("sha256")
            if (prev == expected) if chain else (digest == expected):
                chain.append((item, statement))
                expected = digest
                break
        else:
            break
    assert chain, "no chain from the pinned root"
    assert {item.name for item in listed} == {item.name for item, _ in chain}, "orphans"
    return chain


def _statement(envelope: bytes) -> tuple[str, dict[str, Any]]:
    fields = json.loads(envelope)
    payload = base64.b64decode(fields["payload"])
    kind = fields["payloadType"].encode()
    pae = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    return hashlib.sha256(pae).hexdigest(), json.loads(payload)


def _needs(store: ObjectStore, inventory: Mapping[str, Any]) -> list[list[str]]:
    """Lines of everything needed, the inventory and its bases among them."""
    name = f"inventory/{inventory['sha256']}"
    own = [inventory["sha256"], str(inventory["size"]), inventory["version"], name]
    chain = [own]
    texts: list[list[str]] = []
    while len(texts) < len(chain):
        lines = store.get(chain[-1][3], chain[-1][2]).decode().splitlines()
        texts.append(lines)
        chain += [line[7:].split("\t") for line in lines if line.startswith("# base ")]
    needed: set[tuple[str, ...]] = set()
    for lines in reversed(texts):
        end = lines.index("# index") if "# index" in lines else len(lines)
        for line in lines[:end]:
            if line.startswith("-"):
                needed.remove(tuple(line[1:].split("\t")))
            elif not line.startswith("#"):
                needed.add(tuple(line.split("\t")))
    assert len(needed) == inventory["objects"]
    assert sum(int(line[1]) for line in needed) == inventory["bytes"]
    return [*chain, *map(list, sorted(needed))]


def _retention(store: ObjectStore, name: str, version: str) -> Retention:
    retention = store.status(name, version).retention
    assert retention is not None, f"{name} carries no lock"
    return retention


def _check_lock(
    store: ObjectStore, name: str, version: str, parameters: Mapping[str, Any], until: datetime
) -> None:
    if parameters["lock_mode"] == "none":
        return
    retention = _retention(store, name, version)
    assert retention.mode == parameters["lock_mode"]
    assert retention.until >= until, f"{name} is locked until {retention.until}, needed {until}"


def _check_ledger_term(
    store: ObjectStore,
    chain: Sequence[tuple[ObjectVersion, Mapping[str, Any]]],
    parameters: Mapping[str, Any],
) -> None:
    term = timedelta(seconds=2 * (parameters["max_retention"] + 30 * 86_400))
    for item, _ in chain:
        _check_lock(store, item.name, item.version, parameters, item.modified + term)
