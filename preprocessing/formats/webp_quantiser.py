"""How strongly a lossy WebP was compressed: the quantiser index in the header of its VP8 frame (RFC 6386 section 9)."""

from __future__ import annotations

from preprocessing.formats.container import Container

MAX_QUANTISER = 127

_SEGMENTS = 4
# Frame tag, start code, and two sides: the bytes before the first partition (section 9.1).
_FRAME_HEADER_BYTES = 10
# The fields up to the index have at most 186 bits, of an equal chance each.
_MAX_READ_BYTES = 32


def read_quantiser(container: Container) -> float | None:
    """Return the quantiser index, 0 (finest) to 127: the mean of the segments.

    None for files that are not a lossy still WebP. libwebp sets 19 to 32 at quality 75, by the image; the scale of
    qualities is not that of JPEG.
    """
    if container.format != "WEBP":
        return None
    for chunk in container.required_chunks:
        if chunk[:4] == b"VP8 ":
            return _read_frame(bytes(chunk[8 : 8 + _FRAME_HEADER_BYTES + _MAX_READ_BYTES]))
    return None


def _read_frame(frame: bytes) -> float | None:
    if len(frame) <= _FRAME_HEADER_BYTES or frame[0] & 1 or frame[3:6] != b"\x9d\x01\x2a":
        return None
    bits = _BoolDecoder(frame[_FRAME_HEADER_BYTES:])
    bits.read(2)  # colour space and clamping
    quantisers, is_absolute = _read_segments(bits) if bits.read(1) else ([], False)
    bits.read(1 + 6 + 3)  # loop filter
    if bits.read(1) and bits.read(1):
        for _ in range(2 * _SEGMENTS):
            bits.read_signed(6)
    bits.read(2)  # number of partitions
    base = bits.read(7)
    found = quantisers if is_absolute else [base + delta for delta in quantisers or [0]]
    return sum(min(MAX_QUANTISER, max(0, index)) for index in found) / len(found)


def _read_segments(bits: _BoolDecoder) -> tuple[list[int], bool]:
    """Return the quantisers of the segments, and whether they replace that of the frame; else they are added to it."""
    has_map, has_data = bits.read(1), bits.read(1)
    quantisers: list[int] = []
    is_absolute = False
    if has_data:
        is_absolute = bool(bits.read(1))
        quantisers = [bits.read_signed(7) for _ in range(_SEGMENTS)]
        for _ in range(_SEGMENTS):
            bits.read_signed(6)  # loop filter
    if has_map:
        for _ in range(_SEGMENTS - 1):
            if bits.read(1):
                bits.read(8)
    return quantisers, is_absolute


class _BoolDecoder:
    """Reads bits of an equal chance (section 7.3); zeros after the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 2
        self._value = int.from_bytes(data[:2].ljust(2, b"\0"), "big")
        self._range, self._shifts = 255, 0

    def read(self, count: int) -> int:
        """Return an unsigned number of this many bits."""
        number = 0
        for _ in range(count):
            number = number << 1 | self._read_bit()
        return number

    def read_signed(self, count: int) -> int:
        """Return a number that is preceded by a flag and followed by its sign; 0 without the flag."""
        if not self.read(1):
            return 0
        number = self.read(count)
        return -number if self.read(1) else number

    def _read_bit(self) -> int:
        split = 1 + ((self._range - 1) >> 1)
        bit = int(self._value >= split << 8)
        if bit:
            self._range -= split
            self._value -= split << 8
        else:
            self._range = split
        while self._range < 128:
            self._value <<= 1
            self._range <<= 1
            self._shifts += 1
            if self._shifts == 8:
                self._shifts = 0
                if self._at < len(self._data):
                    self._value |= self._data[self._at]
                self._at += 1
        return bit
