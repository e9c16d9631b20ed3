"""What prune plans doom, and what writers do not build on therefore (I4).

Doomed is what a plan names that a pruner's key signed, a void plan too: a stolen key may keep its
rights at the store for a while. A plan that can't be read dooms nothing. No plan stops a run: what
it dooms is stored anew.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from vault.errors import IntegrityError, StorageError, StorageUnavailableError, VaultError
from vault.format import inventory
from vault.ledger.chain import Ledger
from vault.ledger.records import Record, Status
from vault.ledger.statements import PruneBody
from vault.model import Code, Digest, Finding, ObjectRef, Severity

HEAVY_SHARE: Final = 0.05  # of what a snapshot needs: no honest plan dooms any of it

Doomed = frozenset[tuple[str, str]]  # names and versions of objects to delete


class Plans:
    """The prune plans of a ledger; each is read once.

    Args:
        ledger: Read up to its head.
        read: Gives the evidence of a digest.
    """

    def __init__(self, ledger: Ledger, read: Callable[[Digest], bytes]) -> None:
        self._ledger = ledger
        self._read_evidence = read
        self._known: dict[int, Doomed | VaultError] = {}  # by seq

    def doomed(self) -> Doomed:
        """The (name, version) of every object that a readable plan of any age names."""
        named: set[tuple[str, str]] = set()
        for _, plan in self._all():
            named |= plan if isinstance(plan, frozenset) else set()
        return frozenset(named)

    def unsure(self) -> bool:
        """Whether a valid plan can't be read, so that the objects it would delete are unknown.

        Meanwhile a writer relies only on objects that it locked itself; where no lock holds, on
        none.
        """
        return any(
            record.status is Status.VALID and isinstance(plan, VaultError)
            for record, plan in self._all()
        )

    def unreadable(self) -> Iterator[Finding]:
        """Plans that can't be read."""
        for record, plan in self._all():
            if isinstance(plan, VaultError):
                yield Finding(
                    severity=Severity.ERROR,
                    subject=f"ledger {record.seq}",
                    problem="the prune plan can't be read, so it permits no deletion",
                    found=str(plan),
                    code=Code.UNREADABLE_PLAN,
                )

    def heavy(self, needed: Iterable[ObjectRef]) -> Iterator[Finding]:
        """Plans that doom too much of what a snapshot needs for an honest pruner.

        Args:
            needed: All objects that the newest snapshot of a dataset needs.
        """
        objects = {(ref.name, ref.version) for ref in needed}
        for record, plan in self._all():
            hit = len(objects & plan) if isinstance(plan, frozenset) else 0
            if hit > HEAVY_SHARE * len(objects):
                yield Finding(
                    severity=Severity.ERROR,
                    subject=f"ledger {record.seq}",
                    problem=f"the prune plan names {hit} of {len(objects)} objects that the newest"
                    " snapshot needs; what it names is stored anew",
                    found=f"key {record.key_id}",
                    code=Code.HEAVY_PLAN,
                )

    def _all(self) -> Iterator[tuple[Record, Doomed | VaultError]]:
        for record in self._ledger.plans():
            if record.seq not in self._known:
                self._known[record.seq] = self._read(record)
            yield record, self._known[record.seq]

    def _read(self, record: Record) -> Doomed | VaultError:
        assert isinstance(record.body, PruneBody)
        try:
            named = self._named(record.body.plan)
            spared = self._named(record.body.spared) if record.body.spared else frozenset()
        except StorageUnavailableError:
            raise  # the store failed; that says nothing of the plan
        except (IntegrityError, StorageError) as error:
            return error
        return named - spared

    def _named(self, digest: str) -> Doomed:
        refs = inventory.parse_plan(self._read_evidence(Digest.parse(digest)))
        return frozenset((ref.name, ref.version) for ref in refs)
