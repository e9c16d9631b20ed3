"""How often the blocks of tree packs are read."""

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

from vault.format.pack import BlockPlace
from vault.repository.tree_blocks import TREE_BLOCKS, TreeBlocks


class Pack:
    """Blocks of two chunks, each chunk its id four times; notes which blocks are read."""

    def __init__(self, name: bytes) -> None:
        self.read: list[int] = []
        self.opened = 0
        self._name = name

    def chunk_id(self, block: int, at: int) -> bytes:
        """As the tree would name it."""
        return b"%s %02d %d" % (self._name, block, at)

    def _iter_chunks(self) -> Iterator[BlockPlace]:
        self.opened += 1
        for block in range(TREE_BLOCKS + 1):
            for at in range(2):
                chunk_id = self.chunk_id(block, at)
                length = 4 * len(chunk_id)
                yield BlockPlace(id=chunk_id, block=block, offset=at * length, length=length)

    @property
    def directory(self) -> Any:
        """Where the chunks lie."""
        return SimpleNamespace(iter_chunks=self._iter_chunks)

    def blocks(self, numbers: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """The blocks of these numbers, opened."""
        for number in numbers:
            self.read.append(number)
            yield number, b"".join(self.chunk_id(number, at) * 4 for at in range(2))


def test_neighbouring_chunks_cost_one_read_of_their_block() -> None:
    """Of two packs in turn, too, whose blocks have the same numbers; the directory is read once."""
    packs: list[Any] = [Pack(b"one"), Pack(b"two")]
    blocks = TreeBlocks()
    for block in range(3):
        for at in (0, 1, 0):
            for number, pack in enumerate(packs):
                wanted = pack.chunk_id(block, at)
                assert blocks.chunk(number, pack, wanted) == wanted * 4
    assert [pack.read for pack in packs] == [[0, 1, 2]] * 2
    assert [pack.opened for pack in packs] == [1, 1]


def test_only_the_blocks_last_used_are_kept() -> None:
    """The one whose last use is longest ago gives way: memory does not grow with the tree."""
    pack: Any = Pack(b"one")
    blocks = TreeBlocks()
    order = [*range(TREE_BLOCKS), 0, TREE_BLOCKS, 0, 1]
    for block in order:
        blocks.chunk(0, pack, pack.chunk_id(block, 0))
    assert pack.read == [*range(TREE_BLOCKS), TREE_BLOCKS, 1]
