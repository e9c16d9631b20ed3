"""zstd frames, checked before memory is allocated for them (docs/format.md 3).

The only importer of zstandard.
"""

import threading
from typing import Final

import zstandard

from vault.errors import ConfigError, DigestMismatchError, FormatError
from vault.model import Buffer

MAX_WINDOW: Final = 8 << 20  # bytes a zstd frame may look back
MAX_COMPRESSION: Final = 19  # levels above it need a larger window
DEFAULT_LEVEL: Final = 3

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_per_thread = threading.local()  # zstd contexts are costly to make and not thread-safe


def compress(data: Buffer, level: int = DEFAULT_LEVEL) -> bytes:
    """One zstd frame that declares its content size.

    Raises:
        ConfigError: ``level`` is not 1 to 19.
    """
    return _compressor(level).compress(data)


def decompress(frame: Buffer, *, max_raw: int, raw: int | None = None) -> bytes:
    """The content of exactly one zstd frame.

    The declared size and window are checked here, before memory is allocated, because
    `zstandard` ignores its ``max_output_size`` where the frame declares a size.

    Args:
        frame: The frame and nothing after it.
        max_raw: Cap of the content size, bytes.
        raw: The required content size, where it is known.

    Raises:
        FormatError: Not such a frame, or one over a cap.
        DigestMismatchError: The content has another size than ``raw``.
    """
    declared = _declared_size(frame)
    if declared > max_raw:
        raise FormatError("zstd frame is too large", expected=f"at most {max_raw}", found=declared)
    if raw is not None and declared != raw:
        raise DigestMismatchError("zstd frame has another size", expected=raw, found=declared)
    try:
        data: bytes = _decompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FormatError("zstd frame is damaged", found=str(error)) from error
    if len(data) != declared:
        raise FormatError("zstd frame is damaged", expected=declared, found=len(data))
    return data


def _declared_size(frame: Buffer) -> int:
    if bytes(frame[:4]) != _ZSTD_MAGIC:  # skippable and legacy frames have others
        raise FormatError("not a zstd frame", found=bytes(frame[:4]).hex())
    try:
        parameters = zstandard.get_frame_parameters(frame)
    except zstandard.ZstdError as error:
        raise FormatError("not a zstd frame", found=str(error)) from error
    if parameters.content_size == zstandard.CONTENTSIZE_UNKNOWN:
        raise FormatError("zstd frame does not declare its content size")
    # A frame in one segment has its content size as window, which the caller caps.
    if parameters.window_size > max(MAX_WINDOW, parameters.content_size) or parameters.dict_id:
        raise FormatError(
            "zstd frame needs a large window or a dictionary", found=parameters.window_size
        )
    return int(parameters.content_size)


def _compressor(level: int) -> zstandard.ZstdCompressor:
    if not 1 <= level <= MAX_COMPRESSION:
        raise ConfigError("compression level", expected=f"1 to {MAX_COMPRESSION}", found=level)
    cache: dict[int, zstandard.ZstdCompressor] = _per_thread.__dict__.setdefault("compressors", {})
    if level not in cache:
        cache[level] = zstandard.ZstdCompressor(level=level, write_content_size=True)
    return cache[level]


def _decompressor() -> zstandard.ZstdDecompressor:
    cached: zstandard.ZstdDecompressor | None = getattr(_per_thread, "decompressor", None)
    if cached is None:
        cached = _per_thread.decompressor = zstandard.ZstdDecompressor()
    return cached
