"""Soft masks through a bundled network: sharper than bicubic interpolation, and exact where they are constant."""

from __future__ import annotations

import numpy as np
import pytest

from preprocessing.alpha import scale_alpha
from preprocessing.soft_alpha import SoftAlpha
from swinir.inference.torch_engine import TorchEngine
from swinir.inference.whole_image import restore_image
from swinir.zoo import find_variant
from testing.masks import draw_blob

# (side of the upload, dB at the edge that the network gains over bicubic interpolation); measured in
# docs/explanation/codec.md.
CASES = {"compact_x4": (64, 7), "compact_x2": (96, 7), "compact_real_x4": (64, 3), "compact_photo_x4": (64, 5)}


@pytest.mark.parametrize("name", CASES)
def test_edge_is_closer_to_the_true_shape_than_bicubic(name: str) -> None:
    (side, gain_db), variant = CASES[name], find_variant(name)
    shape = draw_blob(side, variant.scale)
    soft = SoftAlpha(shape.soft, variant.scale, window=variant.window, halo=variant.halo)

    soft.start()
    soft.add(restore_image(TorchEngine(), soft.network_input, variant))
    enlarged = soft.rows(0, side * variant.scale)

    assert shape.edge_psnr(enlarged) > shape.edge_psnr(scale_alpha(shape.soft, variant.scale)) + gain_db
    assert (enlarged[: 4 * variant.scale] == 0).all()


def test_shape_on_a_large_canvas_looks_as_on_a_small_one() -> None:
    variant, shape = find_variant("compact_x4"), draw_blob()
    canvas = np.zeros((512, 640), np.uint8)
    canvas[128:192, 304:368] = shape.soft

    soft = SoftAlpha(canvas, 4, window=variant.window, halo=variant.halo)
    soft.start()
    soft.add(restore_image(TorchEngine(), soft.network_input, variant))
    around = np.pad(shape.soft, 48)[..., np.newaxis].repeat(3, axis=2)
    alone = restore_image(TorchEngine(), around, variant)[192:-192, 192:-192, 0]

    enlarged = soft.rows(512, 768)[:, 1216:1472]
    assert np.abs(enlarged.astype(int) - alone).max() <= 2
