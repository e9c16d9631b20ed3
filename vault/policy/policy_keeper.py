"""The retention of a run on a dataset that applied policies govern: they are a floor."""

from collections.abc import Callable
from datetime import datetime, timedelta

from vault.ledger.chain import Ledger
from vault.ledger.statements import StatementType
from vault.parameters import Parameters
from vault.policy.history import host_of, past_snapshots
from vault.policy.in_force import PoliciesInForce
from vault.policy.keeping import KeepDecision, decide
from vault.policy.terms import DatasetTerms, PolicyTerms
from vault.retention import KeptFor


class PolicyKeeper:
    """Keeps a snapshot as long as every policy asks that governs its dataset, or longer.

    Args:
        policies: What is in force by a ledger.
        ledger: The ledger at the start of the run.
        dataset: That is stored.
        key_id: Of the key that signs it.
        parameters: Of the repository.
        asked: What ``--retain`` asks for; None where it is not given.
    """

    def __init__(
        self,
        policies: Callable[[Ledger], PoliciesInForce],
        ledger: Ledger,
        *,
        dataset: str,
        key_id: str,
        parameters: Parameters,
        asked: timedelta | None,
    ) -> None:
        self._policies = policies
        self._dataset = dataset
        self._key_id = key_id
        self._minimum = timedelta(seconds=parameters.min_retention)
        self._longest = timedelta(seconds=parameters.max_retention)
        self._asked = asked
        self._known = (_statements(ledger), policies(ledger))
        self._floor = self._at_put()  # also where a policy ends while the run goes on

    @property
    def governed_by(self) -> list[str]:
        """Names of the policies that govern the dataset; by the ledger that was looked at last."""
        return [policy.name for policy, _ in self._known[1].of(self._dataset)]

    @property
    def at_put(self) -> timedelta:
        """See `vault.snapshot.snapshot_request.Keeper`."""
        return max(self._floor, self._at_put())

    def _at_put(self) -> timedelta:
        terms = [each.within for _, each in self._known[1].of(self._dataset)]
        within = max((timedelta(seconds=each) for each in terms), default=self._minimum)
        return min(max(within, self._minimum, self._asked or self._minimum), self._longest)

    def decide(self, ledger: Ledger, *, created: datetime, complete: bool) -> KeptFor:
        """See `vault.snapshot.snapshot_request.Keeper`."""
        if _statements(ledger) != self._known[0]:
            self._known = (_statements(ledger), self._policies(ledger))
        found = KeptFor(keep=self.at_put)
        for policy, terms in self._known[1].of(self._dataset):
            decision = self._decide(policy.terms, terms, ledger, created, complete=complete)
            if decision.keep > found.keep or not found.policy:
                found = KeptFor(
                    keep=min(max(decision.keep, found.keep), self._longest),
                    tiers=decision.tiers,
                    policy=str(policy.terms.digest),
                )
        return found

    def _decide(
        self,
        policy: PolicyTerms,
        terms: DatasetTerms,
        ledger: Ledger,
        created: datetime,
        *,
        complete: bool,
    ) -> KeepDecision:
        return decide(
            terms.rules(policy.timezone),
            past_snapshots(ledger, self._dataset),
            host=host_of(ledger, self._key_id),
            created=created,
            complete=complete,
            minimum=self._minimum,
            asked=self._asked,
        )


def _statements(ledger: Ledger) -> tuple[int, ...]:
    """What decides which policies are in force."""
    return tuple(record.seq for record in ledger.valid(StatementType.POLICY))
