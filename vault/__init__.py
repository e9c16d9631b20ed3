"""An immutable backup vault: history that can't be rewritten, recoveries that are proven.

Programs call the names in this package; errors are those of `vault.errors`. A few lines open a
repository with the key file of this host, and compare it with what this machine remembers of it:

>>> import vault
>>> from pathlib import Path
>>> keys, state, cache = Path("keys"), Path("state"), Path("cache")
>>> writer = vault.load_writer(keys / "writer.key")
>>> root = vault.Digest.parse(writer.repository.root)
>>> store = vault.open_store(writer.repository.url, endpoint=writer.repository.endpoint)
>>> repository = vault.open_repository(store, root, clock=vault.utc_now, state=state)

That key alone takes a snapshot of a directory:

>>> request = vault.SnapshotRequest(paths=[Path("data")], dataset="web", tool="example 1")
>>> with vault.make_workers() as workers:
...     taken = vault.take_snapshot(
...         repository, writer, request, cache_dir=cache, state_dir=state, workers=workers
...     )
>>> taken.record.seq, taken.problems
(2, ())

Reading needs the recovery key. A restore reads back from the disk what it wrote, compares it with
what was signed, and only then puts it in place. A verification reads the store:

>>> recovery = vault.load_recovery(keys / "recovery.key", b"a passphrase")
>>> wish = vault.RestoreRequest(record=taken.record, target=Path("restored"), tool="example 1")
>>> here = vault.Local(state=state, host="here", user="me")
>>> with vault.make_workers() as workers:
...     restored = vault.restore_snapshot(
...         repository, recovery, wish, local=here, scratch=cache, workers=workers
...     )
...     report = vault.verify_snapshots(
...         repository, [taken.record], recovery=recovery, scratch=cache, workers=workers
...     )
>>> str(restored.outcome), Path("restored/greeting").read_text()
('recovered', 'hello')
>>> str(report.verdict), report.whole
('passed', (2,))
"""

from importlib import import_module
from typing import TYPE_CHECKING

from vault.version import __version__

if TYPE_CHECKING:  # `import vault` stays cheap: a name is imported when it is first asked for
    from vault.audit.audit import audit_repository
    from vault.browse.diff import diff_trees
    from vault.browse.view import View
    from vault.clock import utc_now
    from vault.crypto.key_files import load_recovery, load_root, load_writer
    from vault.custody.heal import heal_repository
    from vault.machine.workers import make_workers
    from vault.model import Digest, LockMode
    from vault.parameters import Parameters
    from vault.repository.attestations import record_attestation
    from vault.repository.enrolment import InitRequest, add_writer, create_repository, revoke_writer
    from vault.repository.opening import open_repository, open_to_audit
    from vault.repository.repository import Repository
    from vault.repository.snapshot_spec import select_snapshot
    from vault.restore.attesting import finalize_restore
    from vault.restore.journal import Local
    from vault.restore.restore import restore_snapshot
    from vault.restore.restore_report import RestoreRequest
    from vault.restore.undo_finalize import undo_restore
    from vault.snapshot.snapshot import take_snapshot
    from vault.snapshot.snapshot_request import SnapshotRequest
    from vault.storage.choose_store import open_store
    from vault.verify.verify import verify_snapshots

__all__ = [
    "Digest",
    "InitRequest",
    "Local",
    "LockMode",
    "Parameters",
    "Repository",
    "RestoreRequest",
    "SnapshotRequest",
    "View",
    "__version__",
    "add_writer",
    "audit_repository",
    "create_repository",
    "diff_trees",
    "finalize_restore",
    "heal_repository",
    "load_recovery",
    "load_root",
    "load_writer",
    "make_workers",
    "open_repository",
    "open_store",
    "open_to_audit",
    "record_attestation",
    "restore_snapshot",
    "revoke_writer",
    "select_snapshot",
    "take_snapshot",
    "undo_restore",
    "utc_now",
    "verify_snapshots",
]

_HOMES = {
    "vault.audit.audit": ("audit_repository",),
    "vault.browse.diff": ("diff_trees",),
    "vault.browse.view": ("View",),
    "vault.clock": ("utc_now",),
    "vault.crypto.key_files": (
        "load_recovery",
        "load_root",
        "load_writer",
    ),
    "vault.custody.heal": ("heal_repository",),
    "vault.machine.workers": ("make_workers",),
    "vault.model": (
        "Digest",
        "LockMode",
    ),
    "vault.parameters": ("Parameters",),
    "vault.repository.attestations": ("record_attestation",),
    "vault.repository.enrolment": (
        "InitRequest",
        "add_writer",
        "create_repository",
        "revoke_writer",
    ),
    "vault.repository.opening": (
        "open_repository",
        "open_to_audit",
    ),
    "vault.repository.repository": ("Repository",),
    "vault.repository.snapshot_spec": ("select_snapshot",),
    "vault.restore.attesting": ("finalize_restore",),
    "vault.restore.journal": ("Local",),
    "vault.restore.restore_report": ("RestoreRequest",),
    "vault.restore.restore": ("restore_snapshot",),
    "vault.restore.undo_finalize": ("undo_restore",),
    "vault.snapshot.snapshot": ("take_snapshot",),
    "vault.snapshot.snapshot_request": ("SnapshotRequest",),
    "vault.storage.choose_store": ("open_store",),
    "vault.verify.verify": ("verify_snapshots",),
}

if not TYPE_CHECKING:  # a name that is not in `__all__` is an error of the type check

    def __getattr__(name: str) -> object:
        """A public name, from the module that defines it (PEP 562)."""
        for home, names in _HOMES.items():
            if name in names:
                return getattr(import_module(home), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
