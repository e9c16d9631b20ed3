"""Reads chunks of a tree from its packs, and keeps the blocks last used."""

from typing import Final

from vault.format.pack import BlockPlace
from vault.machine.lru import Recent
from vault.repository.pack_reader import PackReader

TREE_BLOCKS: Final = 16  # open blocks of tree packs: at most 16 × 8 MiB


class TreeBlocks:
    """Keeps the blocks last used, as neighbouring chunks follow."""

    def __init__(self) -> None:
        self._blocks: Recent[tuple[int, int], bytes] = Recent(TREE_BLOCKS)
        self._places: Recent[int, dict[bytes, BlockPlace]] = Recent(TREE_BLOCKS)

    def chunk(self, number: int, pack: PackReader, chunk_id: bytes) -> bytes:
        """A tree chunk, from its pack.

        Args:
            number: The number by which the pack is known here.
            pack: The pack that holds the chunk.
            chunk_id: The id of the chunk.

        Raises:
            IntegrityError: No version of the pack gives it.
        """
        places = self._places.get(number)
        if places is None:
            places = {place.id: place for place in pack.directory.iter_chunks()}
            self._places.put(number, places)
        place = places[chunk_id]
        key = (number, place.block)
        block = self._blocks.get(key)
        if block is None:
            ((_, block),) = pack.blocks([place.block])
            self._blocks.put(key, block)
        return block[place.offset : place.offset + place.length]
