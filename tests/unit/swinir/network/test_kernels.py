"""The kernels of a GPU's blocks, run by Triton's interpreter: they agree with PyTorch for every shape of the zoo."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, linear, scaled_dot_product_attention

from swinir.network.blocks import SwinBlock
from swinir.network.cuda.block import KernelBlock
from swinir.network.cuda.compile import zoo_shapes
from swinir.network.cuda.shapes import BlockShape
from swinir.network.windows import WindowOrders, window_orders
from testing.kernels import InterpretedLaunch
from testing.networks import relative_error

SHAPES = [
    pytest.param(BlockShape(48, 4, 8, 96), id="compact"),
    pytest.param(BlockShape(48, 4, 7, 96), id="compact-jpeg"),
    pytest.param(BlockShape(60, 6, 8, 120), id="lightweight"),
    pytest.param(BlockShape(180, 6, 8, 360), id="classical-real-denoise"),
    pytest.param(BlockShape(180, 6, 7, 360), id="jpeg"),
    pytest.param(BlockShape(240, 8, 8, 480), id="real-large"),
]
OTHER_SHAPES = [
    pytest.param(BlockShape(64, 2, 8, 128), id="power-of-two"),
    pytest.param(BlockShape(34, 2, 3, 51), id="nothing-is-a-multiple"),
    pytest.param(BlockShape(256, 8, 8, 1024), id="largest"),
]
# Of a value in bfloat16, which has 8 bits.
ROUNDING = 2**-8


def draw_block(shape: BlockShape, *, shifted: bool) -> SwinBlock:
    generator = torch.Generator().manual_seed(7)
    block = SwinBlock(shape.dim, shape.heads, shape.window, shape.hidden / shape.dim, shifted=shifted)
    with torch.no_grad():
        for parameter in block.parameters():
            spread = 0.25 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
        block.norm1.weight.add_(1.0)
        block.norm2.weight.add_(1.0)
    return block


def draw_tokens(count: int, dim: int) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(1))


def order_of(block: SwinBlock, orders: WindowOrders) -> tuple[Tensor, tuple[tuple[int, int, int], ...]]:
    of, to = ("plain", "shifted") if block.shifted else ("shifted", "plain")
    return orders.gather[of, to], orders.kinds[to]


def rms(values: Tensor) -> float:
    return values.float().square().mean().sqrt().item()


@torch.inference_mode()
def assert_agrees(shape: BlockShape, batch: int, rows: int, columns: int, capability: int, *, shifted: bool) -> None:
    """Compare a block of that many windows: it must be as close to float32 as PyTorch's autocast is."""
    block = draw_block(shape, shifted=shifted)
    height, width = rows * shape.window, columns * shape.window
    gather, kinds = order_of(block, window_orders(batch, height, width, shape.window, torch.device("cpu")))
    tokens = draw_tokens(batch * height * width, shape.dim)
    expected = block.run_plain(tokens.index_select(0, gather), kinds)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        autocast = block.run_plain(tokens.index_select(0, gather), kinds)

    actual = KernelBlock(block, InterpretedLaunch(shape, capability)).run(tokens, gather, kinds)

    assert actual.dtype == torch.float32
    assert rms(actual - expected) <= rms(autocast - expected)
    assert relative_error(actual, expected) <= 2 * ROUNDING


def test_shapes_are_those_of_the_zoo() -> None:
    assert zoo_shapes() == sorted((shape for each in SHAPES for shape in each.values), key=repr)


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("shifted", [False, True], ids=["plain", "shifted"])
@pytest.mark.parametrize("shape", SHAPES)
def test_block_is_as_close_to_float32_as_autocast(shape: BlockShape, capability: int, *, shifted: bool) -> None:
    assert_agrees(shape, 2, 2, 3, capability, shifted=shifted)


@pytest.mark.parametrize("shape", OTHER_SHAPES)
def test_other_shapes_that_fit_agree(shape: BlockShape) -> None:
    assert shape.fits
    assert_agrees(shape, 1, 2, 2, 90, shifted=True)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 3), (3, 1)], ids=["corner", "bottom", "right"])
@pytest.mark.parametrize("window", [7, 8])
def test_image_of_few_windows_agrees(rows: int, columns: int, window: int) -> None:
    assert_agrees(BlockShape(48, 4, window, 96), 3, rows, columns, 90, shifted=True)


@torch.inference_mode()
@pytest.mark.parametrize("shape", SHAPES)
def test_projection_agrees(shape: BlockShape) -> None:
    block = draw_block(shape, shifted=False)
    gather = torch.randperm(2 * shape.area, generator=torch.Generator().manual_seed(2))
    tokens = draw_tokens(2 * shape.area, shape.dim)
    attention = block.attn
    expected = linear(block.norm1(tokens[gather]), attention.qkv.weight, attention.qkv.bias)
    expected = expected.view(-1, 3 * shape.heads, attention.head_dim).transpose(0, 1)
    expected[: shape.heads] *= attention.head_dim**-0.5

    qkv = KernelBlock(block, InterpretedLaunch(shape, 90)).project_qkv(tokens, gather)

    assert qkv.dtype == torch.bfloat16
    assert relative_error(qkv[..., : attention.head_dim].float(), expected) <= 2 * ROUNDING
    assert not qkv[..., attention.head_dim :].any(), "the padding of heads is zero"


@torch.inference_mode()
@pytest.mark.parametrize("shape", SHAPES)
def test_attention_agrees_in_every_kind_of_window(shape: BlockShape) -> None:
    block = draw_block(shape, shifted=True)
    _, kinds = order_of(block, window_orders(1, 2 * shape.window, 2 * shape.window, shape.window, torch.device("cpu")))
    assert [kind for kind, _, _ in kinds] == [0, 1, 2, 3]
    qkv = draw_tokens(3 * shape.heads * 4 * shape.area, shape.head).bfloat16().view(3 * shape.heads, -1, shape.head)
    q, k, v = qkv.float().view(3, shape.heads, 4, shape.area, shape.head)
    bias = torch.stack([block.attn.make_bias(kind) for kind in range(4)], 1)
    expected = scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)

    attended = KernelBlock(block, InterpretedLaunch(shape, 90)).attend(qkv, kinds)

    expected = expected.permute(1, 2, 0, 3).reshape(attended.shape)
    assert relative_error(attended.float(), expected) <= 2 * ROUNDING


@torch.inference_mode()
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("shape", SHAPES)
def test_projection_and_perceptron_agree(shape: BlockShape, capability: int) -> None:
    block = draw_block(shape, shifted=False)
    rows = 2 * shape.area
    gather = torch.randperm(rows, generator=torch.Generator().manual_seed(2))
    tokens = draw_tokens(rows, shape.dim)
    attended = torch.zeros(rows, shape.heads, shape.head)
    attended[..., : block.attn.head_dim] = draw_tokens(rows * shape.heads, block.attn.head_dim).view(
        rows, shape.heads, -1
    )
    attended = attended.bfloat16()
    inner = attended[..., : block.attn.head_dim].float().reshape(rows, -1)
    expected = tokens[gather] + block.attn.proj(inner)
    expected += block.mlp.fc2(gelu(block.mlp.fc1(block.norm2(expected))))

    launch = InterpretedLaunch(shape, capability)
    actual = KernelBlock(block, launch).finish(tokens, gather, attended.view(rows, -1))

    assert relative_error(actual, expected) <= ROUNDING


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # NumPy's, of the interpreter
@torch.inference_mode()
def test_values_not_finite_stay_in_their_window() -> None:
    shape = BlockShape(48, 4, 7, 96)
    block = draw_block(shape, shifted=False)
    gather, kinds = order_of(block, window_orders(1, 14, 14, 7, torch.device("cpu")))
    tokens = draw_tokens(14 * 14, 48)
    kernels = KernelBlock(block, InterpretedLaunch(shape, 90))
    sound = kernels.run(tokens, gather, kinds)
    tokens[gather[50], 3] = float("nan")  # the second window's second token

    actual = kernels.run(tokens, gather, kinds)

    assert not torch.isfinite(actual[49:98]).all(dim=1).any()
    assert torch.equal(torch.cat([actual[:49], actual[98:]]), torch.cat([sound[:49], sound[98:]]))
