"""What `superres upscale` prints while it works: a line per image, and on a terminal the progress of the current one.

Everything goes to standard error, because standard output may be the image.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

from gateway.cli.pace import describe_duration

# Seconds between two changes of the line on a terminal, so that a slow connection is not filled with them.
_INTERVAL_S = 0.1


class ProgressReport:
    """Prints to a terminal or a log. Counts images by their pixels, so that the time left is known."""

    def __init__(
        self,
        *,
        is_quiet: bool,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """With `is_quiet`, only errors are printed."""
        self._stream = sys.stderr if stream is None else stream
        self._is_quiet = is_quiet
        self._shows_line = not is_quiet and self._stream.isatty()
        self._clock = clock
        self._started_at = clock()
        self._shown_at = 0.0
        self._has_line = False
        self._total = self._number = 0
        self._pixels = self._pixels_done = self._pixels_now = 0
        self._name = ""

    def begin(self, images: int, pixels: int) -> None:
        """Begin to count: so many images with so many pixels in all (0: not known)."""
        self._total, self._pixels, self._started_at = images, pixels, self._clock()

    def begin_work(self) -> None:
        """Begin to measure the time that images take, after a boot; does nothing once one is done."""
        if not self._pixels_done:
            self._started_at = self._clock()

    def begin_image(self, name: str, pixels: int) -> None:
        """Begin an image; `pixels` are those counted for it in `begin`."""
        self._number += 1
        self._name, self._pixels_now = name, pixels
        self.show("", force=True)

    def end_image(self, *, was_upscaled: bool) -> None:
        """End an image. One that was left out says nothing about the time that the others take."""
        if was_upscaled:
            self._pixels_done += self._pixels_now
        else:
            self._pixels -= self._pixels_now
        self._pixels_now = 0

    def show_bands(self, done: int, bands: int) -> None:
        """Show that so many of the image's bands are done."""
        share = min(1.0, done / max(1, bands))
        left_s = self._estimate_left_s(share)
        left = f", about {describe_duration(left_s)} left" if left_s is not None else ""
        self.show(f"{100 * share:.0f} % (band {done} of {bands}){left}", force=done >= bands)

    def show(self, text: str, *, force: bool = False) -> None:
        """Show what happens with the current image, on a terminal only."""
        now = self._clock()
        if not self._shows_line or (now - self._shown_at < _INTERVAL_S and not force):
            return
        self._shown_at = now
        line = f"[{self._number}/{self._total}] {self._name}" + (f": {text}" if text else "")
        columns = shutil.get_terminal_size().columns
        line = "".join(character if character.isprintable() else "?" for character in line)[: max(10, columns - 1)]
        self._stream.write(f"\r\x1b[K{line}")
        self._stream.flush()
        self._has_line = True

    def say(self, text: str) -> None:
        """Print a line, unless quiet."""
        if not self._is_quiet:
            self._print(text)

    def error(self, text: str) -> None:
        """Print a line, also if quiet."""
        self._print(text)

    def close(self) -> None:
        """Remove the line of the current image."""
        if self._has_line:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._has_line = False

    def _print(self, text: str) -> None:
        self.close()
        # Names of files may have bytes that are not UTF-8, and characters that steer a terminal.
        encoding = self._stream.encoding or "utf-8"
        self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        self._stream.flush()

    def _estimate_left_s(self, share: float) -> float | None:
        done = self._pixels_done + self._pixels_now * share
        if done <= 0 or self._pixels <= 0:
            return None
        elapsed_s = self._clock() - self._started_at
        return elapsed_s * max(0.0, self._pixels - done) / done
