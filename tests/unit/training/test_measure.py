"""What `training.measure` prints: means of each measure, before and after, of the weights that were asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file

from swinir.weights.find import find_weights
from swinir.zoo import VARIANTS
from testing import images
from training import measure
from training.metrics import luminance_psnr, luminance_ssim, psnr
from training.packages import PackageMissingError

VARIANT = "compact_color_jpeg_20"


class MeanLevels:
    """Stands for the packages: brightness, and its difference to the target."""

    def vgg_distance(self, image: Any, target: Any) -> float:
        return float(image.mean() - target.mean())

    def brisque(self, image: Any) -> float:
        return float(image.mean())


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two small images as Set5, and no packages."""
    monkeypatch.setattr(measure, "load_perceptual", MeanLevels)
    (tmp_path / "bench/Set5/HR").mkdir(parents=True)
    for seed in (1, 2):
        Image.fromarray(images.draw_photo(28, 35, seed=seed)).save(tmp_path / f"bench/Set5/HR/{seed}.png")
    return tmp_path


def cells(output: str) -> list[str]:
    (line,) = [line for line in output.splitlines() if line.startswith(f"| `{VARIANT}`")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_means_of_input_and_result() -> None:
    target = images.draw_photo(48, 48, seed=1)
    pairs = [(target[::2, ::2] // 2, target), (target[1::2, 1::2], target)]

    def restore(given: Any) -> Any:
        return given.repeat(2, axis=0).repeat(2, axis=1)

    before, after = measure.assess(restore, 2, pairs, MeanLevels())  # type: ignore[arg-type]

    plain = [measure.enlarge(given, target, 2) for given, _ in pairs]
    results = [restore(given) for given, _ in pairs]
    for quality, made in ((before, plain), (after, results)):
        assert quality.psnr_db == pytest.approx(np.mean([luminance_psnr(each, target, border=2) for each in made]))
        assert quality.ssim == pytest.approx(np.mean([luminance_ssim(each, target, border=2) for each in made]))
        assert quality.brisque == pytest.approx(np.mean([each.mean() for each in made]))
        assert quality.vgg == pytest.approx(np.mean([each.mean() - target.mean() for each in made]))


def test_same_size_is_measured_on_all_channels_without_a_border() -> None:
    target = images.draw_photo(16, 16, seed=1)
    given = images.draw_photo(16, 16, seed=2)

    before, after = measure.assess(lambda _: target, 1, [(given, target)], MeanLevels())  # type: ignore[arg-type]

    assert before.psnr_db == pytest.approx(psnr(given, target))
    assert before.ssim == pytest.approx(luminance_ssim(given, target, border=0))
    assert after.ssim == pytest.approx(1.0)
    assert (after.psnr_db, after.vgg) == (float("inf"), 0.0)


def test_other_weights_are_measured_in_place_of_the_bundled_ones(bench: Path, tmp_path: Path) -> None:
    tensors = load_file(find_weights(VARIANTS[VARIANT], None))
    # Without its last convolution a 1x network returns its input.
    zeroed = {name: each * (not name.startswith("conv_last")) for name, each in tensors.items()}
    save_file(zeroed, tmp_path / "other.safetensors")
    arguments = [VARIANT, "--data", str(bench), "--threads", "1"]

    bundled = CliRunner().invoke(measure.measure, arguments)
    other = CliRunner().invoke(measure.measure, [*arguments, "--weights", str(tmp_path / "other.safetensors")])

    assert bundled.exit_code == other.exit_code == 0, bundled.output + other.output
    assert cells(other.output)[5] == "+0.00"
    assert cells(bundled.output)[5] != "+0.00"
    assert cells(bundled.output)[3] == cells(other.output)[3], "the same input"
    size_kb = (tmp_path / "other.safetensors").stat().st_size / 1000
    assert cells(other.output)[1] == f"{size_kb:.0f} kB"


def test_weights_without_one_name_are_refused(bench: Path) -> None:
    weights = str(find_weights(VARIANTS[VARIANT], None))
    result = CliRunner().invoke(measure.measure, ["--data", str(bench), "--weights", weights])
    assert result.exit_code == 2
    assert "--weights needs the NAME of one variant, got 0." in result.output


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing() -> None:
        raise PackageMissingError("h5py is not installed. Install it: pip install h5py")

    monkeypatch.setattr(measure, "Perceptual", missing)
    measure.load_perceptual.cache_clear()
    result = CliRunner().invoke(measure.measure, [VARIANT, "--data", str(tmp_path)])
    assert result.exit_code == 1
    assert "h5py is not installed. Install it: pip install h5py" in result.output
