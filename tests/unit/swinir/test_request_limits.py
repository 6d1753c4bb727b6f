"""Limits of one request to the models: what the shipped configuration of `upscale_stream` accepts."""

from __future__ import annotations

import re

import pytest

from swinir.request_limits import RequestLimitError, check_image
from testing.data import ROOT

CONFIG = (ROOT / "model_repository/upscale_stream/config.pbtxt").read_text(encoding="utf-8")
LIMITS = {
    name: int(value)
    for name, value in re.findall(r'key: "(max_\w+)" value \{ string_value: "(\d+)" \}', CONFIG)
    if name in ("max_pixels", "max_output_pixels", "max_columns")
}


@pytest.mark.parametrize("size", [(3_024, 4_032), (4_032, 3_024), (1_525, 8_192), (8_192, 1_525)])
@pytest.mark.parametrize("variant", ["compact_color_denoise_25", "compact_gray_jpeg_20", "compact_x2"])
def test_12_megapixels_are_accepted_at_1x_and_2x(variant: str, size: tuple[int, int]) -> None:
    row, grid = check_image(*size, variant, limits=LIMITS, weights_dir=None)
    assert (row.name, grid.rows * grid.columns > 1) == (variant, True)


def test_12_megapixels_are_refused_at_4x_with_the_limit() -> None:
    with pytest.raises(RequestLimitError, match="the limit for compact_x4 is 4194304"):
        check_image(3_024, 4_032, "compact_x4", limits=LIMITS, weights_dir=None)
