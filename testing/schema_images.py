"""What schemathesis cannot derive from the schema: image bytes, and variants that take a strength.

Loaded by schemathesis.toml.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import schemathesis
from hypothesis import strategies as st

from swinir.auto import AUTO, NEAREST
from swinir.zoo import VARIANTS
from testing import images

SIDES = st.integers(1, 20)

# A variant that keeps the size, as a strength below 1 requires.
DENOISER = "compact_color_denoise_25"


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


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """Replace a valid variant that changes the size if there is a strength: OpenAPI cannot express this condition."""
    del context, kwargs
    if case.query and "strength" in case.query:
        name = str(case.query.get("variant", AUTO))
        if name in (AUTO, NEAREST.name) or (name in VARIANTS and not VARIANTS[name].keeps_size):
            case.query["variant"] = DENOISER
