"""The plan of a restore, made before its target is touched: entries, packs, and the room they need.

Every chunk that is needed is known to lie in a pack, and the target to have room, before
anything is written.
"""

import array
import logging
import os
from collections import Counter
from collections.abc import Collection, Iterator

from vault.errors import (
    ConfigError,
    DigestMismatchError,
    FormatError,
    MissingObjectError,
    VaultError,
)
from vault.format.entry import Entry, hole_size
from vault.format.tree import Flaws
from vault.format.tree_file import Spool
from vault.ledger.statements import COUNTED
from vault.model import EntryType
from vault.repository.reader import Reader
from vault.repository.repository import Repository
from vault.restore.fetch import FetchPlan
from vault.restore.include_filter import Selection, Wanted, nameable, select_entries
from vault.restore.restore_report import BadEntriesError, RestoreRequest
from vault.restore.syscalls import MAX_PART, is_nameable
from vault.restore.target import Space, Target, check_space, open_space
from vault.storage.names import PACKS, is_pack

_log = logging.getLogger(__name__)


class RestorePlan:
    """What one attempt restores; `prepare` fills it.

    Args:
        repository: Read up to its head.
        reader: Of the snapshot.
        spool: Takes the tree.
        request: What is wanted.
        target: Where to.
    """

    def __init__(
        self,
        repository: Repository,
        reader: Reader,
        spool: Spool,
        request: RestoreRequest,
        target: Target,
    ) -> None:
        self._repository = repository
        self._reader = reader
        self._spool = spool
        self._request = request
        self._target = target
        self.fetch = FetchPlan(reader)
        self.directories = array.array("Q")  # places in the spool
        self.empty = array.array("Q")
        self.giants = array.array("Q")
        self.vast = array.array("Q")  # those with a tree hash
        self.others = array.array("Q")
        self.kinds: set[EntryType] = set()
        self.flaws = Flaws()
        self.unnameable = 0
        self.copied: dict[bytes, tuple[int, Entry]] = {}  # files restored at another path
        self.size = 0
        self.tally: Counter[str] = Counter()
        self.selection: Selection | None = None
        self.missing: Collection[str] = ()

    def prepare(self) -> Selection:
        """Plan the restore; check that every chunk is stored and that the target has room."""
        self.missing = missing = self._missing_packs()
        self._reader.load_packs(missing=missing)
        space = open_space(self._target)
        try:
            self.flaws = self._spool.sift(self._tree)
            self._check_flaws()
            self.selection = selection = select_entries(self._spool, self._wanted())
            self._make_plan(selection, space)
        except MissingObjectError as error:
            raise self._explained(error, missing) from error
        if selection.is_partial and space.inodes <= 1:
            raise self._nothing_matches()
        check_space(self._target, space)
        return selection

    def _tree(
        self, flaws: Flaws, kept: Iterator[bool] | None
    ) -> Iterator[tuple[Entry | None, bytes]]:
        """Entries of the tree; counts wanted ones whose names are too long for the target."""
        self.unnameable = 0
        wanted = self._request.wanted
        for entry, canonical in self._reader.tree(flaws, kept):
            if entry is not None and not is_nameable(entry.path):
                is_directory = entry.type is EntryType.DIRECTORY
                self.unnameable += wanted is None or wanted(entry.path, is_directory)
            yield entry, canonical

    def _wanted(self) -> Wanted | None:
        """The caller's selection, without entries whose names are too long for the target."""
        if not self.unnameable:
            return self._request.wanted
        _log.warning(
            "left out: %d names with a part of over %d bytes, which the target can't have;"
            " 'vault cat' gives what is in such files",
            self.unnameable,
            MAX_PART,
        )
        return nameable(self._request.wanted)

    def _check_flaws(self) -> None:
        """Allow bad entries to be skipped only in a restore of a selection.

        Raises:
            BadEntriesError: The whole snapshot was asked for.
            IntegrityError: The tree can't be read to its end, so that nothing in it is proven.
        """
        seq = self._request.record.seq
        end = self.flaws.end
        if end is not None:
            raise DigestMismatchError(
                f"the tree of snapshot {seq} can't be read to its end, so no restore of it can"
                f" be proven; TARGET is as it was: {end.error}",
                hint=f"'vault list' shows other snapshots; 'vault ls {seq}', 'vault cat' and"
                " 'vault mount' give what lies before the damage",
            ) from end.error
        if self.flaws and self._request.wanted is None:
            raise BadEntriesError(self._request.record, self.flaws)

    def _nothing_matches(self) -> VaultError:
        """Why nothing would be restored: no entry matches, or the matching entries are bad."""
        seq, wanted = self._request.record.seq, self._request.wanted
        if self.unnameable:
            kind = FormatError if wanted is None else ConfigError  # a snapshot of nothing else
            return kind(
                f"nothing that is wanted of snapshot {seq} can have its name in the target",
                expected=f"names of at most {MAX_PART} bytes",
                hint="'vault cat' gives what is in such files",
            )
        assert wanted is not None
        for path, bad in self.flaws.paths.items():
            if wanted(path, False):
                shown = os.fsdecode(path[:200])
                return FormatError(
                    f"{shown!r} of snapshot {seq} can't be restored: its entry {bad.text};"
                    " TARGET is as it was",
                    hint="'vault find' shows it in other snapshots",
                )
        return ConfigError(
            f"nothing in snapshot {seq} matches what is to be included",
            found=f"{self.flaws.count} entries that can't be read" if self.flaws else None,
            hint="'vault ls' shows the paths, which patterns are relative to",
        )

    def _explained(self, error: VaultError, missing: Collection[str]) -> VaultError:
        """The error to raise for a chunk that can't be found.

        It names the missing packs, if there are any, else an unreadable pack, else it is `error`.
        """
        lost = sorted(self._reader.unreadable.keys() & set(missing))
        if lost:
            return MissingObjectError(
                f"{len(lost)} of {len(self._reader.inventory.objects)} objects that snapshot"
                f" {self._request.record.seq} needs are missing or cut short, and not all that"
                " they held lies elsewhere",
                found=lost[0],
                hint="run 'vault verify' for all of them",
            )
        return next(iter(self._reader.unreadable.values()), error)

    def _missing_packs(self) -> set[str]:
        """Needed packs of which the store lists no version of the expected size."""
        packs = (r for r in self._reader.inventory.objects if is_pack(r.name))
        sizes = {ref.name: ref.size for ref in packs}
        found = {
            version.name
            for version in self._repository.store.versions(PACKS)
            if not version.marker and version.size == sizes.get(version.name)
        }
        return sizes.keys() - found

    def _make_plan(self, selection: Selection, space: Space) -> None:
        """Sort entries into directories, content and the rest; add up the space they need."""
        for place, entry, _ in self._spool.places():
            if not selection.takes(entry):
                if entry.path in selection.files:
                    self.copied[entry.path] = (place, entry)
                continue
            self.kinds.add(entry.type)
            self.tally.update((COUNTED[entry.type],))
            if entry.type is EntryType.DIRECTORY:
                self.directories.append(place)
                space.add(0, directory=True)
            elif entry.type is EntryType.FILE:
                self._plan_file(place, entry, space)
            elif selection.files.get(entry.link or b"") == entry.path:
                self._plan_file(*self.copied[entry.link or b""], space)
            else:
                self.others.append(place)
                if entry.type is not EntryType.HARD_LINK:
                    space.add(0)
        self.fetch.end()

    def _plan_file(self, place: int, entry: Entry, space: Space) -> None:
        self.tally["size"] += entry.size
        if entry.tree_hash is not None:
            self.vast.append(place)
        data = entry.size - hole_size(entry)
        space.add(data)
        self.size += data
        if entry.chunk_list is not None or entry.hole_list is not None:
            self.fetch.check(entry)
            self.giants.append(place)
        elif data:
            self.fetch.add(place, entry)
        else:
            self.empty.append(place)
