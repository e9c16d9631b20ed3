"""The body of a PUT that stalls half-way."""

import pytest

from vault.storage.s3_stalled_put import PausingBody


@pytest.mark.parametrize("size", [1, 2, 7, 8])
@pytest.mark.parametrize("asked", [None, -1, 1, 3, 100])
def test_a_stalled_body_is_sent_whole_with_one_pause_in_its_middle(
    size: int, asked: int | None
) -> None:
    """Whatever the client asks for at once; before it is sent, all is read without a pause."""
    data = bytes(range(size))
    paused: list[int] = []
    body = PausingBody(data, lambda: paused.append(body.tell()))
    assert body.read() == data
    assert paused == []
    body.seek(0)
    body.is_sent = True
    got = bytearray()
    while len(got) < size:
        part = body.read(asked)
        assert part, "a client takes no bytes as the end"
        got += part
    assert got == data
    assert paused == [size // 2]
