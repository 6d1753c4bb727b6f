"""The losses of training, on hand-made errors."""

from __future__ import annotations

import pytest
import torch

from training.losses import LOSSES, l1_fft, luma_mse, mse, pair_weights

FLAT = torch.full((1, 3, 8, 8), 0.5)


@pytest.mark.parametrize("loss", LOSSES.values())
def test_a_perfect_result_has_no_loss_and_a_larger_error_has_more(loss) -> None:  # type: ignore[no-untyped-def]
    assert loss(FLAT, FLAT) == 0
    assert loss(FLAT + 0.2, FLAT) > loss(FLAT + 0.1, FLAT) > 0


def test_the_mean_error_and_its_spectrum_add_up() -> None:
    # The orthonormal spectrum of a constant 0.1 on 8 x 8 has one entry of 0.1 * 8, of 2 * 8 * 5 real numbers.
    assert l1_fft(FLAT + 0.1, FLAT).item() == pytest.approx(0.1 + 0.05 * 0.8 / 80, rel=1e-4)
    assert mse(FLAT + 0.1, FLAT).item() == pytest.approx(20 * 0.01, rel=1e-4)


def test_an_error_of_luminance_counts_more_than_one_of_colour() -> None:
    grey = torch.tensor([0.1, 0.1, 0.1]).view(1, 3, 1, 1)
    # As large as `grey` in RGB, without luminance: 0.299 R + 0.587 G + 0.114 B = 0.
    colour = torch.tensor([0.587, -0.299, 0.0])
    colour = (colour * (grey.norm() / colour.norm())).view(1, 3, 1, 1)
    assert mse(FLAT + grey, FLAT).item() == pytest.approx(mse(FLAT + colour, FLAT).item(), rel=1e-4)
    assert luma_mse(FLAT + grey, FLAT).item() == pytest.approx(5 * luma_mse(FLAT + colour, FLAT).item(), rel=1e-4)


def test_a_grey_network_has_luminance_alone() -> None:
    grey = FLAT[:, :1]
    assert luma_mse(grey + 0.1, grey).item() == pytest.approx(mse(grey + 0.1, grey).item(), rel=1e-4)


def test_a_pair_weighs_less_the_more_its_input_is_damaged() -> None:
    target = FLAT.repeat(3, 1, 1, 1)
    given = target + torch.tensor([0.0, 8.0, 35.0]).view(3, 1, 1, 1) / 255
    assert pair_weights(given, target).flatten().tolist() == pytest.approx([9.0, 1.0, 0.25], rel=1e-3)
