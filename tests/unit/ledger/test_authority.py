"""Who suffices for what: unique keys, unique persons, and people who signed a warrant."""

from vault.crypto.keys import SigningKey
from vault.encoding import b64encode
from vault.ledger.authority import Authority
from vault.ledger.keyring import Keyring
from vault.ledger.statements import PublicKey, Recipient, ResealBody, Role, RootBody, SeedTable
from vault.model import LockMode
from vault.parameters import Parameters

ID = "ab" * 32
SEEDS = SeedTable(name=f"seeds/{ID}/{ID}", sha256=ID, size=1, version="1")
KEY = {name: SigningKey.generate().public for name in ("ann", "spare", "bob", "host")}


def _root(persons: dict[str, str], role: Role = Role.RESTORER, needed: int = 2) -> RootBody:
    keys = [
        PublicKey(name=n, public=b64encode(KEY[n].der), roles=(role, Role.ROOT), person=person)
        for n, person in persons.items()
    ]
    return RootBody(
        parameters=Parameters(lock_mode=LockMode.NONE),
        keys=tuple(keys),
        thresholds={role.value: needed},
        recipients=(Recipient(name="site", public=b64encode(bytes(1216))),),
    )


def _ids(*names: str) -> list[str]:
    return sorted(KEY[name].id for name in names)


def test_several_keys_of_one_person_count_once() -> None:
    """Two of ann's keys are one of two people; with bob's there are two."""
    authority = Authority.of(_root({"ann": "ann", "spare": "ann", "bob": "bob"}))
    problem = authority.shortfall(Role.RESTORER, _ids("ann", "spare"))
    assert problem == "2 people with the role restorer must sign, found 2 keys of 1"
    assert authority.shortfall(Role.RESTORER, _ids("ann", "bob")) == ""
    assert authority.shortfall(Role.RESTORER, _ids("spare", "bob")) == ""


def test_a_key_without_a_person_counts_by_itself() -> None:
    """As for roles of which no person need be named."""
    keys = {"ann": "", "spare": "", "bob": "bob"}
    authority = Authority.of(_root(keys, Role.VERIFIER))
    assert authority.shortfall(Role.VERIFIER, _ids("ann", "spare")) == ""
    assert authority.shortfall(Role.VERIFIER, _ids("ann", "ann")) != ""


def _keyring(root: RootBody) -> Keyring:
    keyring = Keyring()
    keyring.take_root(0, root)
    return keyring


def test_who_endorsed_an_act_counts_for_its_threshold() -> None:
    """One key is too few; the other person in a warrant suffices, a spare key does not."""
    keyring = _keyring(_root({"ann": "ann", "spare": "ann", "bob": "bob"}))
    body = ResealBody(recipient=ID, objects=(SEEDS,), sessions=1, through=0)
    assert keyring.objection("reseal", body, _ids("ann"))[0]
    assert keyring.objection("reseal", body, _ids("ann"), _ids("bob")) == ("", KEY["ann"].id)
    assert keyring.objection("reseal", body, _ids("ann"), _ids("spare"))[0]
