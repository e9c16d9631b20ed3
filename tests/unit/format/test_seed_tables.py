"""Tables of seeds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vault.crypto.keys import RecipientKey
from vault.errors import ConfigError, FormatError, VaultError
from vault.format.seed_tables import (
    MAX_SEEDS,
    MAX_TABLE,
    SeedRows,
    encode_rows,
    open_rows,
    seal_rows,
    table_rows,
)

REPOSITORY = bytes(range(16))
KEY = RecipientKey.generate()
ROW = st.binary(min_size=32, max_size=32)


@given(st.dictionaries(ROW, ROW, min_size=1, max_size=20), ROW)
def test_every_seed_is_found_and_no_other(seeds: dict[bytes, bytes], other: bytes) -> None:
    """By a search in the bytes as they are stored."""
    rows = SeedRows(encode_rows(seeds))
    assert len(rows) == len(seeds)
    assert {key: rows.find(key) for key in seeds} == seeds
    assert rows.find(other) == seeds.get(other)


@settings(max_examples=50)
@given(st.binary(max_size=300))
def test_any_bytes_end_in_one_of_our_errors(data: bytes) -> None:
    """As a table, and as the plaintext of one."""
    with pytest.raises(VaultError):
        open_rows(data, REPOSITORY, KEY)
    with pytest.raises(FormatError):
        SeedRows(data[:2] + data)


def test_every_flip_and_cut_of_a_table_is_detected() -> None:
    """Header, sealed seed, ciphertext, tag."""
    table = seal_rows({bytes(32): bytes(32)}, REPOSITORY, KEY.public_raw)
    for at in (*range(0, len(table), 37), len(table) - 1):
        bad = table[:at] + bytes([table[at] ^ 1]) + table[at + 1 :]
        for each in (bad, table[:at]):
            with pytest.raises(VaultError):
                open_rows(each, REPOSITORY, KEY)


def test_the_largest_table_fits_into_the_limit() -> None:
    """And one row more is refused, as are none and a table that is larger than any."""
    seeds = {n.to_bytes(32, "big"): bytes(32) for n in range(MAX_SEEDS)}
    table = seal_rows(seeds, REPOSITORY, KEY.public_raw)
    assert len(table) <= MAX_TABLE
    assert table_rows(table, KEY.id) == MAX_SEEDS
    assert len(open_rows(table, REPOSITORY, KEY)) == MAX_SEEDS
    with pytest.raises(ConfigError):
        encode_rows({**seeds, b"x" * 32: bytes(32)})
    with pytest.raises(ConfigError):
        encode_rows({})
    with pytest.raises(FormatError, match="too large"):
        table_rows(table + bytes(MAX_TABLE), KEY.id)
