"""Frames of entry lists and journals."""

from typing import Any

import msgspec
import pytest

from vault.crypto.compression import compress
from vault.errors import FormatError
from vault.snapshot.list_records import (
    FRAME_LEVEL,
    ListRecord,
    RecordBatch,
    decode_frame,
    encode_packed,
)

MIB = 1 << 20


def _record(number: int, **fields: Any) -> ListRecord:
    """One with nothing in it but its path."""
    given: dict[str, Any] = {
        field.name: b"" if field.type is bytes else 0
        for field in msgspec.structs.fields(ListRecord)
    }
    return ListRecord(**{**given, "path": b"%06d" % number, **fields})


@pytest.mark.parametrize("field", ["canonical", "extra", "packs"])
def test_a_frame_is_full_at_a_mebibyte_of_whatever_fills_records(field: str) -> None:
    """So memory holds no more, however long the attributes or the list of packs."""
    batch = RecordBatch()
    records = [_record(number, **{field: bytes(10_000)}) for number in range(250)]
    frames = [decode_frame(frame) for frame in batch.add(records)]
    rest = decode_frame(batch.take())
    assert [record for frame in [*frames, rest] for record in frame] == records
    each = 10_000 + 64
    assert [len(frame) for frame in frames] == [-(-MIB // each)] * 2


@pytest.mark.parametrize("content", [b"", b"\xc1", b"\x01", b"\x91\x01", b"\x91\x91\xa1x"])
def test_a_frame_of_something_else_is_a_format_error(content: bytes) -> None:
    """It decompresses, and holds no records: another program may have written it."""
    assert decode_frame(compress(encode_packed([]), FRAME_LEVEL)) == []
    with pytest.raises(FormatError, match="malformed frame"):
        decode_frame(compress(content, FRAME_LEVEL))
