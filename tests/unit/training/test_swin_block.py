"""The compiled training block gives PyTorch's result and gradients, within the precision of its products."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import torch
from torch import Tensor

from swinir.network.swinir import SwinIR
from training import swin_block
from training.forward import TrainingForward
from training.recipes import RECIPES
from training.swin_block import Products

# Of the norm of each tensor. Autocast to bfloat16 in PyTorch is about 0.005 from float32 in the same comparison.
TOLERANCE: dict[Products, float] = {"bfloat16": 0.01, "float32": 1e-5}

needs_avx2 = pytest.mark.skipif(not swin_block.is_available("float32"), reason="needs a processor with AVX2 and gcc")
needs_amx = pytest.mark.skipif(not swin_block.is_available("bfloat16"), reason="needs a processor with AMX and gcc")
both = pytest.mark.parametrize(
    "products", [pytest.param("bfloat16", marks=needs_amx), pytest.param("float32", marks=needs_avx2)]
)


def new_network(variant: str) -> SwinIR:
    torch.manual_seed(3)
    network = SwinIR(**RECIPES[variant].variant.config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return network


def gradients(network: SwinIR, images: Tensor, *, fused: Products | None) -> dict[str, Tensor]:
    network.zero_grad()
    images = images.clone().requires_grad_()
    out = TrainingForward(network, images.shape[-1], fused=fused)(images)
    torch.autograd.backward((out * torch.linspace(-1, 2, out.shape[-1])).sum())
    assert images.grad is not None
    found = {
        name: parameter.grad.clone() for name, parameter in network.named_parameters() if parameter.grad is not None
    }
    return {"result": out.detach(), "images": images.grad, **found}


@both
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("variant", ["compact_x2", "compact_color_jpeg_20", "compact_gray_denoise_25"])
def test_result_and_gradients_are_those_of_pytorch(variant: str, batch: int, products: Products) -> None:
    network = new_network(variant)
    side = 3 * network.window_size
    images = torch.rand(batch, RECIPES[variant].channels, side, side)

    expected = gradients(network, images, fused=None)
    found = gradients(network, images, fused=products)

    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        error = float((found[name] - tensor).norm() / tensor.norm())
        assert error < TOLERANCE[products], f"{name}: {error:.1e} of its norm"


@needs_avx2
def test_sides_that_do_not_fit_the_window_are_refused() -> None:
    network = new_network("compact_x2")
    block = network.layers[0].residual_group.blocks[0]  # type: ignore[union-attr, index]
    with pytest.raises(ValueError, match=r"\(12, 16\) must be multiples of the window, 8"):
        swin_block.run_block(block, torch.zeros(1, 12, 16, 48), torch.zeros(4, 64, 64), "float32")


def test_only_networks_of_its_sizes_suit_it() -> None:
    config = RECIPES["compact_x2"].variant.config
    assert swin_block.suits(SwinIR(**config))
    assert not swin_block.suits(SwinIR(**{**config, "embed_dim": 60, "num_heads": [6, 6]}))


def test_without_a_compiler_training_runs_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: None)
    assert swin_block.compile_library("float32", 8) is None
    assert swin_block.compile_library("bfloat16", 8) is None


@needs_avx2
@pytest.mark.parametrize("window", [7, 8])
def test_the_block_for_amx_compiles_on_processors_without_it_too(window: int) -> None:
    flags = ("-mamx-tile", "-mamx-bf16", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512bf16", "-mfma")
    extra = (*swin_block.EXTRA_FLAGS["bfloat16"], f"-DWINDOW={window}", "-Werror", "-Wall", "-Wno-unused-function")
    compiler = shutil.which("gcc") or "cc"
    command = [compiler, "-std=gnu11", "-fsyntax-only", *flags, *extra, str(swin_block.SOURCE)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
