"""Hosts that come, go, crash and lose their caches, against a plain dictionary of what they saved.

Whatever the order: every snapshot that counts restores to the tree it was taken of.
"""

import dataclasses
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.invariants import assert_invariants
from tests.support.lab import Host, Lab, MakeRepository
from tests.support.randomtrees import Look, look
from vault.errors import WrongKeyError
from vault.model import LockMode
from vault.repository.enrolment import revoke_writer
from vault.repository.hosts import find_writer
from vault.restore import RestoreOutcome
from vault.storage.memory import FaultPoint

DATASETS = ("alpha", "beta")
MOST_HOSTS = 3
MODEST = settings(deadline=None, max_examples=20, stateful_step_count=15, print_blob=True)


class Killed(BaseException):
    """Ends a run where it stands: nothing in the vault catches it."""


@dataclasses.dataclass(kw_only=True)
class Saved:
    """What the model knows of one published snapshot."""

    seq: int
    host: str
    tree: Look
    void: bool = False


class Machine(RuleBasedStateMachine):
    """The repository, its hosts, and the model."""

    def __init__(self, lab: Lab, room: Path) -> None:
        super().__init__()
        self.lab = lab
        self.room = room
        self.hosts: dict[str, Host] = {"first": lab.host}
        self.revoked: dict[str, Host] = {}
        self.names = (f"host{number}" for number in range(100))
        self.saved: dict[int, Saved] = {}
        self.sources = {name: room / name for name in DATASETS}
        for top in self.sources.values():
            (top / "deep").mkdir(parents=True)
            (top / "deep/file").write_bytes(b"first of all")

    # --- what happens ---

    @rule(dataset=st.sampled_from(DATASETS), seed=st.integers(0, 1000), size=st.integers(0, 30_000))
    def change(self, dataset: str, seed: int, size: int) -> None:
        """A file comes, changes or goes; another dataset may hold the same bytes."""
        draw = random.Random(seed)
        file = self.sources[dataset] / draw.choice(["deep", "."]) / f"file{seed % 5}"
        if file.exists() and draw.random() < 0.3:
            file.unlink()
        else:
            file.write_bytes(draw.randbytes(size))
        self.lab.clock.advance(hours=1)

    @rule(dataset=st.sampled_from(DATASETS), who=st.integers(0, 10))
    def snapshot(self, dataset: str, who: int) -> None:
        """One host takes a snapshot of one dataset."""
        name = sorted(self.hosts)[who % len(self.hosts)]
        self._take(name, dataset)

    @rule(
        dataset=st.sampled_from(DATASETS),
        who=st.integers(0, 10),
        at=st.integers(1, 60),
        after=st.booleans(),
    )
    def crash(self, dataset: str, who: int, at: int, *, after: bool) -> None:
        """A run is killed at a store call, before or after that takes effect."""
        name = sorted(self.hosts)[who % len(self.hosts)]
        calls = 0

        def fault(point: FaultPoint) -> None:
            nonlocal calls
            calls += point.phase == "before"
            if calls == at and (point.phase == "after") is after:
                raise Killed

        self.lab.store.fault = fault
        try:
            self._take(name, dataset)
        except Killed:
            self.lab.store.fault = None
            self._note_published(name, dataset)
        finally:
            self.lab.store.fault = None

    @precondition(lambda self: len(self.hosts) < MOST_HOSTS)
    @rule(share=st.booleans())
    def enrol(self, *, share: bool) -> None:
        """A host joins, in a domain of its own or in the first one's."""
        name = next(self.names)
        self.hosts[name] = self.lab.enrol(name, domain="default" if share else None)

    @precondition(lambda self: len(self.hosts) > 1)
    @rule(who=st.integers(0, 10), distrust=st.one_of(st.none(), st.integers(0, 100)))
    def revoke(self, who: int, distrust: int | None) -> None:
        """A host, never the first, is revoked; what it wrote from some seq on may be void."""
        others = sorted(set(self.hosts) - {"first"})
        name = others[who % len(others)]
        repository = self.lab.open()
        writer = find_writer(repository.ledger, name)
        start = None
        if distrust is not None:
            start = writer.added + 1 + distrust % (repository.head.seq + 1 - writer.added)
        revoke_writer(
            repository,
            self.lab.root_key.enroller,
            writer,
            distrust_from=start,
            reason="test",
            tool="t",
        )
        self.revoked[name] = self.hosts.pop(name)
        for saved in self.saved.values():
            if saved.host == name and start is not None and saved.seq >= start:
                saved.void = True

    @precondition(lambda self: self.revoked)
    @rule()
    def refused(self) -> None:
        """Who was revoked can't publish."""
        lab = self.lab.with_host(next(iter(self.revoked.values())))
        with pytest.raises(WrongKeyError):
            lab.snapshot(self.sources["alpha"], dataset="alpha")

    @rule(who=st.integers(0, 10), state=st.booleans())
    def lose_cache(self, who: int, *, state: bool) -> None:
        """A host's chunk map is gone, and perhaps what it knew of its last runs."""
        host = self.hosts[sorted(self.hosts)[who % len(self.hosts)]]
        shutil.rmtree(host.cache, ignore_errors=True)
        if state:
            shutil.rmtree(host.state, ignore_errors=True)

    @rule()
    def verify(self) -> None:
        """Everything that counts is sound."""
        assert self.lab.verify().findings == ()

    @precondition(lambda self: any(not saved.void for saved in self.saved.values()))
    @rule(which=st.integers(0, 100))
    def restore(self, which: int) -> None:
        """Any snapshot that counts comes back, and the ledger says so."""
        counting = [saved for saved in self.saved.values() if not saved.void]
        self._check(counting[which % len(counting)])

    # --- what must hold ---

    @invariant()
    def ledger_is_as_modelled(self) -> None:
        """The snapshots that count are those of the model."""
        found = {record.seq for record in self.lab.open().ledger.snapshots()}
        assert found == {saved.seq for saved in self.saved.values() if not saved.void}

    def teardown(self) -> None:
        """Everything restores; needs are stored and locked."""
        for saved in self.saved.values():
            if not saved.void:
                self._check(saved)
        if not self.revoked:
            assert_invariants(self.lab.store, self.lab.root)
        shutil.rmtree(self.room)

    def _take(self, name: str, dataset: str) -> None:
        taken = self.lab.with_host(self.hosts[name]).snapshot(
            self.sources[dataset], dataset=dataset
        )
        tree = look(self.sources[dataset])
        self.saved[taken.record.seq] = Saved(seq=taken.record.seq, host=name, tree=tree)

    def _note_published(self, name: str, dataset: str) -> None:
        """A run that was killed after its manifest's PUT had published."""
        for record in self.lab.open().ledger.snapshots(dataset):
            if record.seq not in self.saved:
                tree = look(self.sources[dataset])
                self.saved[record.seq] = Saved(seq=record.seq, host=name, tree=tree)

    def _check(self, saved: Saved) -> None:
        target = self.room / "target"
        record = self.lab.open().ledger.records[saved.seq]
        report = self.lab.restore(record, target)
        assert report.outcome is RestoreOutcome.RECOVERED
        assert report.statement is not None
        assert look(target) == saved.tree
        assert sorted(self.room.glob(".target*")) == []
        shutil.rmtree(target)


def test_every_snapshot_that_counts_restores(
    make_repository: MakeRepository,
    tmp_path: Path,
) -> None:
    """Against a model, in random order."""
    template = make_repository(LockMode.GOVERNANCE)
    rooms = (tmp_path / f"room{number}" for number in range(10_000))

    def machine() -> Machine:
        room = next(rooms)
        room.mkdir()
        lab = dataclasses.replace(template.fork(room / "first"), base=room)
        return Machine(lab, room)

    run_state_machine_as_test(machine, settings=MODEST)  # type: ignore[arg-type]  # takes any factory
