"""The forward pass for training gives the pixels of the network that serves."""

from __future__ import annotations

import pytest
import torch

from swinir.network.swinir import SwinIR
from training.forward import TrainingForward
from training.recipes import RECIPES


@pytest.mark.parametrize("variant", RECIPES)
def test_training_sees_the_pixels_that_the_network_serves(variant: str) -> None:
    torch.manual_seed(3)
    recipe = RECIPES[variant]
    network = SwinIR(**recipe.variant.config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)  # bias tables and masks count, norms have an effect
    side = 3 * recipe.variant.window
    images = torch.rand(2, recipe.channels, side, side)

    with torch.inference_mode():
        served = network(images)
    trained = TrainingForward(network, side)(images)

    assert trained.requires_grad
    difference = (trained.detach() - served).abs().max() / served.abs().max()
    assert difference < 1e-5, f"{float(difference):.1e} of the largest magnitude"


def test_a_side_that_does_not_fit_the_window_is_refused() -> None:
    network = SwinIR(**RECIPES["compact_x2"].variant.config)
    with pytest.raises(ValueError, match="Crops of 36 pixels do not fit windows of 8"):
        TrainingForward(network, 36)
