"""Writes a zlib stream (RFC 1950) of filtered pixels, cut into pieces that are compressed in the way that suits each.

Filtered photos repeat nothing but runs. A search for longer matches takes twice the time there and finds so little
that the file gets larger; in drawings, text and screenshots it makes the file a quarter of the size. Fur and noise
have no runs either: without any search they take half the time. A sample of each piece decides. Each piece is deflate
data of its own (RFC 1951), as in pigz, and the decoder sees one stream.
"""

from __future__ import annotations

import zlib
from types import ModuleType

_deflate: ModuleType = zlib
try:
    from zlib_ng import zlib_ng

    _deflate = zlib_ng
except ImportError:  # no wheel for this machine: about the same size, in more time
    pass

# Deflate with memory level 9, which decides how many symbols share a code, in a window of 32 kB.
_RAW, _MEMORY_LEVEL, _WINDOW_BYTES = -15, 9, 32_768
_HEADER = b"\x78\x9c"
# Bytes of a piece. What is written depends on where the input is cut, so it is cut equally for any bands.
PIECE_BYTES = 262_144
# Part of a piece that is compressed in all ways, at least _MIN_SAMPLE_BYTES.
_SAMPLE_PART, _MIN_SAMPLE_BYTES = 32, 8_192
# zlib-ng's level for the sample, and for pieces with matches. Level 6 takes up to twice the time for 1 to 2 %.
_SAMPLE_LEVEL, _LEVEL = 3, 5
# Matches must make the sample smaller by this factor, as they take more time. In a sample that runs alone make ten
# times as small, hardly anything is left to search, and the rest of the piece may have more matches than the sample.
_WORTH, _FLAT = 0.985, 0.1
# Runs must make the sample smaller by this factor than codes of single bytes, which take half the time.
_RUNS_WORTH = 1.02


class ZlibStream:
    """A zlib stream, written as its data arrives: `add` any number of times, then `finish`."""

    def __init__(self) -> None:
        self._pending = bytearray()  # less than a piece
        self._window = b""  # the data before it, to which matches may refer
        self._checksum = 1
        self._header = _HEADER

    def add(self, data: memoryview) -> bytes:
        """Return what further data adds to the stream; may be empty."""
        self._checksum = _deflate.adler32(data, self._checksum)
        self._pending += data
        packed = []
        while len(self._pending) >= PIECE_BYTES:
            packed.append(self._compress(bytes(self._pending[:PIECE_BYTES]), zlib.Z_SYNC_FLUSH))
            del self._pending[:PIECE_BYTES]
        return b"".join(packed)

    def finish(self) -> bytes:
        """Return the rest of the stream."""
        return self._compress(bytes(self._pending), zlib.Z_FINISH) + self._checksum.to_bytes(4, "big")

    def _compress(self, piece: bytes, flush: int) -> bytes:
        header, self._header = self._header, b""
        window, self._window = self._window, piece[-_WINDOW_BYTES:]
        strategy = _choose_strategy(piece)
        if strategy == zlib.Z_DEFAULT_STRATEGY:
            return header + _compress(piece, _LEVEL, flush, strategy, window)
        return header + _compress(piece, _LEVEL, flush, strategy)


def _choose_strategy(piece: bytes) -> int:
    """Return zlib's strategy for a piece by a sample from its middle: all matches, only runs, or single bytes."""
    length = max(_MIN_SAMPLE_BYTES, len(piece) // _SAMPLE_PART)
    start = max(0, (len(piece) - length) // 2)
    sample = piece[start : start + length]

    def measure(strategy: int) -> int:
        return len(_compress(sample, _SAMPLE_LEVEL, zlib.Z_FINISH, strategy))

    runs = measure(zlib.Z_RLE)
    if runs < _FLAT * len(sample) or measure(zlib.Z_DEFAULT_STRATEGY) < _WORTH * runs:
        return zlib.Z_DEFAULT_STRATEGY
    return zlib.Z_HUFFMAN_ONLY if measure(zlib.Z_HUFFMAN_ONLY) < _RUNS_WORTH * runs else zlib.Z_RLE


def _compress(data: bytes, level: int, flush: int, strategy: int, window: bytes = b"") -> bytes:
    """Return deflate data, which goes on unless `flush` is Z_FINISH."""
    dictionary = (window,) if window else ()
    compressor = _deflate.compressobj(level, zlib.DEFLATED, _RAW, _MEMORY_LEVEL, strategy, *dictionary)
    packed: bytes = compressor.compress(data)
    return packed + compressor.flush(flush)
