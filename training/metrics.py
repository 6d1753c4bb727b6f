"""PSNR and SSIM as the super-resolution papers compute them, for training and docs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# The window of SSIM, separable.
_WINDOW = np.exp(-(np.arange(-5.0, 6.0) ** 2) / (2 * 1.5**2))
_WINDOW /= _WINDOW.sum()


def luminance(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Y of BT.601 in 16..235 from uint8 [H, W, 3] (MATLAB's rgb2ycbcr, not rounded); one channel stays unchanged."""
    if pixels.ndim == 2 or pixels.shape[-1] == 1:
        return pixels.reshape(pixels.shape[:2]).astype(np.float64)
    weights = np.array([65.481, 128.553, 24.966]) / 255.0
    return np.asarray(pixels @ weights + 16.0, np.float64)


def psnr(a: npt.NDArray[np.uint8 | np.uint16], b: npt.NDArray[np.uint8 | np.uint16], *, border: int = 0) -> float:
    """PSNR in dB over all channels as given, ``border`` pixels cropped on each side; infinite when equal."""
    return _decibel(a.astype(np.float64), b.astype(np.float64), border)


def luminance_psnr(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8], *, border: int) -> float:
    """Y-PSNR in dB, ``border`` pixels cropped on each side: the figure of SwinIR's tables."""
    return _decibel(luminance(a), luminance(b), border)


def _decibel(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], border: int) -> float:
    error = float(np.mean((_crop(a, border) - _crop(b, border)) ** 2))
    return float("inf") if error == 0 else 10.0 * float(np.log10(255.0**2 / error))


def luminance_ssim(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8], *, border: int) -> float:
    """SSIM of the luminance, ``border`` pixels cropped on each side: the figure of super-resolution papers.

    Wang et al. 2004: Gaussian window of 11 x 11, sigma 1.5, K 0.01 and 0.03, range 255, mean over whole windows. Raises
    ValueError when less than 11 pixels remain on a side.
    """
    x, y = _crop(luminance(a), border), _crop(luminance(b), border)
    if min(x.shape) < _WINDOW.size:
        raise ValueError(f"SSIM needs {_WINDOW.size} pixels on each side, got {x.shape[0]} x {x.shape[1]}")
    mean_x, mean_y = _blur(x), _blur(y)
    variances = _blur(x * x) - mean_x**2 + _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))
    return float(similarity.mean())


def _blur(plane: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Weighted means of all whole windows: [H, W] -> [H - 10, W - 10]."""
    rows = np.lib.stride_tricks.sliding_window_view(plane, _WINDOW.size, axis=0) @ _WINDOW
    return np.lib.stride_tricks.sliding_window_view(rows, _WINDOW.size, axis=1) @ _WINDOW


def _crop(plane: npt.NDArray[np.float64], border: int) -> npt.NDArray[np.float64]:
    return plane[border:-border, border:-border] if border else plane
