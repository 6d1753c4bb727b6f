"""ICC profiles: decides whether the profile of an upload is kept.

A profile is kept byte for byte when its header and tag table are valid (ICC.1:2022 section 7) and it describes the
decoded pixels. Any other profile is dropped, with a note for the user. No colour engine ever parses an uploaded
profile.
"""

from __future__ import annotations

import struct

from preprocessing.formats.container import MAX_ICC_BYTES

_HEADER_BYTES = 128
# Profiles found in practice have 9 to 30 tags.
_MAX_TAGS = 100
_CLASSES = (b"mntr", b"scnr", b"prtr", b"spac")
_CONNECTION_SPACES = (b"XYZ ", b"Lab ")
_SPACE_NAMES = {b"RGB ": "RGB", b"GRAY": "greyscale", b"CMYK": "CMYK", b"Lab ": "Lab"}


def colour_space(profile: bytes) -> str:
    """Return the colour space that a profile describes: RGB, greyscale, CMYK, Lab or "an unknown space"."""
    return _SPACE_NAMES.get(profile[16:20], "an unknown space")


def keep_profile(profile: bytes | None, *, is_grey: bool) -> tuple[bytes | None, str]:
    """Return the profile if it describes these pixels, else None and a note that says why it was dropped."""
    if profile is None:
        return None, ""
    if len(profile) > MAX_ICC_BYTES:
        return None, f"The colour profile was dropped: it has more than {MAX_ICC_BYTES:,} bytes."
    if not _is_valid(profile):
        return None, "The colour profile was dropped: it is damaged."
    expected = "greyscale" if is_grey else "RGB"
    if colour_space(profile) != expected:
        return None, (
            f"The colour profile was dropped: it is for {colour_space(profile)} and the pixels are {expected}."
        )
    return profile[: struct.unpack_from(">I", profile)[0]], ""


def _is_valid(profile: bytes) -> bool:
    if len(profile) < _HEADER_BYTES + 4 or profile[36:40] != b"acsp":
        return False
    size, tags = struct.unpack_from(">I", profile)[0], struct.unpack_from(">I", profile, _HEADER_BYTES)[0]
    if not _HEADER_BYTES + 4 + 12 * tags <= size <= len(profile) or not 1 <= tags <= _MAX_TAGS:
        return False
    if profile[12:16] not in _CLASSES or profile[20:24] not in _CONNECTION_SPACES:
        return False
    table = struct.iter_unpack(">4sII", profile[_HEADER_BYTES + 4 : _HEADER_BYTES + 4 + 12 * tags])
    return all(offset >= _HEADER_BYTES and offset + length <= size for _, offset, length in table)
