"""`vault find`: in which snapshots a file is."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from cli import snapshot_views
from cli.exits import EXIT_DEGRADED, EXIT_INTEGRITY, EXIT_USAGE, exit_code_of, gravest
from cli.output import entry_text, long_output, render
from cli.session import Invocation, pass_invocation
from vault.browse import path_matcher
from vault.clock import to_rfc3339
from vault.crypto.key_files import RecoveryKey
from vault.errors import ConfigError, IntegrityError, StorageError, WrongKeyError
from vault.format.entry import Entry
from vault.ledger.chain import Ledger
from vault.ledger.records import Record
from vault.repository.datasets import owed
from vault.repository.repository import Repository, snapshot_body

_HEADINGS = ("snapshot", "taken", "modified", "size", "path")
_RIGHT = {0, 1, 2, 3}


@click.command()
@click.argument("pattern")
@click.option("--dataset", metavar="DATASET", help="Only snapshots of this dataset.")
@pass_invocation
def find(invocation: Invocation, *, pattern: str, dataset: str | None) -> int:
    """Find what matches PATTERN in all snapshots, newest first.

    PATTERN is a glob: * any characters, ? one, [...] one of these. With a / it must
    match the whole path, as in 'vault ls', else the name. Snapshots that are no longer
    to be kept are left out. Exit 2: nothing matches; 3: entries that break a rule
    were stepped over; 4: a snapshot is damaged, and was not searched to its end; 13: the store
    did not give one; 12: this key does not open one. Each is reported, and the others are searched.
    Needs recovery.key.
    """
    matches = path_matcher(os.fsencode(pattern))
    repository = invocation.open()
    ledger = repository.ledger
    records = owed(ledger, ledger.snapshots(), invocation.clock())
    if dataset is not None:
        records = [record for record in records if snapshot_body(record).dataset == dataset]
    if not records:
        known = ", ".join(repository.ledger.datasets()) or "none"
        raise ConfigError("there is no snapshot to search", hint=f"datasets here: {known}")
    search = _Search(invocation, repository, invocation.secrets.recovery_key(repository), matches)
    found = search.run(records[::-1])
    if invocation.options.json:
        items = (_fields(ledger, record, entry) for record, entry in found)
        long_output.emit_json_list(
            "vault/find/v1",
            {"pattern": pattern},
            "matches",
            items,
            tail=lambda: {"failed": search.failed, "flaws": search.flaws},
        )
    else:
        rows = (_row(ledger, record, entry) for record, entry in found)
        long_output.emit_table(_HEADINGS, rows, right=_RIGHT)
    for hint in search.hints:
        render.message("hint", hint)
    if not search.matched:
        searched = len(records) - len(search.failed)
        invocation.warn(
            f"nothing matches {pattern!r} in {render.plural(searched, 'snapshot')} searched"
        )
    return search.exit_code


class _Search:
    """Goes through snapshots, whatever one of them has."""

    def __init__(
        self,
        invocation: Invocation,
        repository: Repository,
        recovery: RecoveryKey,
        matches: Callable[[bytes], bool],
    ) -> None:
        self._invocation = invocation
        self._repository = repository
        self._recovery = recovery
        self._matches = matches
        self.matched = False
        self.failed: list[int] = []  # snapshots that could not be searched, or not to their end
        self.hints: dict[str, None] = {}  # hints of the errors, each once
        self._codes: set[int] = set()  # exit codes of the errors
        self.flaws: list[dict[str, Any]] = []  # of each snapshot that has some

    def run(self, records: Sequence[Record]) -> Iterator[tuple[Record, Entry]]:
        for record in records:
            try:
                yield from self._in(record)
            except (IntegrityError, WrongKeyError, StorageError) as error:
                self._invocation.warn(f"snapshot {record.seq} can't be searched: {error}")
                self.failed.append(record.seq)
                self._codes.add(exit_code_of(error))
                self.hints |= {error.hint: None} if error.hint else {}

    @property
    def exit_code(self) -> int:
        """The gravest exit code; a snapshot that was not searched counts before "no match"."""
        if self.failed:
            return gravest(self._codes)
        if not self.matched:
            return EXIT_USAGE
        return EXIT_DEGRADED if self.flaws else 0

    def _in(self, record: Record) -> Iterator[tuple[Record, Entry]]:
        with snapshot_views.view(
            self._invocation, self._repository, self._recovery, record, is_one_of_many=True
        ) as view:
            for entry in view.tree:
                if entry.path and self._matches(entry.path):
                    self.matched = True
                    yield record, entry
            code = snapshot_views.report_flaws(self._invocation, record.seq, view.flaws)
            if code == EXIT_INTEGRITY:
                self.failed.append(record.seq)
                self._codes.add(EXIT_INTEGRITY)
            if view.flaws:
                fields = entry_text.flaw_fields(view.flaws)
                self.flaws.append({"snapshot": record.seq, **fields})


def _row(ledger: Ledger, record: Record, entry: Entry) -> Sequence[object]:
    return (
        record.seq,
        render.moment(ledger.when(record)),
        entry_text.local_time(entry.mtime),
        f"{entry.size:,}",
        entry_text.listed_path(entry),
    )


def _fields(ledger: Ledger, record: Record, entry: Entry) -> dict[str, Any]:
    body = snapshot_body(record)
    return {
        "snapshot": record.seq,
        "dataset": body.dataset,
        "created": to_rfc3339(ledger.when(record)),
        "entry": entry_text.entry_fields(entry),
    }
