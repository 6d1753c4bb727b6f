"""PSNR as the super-resolution papers compute it, for training and docs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def luminance(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Y of BT.601 in 16..235 from uint8 [H, W, 3] (MATLAB's rgb2ycbcr, not rounded); one channel stays unchanged."""
    if pixels.ndim == 2 or pixels.shape[-1] == 1:
        return pixels.reshape(pixels.shape[:2]).astype(np.float64)
    weights = np.array([65.481, 128.553, 24.966]) / 255.0
    return np.asarray(pixels @ weights + 16.0, np.float64)


def psnr(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8], *, border: int = 0) -> float:
    """PSNR in dB over all channels as given, ``border`` pixels cropped on each side; infinite when equal."""
    return _decibel(a.astype(np.float64), b.astype(np.float64), border)


def luminance_psnr(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8], *, border: int) -> float:
    """Y-PSNR in dB, ``border`` pixels cropped on each side: the figure of SwinIR's tables."""
    return _decibel(luminance(a), luminance(b), border)


def _decibel(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], border: int) -> float:
    if border:
        a, b = a[border:-border, border:-border], b[border:-border, border:-border]
    error = float(np.mean((a - b) ** 2))
    return float("inf") if error == 0 else 10.0 * float(np.log10(255.0**2 / error))
