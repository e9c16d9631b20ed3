"""Content-defined chunking (docs/format.md 4.1 and "Appendix A").

The only importer of pyfastcdc.
"""

import dataclasses
import warnings

from vault.errors import FormatError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # without its C core pyfastcdc warns; see `ACCELERATED`
    import pyfastcdc

# False if pyfastcdc was installed without its C core: the same cuts, some 200 times slower.
ACCELERATED: bool = pyfastcdc.FastCDC.__module__.startswith("pyfastcdc.cy")


@dataclasses.dataclass(frozen=True, slots=True)
class ChunkSizes:
    """Bounds of one kind of chunk, in bytes, as the root fixes them.

    Raises:
        FormatError: Sizes are not even, not ascending, or outside 64 B … 1 MiB (min),
            256 B … 4 MiB (average), 1 KiB … 16 MiB (max).
    """

    min: int
    average: int
    max: int

    def __post_init__(self) -> None:
        """Check the bounds: the chunker looks at two bytes at a time, so sizes are even."""
        sizes = (self.min, self.average, self.max)
        if (
            any(size % 2 for size in sizes)
            or not self.min <= self.average <= self.max
            or not 64 <= self.min <= 1 << 20
            or not 256 <= self.average <= 4 << 20
            or not 1024 <= self.max <= 16 << 20
        ):
            raise FormatError("chunk sizes are not allowed", found=sizes)


class Chunker:
    """Cuts a stream at places that its content determines. Stateless, so threads may share it."""

    def __init__(self, sizes: ChunkSizes) -> None:
        self.sizes = sizes
        self._cdc = pyfastcdc.FastCDC(
            sizes.average,
            min_size=sizes.min,
            max_size=sizes.max,
            normalized_chunking=2,
        )

    def cut(self, buffer: bytes | bytearray | memoryview, *, final: bool) -> list[int]:
        """Lengths, in bytes, of the whole chunks at the front of ``buffer``.

        The caller drops these chunks, appends the next bytes of the stream and calls again;
        the chunks do not depend on how the stream is divided into pieces. While more bytes
        may come (not ``final``), the last ones, fewer than ``sizes.max``, stay undecided,
        because later bytes could move their end. With ``final`` the lengths sum to that of
        the buffer.
        """
        left = len(buffer)
        undecided = 1 if final else self.sizes.max  # fewer bytes than that are not cut
        lengths: list[int] = []
        if left < undecided:
            return lengths
        for chunk in self._cdc.cut_buf(buffer):
            lengths.append(chunk.length)
            left -= chunk.length
            if left < undecided:
                break
        return lengths
