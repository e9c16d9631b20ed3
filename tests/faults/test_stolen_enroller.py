"""A stolen enroller's key: every host is distrusted, and a root ends it."""

import pytest

from tests.support.lab import Lab
from tests.support.trees import MakeSource
from vault.encoding import b64encode
from vault.errors import SignatureError, WrongKeyError
from vault.ledger.statements import DistrustedKey
from vault.repository.enrolment import revoke_writer


def test_a_root_brings_back_what_a_stolen_enroller_distrusted(
    lab: Lab, make_source: MakeSource
) -> None:
    """All snapshots are listed and verified again, by readers with and without memory."""
    source = make_source(files=2)
    kept = [lab.snapshot(source).record for _ in range(2)]
    warm = lab.warmed()
    repository = lab.open()
    writers = list(repository.ledger.writers.values())
    first = repository.head.seq + 1
    for writer in writers:
        revoke_writer(
            lab.open(),
            lab.root_key.enroller,
            writer,
            distrust_from=writer.added + 1,
            reason="x",
            tool="t",
        )
    assert lab.open().ledger.snapshots() == warm.open().ledger.snapshots() == []
    with pytest.raises(WrongKeyError):
        lab.snapshot(source)
    stolen = b64encode(lab.root_key.enroller.public.der)
    lab.append_root(distrust=(DistrustedKey(public=stolen, start=first),))
    for each in (lab, warm):
        found = each.open().ledger.snapshots()
        assert [record.digest for record in found] == [record.digest for record in kept]
    assert lab.verify(*lab.open().ledger.snapshots()).verdict == "passed"


def test_a_root_without_the_key_ends_its_reach(lab: Lab, make_source: MakeSource) -> None:
    """What it signs afterwards does not link."""
    lab.snapshot(make_source(files=1))
    root = lab.open().ledger.root
    stolen = b64encode(lab.root_key.enroller.public.der)
    lab.append_root(keys=tuple(each for each in root.keys if each.public != stolen))
    (writer,) = lab.open().ledger.writers.values()
    with pytest.raises(SignatureError):
        revoke_writer(
            lab.open(), lab.root_key.enroller, writer, distrust_from=None, reason="x", tool="t"
        )
