"""What of a domain is believed: snapshots outside the spans that a theft put in doubt."""

import pytest

from tests.support.lab import MakeRepository
from tests.support.trees import MakeSource
from vault.repository.domain_packs import distrusted_spans, snapshots_of
from vault.repository.enrolment import revoke_writer
from vault.repository.hosts import find_writer


@pytest.mark.parametrize("after", [0, 1])
def test_a_distrust_doubts_the_domain_from_exactly_its_first_number(
    make_repository: MakeRepository, make_source: MakeSource, after: int
) -> None:
    """What others published from there may rest on what the thief claimed; what came before not."""
    lab = make_repository("none")
    lab.enrol("stolen", domain="default")
    source = make_source(files=1)
    before, since = (lab.snapshot(source).record for _ in range(2))
    first = since.seq + after
    repository = lab.open()
    revocation = revoke_writer(
        repository,
        lab.root_key.enroller,
        find_writer(repository.ledger, "stolen"),
        distrust_from=first,
        reason="theft",
        tool="t",
    )
    later = lab.snapshot(source).record
    ledger = lab.open().ledger
    assert ledger.snapshots() == [before, since, later]
    assert distrusted_spans(ledger, "default") == ((first, revocation.seq),)
    believed = [before, since, later] if after else [before, later]
    assert snapshots_of(ledger, "default") == believed
