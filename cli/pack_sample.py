"""Which packs `verify` and `audit` read: from ``--read-data`` and ``--seed``."""

import secrets
from collections.abc import Sequence

from cli.option_values import ReadData
from vault.custody.sampling import (
    NO_PACKS,
    NONCE_SIZE,
    SLICES,
    WHOLE,
    Sample,
    draw,
    draw_again,
    next_slice,
)
from vault.errors import ConfigError
from vault.ledger.chain import Ledger
from vault.ledger.records import Record


def sample_of(
    read_data: ReadData,
    seed: str | None,
    ledger: Ledger,
    records: Sequence[Record],
    *,
    is_recorded: bool,
) -> Sample:
    """The sample of these snapshots' packs to read.

    Args:
        read_data: How much was asked for.
        seed: The value of ``--seed``.
        ledger: The ledger, read up to its head.
        records: The snapshots.
        is_recorded: The result goes into the ledger, which then gives the next slice its turn.
            False: chance chooses the slice, as otherwise it would always be the same.

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
    if read_data.in_turn and not is_recorded:
        return Sample(slice=(secrets.randbelow(SLICES), SLICES))
    if read_data.in_turn:
        return next_slice(ledger, records)
    return WHOLE if read_data.share else NO_PACKS


def sample_text(sample: Sample, *, is_recorded: bool) -> str:
    """How the sample was chosen, for people."""
    if sample.slice is not None:
        how = "whose turn it was" if is_recorded else "by chance: no turn without recovery.key"
        return f"slice {sample.slice[0] + 1} of {sample.slice[1]}, {how}"
    if sample.nonce:
        return f"{100 * sample.share:.6g} % of the packs, drawn by seed {sample.seed}"
    return "" if sample.is_whole else "no packs"
