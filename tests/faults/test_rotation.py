"""A host's key is replaced: killed at any call to the store, one key works; the next try ends."""

import dataclasses
import itertools
from collections.abc import Callable

import pytest

from tests.support.invariants import assert_invariants
from tests.support.lab import Lab, MakeRepository
from tests.support.trees import MakeSource
from vault.model import Digest
from vault.repository.enrolment import add_writer
from vault.repository.hosts import live_writers
from vault.repository.keyrequests import request_rotation
from vault.storage.memory import FaultPoint


class Killed(BaseException):
    """As SIGKILL: nothing of the program's own runs after it."""


def kill_at(number: int) -> Callable[[FaultPoint], None]:
    """Ends the program before or after a call: the n-th of these moments, from 0."""
    moments = itertools.count()

    def kill(_: FaultPoint) -> None:
        if next(moments) == number:
            raise Killed

    return kill


def test_a_rotation_killed_anywhere_leaves_one_key_that_writes(
    make_repository: MakeRepository,
    make_source: MakeSource,
) -> None:
    """Before and after each call; then the other key takes over with the next try."""
    lab: Lab = make_repository()
    source = make_source()
    lab.snapshot(source)
    new, request = request_rotation(lab.open(), lab.host.key)
    old_id, new_id = lab.host.key.signing.public.id, new.signing.public.id

    def add(there: Lab) -> None:
        add_writer(
            there.open(),
            request,
            lab.root_key.enroller,
            recovery_key=lambda: pytest.fail("no recovery key is needed"),
            share=None,
            tool="vault test",
        )

    ends = set()
    at = 0
    while True:
        store = lab.store.copy(fault=kill_at(at))
        try:
            add(lab.with_store(store))
            is_killed = False
        except Killed:
            is_killed = True
        store.fault = None
        there = lab.with_store(store)
        live = set(live_writers(there.open().ledger))
        assert live in ({old_id}, {new_id}), at
        ends.add(live == {new_id})
        if live == {old_id}:
            there.snapshot(source)
            add(there)
        rotated = there.with_host(dataclasses.replace(lab.host, key=new))
        rotated.snapshot(source)
        assert set(live_writers(there.open().ledger)) == {new_id}
        assert_invariants(store, Digest.parse(lab.root_key.repository.root))
        if not is_killed:
            break
        at += 1
    assert at > 4
    assert ends == {False, True}
