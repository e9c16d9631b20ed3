"""Time a snapshot and a restore of generated data on an S3 server, beside restic and rclone.

    python tests/bench/s3.py [--size MIB] [--tree DIR]

VAULT_TEST_S3_URL names the bucket, VAULT_TEST_S3_ENDPOINT the server, AWS_* the credentials:
`tests/s3/run.sh ceph python tests/bench/s3.py` brings up a Ceph of its own. Nothing is asserted.
"""

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.compare import Sample, measure

MIB = 1 << 20
COUNTED = 512  # MiB: enough to count requests; a Ceph in memory is full soon


def make_tree(place: Path, size: int) -> Path:
    """Files of 4 MiB, half of each compressible: what databases and documents are like."""
    tree = place / "tree"
    tree.mkdir()
    for number in range(size // 4):
        noise = hashlib.shake_256(number.to_bytes(8, "big")).digest(2 * MIB)
        text = b"%08d the quick brown fox " % number
        (tree / f"{number:06}").write_bytes(noise + (text * (2 * MIB // len(text))))
    return tree


def count_requests(tree: Path, url: str, endpoint: str, place: Path) -> Counter[str]:
    """The same work in this process, with every call to the server counted."""
    from vault.enrol import InitRequest, create_repository
    from vault.keyfile import Argon2Cost, load_recovery, load_writer
    from vault.model import LockMode, Parameters
    from vault.repository import utc_now
    from vault.restore import RestoreRequest, restore
    from vault.snapshot import SnapshotRequest, take_snapshot
    from vault.storage import s3
    from vault.workers import make_workers

    seen: Counter[str] = Counter()
    client = s3.connect(endpoint)

    def note(model: Any, **_: Any) -> None:
        seen[f"{stage} {model.name}"] += 1

    client.meta.events.register("before-call.s3", note)
    bucket, prefix = s3.parse_url(url)
    store = s3.S3Store(client, bucket, prefix)
    stage = "init"
    request = InitRequest(
        url=url,
        endpoint=endpoint,
        parameters=Parameters(lock_mode=LockMode.NONE),
        host="bench",
        keys=place / "count-keys",
        passphrase=b"x",
        tool="bench",
        cost=Argon2Cost(memory=64, iterations=1, lanes=1),
    )
    repository = create_repository(store, request, clock=utc_now)
    stage = "snapshot"
    with make_workers() as workers:
        take_snapshot(
            repository,
            load_writer(place / "count-keys/writer.key"),
            SnapshotRequest(paths=[tree], dataset="bench", tool="bench"),
            cache_dir=place / "count-cache",
            state_dir=place / "count-state",
            workers=workers,
        )
        stage = "restore"
        restore(
            repository,
            load_recovery(place / "count-keys/recovery.key", b"x"),
            RestoreRequest(
                record=repository.ledger.snapshots()[-1], target=place / "counted-out", tool="bench"
            ),
            scratch=place,
            workers=workers,
        )
    return seen


def run_vault(tree: Path, url: str, endpoint: str, place: Path) -> dict[str, Sample]:
    """Snapshot and proven restore by the command line."""
    vault = str(Path(sys.executable).with_name("vault"))
    (place / "pass").write_text("x\n")
    (place / "pass").chmod(0o600)
    env = dict(
        os.environ, VAULT_KEYS=str(place / "keys"), VAULT_PASSPHRASE_FILE=str(place / "pass")
    )
    for name in ("CONFIG", "STATE", "CACHE"):
        env[f"XDG_{name}_HOME"] = str(place / name.lower())
    base = [vault, "--endpoint-url", endpoint, "-q"]
    measure([*base, "init", url, "--lock", "none", "--yes"], env)
    return {
        "snapshot": measure([*base, "snapshot", str(tree), "--name", "bench"], env),
        "restore --verify": measure([*base, "restore", "bench", str(place / "out")], env),
    }


def run_restic(tree: Path, bucket: str, endpoint: str, place: Path) -> dict[str, Sample]:
    """The same by restic."""
    env = dict(
        os.environ,
        RESTIC_REPOSITORY=f"s3:{endpoint}/{bucket}/restic-{uuid.uuid4().hex[:8]}",
        RESTIC_PASSWORD="x",
        RESTIC_CACHE_DIR=str(place / "restic-cache"),
    )
    measure(["restic", "init", "--repository-version", "2"], env)
    out = str(place / "restic-out")
    return {
        "snapshot": measure(["restic", "backup", "-q", str(tree)], env),
        "restore --verify": measure(
            ["restic", "restore", "latest", "-q", "--verify", "--target", out], env
        ),
    }


def run_rclone(tree: Path, bucket: str, endpoint: str, place: Path) -> dict[str, Sample]:
    """A plain copy of the files: no encryption, no deduplication, no history."""
    env = dict(
        os.environ,
        RCLONE_CONFIG_CEPH_TYPE="s3",
        RCLONE_CONFIG_CEPH_PROVIDER="Ceph",
        RCLONE_CONFIG_CEPH_ENV_AUTH="true",
        RCLONE_CONFIG_CEPH_ENDPOINT=endpoint,
    )
    env.pop("AWS_CA_BUNDLE", None)  # rclone 1.60 fails on it, over plain HTTP too
    there = f"ceph:{bucket}/rclone-{uuid.uuid4().hex[:8]}"
    return {
        "snapshot": measure(["rclone", "copy", "-q", str(tree), there], env),
        "restore --verify": measure(
            ["rclone", "copy", "-q", there, str(place / "rclone-out")], env
        ),
    }


def main() -> None:
    """Prepare, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2048, help="MiB of generated data")
    parser.add_argument("--tree", type=Path)
    arguments = parser.parse_args()
    root = os.environ["VAULT_TEST_S3_URL"].rstrip("/")
    endpoint = os.environ["VAULT_TEST_S3_ENDPOINT"]
    bucket = root.removeprefix("s3://").partition("/")[0]
    place = Path(tempfile.mkdtemp(prefix="vault-bench-s3-"))
    try:
        tree = arguments.tree or make_tree(place, arguments.size)
        size = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
        results = {"vault": run_vault(tree, f"{root}/{uuid.uuid4().hex[:8]}", endpoint, place)}
        for name, run in (("restic", run_restic), ("rclone", run_rclone)):
            if shutil.which(name):
                results[name] = run(tree, bucket, endpoint, place)
            else:
                print(f"{name} is not installed")
        print(f"{size / 1e9:.2f} GB\n")
        print("| work | program | wall s | MB/s | CPU s | anon MB |\n|---|---|---|---|---|---|")
        for name, works in results.items():
            for work, sample in works.items():
                rate = size / 1e6 / sample.wall
                print(
                    f"| {work} | {name} | {sample.wall:.1f} | {rate:.0f} | {sample.cpu:.1f}"
                    f" | {sample.memory:.0f} |"
                )
        (place / "counted").mkdir()
        tree = make_tree(place / "counted", COUNTED)
        size = COUNTED * MIB
        seen = count_requests(tree, f"{root}/{uuid.uuid4().hex[:8]}", endpoint, place)
        print("\nRequests of the vault: " + ", ".join(f"{k} {v}" for k, v in sorted(seen.items())))
        total = sum(count for name, count in seen.items() if name.startswith("snapshot"))
        print(f"{total / (size / (1 << 30)):.1f} requests per GiB of snapshot")
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
