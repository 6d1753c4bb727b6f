"""What an image shows: a photo, clean or worn, a drawing or screenshot, or pixel art. Decides from decoded pixels.

The work is bounded: at most 16 tiles of 128 x 128 pixels are measured, spread evenly over the image. Equal pixels give
an equal decision. Every threshold was chosen on images whose kind is known; docs/explanation/automatic-variant.md has
the images, the distances and the mistakes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from preprocessing.depth import to_depth
from preprocessing.formats.webp_quantiser import MAX_QUANTISER
from preprocessing.image import Image, Pixels
from preprocessing.jpeg_history import JpegHistory
from preprocessing.noise import CELL_PX, NoiseLevels, cut_cells
from preprocessing.sharpness import EdgeSharpness

TILE_PX = 128
MAX_TILES = 16

Packed = npt.NDArray[np.uint32]
Levels = npt.NDArray[np.int32]

# Shown through transparent pixels. Unlike white and black, it is rarely the colour of an opaque pixel next to them.
_BACKGROUND = 128

# Pixel art has at most this many colours ...
_MAX_ART_COLOURS = 128
# ... at most this share of antialiased steps (measured: pixel art up to 0.13, vector sprites from 0.17) ...
_MAX_ART_BLENDED = 0.15
# ... at least this share of steps one pixel wide (pixel art from 0.21, vector sprites of few colours up to 0.15) ...
_MIN_ART_LONE = 0.18
# ... and, among neighbouring pixels, at least this share of equal ones (pixel art from 0.54).
_MIN_ART_EQUAL = 0.4
# Colours of pixel art that was enlarged already: each pixel is a square of equal pixels, which is proof enough.
_MAX_ENLARGED_COLOURS = 256
# One of so many pixels is looked at first.
_COLOUR_SAMPLE = 7
# Lines of such a grid, at least: a few flat rectangles have a common divisor too.
_MIN_GRID_LINES = 12

# A drawing has flat cells, and among the others cells of two tones: at least these shares. JPEG blurs the two tones,
# hence the second pair. A worn photo in front of white has 0.75 flat and mostly less than 0.08 of two tones.
_MIN_DRAWN = ((0.1, 0.3), (0.3, 0.1))
# ... or few colours in large areas.
_MAX_DRAWN_COLOURS, _MIN_DRAWN_EQUAL = 64, 0.4
# Range of levels from which a cell has structure.
_MIN_CELL_RANGE = 24

# Levels by which a step between pixels stands out from both neighbouring steps. With 1, invisible steps of skies count.
_MIN_PEAK = 2
# Places with a step of that size that a line has at least, to count.
_MIN_LINE_PLACES = 4
# By how much more often a step stands out on the 8-pixel grid than off it. Photos that were never compressed: at most
# 0.02. Also in standard deviations, because small images have few steps.
_MIN_BLOCK_EXCESS, _MIN_BLOCK_DEVIATIONS = 0.08, 5.0
# Quality of a JPEG, now or once, up to which compact_real_x4 is better than compact_x4: automatic-variant.md.
_MAX_WORN_QUALITY = 80
# Quantiser of a WebP from which the same holds: most photos at quality 45 or less of libwebp.
_MIN_WORN_QUANTISER = 42
# Sharpness up to which compact_real_x4 is better. 613 images that were never enlarged have 1.35 and more.
_MAX_SOFT_SHARPNESS = 1.25
# Noise in levels in the smoothest tenth of the cells, and how even it is: texture is rough in places only.
_MIN_NOISE, _MAX_NOISE_SPREAD = 4.0, 1.25


class ImageKind(StrEnum):
    """What an image shows, as far as it matters for the choice of a network."""

    CLEAN_PHOTO = "clean photo"
    WORN_PHOTO = "worn photo"
    DRAWING = "drawing"
    PIXEL_ART = "pixel art"


@dataclass(frozen=True)
class Content:
    """What an image shows, and by which signs."""

    kind: ImageKind
    description: str
    """A noun for the user, with its article: "a worn JPEG"."""
    evidence: str
    """What was measured, for the user: "steps on the 8-pixel grid of JPEG"."""


def classify(image: Image, jpeg_quality: int | None = None, webp_quantiser: float | None = None) -> Content:
    """Return what an image shows.

    Of the uploaded file, `jpeg_quality` is 1 to 100, and `webp_quantiser` 0 to 127, the coarsest; None for other
    formats.
    """
    signs = _Signs()
    tiles = choose_tiles(image.height, image.width)
    for top, left in tiles:
        signs.add(compose_tile(image, top, left), top, left)
    is_whole = len(tiles) == -(-image.height // TILE_PX) * -(-image.width // TILE_PX)
    found = _find_pixel_art(signs, is_whole=is_whole) or _find_drawing(signs)
    return found or _judge_photo(signs, jpeg_quality, webp_quantiser)


def choose_tiles(height: int, width: int) -> list[tuple[int, int]]:
    """Return (top, left) of the tiles to measure: all, or `MAX_TILES` that are spread evenly."""
    columns, rows = -(-width // TILE_PX), -(-height // TILE_PX)
    total = rows * columns
    count = min(MAX_TILES, total)
    # A stride near the golden section spreads the numbers over rows and columns alike; without a common divisor with
    # the total, none repeats.
    stride = next(stride for stride in range(max(1, round(0.618 * total)), 2 * total) if math.gcd(stride, total) == 1)
    numbers = sorted(index * stride % total for index in range(count))
    return [(number // columns * TILE_PX, number % columns * TILE_PX) for number in numbers]


def _find_pixel_art(signs: _Signs, *, is_whole: bool) -> Content | None:
    if signs.grid_px >= 2 and signs.grid_lines >= _MIN_GRID_LINES and signs.n_colours <= _MAX_ENLARGED_COLOURS:
        times = f"each of its pixels is a square of {signs.grid_px} x {signs.grid_px}"
        return Content(ImageKind.PIXEL_ART, "pixel art that was enlarged before", times)
    is_art = (
        is_whole
        and signs.n_colours <= _MAX_ART_COLOURS
        and signs.steps > 0
        and signs.blended <= _MAX_ART_BLENDED * signs.steps
        and signs.lone >= _MIN_ART_LONE * signs.steps
        and signs.equal_share >= _MIN_ART_EQUAL
    )
    if not is_art:
        return None
    return Content(ImageKind.PIXEL_ART, "pixel art", f"{signs.n_colours} colours and hard edges")


def _find_drawing(signs: _Signs) -> Content | None:
    flat, two_tone = signs.flat_cells / max(1, signs.cells), signs.two_tone_cells / max(1, signs.structured_cells)
    if any(flat >= min_flat and two_tone >= min_two_tone for min_flat, min_two_tone in _MIN_DRAWN):
        evidence = f"{flat:.0%} of it is flat, and its edges have two tones"
    elif signs.n_colours <= _MAX_DRAWN_COLOURS and signs.equal_share >= _MIN_DRAWN_EQUAL:
        evidence = f"{signs.n_colours} colours" if signs.n_colours > 1 else "1 colour"
    else:
        return None
    return Content(ImageKind.DRAWING, "a drawing or screenshot", evidence)


def _judge_photo(signs: _Signs, jpeg_quality: int | None, webp_quantiser: float | None) -> Content:
    excess, deviations = signs.block_excess()
    if jpeg_quality is not None and jpeg_quality <= _MAX_WORN_QUALITY:
        return Content(ImageKind.WORN_PHOTO, "a worn JPEG", f"JPEG quality {jpeg_quality}")
    if webp_quantiser is not None and webp_quantiser >= _MIN_WORN_QUANTISER:
        evidence = f"WebP with a quantiser of {webp_quantiser:.0f} of {MAX_QUANTISER}"
        return Content(ImageKind.WORN_PHOTO, "a worn photo", evidence)
    once = signs.jpeg_history.quality()
    if once is not None and once <= _MAX_WORN_QUALITY:
        evidence = f"its pixels were a JPEG of quality {once} before"
        return Content(ImageKind.WORN_PHOTO, "a worn JPEG", evidence)
    # A WebP has steps at its macroblocks of 16 pixels at high qualities too.
    if webp_quantiser is None and excess >= _MIN_BLOCK_EXCESS and deviations >= _MIN_BLOCK_DEVIATIONS:
        return Content(ImageKind.WORN_PHOTO, "a worn photo", "it has the blocks of strong compression")
    return _find_noise_or_softness(signs) or Content(
        ImageKind.CLEAN_PHOTO, "a clean image", "neither compression blocks nor strong noise"
    )


def _find_noise_or_softness(signs: _Signs) -> Content | None:
    noise, spread = signs.noise_levels.estimate()
    if noise >= _MIN_NOISE and spread <= _MAX_NOISE_SPREAD:
        return Content(ImageKind.WORN_PHOTO, "a noisy photo", f"noise of about {noise:.0f} levels everywhere")
    sharpness = signs.edge_sharpness.level()
    if sharpness is not None and sharpness <= _MAX_SOFT_SHARPNESS:
        return Content(ImageKind.WORN_PHOTO, "a soft photo", "it has no sharp edge")
    return None


def compose_tile(image: Image, top: int, left: int) -> Pixels:
    """Return a tile [h, w, 3] uint8; colour under transparency, which nobody sees, is replaced."""
    rows, columns = slice(top, top + TILE_PX), slice(left, left + TILE_PX)
    pixels = to_depth(image.pixels[rows, columns], 8)
    if image.alpha is None:
        return pixels
    alpha = to_depth(image.alpha[rows, columns, np.newaxis], 8).astype(np.uint16)
    blended = (pixels * alpha + (255 - alpha) * _BACKGROUND + 127) // 255
    return blended.astype(np.uint8)


def to_luma(pixels: Pixels) -> Levels:
    """Return the luminance of a tile [h, w, 3] uint8 in levels, [h, w]."""
    wide = pixels.astype(np.int32)
    return np.asarray((77 * wide[..., 0] + 150 * wide[..., 1] + 29 * wide[..., 2] + 128) >> 8)


class _BlockLines:
    """How often a step across the line between two columns stands out from the steps on both sides, by line modulo 8.

    Each line counts the same, so that one straight edge along the grid, such as a frame, does not look like one.
    """

    def __init__(self) -> None:
        self._shares = np.zeros(CELL_PX)
        self._lines = np.zeros(CELL_PX)
        self._places = np.zeros(CELL_PX)

    def add(self, luma: Levels) -> None:
        """Count the lines of a tile [h, w] that begins on the 8-pixel grid."""
        step = np.abs(np.diff(luma, axis=1))
        if step.shape[1] < 3:
            return
        around = np.maximum(step[:, :-2], step[:, 2:])
        is_peak = step[:, 1:-1] >= around + _MIN_PEAK
        places = (np.maximum(around, step[:, 1:-1]) >= _MIN_PEAK).sum(axis=0)
        shares = is_peak.sum(axis=0) / np.maximum(1, places)
        counts = places >= _MIN_LINE_PLACES
        position = (np.arange(len(shares)) + 2) % CELL_PX
        self._shares += np.bincount(position, shares * counts, CELL_PX)
        self._lines += np.bincount(position, counts, CELL_PX)
        self._places += np.bincount(position, places * counts, CELL_PX)

    def excess(self) -> tuple[float, float]:
        """Return the excess on the strongest grid over the strongest other one, and that in standard deviations.

        The grid may start anywhere, because images are cropped. The positions 4 pixels off are left out of the
        comparison, because WebP has blocks of 4 pixels.
        """
        shares = self._shares / np.maximum(1, self._lines)
        place = int(shares.argmax())
        usual = float(max(shares[index] for index in range(CELL_PX) if (index - place) % 4))
        deviation = math.sqrt(max(usual * (1 - usual), 1e-9) / max(1.0, float(self._places[place])))
        excess = float(shares[place]) - usual
        return excess, excess / deviation


@dataclass
class _Signs:
    """Counts over all measured tiles."""

    pairs: int = 0
    """Pairs of neighbouring pixels."""
    steps: int = 0
    """Pairs whose pixels differ."""
    lone: int = 0
    """Pixels that differ from both neighbours of a row or column."""
    blended: int = 0
    """Lone pixels whose colour lies between those of the two neighbours: antialiasing."""
    grid_px: int = 0
    """Greatest common divisor of the distances between all steps: above 1 after enlargement by repeated pixels."""
    grid_lines: int = 0
    """Rows and columns at which pixels change."""
    cells: int = 0
    flat_cells: int = 0
    """Cells of one colour."""
    structured_cells: int = 0
    two_tone_cells: int = 0
    """Structured cells in which 7 of 10 pixels are close to the darkest or to the lightest."""
    colours: set[int] = field(default_factory=set)
    block_lines: tuple[_BlockLines, _BlockLines] = field(default_factory=lambda: (_BlockLines(), _BlockLines()))
    """Lines between columns, and lines between rows."""
    jpeg_history: JpegHistory = field(default_factory=JpegHistory)
    noise_levels: NoiseLevels = field(default_factory=NoiseLevels)
    edge_sharpness: EdgeSharpness = field(default_factory=EdgeSharpness)
    _first_lines: dict[int, int] = field(default_factory=dict)

    @property
    def n_colours(self) -> int:
        return len(self.colours)

    @property
    def has_few_colours(self) -> bool:
        """Whether it can be pixel art or a drawing by its colours; with more, neither colours nor steps are counted."""
        return len(self.colours) <= _MAX_ENLARGED_COLOURS

    @property
    def equal_share(self) -> float:
        return 1 - self.steps / self.pairs if self.pairs else 1.0

    def add(self, pixels: Pixels, top: int, left: int) -> None:
        """Measure a tile [h, w, 3] at an offset in the image."""
        wide = pixels.astype(np.int32)
        packed = (wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]).astype(np.uint32)
        luma = to_luma(pixels)
        for part in (packed.ravel()[::_COLOUR_SAMPLE], packed):  # a photo has many colours in a sample
            if self.has_few_colours:
                self.colours.update(np.unique(part).tolist())
        if self.has_few_colours:  # steps tell pixel art and drawings apart
            self._add_steps(wide, packed, 0, left)
            self._add_steps(wide.swapaxes(0, 1), packed.T, 1, top)
        for lines, levels in zip(self.block_lines, (luma, luma.T), strict=True):
            lines.add(levels)
        self.jpeg_history.add(luma)
        self._add_cells(packed, luma)
        self.noise_levels.add(luma)
        self.edge_sharpness.add(luma)

    def _add_steps(self, colours: Levels, packed: Packed, axis: int, offset: int) -> None:
        differs = packed[:, 1:] != packed[:, :-1]
        self.pairs += differs.size
        self.steps += int(differs.sum())
        lines = np.flatnonzero(differs.any(axis=0)) + 1 + offset
        self.grid_lines += len(lines)
        if len(lines):
            first = self._first_lines.setdefault(axis, int(lines[0]))
            self.grid_px = math.gcd(self.grid_px, int(np.gcd.reduce(lines - first)))
        lone = differs[:, 1:] & differs[:, :-1]
        self.lone += int(lone.sum())
        before, after = colours[:, 1:-1] - colours[:, :-2], colours[:, 2:] - colours[:, 1:-1]
        self.blended += int((lone & (before * after >= 0).all(axis=2)).sum())

    def _add_cells(self, packed: Packed, luma: Levels) -> None:
        colours, cells = cut_cells(packed), cut_cells(luma)
        if not len(cells):
            return
        low, high = cells.min(axis=1, keepdims=True), cells.max(axis=1, keepdims=True)
        margin = np.maximum(2, (high - low) // 8)
        close = ((cells <= low + margin) | (cells >= high - margin)).mean(axis=1)
        is_structured = (high - low)[:, 0] >= _MIN_CELL_RANGE
        self.cells += len(cells)
        self.flat_cells += int((colours == colours[:, :1]).all(axis=1).sum())
        self.structured_cells += int(is_structured.sum())
        self.two_tone_cells += int((is_structured & (close > 0.7)).sum())

    def block_excess(self) -> tuple[float, float]:
        """Return by how much peaks are more frequent on an 8-pixel grid, and that in standard deviations.

        The smaller value of both axes: edges of one direction alone come from the scene.
        """
        found = [lines.excess() for lines in self.block_lines]
        return min(excess for excess, _ in found), min(deviations for _, deviations in found)
