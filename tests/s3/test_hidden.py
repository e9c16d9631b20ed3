"""Whoever may write hides everything on a real server: the program works on and tells."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.lab import Lab, MakeRepository
from tests.support.trees import MakeSource, files_of
from vault.crypto.keys import SigningKey
from vault.ledger.envelope import Head, build_statement, seal_envelope
from vault.ledger.statements import HeartbeatBody
from vault.model import LockMode
from vault.storage import s3
from vault.storage.names import ledger_name

pytestmark = pytest.mark.s3

JUNK = 2000  # versions at the next ledger name
PLAUSIBLE = 200  # of them, as large as statements are
EXIT_INTEGRITY = 4


def forged(lab: Lab, head: Head) -> bytes:
    """Right in everything but the key, which nobody enrolled."""
    key = SigningKey.generate()
    payload = build_statement(
        type="heartbeat",
        repository=lab.open().ledger.repository_id,
        seq=head.seq + 1,
        prev=head,
        time=lab.clock(),
        tool="vault test",
        subject=[("repository", lab.root)],
        body=HeartbeatBody(note="planted"),
        by=[key.public.id],
    )
    return seal_envelope(payload, [key])


def plant(store: s3.S3Store, client: Any, name: str, bodies: list[bytes]) -> None:
    """Store versions of a name, from several threads."""

    def put(body: bytes) -> None:
        key = store.prefix + name
        client.put_object(Bucket=store.bucket, Key=key, Body=body, ChecksumAlgorithm="SHA256")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, bodies))


def mark(store: s3.S3Store, client: Any, names: set[str]) -> None:
    """Put a delete marker on every name."""

    def delete(name: str) -> None:
        client.delete_object(Bucket=store.bucket, Key=store.prefix + name)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(delete, sorted(names)))


def test_thousands_of_planted_versions_and_markers_on_everything(
    *,
    store: s3.S3Store,
    client: Any,
    endpoint: str,
    make_repository: MakeRepository,
    make_source: MakeSource,
    make_person: Callable[..., Any],
) -> None:
    """List and restore work on, the audit names every act, the next snapshot is taken."""
    lab = make_repository(LockMode.COMPLIANCE, store=store)
    source = make_source()
    record = lab.snapshot(source).record
    names = {item.name for item in store.versions("")}
    planted = ledger_name(record.seq + 1)
    copied = store.get(ledger_name(record.seq))
    kinds = [b"{}", copied, forged(lab, lab.open().head), b"junk" * 50_000]
    kinds += [b"%d" % n + copied for n in range(PLAUSIBLE)]
    plant(store, client, planted, [*kinds, *[b"%d" % n for n in range(JUNK - len(kinds))]])
    mark(store, client, {*names, planted})
    assert not client.list_objects_v2(Bucket=store.bucket, Prefix=store.prefix)["KeyCount"]

    person = make_person("restorer", keys=(lab.base / "keys/recovery.key",))
    place = ("--repo", store.url, "--endpoint-url", endpoint)
    (listed,) = person.json(*place, "list")["snapshots"]
    assert listed["seq"] == record.seq
    target = person.home / "target"
    person.json(*place, "restore", "data", target)
    assert files_of(target) == files_of(source)

    assert lab.snapshot(source).record.seq == record.seq + 2  # behind the restore's own

    findings = person.json(*place, "audit", code=EXIT_INTEGRITY)["audit"]["findings"]
    marked = {finding["subject"] for finding in findings if finding["code"] == "delete-marker"}
    assert marked == {*names, planted}
    told = [finding for finding in findings if finding["code"] == "junk-statement"]
    assert {finding["subject"] for finding in told} == {planted}
    assert f": {JUNK} in all" in told[-1]["problem"]
    assert {finding["code"] for finding in findings} == {"delete-marker", "junk-statement"}
