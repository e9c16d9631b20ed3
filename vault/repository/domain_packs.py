"""The packs of a domain, according to signed snapshots of its trusted writers.

See I10 in docs/invariants.md. If a writer is distrusted from statement n and revoked at
statement m, index objects listed by *any* writer in n…m are ignored: an honest host may
have merged false rows of that writer into its own index.
"""

import dataclasses
import logging
from collections.abc import Iterator, Sequence

from vault.crypto.key_files import DomainSecrets
from vault.errors import IntegrityError
from vault.format import pack_index
from vault.format.pack_index import IndexEntry
from vault.ledger.chain import Ledger
from vault.ledger.records import Record
from vault.ledger.statements import StatementType, WriterBody
from vault.model import ObjectRef
from vault.repository.repository import Repository

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """An index object, and the snapshot that vouches for it."""

    ref: ObjectRef
    seq: int


def distrusted_spans(ledger: Ledger, domain: str) -> tuple[tuple[int, int], ...]:
    """Ranges of seqs (first, last) in which snapshots of a domain are not believed."""
    spans = []
    for record in ledger.valid(StatementType.WRITER):
        body = record.body
        assert isinstance(body, WriterBody)
        if body.distrust_from is None:
            continue
        writers = (writer for writer in ledger.writers.values() if writer.name == body.name)
        if any(writer.domain is not None and writer.domain.name == domain for writer in writers):
            spans.append((body.distrust_from, record.seq))
    return tuple(spans)


def snapshots_of(ledger: Ledger, domain: str, dataset: str | None = None) -> list[Record]:
    """The snapshots of a domain's trusted writers that are believed, by seq."""
    trusted = ledger.domain_writers(domain)
    spans = distrusted_spans(ledger, domain)
    return [
        record
        for record in ledger.snapshots(dataset)
        if record.key_id in trusted
        and not any(first <= record.seq <= last for first, last in spans)
    ]


def index_objects(repository: Repository, domain: str) -> list[Listed]:
    """The index objects that the newest believed snapshots of a domain list, by name."""
    newest: dict[str, Record] = {}
    for dataset in repository.ledger.datasets():
        own = snapshots_of(repository.ledger, domain, dataset)
        if own:
            newest[dataset] = own[-1]
    listed = {
        ref.name: Listed(ref=ref, seq=record.seq)
        for record in newest.values()
        for ref in _index_of(repository, record)
    }
    return [listed[name] for name in sorted(listed)]


def _index_of(repository: Repository, record: Record) -> Sequence[ObjectRef]:
    inventory = repository.usable_inventory(record)
    return () if inventory is None else inventory.index


def indexed_packs(repository: Repository, secrets: DomainSecrets) -> Iterator[IndexEntry]:
    """The packs in the index objects of a domain; a damaged object is skipped."""
    for listed in index_objects(repository, secrets.name):
        try:
            data = repository.read(listed.ref)
            entries = pack_index.open_index(data, secrets.index_key, repository.id)
        except IntegrityError as error:
            _log.warning("%s is ignored: %s", listed.ref.name, error)
            continue
        yield from entries
