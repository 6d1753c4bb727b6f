"""`transparent_colour=keep`: the colours under full transparency are in the result, and no note says otherwise."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image as PilImage

from gateway.jobs.result_cache import cache_key
from gateway.jobs.transparent_colour import parse_transparent_colour
from gateway.problems import BadParameter
from testing import images
from testing.backend import FakeBackend
from testing.jobs import make_runner, upscale_request
from testing.masks import draw_blob

PHOTO = images.draw_photo(48, 48)
TEXTURE = images.encode_png(np.dstack((PHOTO, draw_blob(48).hard)))
NOTE = "Not in the result: the colours under full transparency."


def test_hidden_colours_are_in_the_result_without_a_note() -> None:
    result = make_runner(FakeBackend()).run(upscale_request(TEXTURE, transparent_colour="keep"), "id")

    pixels = np.asarray(PilImage.open(BytesIO(result.data)))
    assert (pixels[..., :3] == PHOTO.repeat(4, axis=0).repeat(4, axis=1)).all()
    assert result.notes == ()


@pytest.mark.parametrize("parameters", [{}, {"transparent_colour": "bleed"}, {"transparent_colour": ""}])
def test_by_default_they_are_replaced_with_a_note(parameters: dict[str, str]) -> None:
    result = make_runner(FakeBackend()).run(upscale_request(TEXTURE, **parameters), "id")

    pixels = np.asarray(PilImage.open(BytesIO(result.data)))
    assert (pixels[..., :3] != PHOTO.repeat(4, axis=0).repeat(4, axis=1)).any()
    assert result.notes == (NOTE,)


def test_results_of_the_two_are_cached_apart() -> None:
    keys = [cache_key(upscale_request(TEXTURE, transparent_colour=value)) for value in ("keep", "bleed", "")]

    assert keys[0] != keys[1] == keys[2]


def test_invalid_value_is_rejected_with_the_allowed_ones() -> None:
    with pytest.raises(BadParameter, match=r"Invalid transparent_colour 'black'\. Allowed: bleed, keep\.") as raised:
        parse_transparent_colour("black")

    assert raised.value.extensions["allowed"] == ["bleed", "keep"]
