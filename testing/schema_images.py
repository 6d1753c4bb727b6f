"""What schemathesis cannot derive from the schema: image bytes, and variants that take a strength or a size.

Loaded by schemathesis.toml.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import uuid4

import numpy as np
import schemathesis
from hypothesis import strategies as st
from PIL import Image as PilImage
from schemathesis.generation import GenerationMode

from gateway.jobs.request_body import IMAGE_FIELD
from gateway.jobs.result_size import SIZE_PARAMETERS
from swinir.auto import AUTO, NEAREST
from swinir.zoo import VARIANTS
from testing import images
from testing.data import ROOT

HEIC = ROOT / "tests" / "data" / "heic" / "plain.heic"
SIDES = st.integers(1, 20)

# They exclude lossless=1; "same" may be one of them.
LOSSY_FORMATS = ("jpeg", "jpg", "avif", "same")

# A variant that keeps the size, as a strength below 1 requires.
DENOISER = "compact_color_denoise_25"

# The value of no parameter.
INVALID = "!"

OFFERED = (AUTO, NEAREST.name, *(name for name, variant in VARIANTS.items() if variant.is_bundled))


def encode_as(name: str, pixels: images.Pixels) -> bytes:
    """Encode pixels in a format by Pillow's name."""
    return images.save(PilImage.fromarray(pixels), name)


def image_files(*encoders: Callable[[images.Pixels], bytes]) -> st.SearchStrategy[bytes]:
    """Return a strategy of small images, each made by one of the encoders."""

    def draw(encode: Callable[[images.Pixels], bytes], height: int, width: int, level: int) -> bytes:
        return encode(np.full((height, width, 3), level, np.uint8))

    return st.builds(draw, st.sampled_from(encoders), SIDES, SIDES, st.integers(0, 255))


ANY = image_files(images.encode_png, images.encode_jpeg, images.encode_webp)
OTHERS = image_files(*(partial(encode_as, name) for name in ("avif", "tiff", "bmp", "gif"))) | st.just(
    HEIC.read_bytes()
)

schemathesis.openapi.media_type("image/*", ANY | OTHERS)
schemathesis.openapi.media_type("application/octet-stream", ANY)
schemathesis.openapi.format("binary", ANY)


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """Mend valid requests whose parameters exclude each other, or whose variant is unknown: no schema can say so."""
    del context, kwargs
    form = case.body if isinstance(case.body, dict) and IMAGE_FIELD in case.body else {}
    if case.meta is None or case.meta.generation.mode == GenerationMode.POSITIVE:
        _mend(case.query or {}, form)
        headers: Any = case.headers or {}
        headers.pop("Range", None)  # may lie beyond the end of the file, once a job has one
        if "Idempotency-Key" in headers:  # the same key belongs to the same request
            headers["Idempotency-Key"] = str(uuid4())
        # Otherwise schemathesis validates the changed request, and takes every form with bytes for an invalid one.
        case._sync_validated_hashes()
        return
    for place in (case.query or {}, form):  # an empty parameter counts as left out, so it must become invalid
        place |= {name: INVALID for name, value in place.items() if value == "" and name != IMAGE_FIELD}


def _mend(query: dict[str, Any], form: dict[str, Any]) -> None:
    """Change parameters where they are. One that is in both is removed from the query."""
    for name in form.keys() & query.keys():
        del query[name]
    for place in (query, form):
        # The variant or the image may not reach the size; a webhook needs the header Prefer, and a host that exists.
        for name in (*SIZE_PARAMETERS, "webhook"):
            place.pop(name, None)
        if "variant" in place and place["variant"] not in OFFERED:
            place["variant"] = AUTO
    parameters = {**query, **form}
    if str(parameters.get("lossless")) == "1" and parameters.get("format") in LOSSY_FORMATS:
        (form if "format" in form else query)["format"] = "webp"
    if str(parameters.get("depth")) == "16" and parameters.get("format") in (*LOSSY_FORMATS, "webp"):
        (form if "depth" in form else query)["depth"] = "8"
    if "strength" in parameters:
        (form if "variant" in form else query)["variant"] = DENOISER
