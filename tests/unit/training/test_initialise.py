"""A network that was never trained already is an upsampler, or leaves the image unchanged at scale 1."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from swinir.network.shapes import RGB_MEAN
from swinir.network.swinir import SwinIR
from testing import images
from training.degradations import Pixels, resize
from training.evaluate import restore, to_tensor
from training.initialise import grey_from_colour, least_squares_upsampler, start_as_upsampler
from training.metrics import psnr
from training.recipes import RECIPES

PHOTOS = [images.draw_photo(96, 112, seed) for seed in range(3)]


def new_network(variant: str) -> SwinIR:
    torch.manual_seed(5)
    return SwinIR(**RECIPES[variant].variant.config)


def copies(network: SwinIR) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def shrink(photo: Pixels, scale: int) -> Pixels:
    return resize(photo, photo.shape[0] // scale, photo.shape[1] // scale)


@pytest.mark.parametrize("variant", ["compact_x2", "compact_x4"])
def test_a_network_that_was_never_trained_beats_bicubic(variant: str) -> None:
    recipe, photo = RECIPES[variant], PHOTOS[0]
    given = shrink(photo, recipe.scale)
    network = new_network(variant)

    start_as_upsampler(network, PHOTOS, recipe, keep_features=False)

    made, plain = restore(network, given), resize(given, photo.shape[0], photo.shape[1])
    assert psnr(made, photo, border=8) > psnr(plain, photo, border=8) + 0.2


@pytest.mark.parametrize("variant", ["compact_color_denoise_25", "compact_gray_jpeg_20"])
def test_at_scale_1_it_begins_with_the_input_itself(variant: str) -> None:
    channels = RECIPES[variant].channels
    network = new_network(variant)
    given = PHOTOS[0][..., :channels]

    start_as_upsampler(network, [], RECIPES[variant], keep_features=False)

    assert np.array_equal(restore(network, given), given)


def test_loaded_features_are_kept() -> None:
    network = new_network("compact_x2")
    before = copies(network)

    start_as_upsampler(network, PHOTOS, RECIPES["compact_x2"], keep_features=True)

    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"upsample.0.weight", "upsample.0.bias"}


def test_least_squares_is_closer_than_the_plainest_filter_that_it_could_have_chosen() -> None:
    recipe, photo = RECIPES["compact_x2"], PHOTOS[1]

    weight, bias = least_squares_upsampler(PHOTOS, recipe)

    assert (weight.shape, bias.shape) == ((12, 3, 3, 3), (12,))
    given, mean = to_tensor(shrink(photo, 2)[None]), torch.tensor(RGB_MEAN).view(1, -1, 1, 1)
    made = functional.pixel_shuffle(functional.conv2d(given - mean, weight, bias), 2) + mean
    repeated = given[:, :, 1:-1, 1:-1].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    target = to_tensor(photo[None])[:, :, 2:-2, 2:-2]
    assert (made - target).square().mean() < 0.8 * (repeated - target).square().mean()


def test_grey_network_starts_as_the_colour_network() -> None:
    colour, grey = new_network("compact_color_jpeg_20"), new_network("compact_gray_jpeg_20")
    grey.load_state_dict({**grey.state_dict(), **grey_from_colour(grey, copies(colour))})
    light = torch.rand(1, 1, 14, 14)
    mean = torch.tensor(RGB_MEAN).view(1, -1, 1, 1)

    with torch.inference_mode():
        seen_in_colour = colour.conv_first((light.expand(-1, 3, -1, -1) - mean) * colour.img_range)
        seen_in_grey = grey.conv_first(light * grey.img_range)
        features = torch.randn(1, 48, 14, 14)
        given_in_colour, given_in_grey = colour.conv_last(features), grey.conv_last(features)

    inside = (..., slice(1, -1), slice(1, -1))  # at the border the padding is zero before the mean, not after
    torch.testing.assert_close(seen_in_grey[inside], seen_in_colour[inside], atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(given_in_grey, given_in_colour.mean(dim=1, keepdim=True))
    body = [name for name in colour.state_dict() if name.startswith("layers")]
    assert all(torch.equal(grey.state_dict()[name], colour.state_dict()[name]) for name in body)


@pytest.mark.parametrize(("network", "tensors_of"), [("compact_x4", "compact_x2"), ("compact_gray_jpeg_20",) * 2])
def test_tensors_that_fit_already_are_left_as_they_are(network: str, tensors_of: str) -> None:
    tensors = copies(new_network(tensors_of))
    assert grey_from_colour(new_network(network), tensors) is tensors
