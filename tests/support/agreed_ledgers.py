"""Ledgers in which several people must agree, with what each statement must amount to.

The verdicts are written beside the statements; no judge is asked. Keys are fixed, so the same
ledger comes out of every run.
"""

import functools
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from vault.clock import to_rfc3339
from vault.crypto.keys import SigningKey
from vault.encoding import b64encode, dumps, loads_canonical
from vault.ledger.envelope import PAYLOAD_TYPE, Head, build_statement, pae, seal_envelope
from vault.ledger.statements import (
    Approval,
    Counts,
    DistrustedKey,
    DomainRef,
    EventBody,
    HeartbeatBody,
    HoldBody,
    InventoryRef,
    PolicyBody,
    PruneBody,
    PublicKey,
    Recipient,
    ResealBody,
    Role,
    RootBody,
    SeedTable,
    SnapshotBody,
    TreeRef,
    WarrantBody,
    WarrantSignature,
    WriterBody,
)
from vault.model import Body, Digest, LockMode, body_to_json, replace_body
from vault.parameters import Parameters
from vault.storage.names import ledger_name

REPOSITORY = "0123456789abcdef0123456789abcdef"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROLES = {  # of keys by name; before the dash stands whose key it is
    "alice-root": Role.ROOT,
    "bob-root": Role.ROOT,
    "alice-enroller": Role.ENROLLER,
    "bob-enroller": Role.ENROLLER,
    "alice-policy": Role.POLICY,
    "alice-policy2": Role.POLICY,
    "bob-policy": Role.POLICY,
    "carol-policy": Role.POLICY,
    "dora-pruner": Role.PRUNER,
    "erin-restorer": Role.RESTORER,
    "frank-restorer": Role.RESTORER,
    "alice-enroller2": Role.ENROLLER,
}
HOSTS = ("web", "db")
_NAMES = (*ROLES, *HOSTS, "cache", "stranger", "carol-root", "bob-root2")


@functools.cache
def key(name: str) -> SigningKey:
    """The key of that name."""
    return SigningKey(ec.derive_private_key(_NAMES.index(name) + 1000, ec.SECP256R1()))


def key_id(name: str) -> str:
    """The id of the key of that name."""
    return key(name).public.id


def listed(name: str, role: Role) -> PublicKey:
    """As a root lists it."""
    person = name.partition("-")[0]
    return PublicKey(
        name=name, public=b64encode(key(name).public.der), roles=(role,), person=person
    )


def root_of_people(**changes: Any) -> RootBody:
    """A root of two, without approvals."""
    body = RootBody(
        version=1,
        parameters=Parameters(lock_mode=LockMode.NONE),
        keys=tuple(listed(name, role) for name, role in ROLES.items()),
        thresholds={"root": 2},
        recipients=(
            Recipient(name="site", public=b64encode(b"site")),
            Recipient(name="old", public=b64encode(b"old")),
        ),
    )
    return replace_body(body, **changes)


def approvals(role: str = "policy", threshold: int = 1, **more: int) -> Approval:
    """What a root wants."""
    return Approval(role=role, threshold=threshold, **more)


def enrolled(host: str) -> WriterBody:
    """A host without a domain joins."""
    public = b64encode(key(host).public.der)
    return WriterBody(action="add", name=host, public=public, datasets=("*",))


def limited(host: str, *datasets: str) -> WriterBody:
    """A host gets other patterns."""
    public = b64encode(key(host).public.der)
    return WriterBody(action="limit", name=host, public=public, datasets=datasets)


def resealed(through: int, recipient: str = "ab" * 32) -> ResealBody:
    """Old packs for a new recipient."""
    table = SeedTable(name=f"seeds/{recipient}/{'ef' * 32}", sha256="ef" * 32, size=7, version="1")
    return ResealBody(recipient=recipient, objects=(table,), sessions=1, through=through)


@dataclass(kw_only=True)
class Book:
    """A ledger under construction."""

    statements: list[bytes] = field(default_factory=list)  # envelopes
    digests: list[Digest] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)  # valid, void or unknown
    reasons: dict[int, str] = field(default_factory=dict)  # of the void ones, a part of it
    names: dict[int, str] = field(default_factory=dict)  # what each shows
    objects: dict[str, bytes] = field(default_factory=dict)  # other than statements, by name

    @property
    def head(self) -> Head:
        """The last statement."""
        return Head(seq=len(self.statements) - 1, digest=self.digests[-1], version="1")

    def add(
        self,
        kind: str,
        body: Body,
        *signers: str,
        warrant: int | None = None,
        void: str = "",
        expect: str = "",
        name: str = "",
        edit: Callable[[dict[str, Any]], None] | None = None,
        **changes: Any,
    ) -> int:
        """Append a statement; ``void`` is why it must be void. Gives its number."""
        seq = len(self.statements)
        fields: dict[str, Any] = {
            "type": kind,
            "repository": REPOSITORY,
            "seq": seq,
            "prev": self.head if seq else None,
            "time": NOW,
            "tool": "vault 0.1.0",
            "subject": [("x", Digest.of(b"x"))],
            "body": body,
            "by": [key_id(each) for each in signers],
            "warrant": warrant,
        }
        payload = build_statement(**(fields | changes))
        if edit is not None:
            said = loads_canonical(payload)
            edit(said)
            payload = dumps(said)
        envelope = seal_envelope(payload, [key(each) for each in signers], limit=1 << 20)
        self.statements.append(envelope)
        self.digests.append(Digest(hashlib.sha256(pae(PAYLOAD_TYPE, payload)).digest()))
        self.expected.append(expect or ("void" if void else "valid"))
        self.reasons |= {seq: void} if void else {}
        self.names[seq] = name
        return seq

    def request(self, act: str, values: Mapping[str, Any], /, **changes: Any) -> bytes:
        """The payload of a request; ``changes`` are of its predicate, or whole members."""
        predicate = {
            "repository": REPOSITORY,
            "root": 1,
            "floor": str(self.head),
            "act": act,
            "summary": "what is lost",
            "requester": key_id("alice-policy"),
            "reason": "because",
            "ticket": "CHG-1",
            "not_before": "2026-03-01T00:00:00Z",
            "expires": "2026-03-04T00:00:00Z",
            "nonce": f"{len(self.statements):032x}",
        }
        members = {
            "_type": "https://in-toto.io/Statement/v1",
            "predicateType": "urn:vault:request:v1",
            "subject": [{"name": "bound", "digest": {"sha256": str(Digest.of(dumps(values)))}}],
        }
        whole = {name: changes.pop(name) for name in list(changes) if name in members}
        return dumps({**members, **whole, "predicate": predicate | changes})

    def carry(
        self,
        request: bytes,
        *signers: str,
        carrier: str = "web",
        bogus: Sequence[str] = (),
        hint: Callable[[str], str] = key_id,
        **more: Any,
    ) -> int:
        """Append the warrant of a request; gives its number."""
        signed = pae(PAYLOAD_TYPE, request)
        signatures = [
            WarrantSignature(keyid=hint(each), sig=b64encode(key(each).sign(signed)))
            for each in signers
        ]
        signatures += [
            WarrantSignature(keyid=key_id(each), sig=b64encode(key(each).sign(b"other")))
            for each in bogus
        ]
        body = WarrantBody(payload=b64encode(request), signatures=tuple(signatures))
        return self.add("warrant", body, carrier, **more)

    def agreed(
        self,
        act: str,
        body: Body,
        /,
        *signers: str,
        people: Collection[str] = ("alice-policy", "bob-policy"),
        kind: str = "writer",
        values: Mapping[str, Any] | None = None,
        void: str = "",
        name: str = "",
        time: datetime = NOW,
        carried: Mapping[str, Any] | None = None,
        edit: Callable[[dict[str, Any]], None] | None = None,
        expect: str = "",
        **changes: Any,
    ) -> int:
        """A request, its warrant, and the act that rests on it; gives the number of the warrant."""
        bound = body_to_json(body) if values is None else values
        request = self.request(act, bound, **changes)
        warrant = self.carry(request, *people, **(carried or {}))
        self.add(
            kind,
            body,
            *signers,
            warrant=warrant,
            void=void,
            name=name,
            time=time,
            edit=edit,
            expect=expect,
        )
        return warrant

    def write(self, store: Path) -> Path:
        """As a directory store."""
        named = {ledger_name(seq): data for seq, data in enumerate(self.statements)}
        for name, data in (named | self.objects).items():
            path = store / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return store


def begun(body: RootBody, *, two_enrollers: bool = False) -> Book:
    """The root by alice and bob, and two hosts; two enrollers must sign from there on."""
    if two_enrollers:
        body = replace_body(body, thresholds={**body.thresholds, "enroller": 2})
    book = Book()
    book.add("root", body, "alice-root", "bob-root")
    for host in HOSTS:
        signers = ("alice-enroller", "bob-enroller") if two_enrollers else ("alice-enroller",)
        book.add("writer", enrolled(host), *signers)
    return book


# --- the ledgers ---


def ledgers() -> dict[str, Book]:
    """All of them, by what they are about."""
    return {
        "fits": _fits(),
        "approvals": _approvals(),
        "thresholds": _thresholds(),
        "roots": _roots(),
        "wider": _wider(),
        "distrust": _distrust(),
        "acts": _acts(),
    }


def _fits() -> Book:
    """Each clause of "a warrant fits", kept and broken; every act is wanted approved by one."""
    book = begun(root_of_people(approvals={"writer.limit": approvals(max_age=345_600)}))
    number = iter(range(1000))

    def body() -> WriterBody:
        return limited("db", f"d{next(number)}")

    def case(name: str, void: str = "", **changes: Any) -> int:
        return book.agreed(
            "writer.limit", body(), "alice-enroller", name=name, void=void, **changes
        )

    case("asked by alice, approved by bob")
    case("in its last second", time=datetime(2026, 3, 4, tzinfo=UTC))
    case("in its first second", time=datetime(2026, 3, 1, tzinfo=UTC))
    case("expired by a second", "expired", time=datetime(2026, 3, 4, 0, 0, 1, tzinfo=UTC))
    case("a second early", "not good before", time=datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC))
    case("good for as long as the root gives", expires="2026-03-05T00:00:00Z")
    case("good for too long", "good for longer", expires="2026-03-05T00:00:01Z")
    case("it ends before it begins", "expired", expires="2026-02-01T00:00:00Z")
    case("of another repository", "of another repository", repository="f" * 32)
    case("for another act", "for the act writer.revoke", act="writer.revoke")
    case("for an act that is none", "for the act writer.limits", act="writer.limits")
    case("for other values", "for another plan", values={})
    case(
        "for the same values and one more",
        "for another plan",
        values=body_to_json(limited("db", "x")) | {"zz": 1},
    )
    case("with a member that is not known", zz=1)
    case("by another floor", "floor", floor=f"1:{'0' * 64}")
    case("by a floor to come", "floor", floor=f"900:{'0' * 64}")
    case("by the first floor", floor=str(Head(seq=0, digest=book.digests[0])))
    case("under another root", "root 2", root=2)
    case(
        "whose requester did not sign",
        "its requester did not sign",
        people=("bob-policy", "carol-policy"),
    )
    case(
        "whose requester is not listed",
        "its requester did not sign",
        requester=key_id("stranger"),
        people=("stranger", "bob-policy"),
    )
    case(
        "whose requester gave a signature that does not hold",
        "its requester did not sign",
        people=("bob-policy",),
        carried={"bogus": ("alice-policy",)},
    )
    case("asked by a host", requester=key_id("web"), people=("web", "bob-policy"))
    case("with key ids that say nothing", carried={"hint": lambda _: ""})
    case(
        "with key ids of each other",
        carried={"hint": lambda n: key_id("bob-policy" if n[0] == "a" else "alice-policy")},
    )
    case("with a stranger's signature too", people=("stranger", "alice-policy", "bob-policy"))
    case("with more that do not hold", carried={"bogus": ("bob-policy", "dora-pruner")})
    case("carried by a root key", carried={"carrier": "alice-root"})

    used = limited("db", "used")
    request = book.request("writer.limit", body_to_json(used))
    first = book.carry(request, "alice-policy", "bob-policy")
    again = book.carry(request, "alice-policy", "bob-policy", "carol-policy", carrier="db")
    book.add(
        "writer", used, "alice-enroller", warrant=first, name="used for the first time", time=NOW
    )
    book.add(
        "writer",
        used,
        "alice-enroller",
        warrant=first,
        void="used by statement",
        time=NOW,
        name="used twice",
    )
    book.add(
        "writer",
        used,
        "alice-enroller",
        warrant=again,
        void="used by statement",
        time=NOW,
        name="carried twice, used twice",
    )

    spare = limited("db", "spare")
    warrant = book.carry(
        book.request("writer.limit", body_to_json(spare)), "alice-policy", "bob-policy"
    )
    book.add("writer", spare, "dora-pruner", warrant=warrant, void="role enroller", name="role")
    book.add("writer", spare, "alice-enroller", warrant=warrant, name="void acts use nothing up")

    for name, seq in (("a snapshot to come", 10**6), ("a root", 0), ("an enrolment", 1)):
        book.add(
            "writer",
            body(),
            "alice-enroller",
            warrant=seq,
            void="carries no request",
            name=f"names {name}",
        )
    book.add(
        "writer",
        body(),
        "alice-enroller",
        warrant=len(book.statements),
        void="carries no request",
        name="names itself",
    )
    for name, payload in no_requests(book).items():
        warrant = book.carry(payload, "alice-policy", "bob-policy")
        book.add(
            "writer",
            _NOTHING,
            "alice-enroller",
            warrant=warrant,
            void="carries no request",
            name=name,
        )
    empty = replace_body(WarrantBody(payload="", signatures=()), payload=b64encode(b"x"))
    bare = book.add("warrant", empty, "web", void="1 to 16 signatures", name="without signers")
    book.add(
        "writer",
        body(),
        "alice-enroller",
        warrant=bare,
        void="carries no request",
        name="names a void warrant",
    )
    return book


_NOTHING = limited("db", "nothing")


def no_requests(book: Book) -> dict[str, bytes]:
    """Payloads that are none, each by one rule; the control is every good one."""
    good = functools.partial(book.request, "writer.limit", body_to_json(_NOTHING))
    plain = good()
    return {
        "it carries no JSON": b"request",
        "it carries JSON that is not canonical": plain.replace(b'":', b'": ', 1),
        "it carries another type": good(predicateType="urn:vault:request:v2"),
        "it carries no statement of in-toto": good(_type="x"),
        "it binds nothing": good(subject=[]),
        "it binds two things": good(
            subject=[{"name": "bound", "digest": {"sha256": "0" * 64}}] * 2
        ),
        "it binds something of another name": good(
            subject=[{"name": "body", "digest": {"sha256": "0" * 64}}]
        ),
        "it binds no digest": good(subject=[{"name": "bound", "digest": {"sha256": "0"}}]),
        "its root is 0": good(root=0),
        "its root is a text": good(root="1"),
        "its floor is a number": good(floor=1),
        "its floor has a zero in front": good(floor=f"01:{'0' * 64}"),
        "its floor has no digest": good(floor="1:"),
        "its times have another spelling": good(expires="2026-03-04T00:00:00+00:00"),
        "its time is of no day": good(not_before="2026-02-29T00:00:00Z"),
        "its requester is a name": good(requester="alice-policy"),
        "its nonce is short": good(nonce="00"),
        "its reason is a number": good(reason=7),
        "its summary is missing": good(summary=None),
        "its ticket is missing": good(ticket=None),
        "its act is missing": good(act=None),
        "its repository is short": good(repository="0" * 31),
    }


def _approvals() -> Book:
    """Who counts for an approval: people, by the role that the root wants, and by nothing else."""
    wanted = {"writer.limit": approvals(threshold=2), "reseal": approvals("root", 1)}
    book = begun(root_of_people(approvals=wanted))
    number = iter(range(1000))

    def case(
        name: str,
        *people: str,
        void: str = "",
        by: Sequence[str] = ("bob-enroller",),
        **changes: Any,
    ) -> int:
        body = limited("db", f"d{next(number)}")
        return book.agreed(
            "writer.limit", body, *by, people=people, name=name, void=void, **changes
        )

    few = "needs the approval of 2 people with the role policy"
    case("two others", "alice-policy", "bob-policy", "carol-policy", by=("alice-enroller",))
    case("the requester and one", "alice-policy", "carol-policy", void=few)
    case("the actor's person signed", "alice-policy", "bob-policy", "carol-policy", void=few)
    case(
        "the requester's other key",
        "alice-policy",
        "alice-policy2",
        "carol-policy",
        by=("alice-enroller",),
        void=few,
    )
    case(
        "another role",
        "alice-policy",
        "carol-policy",
        "dora-pruner",
        "erin-restorer",
        by=("alice-enroller",),
        void=few,
    )
    case(
        "the requester has no role", "web", "alice-policy", "carol-policy", requester=key_id("web")
    )
    case(
        "the requester's person by another role",
        "alice-root",
        "alice-policy",
        "carol-policy",
        requester=key_id("alice-root"),
        void=few,
    )
    case(
        "one of two actors approved",
        "carol-policy",
        "alice-policy",
        "bob-policy",
        by=("alice-enroller", "bob-enroller"),
        requester=key_id("carol-policy"),
        void=few,
    )
    case(
        "signatures that do not hold",
        "alice-policy",
        "carol-policy",
        by=("alice-enroller",),
        carried={"bogus": ("bob-policy",)},
        void=few,
    )
    book.add(
        "writer", limited("db", "none"), "bob-enroller", void=few + ", other", name="no warrant"
    )
    book.add(
        "writer",
        replace_body(enrolled("db"), action="revoke", datasets=()),
        "bob-enroller",
        name="none is wanted for this act",
    )
    one = "needs the approval of 1 person with the role root"
    seal = resealed(0)
    book.add("reseal", seal, "erin-restorer", void=one, name="reseal without a warrant")
    book.agreed(
        "reseal",
        seal,
        "erin-restorer",
        kind="reseal",
        values={"recipient": seal.recipient, "through": 0},
        people=("alice-policy", "bob-root"),
        name="reseal, approved",
    )
    book.agreed(
        "reseal",
        resealed(1),
        "erin-restorer",
        kind="reseal",
        values={"recipient": seal.recipient, "through": 0},
        people=("alice-policy", "bob-root"),
        void="for another plan",
        name="reseal of other things",
    )
    beat = HeartbeatBody(note="alive")
    book.agreed(
        "writer.limit",
        beat,
        "web",
        kind="heartbeat",
        people=("alice-policy",),
        void="for the act writer.limit",
        name="a heartbeat is no act",
    )
    return book


def _thresholds() -> Book:
    """The signers of a warrant count beside those of the act, as unique people."""
    book = begun(root_of_people(), two_enrollers=True)
    number = iter(range(1000))

    def case(name: str, by: Sequence[str], *people: str, void: str = "", **changes: Any) -> int:
        body = limited("db", f"d{next(number)}")
        said = {"requester": key_id(people[0]), **changes}
        return book.agreed("writer.limit", body, *by, people=people, name=name, void=void, **said)

    case("one acts, one signed", ["alice-enroller"], "alice-policy", "bob-enroller")
    case("one asks and acts, one signed", ["alice-enroller"], "alice-enroller", "bob-enroller")
    case("both signed, a host acts", ["web"], "alice-enroller", "bob-enroller")
    case("one acts, none signed", ["alice-enroller"], "alice-policy", void="must sign")
    case("the one who acts signed too", ["bob-enroller"], "bob-enroller", void="must sign")
    case(
        "one acts, her other key signed",
        ["alice-enroller"],
        "alice-policy",
        "alice-enroller2",
        void="must sign",
    )
    case(
        "one acts, another role signed",
        ["alice-enroller"],
        "alice-policy",
        "bob-policy",
        void="must sign",
    )
    both = ["alice-enroller", "bob-enroller"]
    case("enough act, and the warrant fits", both, "alice-policy")
    case(
        "enough act, and the warrant does not fit",
        both,
        "alice-policy",
        void="expired",
        expires="2026-03-01T01:00:00Z",
    )
    book.add("writer", limited("db", "none"), *both, name="enough act without a warrant")
    limit = {"not_before": "2026-02-01T00:00:00Z", "expires": "2026-03-03T00:00:00Z"}
    case("30 days, where the root gives no time", both, "alice-policy", **limit)
    limit["not_before"] = "2026-01-31T23:59:59Z"
    case("over 30 days", both, "alice-policy", void="good for longer than 2592000", **limit)
    return book


def _roots() -> Book:
    """Roots by two of two of whom one acts; what root N+1 ends; who counts by which root."""
    one = root_of_people()
    book = begun(one)
    asked = {"requester": key_id("alice-root")}
    both = ("alice-root", "bob-root")
    open_request = book.carry(
        book.request("writer.limit", body_to_json(_NOTHING)), "alice-policy", carrier="db"
    )
    two = replace_body(one, version=2)

    def root(name: str, body: RootBody, *people: str, **changes: Any) -> int:
        said = {"by": ["alice-root"], "root": body.version - 1, **asked, **changes}
        by = said.pop("by")
        return book.agreed(
            said.pop("act", "root"), body, *by, kind="root", people=people, name=name, **said
        )

    root("alice asks, acts, and signs alone", two, "alice-root", void="must sign")
    root("of other values", two, *both, void="for another plan", values={"version": 2})
    root("alice and bob sign, alice acts", two, *both)
    book.add(
        "writer", _NOTHING, "alice-enroller", warrant=open_request, void="root 1", name="root 1"
    )
    three = replace_body(
        two,
        version=3,
        keys=(*two.keys, listed("carol-root", Role.ROOT)),
        thresholds={"root": 3},
    )
    root("the new root wants three", three, *both, void="by the new root")
    root("the new root brings the third", three, *both, "carol-root")
    four = replace_body(
        three, version=4, thresholds={"root": 2}, approvals={"root": approvals("root")}
    )
    all_three = (*both, "carol-root")
    root("from now on a root wants approval", four, *all_three)
    five = replace_body(four, version=5)
    book.add(
        "root",
        five,
        *sorted(all_three),
        void="needs the approval of 1 person with the role root",
        name="all sign, and none approved",
    )
    root("alice asks and acts, bob approved", five, *both)
    six = replace_body(five, version=6)
    root("bob asks, alice acts", six, *both, void="found 0", requester=key_id("bob-root"))
    root("bob asks, alice acts, carol approved", six, *all_three, requester=key_id("bob-root"))
    spare = replace_body(
        six,
        version=7,
        keys=(*six.keys, replace_body(listed("bob-root2", Role.ROOT), person="bob")),
    )
    root(
        "bob asks by a key that the root brings, and approves by his old one",
        spare,
        *both,
        "bob-root2",
        requester=key_id("bob-root2"),
        void="found 0",
    )
    root(
        "bob asks by a key that the root brings, carol approved",
        spare,
        *both,
        "bob-root2",
        "carol-root",
        requester=key_id("bob-root2"),
    )
    return book


def _wider() -> Book:
    """A statement is the narrowest act; what the wider act wants holds unless more is said."""
    one = root_of_people(approvals={"root": approvals("policy")})
    book = begun(one)
    both = ("alice-root", "bob-root")
    fewer = replace_body(one, version=2, recipients=one.recipients[:1])

    def root(name: str, act: str, body: RootBody, *people: str, void: str = "") -> int:
        return book.agreed(
            act,
            body,
            *both,
            kind="root",
            people=("alice-policy", *people),
            name=name,
            void=void,
            root=body.version - 1,
        )

    root("removes one, asked as a root", "root", fewer, "carol-policy", void="for the act root")
    root("removes one, not approved", "recipient.remove", fewer, void="recipient.remove needs")
    root(
        "removes none, asked as removal",
        "recipient.remove",
        replace_body(one, version=2),
        "carol-policy",
        void="for the act recipient.remove",
    )
    root("removes one, approved", "recipient.remove", fewer, "carol-policy")
    narrow = {"root": approvals("policy"), "recipient.remove": approvals("pruner")}
    three = replace_body(
        fewer, version=3, approvals=narrow, recipients=(*one.recipients, *_third_recipient())
    )
    root("adds two", "root", three, "carol-policy")
    four = replace_body(three, version=4, recipients=one.recipients)
    root("the narrower entry holds", "recipient.remove", four, "carol-policy", void="role pruner")
    root("the narrower entry is met", "recipient.remove", four, "dora-pruner")
    return book


def _third_recipient() -> tuple[Recipient, ...]:
    return (Recipient(name="new", public=b64encode(b"new")),)


def _distrust() -> Book:
    """Distrust of who carried a warrant touches no act; a distrusted act has used its request."""
    one = root_of_people()
    book = begun(one)
    body = limited("db", "a")
    request = book.request("writer.limit", body_to_json(body))
    warrant = book.carry(request, "alice-policy", carrier="web")
    start = warrant - 1
    revoked = replace_body(enrolled("web"), action="revoke", datasets=(), distrust_from=start)
    book.add("writer", revoked, "alice-enroller", name="the carrier is distrusted from before")
    book.add("writer", body, "bob-enroller", warrant=warrant, name="the act counts")
    both = ("alice-root", "bob-root")
    thief = DistrustedKey(public=b64encode(key("erin-restorer").public.der), start=0)
    two = replace_body(one, version=2, distrust=(thief,))
    book.add("root", two, *both, name="erin is distrusted")
    seal = resealed(0)
    values = {"recipient": seal.recipient, "through": 0}
    request = book.request("reseal", values, root=2)
    warrant = book.carry(request, "alice-policy", carrier="db")
    again = book.carry(request, "alice-policy", carrier="alice-root")
    book.add("reseal", seal, "erin-restorer", warrant=warrant, name="counts in the end")
    book.add(
        "reseal",
        seal,
        "frank-restorer",
        warrant=again,
        void="used by statement",
        name="the distrusted act has used the request",
    )
    three = replace_body(one, version=3)
    book.add("root", three, *both, name="no key is distrusted")
    return book


def _acts() -> Book:
    """What each act binds: the values that are named, no others, and none of another statement."""
    wanted = dict.fromkeys(
        ("hold.add", "hold.release", "policy.apply", "prune", "restore.replace"), approvals()
    )
    book = begun(root_of_people(approvals=wanted))
    shot = _with_snapshot(book)
    _holds(book, shot)
    _policies(book)
    _plans(book, shot)
    _replacements(book, shot)
    return book


def _acting(book: Book) -> Callable[..., int]:
    def act(name: str, by: tuple[str, str], body: Body, values: Any, void: str = "") -> int:
        what, bound = values
        return book.agreed(what, body, by[1], kind=by[0], values=bound, name=name, void=void)

    return act


def _holds(book: Book, shot: int) -> None:
    act = _acting(book)
    hold = HoldBody(action="add", snapshot=shot, dataset="web", reason="r", author="a")
    bound = {"dataset": "web", "snapshot": shot, "until": None}
    book.add("hold", hold, "carol-policy", void="hold.add needs", name="a hold, not approved")
    by = ("hold", "carol-policy")
    act("a hold of another dataset", by, hold, ("hold.add", bound | {"dataset": "db"}), _PLAN)
    act("a hold until another day", by, hold, ("hold.add", bound | {"until": _DAY}), _PLAN)
    until = replace_body(hold, until=NOW)
    act("a hold until a day", by, until, ("hold.add", bound | {"until": to_rfc3339(NOW)}))
    act("a hold, for another reason", by, replace_body(hold, reason="s"), ("hold.add", bound))
    held = len(book.statements) - 1
    release = HoldBody(action="release", hold=held, snapshot=shot, reason="r", author="a")
    act("a release of another", by, release, ("hold.release", {"hold": held - 2}), _PLAN)
    act("a release, asked as a hold", by, release, ("hold.add", {"hold": held}), "for the act")
    act("a release", by, release, ("hold.release", {"hold": held}))
    again = book.request("hold.release", {"hold": held})
    warrant = book.carry(again, "alice-policy", "bob-policy")
    book.add(
        "hold", release, "carol-policy", warrant=warrant, void="no hold in force", name="again"
    )


def _policies(book: Book) -> None:
    act = _acting(book)
    terms: dict[str, Any] = {"action": "apply", "name": "p", "previous": None}
    terms["sha256"] = _EVIDENCE
    body = PolicyBody(action="apply", name="p", sha256=_EVIDENCE)
    by = ("policy", "carol-policy")
    act("a policy of another name", by, body, ("policy.apply", terms | {"name": "q"}), _PLAN)
    act("a policy after another", by, body, ("policy.apply", terms | {"previous": 1}), _PLAN)
    act("a policy", by, body, ("policy.apply", terms))
    first = len(book.statements) - 1
    weaker = replace_body(body, weakens=True, previous=first, weaker=("last 7 to 6",))
    terms |= {"previous": first}
    act("a weaker policy, asked as any", by, weaker, ("policy.apply", terms), "for the act")
    act("a weaker policy", by, weaker, ("policy.weaken", terms))
    gone = replace_body(weaker, action="withdraw", weaker=())
    act("a withdrawal, asked as a weaker one", by, gone, ("policy.weaken", terms), _PLAN)
    act("a withdrawal", by, gone, ("policy.weaken", terms | {"action": "withdraw"}))
    retired = PolicyBody(action="retire", name="web", weakens=True)
    bound = {"action": "retire", "name": "web", "previous": None, "sha256": ""}
    act("a dataset is given up", by, retired, ("policy.weaken", bound))


def _plans(book: Book, first: int) -> None:
    act = _acting(book)
    plan = PruneBody(phase="plan", plan=_EVIDENCE, details=_EVIDENCE, objects=3)
    by = ("prune", "dora-pruner")
    act("another plan", by, plan, ("prune", {"plan": "ab" * 32}), _PLAN)
    act("a plan", by, plan, ("prune", {"plan": _EVIDENCE}))
    spares = replace_body(plan, spared=_EVIDENCE)
    act("a plan that spares", by, spares, ("prune", {"plan": _EVIDENCE}))
    result = PruneBody(phase="result", plan=_EVIDENCE, of=first)
    book.add("prune", result, "dora-pruner", name="a result is no act")
    act("a result with a warrant", by, result, ("prune", {"plan": _EVIDENCE}), "for the act")


def _replacements(book: Book, shot: int) -> None:
    act = _acting(book)
    digest = str(book.digests[shot])
    restored = EventBody(
        verdict="passed",
        snapshot=shot,
        started=NOW,
        finished=NOW,
        attestation=_EVIDENCE,
        replaced=True,
    )
    bound = {"dataset": "web", "digest": digest, "snapshot": shot}
    by = ("restore", "erin-restorer")
    what = "restore.replace"
    book.add("restore", restored, "erin-restorer", void=f"{what} needs", name="not approved")
    act("replaces by another", by, restored, (what, bound | {"snapshot": 0}), _PLAN)
    act("replaces by another digest", by, restored, (what, bound | {"digest": "0" * 64}), _PLAN)
    act("replaces by another dataset", by, restored, (what, bound | {"dataset": "db"}), _PLAN)
    act("replaces", by, restored, (what, bound))
    other = replace_body(restored, snapshot=0)
    bound = {"dataset": "web", "digest": str(book.digests[0]), "snapshot": 0}
    act("replaces by what is no snapshot", by, other, (what, bound), _PLAN)
    act("replaces by nothing", by, replace_body(restored, snapshot=None), (what, bound), _PLAN)
    kept = replace_body(restored, replaced=False)
    book.add("restore", kept, "erin-restorer", name="a restore that replaces nothing is no act")
    act("it names a warrant", by, kept, (what, bound), "for the act")


_PLAN = "for another plan"
_DAY = "2026-03-02T00:00:00Z"
_EVIDENCE = str(Digest.of(b"evidence"))


def _with_snapshot(book: Book) -> int:
    """A host of the domain, and its snapshot; gives its number."""
    secrets = b"secrets"
    sealed = str(Digest.of(secrets))
    domain = DomainRef(
        name="default",
        object=f"domains/default/{sealed}",
        sha256=sealed,
        size=len(secrets),
        version="1",
    )
    inventory = (
        f"# vault-inventory 1\n# objects 1\n# bytes 7\n{sealed}\t7\t1\t{domain.object}\n".encode()
    )
    listed = str(Digest.of(inventory))
    host = replace_body(enrolled("cache"), domain=domain)
    book.add("writer", host, "alice-enroller")
    body = SnapshotBody(
        dataset="web",
        created=NOW,
        complete=True,
        counts=Counts(),
        tree=TreeRef(id="ab" * 32, level=0, commitment="cd" * 32),
        inventory=InventoryRef(sha256=listed, size=len(inventory), version="1", objects=1, bytes=7),
        mode=LockMode.NONE,
        until=NOW + timedelta(days=1),
    )
    book.objects |= {
        domain.object: secrets,
        f"inventory/{listed}": inventory,
        f"evidence/{_EVIDENCE}": b"evidence",
    }
    return book.add("snapshot", body, "cache")


def not_understood() -> dict[str, tuple[Book, bool]]:
    """Ledgers whose last statement is not understood, and whether it ends reading."""
    return {
        "a root of two by a warrant": (_later("root", "alice-root", "bob-root"), True),
        "a root of which one signed": (_later("root", "alice-root"), False),
        "a root by a warrant for a writer": (
            _later("root", "alice-root", "bob-root", act="writer.add"),
            False,
        ),
        "a root by a warrant that expired": (
            _later("root", "alice-root", "bob-root", expires="2026-03-01T01:00:00Z"),
            False,
        ),
        "a root by a warrant for another": (
            _later("root", "alice-root", "bob-root", values={}),
            False,
        ),
        "a root that removes a recipient": (
            _later("root", "alice-root", "bob-root", act="recipient.remove"),
            True,
        ),
        "a writer of two by a warrant": (
            _later("writer", "alice-enroller", "bob-enroller", two_enrollers=True),
            True,
        ),
        "a writer of which one signed": (
            _later("writer", "alice-enroller", two_enrollers=True),
            False,
        ),
        "a writer by a warrant for a root": (
            _later("writer", "alice-enroller", "bob-enroller", two_enrollers=True, act="root"),
            False,
        ),
    }


def _later(kind: str, *people: str, two_enrollers: bool = False, **changes: Any) -> Book:
    """A statement of version 2, signed by the first of the people; the others by a warrant."""
    book = begun(root_of_people(), two_enrollers=two_enrollers)
    said = {"act": "root" if kind == "root" else "writer.lend", **changes}
    fields = {"new": [1, 2]}

    def edit(statement: dict[str, Any]) -> None:
        statement["predicateType"] = f"urn:vault:{kind}:v2"
        statement["predicate"]["body"] = fields

    book.agreed(
        said.pop("act"),
        HeartbeatBody(note="x"),
        people[0],
        kind="heartbeat",
        people=people,
        values=said.pop("values", fields),
        edit=edit,
        expect="unknown",
        requester=key_id(people[0]),
        **said,
    )
    return book
