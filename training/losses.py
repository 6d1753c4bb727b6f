"""Training losses of images [B, C, H, W] in 0..1."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

FFT_WEIGHT = 0.05
MSE_WEIGHT = 20.0  # gradients of about the size of the L1 loss at 30 dB


def l1_fft(restored: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error, plus 0.05 of that of the orthonormal 2D spectrum: keeps fine texture."""
    difference = restored - target
    spectrum = torch.view_as_real(torch.fft.rfft2(difference, norm="ortho"))
    return difference.abs().mean() + FFT_WEIGHT * spectrum.abs().mean()


def mse(restored: Tensor, target: Tensor) -> Tensor:
    """Twenty times the mean squared error: what PSNR measures, for the end of a run."""
    return MSE_WEIGHT * (restored - target).square().mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1+fft": l1_fft, "mse": mse}
