"""Which packs `verify` and `audit` read: from ``--read-data`` and ``--seed``."""

import secrets
from collections.abc import Sequence

from cli.values import ReadData
from vault.errors import ConfigError
from vault.ledger import Ledger, Record
from vault.sampling import NO_PACKS, NONCE_SIZE, WHOLE, Sample, draw, draw_again, next_slice


def sample_of(
    read_data: ReadData, seed: str | None, ledger: Ledger, records: Sequence[Record]
) -> Sample:
    """What is to be read of these snapshots.

    Raises:
        ConfigError: There is a seed and nothing to draw, or it is not one.
    """
    if read_data.is_drawn:
        if seed is not None:
            return draw_again(read_data.share, ledger=ledger, seed=seed)
        return draw(read_data.share, ledger=ledger, nonce=secrets.token_bytes(NONCE_SIZE))
    if seed is not None:
        raise ConfigError(
            "a seed is for a sample",
            found="--seed without a share to draw",
            hint="say how much to read, for example --read-data 5%",
        )
    if read_data.in_turn:
        return next_slice(ledger, records)
    return WHOLE if read_data.share else NO_PACKS


def sample_text(sample: Sample) -> str:
    """How it was chosen, for people."""
    if sample.slice is not None:
        return f"slice {sample.slice[0] + 1} of {sample.slice[1]}, whose turn it was"
    if sample.nonce:
        return f"{100 * sample.share:.6g} % of the packs, drawn by seed {sample.seed}"
    return "" if sample.is_whole else "no packs"
