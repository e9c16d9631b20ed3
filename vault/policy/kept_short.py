"""Snapshots that promise less than their policies asked when they were taken.

Everyone can repeat the decision from public data: the ledger, and the terms that it cites.
"""

import bisect
import dataclasses
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from vault.ledger.chain import Ledger
from vault.ledger.records import Record, Status
from vault.ledger.statements import SnapshotBody
from vault.policy.history import checks_of_one, host_of
from vault.policy.in_force import PoliciesInForce, policy_timeline
from vault.policy.keeping import KeepRules, PeriodCoverage, decide_covered
from vault.repository.repository import Repository
from vault.retention import snapshot_until

_SHORTEST = timedelta(seconds=1)
_DAY = timedelta(days=1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeptShort:
    """A snapshot that is kept for less than a policy asked."""

    record: Record
    policy: str  # its name
    until: datetime  # what the snapshot promises
    asked: datetime  # what the policy asked
    reasons: tuple[str, ...]
    sure: bool  # False: right a day earlier or later, as where a zone's rules changed since


def kept_short(repository: Repository) -> Iterator[KeptShort]:
    """All of them, by dataset.

    Snapshots that counted when they were published cover periods here, also those that were voided
    since: who took the next one could not know.
    """
    timeline = policy_timeline(repository)
    if len(timeline) == 1:
        return
    longest = timedelta(seconds=repository.parameters.max_retention)
    checks = list(checks_of_one(repository.ledger))
    for dataset in repository.ledger.datasets():
        yield from _OneDataset(repository.ledger, dataset, timeline, longest).short(checks)


@dataclasses.dataclass(frozen=True, slots=True)
class _Past:
    host: str
    when: datetime
    until: datetime
    complete: bool
    seq: int


class _OneDataset:
    """Goes through the snapshots of a dataset in their order."""

    def __init__(
        self,
        ledger: Ledger,
        dataset: str,
        timeline: Sequence[tuple[int, PoliciesInForce]],
        longest: timedelta,
    ) -> None:
        self._ledger = ledger
        self._dataset = dataset
        self._timeline = timeline
        self._seqs = [seq for seq, _ in timeline]
        self._longest = longest
        self._past: list[_Past] = []
        self._failed: set[int] = set()
        self._known: dict[tuple[str, str, str], PeriodCoverage] = {}

    def short(self, checks: Sequence[tuple[int, int, bool]]) -> Iterator[KeptShort]:
        """See `kept_short`; with all that `checks_of_one` gives."""
        end = len(self._ledger.records)
        seen = 0
        for record in reversed(list(self._ledger.published_before(self._dataset, end))):
            while seen < len(checks) and checks[seen][0] < record.seq:
                _, about, is_failed = checks[seen]
                self._judge(about, is_failed=is_failed)
                seen += 1
            past = self._as_past(record)
            if record.status is Status.VALID:
                yield from self._compared(record, past)
            self._past.append(past)
            for (host, _, _), coverage in self._known.items():
                if host == past.host:
                    coverage.add(past.when, past.until, complete=past.complete)

    def _judge(self, about: int, *, is_failed: bool) -> None:
        """A check of one snapshot; what was known to be covered is counted anew."""
        if (about in self._failed) is not is_failed:
            (self._failed.add if is_failed else self._failed.discard)(about)
            self._known.clear()

    def _as_past(self, record: Record) -> _Past:
        assert isinstance(record.body, SnapshotBody)
        return _Past(
            host=host_of(self._ledger, record.key_id),
            when=self._ledger.when(record),
            until=self._ledger.effective_until(record),
            complete=record.body.complete,
            seq=record.seq,
        )

    def _compared(self, record: Record, past: _Past) -> Iterator[KeptShort]:
        assert isinstance(record.body, SnapshotBody)
        in_force = self._timeline[bisect.bisect_left(self._seqs, record.seq) - 1][1]
        for policy, terms in in_force.of(self._dataset):
            rules = terms.rules(policy.terms.timezone)
            coverage = self._coverage(past.host, str(policy.terms.digest), terms.name, rules)
            asked, reasons = self._asked(rules, coverage, past, past.when)
            if record.body.until >= asked:
                continue
            shifted = [
                self._asked(rules, coverage, past, past.when + shift)[0] - shift
                for shift in (-_DAY, _DAY)
            ]
            yield KeptShort(
                record=record,
                policy=policy.name,
                until=record.body.until,
                asked=asked,
                reasons=reasons,
                sure=record.body.until < min(shifted),
            )

    def _asked(
        self, rules: KeepRules, coverage: PeriodCoverage, past: _Past, created: datetime
    ) -> tuple[datetime, tuple[str, ...]]:
        decision = decide_covered(
            rules, coverage, created=created, complete=past.complete, minimum=_SHORTEST
        )
        return snapshot_until(created, min(decision.keep, self._longest)), decision.reasons

    def _coverage(self, host: str, digest: str, name: str, rules: KeepRules) -> PeriodCoverage:
        place = (host, digest, name)
        if place not in self._known:
            coverage = PeriodCoverage(rules.tiers, rules.zone)
            for each in self._past:
                if each.host == host and each.seq not in self._failed:
                    coverage.add(each.when, each.until, complete=each.complete)
            self._known[place] = coverage
        return self._known[place]
