"""Training losses of images [B, C, H, W] in 0..1."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

FFT_WEIGHT = 0.05

# Pair weights at scale 1, see `pair_weights`: the weight is 1 at a mean damage of 8 levels, 9 for a clean pair.
TYPICAL_DAMAGE = 8 / 255
DAMAGE_FLOOR = 1 / 255
LUMA_SHARE = 0.8
LUMA = (0.299, 0.587, 0.114)  # BT.601, as PSNR is measured
MSE_WEIGHT = 20.0  # gradients of about the size of the L1 loss at 30 dB


def l1_fft(restored: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error, plus 0.05 of that of the orthonormal 2D spectrum: keeps fine texture."""
    difference = restored - target
    spectrum = torch.view_as_real(torch.fft.rfft2(difference, norm="ortho"))
    return difference.abs().mean() + FFT_WEIGHT * spectrum.abs().mean()


def mse(restored: Tensor, target: Tensor) -> Tensor:
    """Twenty times the mean squared error: what PSNR measures, for the end of a run."""
    return MSE_WEIGHT * (restored - target).square().mean()


def grid_loss(restored: Tensor, target: Tensor, scale: int = 4) -> Tensor:
    """Mean absolute pattern that repeats with every input pixel and that `target` does not have.

    The last convolution writes each of the `scale` x `scale` pixels of an input pixel by weights of its own. Under an
    adversarial loss these drift apart: a faint grid in smooth areas, which the other losses hardly see. The pattern is
    the mean difference of the pixels of equal place over squares of 8 input pixels.
    """
    places = functional.pixel_unshuffle(restored - target, scale)
    means = functional.avg_pool2d(places, 8, stride=4)
    means = means.view(len(means), -1, scale * scale, *means.shape[2:])
    return (means - means.mean(dim=2, keepdim=True)).abs().mean()


def luma_mse(restored: Tensor, target: Tensor) -> Tensor:
    """The mean squared error, four fifths of it that of the luminance (BT.601), which PSNR and the eye look at."""
    if restored.shape[1] == 1:
        return mse(restored, target)
    weights = torch.tensor(LUMA, device=restored.device).view(1, 3, 1, 1)
    luma = MSE_WEIGHT * ((restored - target) * weights).sum(dim=1).square().mean()
    return LUMA_SHARE * luma + (1 - LUMA_SHARE) * mse(restored, target)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1+fft": l1_fft, "mse": mse, "mse-luma": luma_mse}


def pair_weights(given: Tensor, target: Tensor) -> Tensor:
    """Weights [B, 1, 1, 1] of pairs [B, C, H, W]: a pair counts by its error in relation to the damage of its input.

    PSNR is a logarithm: an error of one level ruins a clean image and does not show in one with noise of 50 levels.
    Without weights a batch is ruled by its worst inputs (docs/how-to/train.md, "Weights by damage").
    """
    damage = (given - target).abs().mean(dim=(1, 2, 3), keepdim=True)
    return (TYPICAL_DAMAGE + DAMAGE_FLOOR) / (damage + DAMAGE_FLOOR)
