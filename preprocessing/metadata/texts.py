"""Comments and text chunks of an upload: collected up to a limit, as clean Unicode."""

from __future__ import annotations

import re
from typing import NamedTuple

# All texts of a file together, in UTF-8: one JPEG segment holds 65,533 bytes.
MAX_TEXT_BYTES = 60_000
MAX_TEXTS = 100
COMMENT = "Comment"
"""Keyword of a text without one, as a JPEG's comment is."""
_MAX_KEYWORD_LENGTH = 79
# A keyword of PNG: printable Latin-1 without leading, trailing or double spaces (W3C PNG section 11.3.3.1).
_KEYWORD = re.compile(r"[!-~\xa1-\xff]+(?: [!-~\xa1-\xff]+)*")
# Names of Pillow's own: it files texts among the facts of an image, where a text "transparency" changes how the image
# is shown and a text "exif" makes `getexif` fail. Applies to readers of results, not to this project.
_NAMES_OF_PILLOW = {
    *("aspect", "background", "bbox", "blend", "chromaticity", "default_image", "disposal", "dpi", "duration", "exif"),
    *("gamma", "icc_profile", "interlace", "loop", "palette", "photoshop", "srgb", "timestamp", "transparency", "xmp"),
}
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Text(NamedTuple):
    """A text that a file holds next to its pixels."""

    keyword: str
    """1 to 79 characters of Latin-1."""
    text: str
    """Not empty; no control characters but tab and line feed."""


class Texts:
    """The texts of one upload, in order."""

    def __init__(self) -> None:
        self.found: list[Text] = []
        self.has_unkept = False
        """Whether a text was left out: too long, too many, unreadable, or under a keyword that cannot be kept."""
        self._n_taken = self._n_bytes = 0

    @property
    def bytes_left(self) -> int:
        """Bytes that a further text may have; 0 after MAX_TEXTS, so that compressed ones need not be inflated."""
        return 0 if self._n_taken >= MAX_TEXTS else MAX_TEXT_BYTES - self._n_bytes

    def take(self, keyword: str, text: bytes | None, encoding: str = "utf-8") -> None:
        """Add a text, None if it cannot be read. What is not UTF-8 is read as Latin-1."""
        bytes_left = self.bytes_left
        self._n_taken += 1
        decoded = "" if text is None else _decode(text, encoding)
        n_bytes = len(decoded.encode()) + 2 * len(keyword) + 2
        is_valid = len(keyword) <= _MAX_KEYWORD_LENGTH and _KEYWORD.fullmatch(keyword)
        if text is None or n_bytes > bytes_left or not is_valid or keyword in _NAMES_OF_PILLOW:
            self.has_unkept = True
        elif decoded:
            self._n_bytes += n_bytes
            self.found.append(Text(keyword, decoded))


def _decode(text: bytes, encoding: str) -> str:
    try:
        decoded = text.decode(encoding)
    except UnicodeDecodeError:
        decoded = text.decode("latin-1")
    return _CONTROLS.sub("", decoded.replace("\r\n", "\n").replace("\r", "\n"))
