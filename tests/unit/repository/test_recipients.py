"""What a recipient that is taken away can still open, as `still_open` tells it."""

from tests.support.lab import Lab
from tests.support.trees import MakeSource
from vault.crypto.keys import RecipientKey, recipient_id
from vault.encoding import b64decode_strict, b64encode
from vault.ledger.chain import Ledger
from vault.ledger.statements import HoldBody, Recipient, ResealBody, RootBody, SeedTable
from vault.model import Digest, replace_body
from vault.repository.append_statements import Draft
from vault.repository.recipients import StillOpen, still_open


def add_recipient(lab: Lab, name: str = "bob") -> Recipient:
    """Root N+1 lists one more."""
    added = Recipient(name=name, public=b64encode(RecipientKey.generate().public_raw))

    def draft(ledger: Ledger) -> Draft:
        root = ledger.root
        body: RootBody = replace_body(
            root, version=root.version + 1, recipients=(*root.recipients, added)
        )
        return Draft(type="root", subject=[("repository", lab.root)], body=body)

    lab.open().append(draft, [lab.root_key.root], tool="vault test")
    return added


def told(lab: Lab, recipient: Recipient) -> StillOpen:
    """Now."""
    return still_open(lab.open().ledger, recipient, lab.clock())


def test_the_first_recipient_opens_all(lab: Lab, make_source: MakeSource) -> None:
    """Until the last snapshot may go; a held one has no end."""
    source = make_source()
    records = [lab.snapshot(source, dataset=name).record for name in ("www", "db", "db")]
    (site,) = lab.open().ledger.root.recipients
    hold = HoldBody(action="add", snapshot=records[0].seq, reason="r", author="a")
    draft = Draft(type="hold", subject=[("x", lab.root)], body=hold)
    lab.open().append(lambda _: draft, [lab.root_key.policy], tool="vault test")
    found = told(lab, site)
    ledger = lab.open().ledger
    assert (found.snapshots, found.datasets, found.held) == (3, ("db", "www"), 1)
    assert (found.through, found.until) == (
        records[-1].seq,
        max(map(ledger.effective_until, records)),
    )
    text = "\n".join(found.lines())
    assert f"{found.until:%Y-%m-%d}" in text
    assert "3 snapshots of db, www" in text
    assert "1 held without an end" in text
    assert "default" in text


def test_a_later_recipient_opens_what_was_sealed_or_resealed_to_it(
    lab: Lab, make_source: MakeSource
) -> None:
    """Nothing before its root, unless a reseal covers it; what is owed no more does not count."""
    source = make_source()
    old = lab.snapshot(source).record
    bob = add_recipient(lab)
    assert told(lab, bob).snapshots == 0
    assert len(told(lab, bob).lines()) == 2
    lab.snapshot(source)
    assert told(lab, bob).snapshots == 1
    key = str(recipient_id(b64decode_strict(bob.public)))
    table = SeedTable(
        name=f"seeds/{key}/{Digest(bytes(32))}", sha256="00" * 32, size=1, version="v"
    )
    body = ResealBody(recipient=key, objects=(table,), sessions=1, through=old.seq)
    draft = Draft(type="reseal", subject=[("x", lab.root)], body=body)
    lab.open().append(lambda _: draft, [lab.recovery.restorer], tool="vault test")
    assert told(lab, bob).snapshots == 2
    lab.clock.advance(days=1000)
    assert told(lab, bob).snapshots == 0
    assert "no snapshot that is kept" in told(lab, bob).lines()[1]
