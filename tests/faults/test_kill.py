"""Real processes ended by SIGKILL at random moments (I3)."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support.invariants import assert_invariants
from tests.support.lab import Clock, Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.storage.local import LocalStore

_RUN = """
import os, sys, time
from datetime import UTC, datetime
from pathlib import Path
from vault.crypto.key_files import load_writer
from vault.model import Digest
from vault.repository.repository import Repository
from vault.snapshot import SnapshotRequest, file_reader, source_run, take_snapshot
from vault.storage.local import LocalStore
from vault.machine.workers import make_workers
root, keys, base, source, stall, now = sys.argv[1:]
begin = time.monotonic()
def clock():
    return datetime.fromtimestamp(float(now) + time.monotonic() - begin, UTC)
source_run.BATCH_SIZE = source_run.JOURNAL_SIZE = 16_384
read, put = file_reader.FileReader.read_batch, LocalStore.put
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
def read_batch(self, items, room):
    contents = read(self, items, room)
    say("read", sum(content.size for content in contents))
    return contents
def stalled_put(self, name, *args, **options):
    version = put(self, name, *args, **options)
    say("put", name)
    time.sleep(float(stall))
    return version
file_reader.FileReader.read_batch, LocalStore.put = read_batch, stalled_put
os.fsync = lambda _: None
key = load_writer(Path(keys))
store = LocalStore(Path(root), clock=clock)
repository = Repository.open(store, Digest.parse(key.repository.root), clock=clock)
with make_workers(2) as workers:
    report = take_snapshot(
        repository, key, SnapshotRequest(paths=[Path(source)], dataset="data", tool="vault test"),
        cache_dir=Path(base, "cache"), state_dir=Path(base, "state"), workers=workers,
    )
say("published", report.record.seq)
"""


def _start(lab: Lab, source: Path, stall: float) -> "subprocess.Popen[str]":
    """A run on the lab's clock, which is far from the times of the files: none is racy."""
    keys, now = lab.base / "keys/writer.key", lab.clock.now.timestamp()
    arguments = [lab.store.url, keys, lab.host.base, source, stall, now]
    return subprocess.Popen(
        [sys.executable, "-c", _RUN, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


def _packs_put(output: str) -> int:
    return output.count("put packs/")


def _bytes_read(output: str) -> int:
    return sum(int(line.split()[1]) for line in output.splitlines() if line.startswith("read "))


def test_a_killed_process_leaves_a_valid_repository_and_its_work_is_used(
    make_repository: MakeRepository,
    clock: Clock,
    make_source: MakeSource,
    tmp_path: Path,
) -> None:
    """Killed over and over, the runs store each pack about once; the last one publishes."""
    store = LocalStore.create(tmp_path / "repository", clock=clock)
    lab = make_repository(store=store)
    source = make_source(files=120)
    size = sum(file.stat().st_size for file in source.rglob("file*"))
    generator = random.Random(20)  # the moments of five kills: what a run did is not by chance
    for _ in range(5):
        process = _start(lab, source, stall=0.03)
        assert process.stdout is not None
        puts = generator.randrange(1, 9)
        while puts:
            line = process.stdout.readline()
            assert line, "the run ended before it was killed"
            puts -= line.startswith("put ")
        time.sleep(generator.uniform(0, 0.04))
        process.send_signal(signal.SIGKILL)
        output, _ = process.communicate()
        assert "published" not in output
        assert assert_invariants(store, lab.root) == 0
        assert not lab.open().findings
    before = {item.name for item in store.versions("packs/")}
    output, _ = _start(lab, source, stall=0).communicate()
    assert "published" in output
    assert assert_invariants(store, lab.root) == 1
    record = lab.open().ledger.snapshots()[0]
    assert lab.verify(record).verdict == "passed"
    names = {ref.name for ref in lab.open().inventory(record).objects}
    # of each run: a pack or two were stored and not noted yet, and the tree's own
    assert len(names & before) >= len(before) - 5 * 4
    assert _packs_put(output) == len([name for name in names - before if "packs/" in name])
    assert _bytes_read(output) < size, "what the journal says is not read again"
