"""The choices of a repository that its root fixes, with their defaults (docs/format.md 2.3)."""

from datetime import timedelta

from vault.model import Body, LockMode


class Parameters(Body, frozen=True, kw_only=True):
    """Repository-wide choices, fixed in the root."""

    suite: int = 1
    lock_mode: LockMode
    data_chunk: tuple[int, int, int] = (262_144, 1_048_576, 4_194_304)  # min, average, max bytes
    tree_chunk: tuple[int, int, int] = (4_096, 16_384, 65_536)  # min, average, max bytes
    block_size: int = 1_048_576  # bytes of plaintext
    pack_size: int = 33_554_432  # bytes as stored, target
    lock_grid: int = 864_000  # seconds: 10 days
    min_retention: int = 604_800  # seconds: 7 days
    default_retention: int = 2_592_000  # seconds: 30 days
    max_retention: int = 34_560_000  # seconds: 400 days
    versions_ordered: bool = False  # `store check` saw versions listed in commit order
    checksums_refused: bool = False  # `store check` saw a wrong checksum refused
    extend: bool = True  # locks may be extended; false where a right to extend could shorten

    @property
    def ledger_term(self) -> int:
        """Seconds that ledger, pages, evidence and domain objects are locked."""
        return 2 * (self.max_retention + 30 * 86_400)

    @property
    def ledger_span(self) -> timedelta:
        """`ledger_term` as a duration."""
        return timedelta(seconds=self.ledger_term)
