"""PSNR and SSIM are those of the papers: by hand, and SSIM as scikit-image computes it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from training.metrics import luminance_psnr, luminance_ssim, psnr

Plane = npt.NDArray[np.uint8]


def two_planes() -> tuple[Plane, Plane]:
    rows, columns = np.mgrid[0:24, 0:20]
    first = ((columns * 7 + rows * 13) % 97 * 2 + 20).astype(np.uint8)
    second = np.clip(first.astype(int) + ((columns * 5 + rows * 3) % 11 - 5) * 3, 0, 255).astype(np.uint8)
    return first, second


def two_images() -> tuple[Plane, Plane]:
    first, second = two_planes()
    return np.stack([first, second, first[::-1]], axis=-1), np.stack([second, first, second[::-1]], axis=-1)


# skimage.metrics.structural_similarity of scikit-image 0.26.0, gaussian_weights=True, sigma=1.5, data_range=255,
# use_sample_covariance=False, of the luminance without the border.
@pytest.mark.parametrize(
    ("pair", "border", "expected"),
    [
        (two_planes(), 0, 0.9831688862552896),
        (two_planes(), 4, 0.9837468640788584),
        (two_images(), 0, 0.9980120279638975),
        (two_images(), 4, 0.9986761155529714),
    ],
)
def test_ssim_equals_that_of_scikit_image(pair: tuple[Plane, Plane], border: int, expected: float) -> None:
    assert luminance_ssim(*pair, border=border) == pytest.approx(expected, abs=1e-12)


def test_ssim_of_equal_images_is_1_and_of_flats_follows_the_formula() -> None:
    first, _ = two_images()
    assert luminance_ssim(first, first, border=0) == pytest.approx(1.0)
    black, white = np.zeros((12, 12), np.uint8), np.full((12, 12), 255, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert luminance_ssim(black, white, border=0) == pytest.approx(c1 / (255**2 + c1))


def test_ssim_of_a_small_image_is_refused() -> None:
    small = np.zeros((18, 30), np.uint8)
    with pytest.raises(ValueError, match="11 pixels on each side, got 10 x 22"):
        luminance_ssim(small, small, border=4)


def test_psnr_by_hand() -> None:
    first = np.full((6, 6, 3), 100, np.uint8)
    second = first.copy()
    second[2, 2] = 110  # a quarter of the 2 x 2 pixels inside the border
    assert psnr(first, second, border=2) == pytest.approx(10 * np.log10(255**2 / 25))
    assert psnr(first, first) == float("inf")
    # All of R, G and B up by 10 levels raise the luminance by 10 x 219 / 255.
    assert luminance_psnr(first, second, border=2) == pytest.approx(10 * np.log10(255**2 / (25 * (219 / 255) ** 2)))
