"""Decodes uploads and returns the message of a refusal."""

from __future__ import annotations

import pytest

from preprocessing.codec import Image, UploadLimits, decode, probe
from preprocessing.errors import UnreadableImageError

LIMITS = UploadLimits(max_bytes=20_000_000, max_pixels=1_000_000, max_side=5_000)


def read(data: bytes) -> Image:
    return decode(probe(data, LIMITS))


def refusal(data: bytes) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        read(data)
    return str(caught.value)
