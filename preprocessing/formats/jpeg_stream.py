"""Writes a JPEG strip by strip, so that memory follows the strip and not the image.

Pillow hands libjpeg a whole picture. But a scan may be cut at restart markers (ITU-T T.81, section E.1.4): what stands
between two of them depends on nothing before. So each strip is encoded as a JPEG of its own, with a restart after every
row of blocks, and the scans are joined under the first one's header. The pixels are those of one call; the file is some
bytes a row of blocks longer.
"""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image as PilImage

from preprocessing.image import Pixels

STRIP_ROWS = 64
"""Eight rows of 8x8 blocks, as many as there are restart markers: each strip begins with the count at 0."""
_CHANNELS = {"L": 1, "RGB": 3}
_FRAME, _SCAN, _END = 0xC0, 0xDA, b"\xff\xd9"
_LAST_RESTART = b"\xff\xd7"


class JpegStream:
    """A JPEG of known size (4:4:4, baseline), written as its rows arrive: `rows` as often as needed, then `finish`."""

    def __init__(self, width: int, height: int, mode: str, quality: int, icc_profile: bytes | None = None) -> None:
        """`mode` is L or RGB."""
        self.width, self.height, self.mode, self.quality, self.icc_profile = width, height, mode, quality, icc_profile
        self._pending = np.empty((0, width, _CHANNELS[mode]), np.uint8)
        """Rows that fill no strip yet."""
        self._rows_written = 0

    def rows(self, pixels: Pixels) -> bytes:
        """Return what the next rows, [h, width, channels] uint8, add to the file; empty while no strip is full."""
        parts = []
        for top in range(0, len(pixels), STRIP_ROWS):
            rows = np.concatenate((self._pending, pixels[top : top + STRIP_ROWS]))
            if len(rows) >= STRIP_ROWS:
                parts.append(self._strip(rows[:STRIP_ROWS]))
                rows = rows[STRIP_ROWS:]
            self._pending = rows
        return b"".join(parts)

    def finish(self) -> bytes:
        """Return what is left and the end; raises ValueError unless there were `height` rows."""
        last = self._strip(self._pending) if len(self._pending) else b""
        if self._rows_written != self.height:
            raise ValueError(f"The JPEG has {self.height} rows and {self._rows_written} of them were written.")
        return last + _END

    def _strip(self, rows: Pixels) -> bytes:
        is_first = not self._rows_written
        self._rows_written += len(rows)
        keywords: dict[str, Any] = {"icc_profile": self.icc_profile} if is_first and self.icc_profile else {}
        target = BytesIO()
        drawn = PilImage.fromarray(rows[..., 0] if self.mode == "L" else rows)
        drawn.save(target, "JPEG", quality=self.quality, subsampling=0, restart_marker_rows=1, **keywords)
        whole = target.getvalue()
        frame, scan = _find_segments(whole)
        if not is_first:
            return _LAST_RESTART + whole[scan : -len(_END)]
        head = bytearray(whole[:scan])
        struct.pack_into(">H", head, frame + 3, self.height)  # after the length and the bits of a sample
        return bytes(head) + whole[scan : -len(_END)]


def _find_segments(data: bytes) -> tuple[int, int]:
    """Return where the frame header's length stands, and where the scan's first block does."""
    frame, at = 0, 2
    while True:
        marker, length = struct.unpack_from(">xBH", data, at)
        if marker == _FRAME:
            frame = at + 2
        at += 2 + length
        if marker == _SCAN:
            return frame, at
