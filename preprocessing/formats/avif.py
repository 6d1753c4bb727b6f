"""AVIF: writes a file cell by cell as its rows arrive.

Pillow encodes whole images only, in 52 bytes of memory per pixel. An AVIF may be a grid of frames of equal size (MIAF
section 7.3.11.4), which decoders put together. So each cell is encoded as an image of its own: memory and the time of
one call follow the cell, not the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import AvifImagePlugin
from PIL import Image as PilImage

from preprocessing.formats.avif_container import AvifColours, Frame, Layout, read_frame, write_container
from preprocessing.image import Pixels

# Pixels per side that libavif decodes, and with it Chromium and Pillow (AVIF_DEFAULT_IMAGE_DIMENSION_LIMIT).
MAX_SIDE = 32_768
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}

# Pixels per side of a cell: libaom takes 14 MB while it encodes one. Cells of 1,024 make files 1 to 3 % smaller.
MAX_CELL_PX = 512
# MIAF section 7.3.11.4.2: a cell of a grid has at least 64 pixels per side.
MIN_CELL_PX = 64
# libaom's fastest speed; 10 is the same. A photo takes 0.045 s per megapixel. Speed 8 takes 0.1 s for a larger file,
# and speed 6 0.28 s for a file smaller by a fifth (docs/explanation/codec.md).
SPEED = 9
# Lossless: alpha is small, and its errors show as fringes.
_ALPHA_QUALITY = 100

# Imported so that Pillow finds it registered.
PLUGINS = (AvifImagePlugin,)


def map_quality(quality: int) -> int:
    """Return libavif's quality for one of JPEG and WebP, 1 to 100.

    The numbers of libavif mean less loss. Up to 92, four fifths of the number give the PSNR of WebP within 2 dB (table
    in docs/explanation/codec.md); 100 stays 100.
    """
    return round(0.8 * quality) if quality <= 92 else round(74 + (quality - 92) * 3.25)


class AvifStream:
    """An AVIF of known size, 8 bits, 4:4:4: `rows` once per band, then `finish`.

    The result depends on the pixels only, not on the number of processors: each cell is encoded on one thread.
    """

    def __init__(
        self,
        width: int,
        height: int,
        mode: str,
        quality: int,
        colours: AvifColours = AvifColours(),  # noqa: B008 - a constant
        *,
        exif: bytes = b"",
        xmp: bytes = b"",
    ) -> None:
        """`mode` is L, LA, RGB or RGBA. `exif` begins with the TIFF header."""
        self.layout = choose_layout(width, height)
        self.mode, self.quality = mode, map_quality(quality)
        self._colours, self._exif, self._xmp = colours, exif, xmp
        self._colour: list[Frame] = []
        self._alpha: list[Frame] = []
        self._cells = np.empty((self.layout.cell_height, width, CHANNELS[mode]), np.uint8)  # one row of cells
        self._rows_in_cells = self._rows_written = 0

    def rows(self, pixels: Pixels) -> None:
        """Take the next rows, [h, width, channels] uint8, and encode the cells that are full."""
        top = 0
        while top < len(pixels):
            count = min(len(pixels) - top, len(self._cells) - self._rows_in_cells)
            self._cells[self._rows_in_cells : self._rows_in_cells + count] = pixels[top : top + count]
            top, self._rows_in_cells = top + count, self._rows_in_cells + count
            self._rows_written += count
            if self._rows_in_cells == len(self._cells) or self._rows_written == self.layout.height:
                self._encode_cells()

    def finish(self) -> Iterator[bytes]:
        """Yield the file in parts; raises ValueError unless `height` rows were taken."""
        if self._rows_written != self.layout.height:
            raise ValueError(f"The AVIF has {self.layout.height} rows and {self._rows_written} of them were written.")
        return write_container(self.layout, self._colour, self._alpha, self._colours, exif=self._exif, xmp=self._xmp)

    def _encode_cells(self) -> None:
        layout, rows = self.layout, self._cells[: self._rows_in_cells]
        self._rows_in_cells = 0
        has_alpha = self.mode.endswith("A")
        for left in range(0, layout.width, layout.cell_width):
            part = rows[:, left : left + layout.cell_width]
            missing = ((0, layout.cell_height - part.shape[0]), (0, layout.cell_width - part.shape[1]), (0, 0))
            cell = np.pad(part, missing, mode="edge")
            self._colour.append(_encode(cell[..., :-1] if has_alpha else cell, self.quality))
            if has_alpha:
                self._alpha.append(_encode(cell[..., -1:], _ALPHA_QUALITY))


def choose_layout(width: int, height: int) -> Layout:
    """Return cells of equal size that cover an image; one cell of its own size when that is small enough."""
    if max(width, height) <= MAX_CELL_PX:
        return Layout(width, height, width, height)
    return Layout(width, height, _cell_side(width), _cell_side(height))


def _cell_side(side: int) -> int:
    return max(MIN_CELL_PX, -(-side // -(-side // MAX_CELL_PX)))


def _encode(cell: Pixels, quality: int) -> Frame:
    target = BytesIO()
    is_grey = cell.shape[2] == 1
    PilImage.fromarray(np.ascontiguousarray(cell[..., 0] if is_grey else cell)).save(
        target,
        "AVIF",
        quality=quality,
        speed=SPEED,
        subsampling="4:0:0" if is_grey else "4:4:4",
        max_threads=1,
        autotiling=False,
        codec="aom",
    )
    return read_frame(target.getvalue())
