"""Hosts that come, go, and come again under the same name."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import pytest

from tests.support.lab import Lab
from tests.support.trees import MakeSource
from vault.crypto.key_files import KeyRequest, WriterKey
from vault.crypto.keys import RecipientKey, SigningKey
from vault.errors import ConfigError, SignatureError, WrongKeyError
from vault.ledger.records import Record, Status
from vault.repository.enrolment import add_writer, limit_writer, revoke_writer
from vault.repository.hosts import find_writer, lineage, published
from vault.repository.keyrequests import request_key, request_rotation
from vault.repository.repository import Repository, snapshot_body

Ask: TypeAlias = Callable[..., tuple[WriterKey, KeyRequest]]
Add: TypeAlias = Callable[..., Record]


def _revoke(lab: Lab, name: str) -> str:
    repository = lab.open()
    writer = find_writer(repository.ledger, name)
    revoke_writer(
        repository,
        lab.root_key.enroller,
        writer,
        distrust_from=None,
        reason="gone",
        tool="vault test",
    )
    return writer.key.id


@pytest.fixture
def ask(lab: Lab) -> Ask:
    """Makes a request of a new host."""

    def make(name: str, *datasets: str, domain: str | None = None) -> tuple[WriterKey, KeyRequest]:
        address = lab.root_key.repository
        wanted = datasets or ("*",)
        return request_key(lab.open(), address, name=name, datasets=wanted, domain=domain)

    return make


@pytest.fixture
def add(lab: Lab) -> Add:
    """Grants a request, by default agreeing to share datasets with `first`."""

    def grant(request: KeyRequest, **options: Any) -> Record:
        agreed: dict[str, Any] = {"share": None, "share_datasets": ["first"], **options}
        return add_writer(
            lab.open(),
            request,
            lab.root_key.enroller,
            recovery_key=lambda: lab.recovery,
            tool="vault test",
            **agreed,
        )

    return grant


def test_a_key_that_is_revoked_is_not_revoked_again(lab: Lab) -> None:
    """A wrong request, said with the number of the first; not a statement that would be void."""
    key_id = _revoke(lab, lab.host.key.name)
    repository = lab.open()
    writer, head = repository.ledger.writers[key_id], repository.head
    with pytest.raises(ConfigError, match="revoked already"):
        revoke_writer(
            repository,
            lab.root_key.enroller,
            writer,
            distrust_from=None,
            reason="gone",
            tool="vault test",
        )
    assert lab.open().head == head


def test_a_name_that_was_given_again_is_that_of_the_key_in_force(
    lab: Lab, ask: Ask, add: Add
) -> None:
    """Where all of that name are revoked, it names none of them; a key id still does."""
    keys = []
    requests = []
    for _ in range(2):  # asked for before either was enrolled
        key, request = ask("web", domain="default")
        keys.append(key.signing.public.id)
        requests.append(request)
    add(requests[0], share="default")
    with pytest.raises(ConfigError, match="a host named web is enrolled already"):
        add(requests[1], share="default")
    assert _revoke(lab, "web") == keys[0]
    add(requests[1], share="default")
    ledger = lab.open().ledger
    assert find_writer(ledger, "web").key.id == keys[1]
    assert find_writer(ledger, keys[0][:16]).key.id == keys[0]
    assert _revoke(lab, "web") == keys[1]
    with pytest.raises(ConfigError, match="2 writers match"):
        find_writer(lab.open().ledger, "web")
    assert find_writer(lab.open().ledger, keys[1]).key.id == keys[1]


def test_a_host_that_comes_again_gets_a_domain_with_a_number(lab: Lab, ask: Ask, add: Add) -> None:
    """The old domain's secrets may be a thief's; who wants to share it says so."""
    for domain in ("web", "web-2", "web-3"):
        _, request = ask("web")
        assert request.domain == domain
        add(request)
        _revoke(lab, "web")
    _, request = ask("web", domain="web")
    with pytest.raises(ConfigError, match="asks to share domain web with web"):
        add(request)
    add(request, share="web")
    long = "w" * 63
    add(ask(long)[1], share_datasets=["first", "web"])
    _revoke(lab, long)
    assert ask(long)[1].domain == "w" * 61 + "-2"


# --- patterns ---


@pytest.mark.parametrize("asked", ["*", "db-*", "d?", "*-1"])
def test_patterns_that_overlap_are_not_enrolled_unasked(
    lab: Lab, ask: Ask, add: Add, asked: str
) -> None:
    """It names both; agreed to, or with nothing in common, it passes."""
    add(ask("db", "db-*", "d1")[1])
    add(ask("mail", "mail")[1])
    _, request = ask("other", asked)
    with pytest.raises(ConfigError, match=f"'{re.escape(asked)}' and '.*' of db") as caught:
        add(request)
    assert "vault key limit" in str(caught.value.hint)
    assert "other" not in {writer.name for writer in lab.open().ledger.writers.values()}
    add(request, share_datasets=["first", "db", "mail"])


def test_a_revoked_host_overlaps_with_none(lab: Lab, ask: Ask, add: Add) -> None:
    """Its datasets are free for the host that follows it."""
    add(ask("db", "db-*")[1])
    _revoke(lab, "db")
    add(ask("db", "db-*")[1])


def test_what_is_granted_lies_within_what_was_asked_for(lab: Lab, ask: Ask, add: Add) -> None:
    """Narrower, or it is refused and nothing is signed."""
    _, request = ask("db", "db-*", "d1")
    for beyond in ("*", "db", "web", "d?"):
        with pytest.raises(ConfigError, match="did not ask to write"):
            add(request, datasets=[beyond])
    with pytest.raises(ConfigError, match="not allowed"):
        add(request, datasets=["db-[1]"])
    add(request, datasets=["db-1", "db-2?"])
    assert find_writer(lab.open().ledger, "db").datasets == ("db-1", "db-2?")


def test_overlaps_and_names_are_checked_on_the_ledger_that_is_extended(
    lab: Lab, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two operators at once: who comes second is refused, though nothing was there as he looked."""
    first, second = ask("db", "db-*")[1], ask("db2", "db-1")[1]
    late = lab.open()

    def both(request: KeyRequest, repository: Repository) -> Record:
        return add_writer(
            repository,
            request,
            lab.root_key.enroller,
            recovery_key=lambda: lab.recovery,
            share=None,
            share_datasets=["first"],
            tool="vault test",
        )

    both(first, lab.open())
    assert "db" not in {writer.name for writer in late.ledger.writers.values()}
    with pytest.raises(ConfigError, match="patterns overlap: 'db-1' and 'db-\\*' of db"):
        both(second, late)
    assert len(lab.open().ledger.writers) == 2


def test_a_host_is_limited(lab: Lab, ask: Ask, add: Add, make_source: MakeSource) -> None:
    """To fewer patterns unasked; to more only where no other host has them, or a person agreed."""
    source = make_source()
    before = lab.snapshot(source, dataset="data")
    add(ask("db", "db-*")[1])

    def limit(*datasets: str, shared: Sequence[str] = ()) -> Record:
        repository = lab.open()
        return limit_writer(
            repository,
            lab.root_key.enroller,
            find_writer(repository.ledger, "first"),
            datasets=datasets,
            share_datasets=shared,
            reason="split",
            tool="vault test",
        )

    limit("www", "db-1")  # it had both by '*', shared as db came
    with pytest.raises(ConfigError, match="may not write dataset data"):
        lab.snapshot(source, dataset="data")
    assert lab.open().ledger.records[before.record.seq].status is Status.VALID
    lab.snapshot(source, dataset="www")
    limit("www")
    with pytest.raises(ConfigError, match="patterns overlap: 'db-1' and 'db-\\*' of db"):
        limit("www", "db-1")
    limit("www", "db-1", shared=["db"])
    limit("www", "mail")
    _revoke(lab, "first")
    with pytest.raises(ConfigError, match="only a live key"):
        limit("www")


# --- rotation ---


def test_a_key_is_replaced_and_the_host_goes_on(
    lab: Lab, add: Add, make_source: MakeSource
) -> None:
    """The same name, datasets and domain; the old key can sign nothing, what it stored is used."""
    source = make_source()
    lab.snapshot(source)
    new, request = request_rotation(lab.open(), lab.host.key)
    record = add(request, share_datasets=())
    with pytest.raises(WrongKeyError, match="was replaced"):
        lab.snapshot(source)
    rotated = lab.with_host(dataclasses.replace(lab.host, key=new))
    after = snapshot_body(rotated.snapshot(source).record)
    assert (after.counts.files > 0, after.counts.added_size) == (True, 0)
    ledger = lab.open().ledger
    writer = find_writer(ledger, "first")
    assert (writer.key.id, writer.datasets) == (new.signing.public.id, ("*",))
    assert [each.added for each in lineage(ledger, writer.key.id)] == [record.seq, 1]
    assert published(ledger, writer) == ("data",)
    assert new.recipient == lab.host.key.recipient


def test_only_the_old_key_lets_itself_be_replaced(lab: Lab, ask: Ask, add: Add) -> None:
    """A thief of the request, or of another host's key, replaces nothing; nothing is signed."""
    db, request = ask("db", "db-*")
    add(request)
    repository = lab.open()
    new, good = request_rotation(repository, db)
    forged = [
        dataclasses.replace(good, old_signature=b""),
        dataclasses.replace(good, old_signature=good.signature),
        dataclasses.replace(good, public=SigningKey.generate().public.der),
        dataclasses.replace(good, datasets=("*",)),
        dataclasses.replace(good, replaces=lab.host.key.signing.public.id),
    ]
    for each in forged:
        with pytest.raises(SignatureError, match="did not sign the request"):
            add(each)
    other = dataclasses.replace(new, recipient=RecipientKey.generate())
    moved = KeyRequest.signed(
        other, datasets=("db-*",), domain="db", domain_object=None, old=db.signing
    )
    with pytest.raises(ConfigError, match="for the same host"):
        add(moved)
    renamed = KeyRequest.signed(
        dataclasses.replace(new, name="web"),
        datasets=("db-*",),
        domain="db",
        domain_object=None,
        old=db.signing,
    )
    with pytest.raises(ConfigError, match="for the same host"):
        add(renamed)
    assert find_writer(lab.open().ledger, "db").key.id == db.signing.public.id
    add(good)
    with pytest.raises(ConfigError, match="no live one"):
        add(request_rotation(repository, db)[1])


def test_a_request_to_replace_is_repeated_with_the_same_key(lab: Lab) -> None:
    """One that was killed, or is not granted yet; where another key waits, none is asked for."""
    repository = lab.open()
    new, first = request_rotation(repository, lab.host.key)
    again, second = request_rotation(repository, lab.host.key, begun=new)
    assert (again, first.public) == (new, second.public)
    other = dataclasses.replace(new, recipient=RecipientKey.generate())
    with pytest.raises(ConfigError, match="another key waits already"):
        request_rotation(repository, lab.host.key, begun=other)
    _revoke(lab, "first")
    with pytest.raises(ConfigError, match="not live, so none can replace it"):
        request_rotation(lab.open(), lab.host.key)


def test_who_shares_a_domain_already_is_named_where_sharing_was_not_agreed_to(lab: Lab) -> None:
    """The hosts of that domain, and no others."""
    lab.enrol("web", domain="default")
    lab.enrol("mail")  # with a domain of its own
    repository = lab.open()
    _, request = request_key(
        repository, lab.root_key.repository, name="db", datasets=["*"], domain="default"
    )
    with pytest.raises(ConfigError, match=r"share domain default with first, web$") as caught:
        add_writer(
            repository,
            request,
            lab.root_key.enroller,
            recovery_key=lambda: lab.recovery,
            share=None,
            share_datasets=["first", "web", "mail"],
            tool="vault test",
        )
    assert "mail" not in caught.value.message
    assert len(lab.open().ledger.writers) == 3


@pytest.mark.parametrize("name", ["nobody", "", "web"[:2]])
def test_a_name_that_is_nobodys_says_who_there_is(lab: Lab, name: str) -> None:
    """The beginning of a name, or of a key id shorter than 16, is none."""
    lab.enrol("web", domain="default")
    ledger = lab.open().ledger
    with pytest.raises(ConfigError, match="0 writers match"):
        find_writer(ledger, name)
    key = find_writer(ledger, "web").key.id
    with pytest.raises(ConfigError, match="0 writers match"):
        find_writer(ledger, key[:15])
    assert find_writer(ledger, key[:16]).key.id == key
