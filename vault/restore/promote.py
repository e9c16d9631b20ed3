"""The last steps of a running restore: from staging to TARGET in one step.

See docs/design.md "Restore", I6.
"""

import contextlib
import os
from collections.abc import Iterator

from vault.errors import ConfigError, LocalError, VaultError
from vault.machine import metadata
from vault.restore import target as _target
from vault.restore.changed_since_proof import newest_change
from vault.restore.journal import KeptMeta, State
from vault.restore.stage import Staging
from vault.restore.swap import Promoted, Site, site_of
from vault.restore.syscalls import list_names, local_error


class Promotion:
    """The last steps of a restore, each durable before the next begins.

    Made when the whole tree is staged; then `proven`, `promote`, `recorded`. After a failure
    before `promote`, leaving the `Staging` block removes the tree. `promote` rolls its own
    failures back; if that fails too, the user calls `finalize` or `undo`. Once TARGET is the
    new state the restore has succeeded: errors after that go to `troubles`.

    Args:
        staging: The tree to promote, whole and with all attributes.

    Raises:
        LocalError: The journal can't be written.
    """

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self.troubles: list[VaultError] = []
        with _local_errors("flush", staging.path):
            staging.fs.syncfs(staging.fd)  # a tree promoted without proof must be durable, too
            top = metadata.read_meta(staging.fd, os.fstat(staging.fd))
            names = tuple(name.decode("latin-1") for name in list_names(staging.fd))
        journal = staging.journal
        self._save(
            state=State.STAGED,
            top=KeptMeta.of(top),
            mount=None if journal.mount is None else journal.mount.replace(names=names),
        )

    def proven(self, attestation: bytes, newest: int | None = None) -> None:
        """Write the attestation of the staged tree to the journal.

        Args:
            attestation: Signed by this process, which read the tree back.
            newest: Latest time of change below the top; None: look it up.

        Raises:
            LocalError: The journal can't be written.
        """
        if newest is None:
            with _local_errors("look at", self._staging.path):
                newest = newest_change(self._staging.fd, self._staging.fs)
        self._save(
            state=State.PROVEN,
            attestation=attestation.decode("utf-8"),
            newest="" if newest is None else str(max(newest, 0)),
        )

    def promote(self) -> Promoted:
        """Make TARGET the new state; the former one is kept at the staging name.

        Raises:
            ConfigError: Another process replaced TARGET or staging.
            LocalError: The file system failed. If `Staging.kept` is set, the user has to call
                `finalize` or `undo`; otherwise TARGET is as it was.
        """
        assert self._staging.journal.state is State.PROVEN
        _target.recheck(self._staging.target)
        with _local_errors("promote to", self._staging.target.path), self._opened_site() as site:
            self._staging.kept = True
            try:
                promoted = site.forward()
            except (OSError, VaultError):
                with contextlib.suppress(OSError, VaultError):
                    site.backward()
                    if self._staging.target.mount_point:
                        self._staging.find_again()
                    self._staging.kept = not site.is_untouched()
                raise
        self._try(state=State.EXCHANGED, atomic=promoted.atomic)
        return promoted

    def recorded(self) -> None:
        """Note in the journal that the attestation is recorded; only `finalize` is left."""
        self._try(state=State.RECORDED)

    def _try(self, **changes: object) -> None:
        try:
            self._save(**changes)
        except (LocalError, ConfigError) as error:
            self.troubles.append(error)

    def _save(self, **changes: object) -> None:
        self._staging.save(self._staging.journal.replace(**changes))

    @contextlib.contextmanager
    def _opened_site(self) -> Iterator[Site]:
        site = site_of(self._staging.parent, self._staging.journal, self._staging.fs)
        try:
            yield site
        finally:
            site.close()


@contextlib.contextmanager
def _local_errors(what: str, path: bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise local_error(what, path, error) from error
