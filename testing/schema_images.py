"""Image bytes for schemathesis, which cannot derive them from the schema. Loaded by schemathesis.toml."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import schemathesis
from hypothesis import strategies as st

from testing import images

SIDES = st.integers(1, 20)


def image_files(*encoders: Callable[[images.Pixels], bytes]) -> st.SearchStrategy[bytes]:
    """Return a strategy of small images, each made by one of the encoders."""

    def draw(encode: Callable[[images.Pixels], bytes], height: int, width: int, level: int) -> bytes:
        return encode(np.full((height, width, 3), level, np.uint8))

    return st.builds(draw, st.sampled_from(encoders), SIDES, SIDES, st.integers(0, 255))


ANY = image_files(images.encode_png, images.encode_jpeg, images.encode_webp)

schemathesis.openapi.media_type("image/png", image_files(images.encode_png))
schemathesis.openapi.media_type("image/jpeg", image_files(images.encode_jpeg))
schemathesis.openapi.media_type("image/webp", image_files(images.encode_webp))
schemathesis.openapi.media_type("application/octet-stream", ANY)
schemathesis.openapi.format("binary", ANY)
