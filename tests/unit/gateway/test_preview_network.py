"""The network of the browser's preview: its C source, compiled for this machine, its weights and its module."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from preprocessing.codec import Pixels
from scripts.preview_wasm import SOURCE, TARGET, source_digest
from swinir.inference.torch_engine import TorchEngine
from swinir.inference.whole_image import restore_image
from swinir.preview_weights import PREVIEW_VARIANTS, pack_preview_weights
from swinir.zoo import find_variant
from testing.images import draw_photo
from training.metrics import psnr

Upscale = Callable[[Pixels, str], Pixels]
SIDES = (40, 64)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    target = tmp_path_factory.mktemp("preview") / "compact_x4.so"
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler, "no C compiler; the fused blocks need one as well"
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-fPIC", "-shared"]
    subprocess.run([compiler, *flags, str(SOURCE), "-o", str(target), "-lm"], check=True)
    return ctypes.CDLL(str(target))


@pytest.fixture
def upscale(library: ctypes.CDLL) -> Upscale:
    for name in ("weights_at", "input_at", "output_at"):
        getattr(library, name).restype = ctypes.c_void_p

    def run(pixels: Pixels, variant: str) -> Pixels:
        weights, data = pack_preview_weights(variant), pixels.tobytes()
        assert len(weights) == 2 * library.weights_count()
        ctypes.memmove(library.weights_at(), weights, len(weights))
        library.prepare()
        ctypes.memmove(library.input_at(), data, len(data))
        height, width, _ = pixels.shape
        assert library.upscale(height, width) == 1
        made: npt.NDArray[np.uint8] = np.frombuffer(
            ctypes.string_at(library.output_at(), 64 * height * width), np.uint8
        )
        return made.reshape(4 * height, 4 * width, 4)[..., :3]

    return run


@pytest.mark.parametrize("variant", PREVIEW_VARIANTS)
def test_source_gives_the_results_of_the_engine(upscale: Upscale, variant: str) -> None:
    height, width = SIDES
    pixels = np.ascontiguousarray(draw_photo(height, width, seed=5))

    expected = restore_image(TorchEngine(), pixels, find_variant(variant))

    assert psnr(upscale(pixels, variant), expected) >= 60


def test_sides_that_do_not_fit_are_refused(library: ctypes.CDLL) -> None:
    assert [library.upscale(*sides) for sides in ((0, 8), (8, 12), (136, 8), (8, 136), (-8, 8))] == [0] * 5


def test_module_was_built_from_this_source() -> None:
    assert source_digest().encode() in TARGET.read_bytes(), "run python -m scripts.preview_wasm"


def test_module_and_weights_stay_small() -> None:
    assert TARGET.stat().st_size < 20_000
    assert {len(pack_preview_weights(name)) for name in PREVIEW_VARIANTS} == {487_104}
    assert Path(TARGET).read_bytes()[:4] == b"\0asm"
