"""File names of results: safe for headers and every file system, and readable in every script."""

from __future__ import annotations

import os
import re
import unicodedata

# Maximum characters and UTF-8 bytes of a stem that a client sent. With the variant and the extension, the name stays
# below MAX_NAME_BYTES.
MAX_STEM_LENGTH = 80
MAX_STEM_BYTES = 160
# Maximum bytes of a name on most file systems (NAME_MAX of Linux; macOS and Windows count 255 UTF-16 units).
MAX_NAME_BYTES = 255

# Characters of a sent name that are looked at: enough for MAX_STEM_LENGTH after marks were composed.
_MAX_SENT_LENGTH = 1_024
_JOINERS = "\u200c\u200d"  # ZWNJ and ZWJ: Persian, Hindi and emoji are spelt with them
_RUNS = re.compile(r"_{2,}")
# Names that Windows opens as devices, with any ending after the first dot.
_DEVICES = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9\u00b9\u00b2\u00b3])(?=\.|$)", re.IGNORECASE)


def safe_stem(filename: str) -> str:
    """Return the last part of a path from any system, without its extension and unsafe characters.

    Letters with their marks, numbers and symbols of every script are kept, in NFC: macOS sends decomposed names.
    """
    name = unicodedata.normalize("NFC", re.split(r"[/\\]", filename)[-1][-_MAX_SENT_LENGTH:])
    stem = name.rpartition(".")[0] or name
    kept = "".join(each if _is_safe(each) else "_" for each in stem[: 4 * MAX_STEM_LENGTH])
    stem = _RUNS.sub("_", kept).strip("._")[:MAX_STEM_LENGTH]
    stem = stem.encode()[:MAX_STEM_BYTES].decode(errors="ignore").rstrip(_JOINERS)
    return _DEVICES.sub(r"\1_", stem, count=1) if _DEVICES.match(stem) else stem or "image"


def fit_name(stem: str, ending: str) -> str:
    """Return stem and ending as one name of at most MAX_NAME_BYTES; the stem is cut between two characters."""
    name = stem + ending
    while len(os.fsencode(name)) > MAX_NAME_BYTES and stem:
        excess = len(os.fsencode(name)) - MAX_NAME_BYTES
        stem = stem[: -max(1, excess // 4)]
        name = stem + ending
    return name


def _is_safe(character: str) -> bool:
    """Return whether a character of a name is harmless in headers, in shells, on screens and on file systems.

    Refused are controls, bidirectional and invisible formats, spaces, unassigned and private characters, and all that
    looks like a path separator or another special character of ASCII.
    """
    if character.isascii():
        return character.isalnum() or character in "_.-"
    if character in _JOINERS:
        return True
    if unicodedata.category(character)[0] in "CZ":
        return False
    plain = unicodedata.normalize("NFKC", character)
    return all(not each.isascii() or each.isalnum() or each in "_.-" for each in plain)
