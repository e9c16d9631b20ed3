"""Hosts that come, go, and come again under the same name."""

import pytest

from tests.support.lab import Lab
from vault.errors import ConfigError
from vault.repository.enrolment import add_writer, find_writer, request_key, revoke_writer


def _revoke(lab: Lab, name: str) -> str:
    repository = lab.open()
    writer = find_writer(repository.ledger, name)
    revoke_writer(
        repository, lab.root_key, writer, distrust_from=None, reason="gone", tool="vault test"
    )
    return writer.key.id


def test_a_name_that_was_given_again_is_that_of_the_key_in_force(lab: Lab) -> None:
    """Where all of that name are revoked, it names none of them; a key id still does."""
    repository = lab.open()
    keys = []
    requests = []
    for _ in range(2):  # asked for before either was enrolled
        key, request = request_key(
            repository, lab.root_key.repository, name="web", datasets=["*"], domain="default"
        )
        keys.append(key.signing.public.id)
        requests.append(request)
    for request in requests:
        add_writer(
            lab.open(),
            request,
            lab.root_key,
            recovery_key=lambda: lab.recovery,
            share="default",
            tool="vault test",
        )
        if request is requests[0]:
            assert _revoke(lab, "web") == keys[0]
    ledger = lab.open().ledger
    assert find_writer(ledger, "web").key.id == keys[1]
    assert find_writer(ledger, keys[0][:12]).key.id == keys[0]
    assert _revoke(lab, "web") == keys[1]
    with pytest.raises(ConfigError, match="2 writers match"):
        find_writer(lab.open().ledger, "web")
    assert find_writer(lab.open().ledger, keys[1]).key.id == keys[1]


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
            lab.root_key,
            recovery_key=lambda: lab.recovery,
            share=None,
            tool="vault test",
        )
    assert "mail" not in caught.value.message
    assert len(lab.open().ledger.writers) == 3


@pytest.mark.parametrize("name", ["nobody", "", "web"[:2]])
def test_a_name_that_is_nobodys_says_who_there_is(lab: Lab, name: str) -> None:
    """The beginning of a name, or of a key id shorter than 8, is none."""
    lab.enrol("web", domain="default")
    ledger = lab.open().ledger
    with pytest.raises(ConfigError, match="0 writers match"):
        find_writer(ledger, name)
    key = find_writer(ledger, "web").key.id
    with pytest.raises(ConfigError, match="0 writers match"):
        find_writer(ledger, key[:7])
    assert find_writer(ledger, key[:8]).key.id == key
