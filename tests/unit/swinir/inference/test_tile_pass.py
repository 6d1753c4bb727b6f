"""The pass that CUDA records, on CPU tensors: the tiles and checks of the other engine, without looking at values."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from swinir.checks import FIELDS
from swinir.inference import constants, shrink
from swinir.inference.compiled_engine import CompiledEngine
from swinir.inference.compiled_tiles import measure_back_errors
from swinir.inference.engine import Tiles
from swinir.inference.shrink import shrink_matrices
from swinir.inference.tile_pass import RERUN, PassOutput, agree, run_pass
from swinir.network import library
from swinir.network.compiled_network import CompiledNetwork
from swinir.zoo import VARIANTS, Variant
from testing.compiled_library import forget_library
from testing.networks import draw_tiles
from testing.tile_kinds import draw_kinds

CPU = torch.device("cpu")


def make_row(scale: int, channels: int = 3) -> Variant:
    """Return a variant of that scale; the stand-in for its network does not need its weights."""
    row = VARIANTS["compact_x4"]
    return dataclasses.replace(row, scale=scale, config={**row.config, "upscale": scale, "in_chans": channels})


def draw_output(tiles: Tiles, scale: int, channels: int, *, halves: bool = True) -> Tensor:
    """Return what a network might return [N, C, H, W]: the enlarged tiles, noise, far values, halves of levels."""
    count, height, *_ = tiles.shape
    random = np.random.default_rng(count + height + scale)
    highest = 65535 if tiles.dtype == np.uint16 else 255
    output = tiles.repeat(scale, 1).repeat(scale, 2).astype(np.float32)[..., :channels] / np.float32(highest)
    output += random.normal(0, 0.1, output.shape).astype(np.float32)
    if halves:
        output[:, ::3, ::2] = (random.integers(-3, 258, output[:, ::3, ::2].shape) + np.float32(0.5)) / np.float32(255)
    output[:, 0, 0], output[:, 0, -1] = -1e30, 1e30
    return torch.from_numpy(output).permute(0, 3, 1, 2)


@torch.inference_mode()
def run(tiles: Tiles, row: Variant, output: Tensor, *, recordable: bool) -> PassOutput:
    _, height, width, _ = tiles.shape
    matrices = shrink_matrices(height, width, row.scale, CPU) if recordable and row.scale > 1 else None
    given = torch.from_numpy(tiles)
    return run_pass(lambda _images: output.clone(), row, given, matrices, recordable=recordable)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", draw_kinds())
def test_recordable_pass_gives_the_same_tiles_and_checks(kind: str, channels: int, scale: int) -> None:
    tiles, row = draw_kinds()[kind], make_row(scale, channels)
    output = draw_output(tiles, scale, channels)
    plain, recordable = (run(tiles, row, output, recordable=each) for each in (False, True))
    assert recordable.levels.dtype == torch.from_numpy(tiles).dtype
    assert recordable.levels.is_contiguous()
    assert torch.equal(recordable.levels, plain.levels)
    assert recordable.rows.numpy() == pytest.approx(plain.rows.numpy(), rel=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("recordable", [False, True])
@pytest.mark.parametrize("kind", ["noise", "photo", "16 bits"])
def test_tile_that_is_not_finite_is_marked_and_changes_no_other(kind: str, recordable: bool, value: float) -> None:
    tiles, row = draw_kinds()[kind], make_row(2)
    tiles = np.concatenate([tiles, tiles])
    output = draw_output(tiles, 2, 3)
    expected = run(tiles, row, output, recordable=recordable)
    output[1, 2, 5, 7] = value
    actual = run(tiles, row, output, recordable=recordable)
    others = [index for index in range(len(tiles)) if index != 1]
    assert actual.rows[:, RERUN].tolist() == [float(index == 1) for index in range(len(tiles))]
    assert torch.equal(actual.levels[others], expected.levels[others])
    assert torch.equal(actual.rows[others], expected.rows[others])


@pytest.fixture(scope="module")
def compiled() -> Iterator[CompiledEngine]:
    library.compile_library()
    forget_library()
    yield CompiledEngine(library.find_library(), threads=2, precision="float32")
    forget_library()


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", draw_kinds())
def test_recordable_pass_gives_the_tiles_of_the_compiled_engine(
    compiled: CompiledEngine, kind: str, channels: int, scale: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit, except where both compute a luminance or a cubic: its last bit can move a half to the next level."""
    tiles, row = draw_kinds()[kind], make_row(scale, channels)
    is_exact = channels == 3 and kind != "neutral"
    output = draw_output(tiles, scale, channels, halves=is_exact)
    network = CompiledNetwork.__new__(CompiledNetwork)
    values = np.ascontiguousarray(output.permute(0, 2, 3, 1).numpy())
    monkeypatch.setattr(CompiledNetwork, "forward", lambda *_given, **_named: values.copy())
    count, height, width, _ = tiles.shape
    expected = np.empty((count, height * scale, width * scale, 3), tiles.dtype)
    checks = np.zeros((count, len(FIELDS)), np.float32)
    compiled.run_checked(network, row, tiles, expected, checks)

    actual = run(tiles, row, output, recordable=True)

    differences = np.abs(actual.levels.numpy().astype(int) - expected)
    assert differences.max() <= (0 if is_exact else 1)
    assert (differences > 0).mean() <= 0.01
    assert actual.rows.numpy() == pytest.approx(checks, rel=1e-5 if is_exact else 1e-3)


@pytest.mark.parametrize("levels", ["noise", "black and white", "white"])
@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("sides", [(1, 1), (3, 17), (24, 8), (64, 80)], ids=str)
def test_shrinking_is_that_of_pytorch_and_of_c_on_a_cpu(
    compiled: CompiledEngine, sides: tuple[int, int], scale: int, levels: str
) -> None:
    random = np.random.default_rng(0)
    shape = (2, sides[0] * scale, sides[1] * scale, 3)
    tiles = random.integers(0, 256, shape, np.uint8)
    if levels != "noise":
        tiles = (np.uint8(255) * (tiles >= (128 if levels == "black and white" else 0))).astype(np.uint8)
    given = torch.from_numpy(tiles).permute(0, 3, 1, 2)

    shrunk = shrink_matrices(*sides, scale, CPU).apply(given)

    assert torch.equal(shrunk, interpolate(given, sides, mode="bicubic", antialias=True).float())
    images = np.ascontiguousarray(shrunk.permute(0, 2, 3, 1).numpy()) / np.float32(255)
    assert measure_back_errors(compiled._library, 1, tiles, images) == pytest.approx([0, 0], abs=1e-9)


def test_shrinking_by_matrices_of_eight_bits_is_exact() -> None:
    """TF32 and bfloat16 hold whole numbers of eight bits, and sums below 2^24 are exact in float32."""
    for scale in (2, 3, 4, 8):
        for side in (1, 2, 7, 64):
            matrix = shrink_matrices(side, side, scale, CPU).down
            for part in (matrix.high, matrix.low):
                assert torch.equal(part, part.bfloat16().float())
                assert 255 * part.abs().sum(dim=1).max() < 1 << 24


@pytest.fixture
def fresh_constants() -> Iterator[None]:
    """Without tensors of another test in their caches, and without ours afterwards."""
    caches = (constants.constant, shrink._matrix)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


class DeviceRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the operations whose tensors are on more than one device, as a copy from the host to a GPU is."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0
        self.mixed: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Sequence[type], given: Sequence[Any] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        result = function(*given, **(named or {}))
        self.operations += 1
        devices = {each.device.type for each in tree_leaves((given, named, result)) if isinstance(each, Tensor)}
        if devices != {"meta"}:
            self.mixed.append(f"{function}: {sorted(devices)}")
        return result


@pytest.mark.usefixtures("fresh_constants")
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16], ids=str)
@pytest.mark.parametrize("scale", [1, 4])
def test_recordable_pass_reads_no_value_and_copies_nothing(
    scale: int, dtype: torch.dtype, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's meta device stands in for a GPU: its tensors have no values, so an operation that reads one fails."""
    row, device = make_row(scale, channels), torch.device("meta")
    enlarge = functools.partial(interpolate, scale_factor=scale, mode="nearest")
    with torch.inference_mode():
        tiles = torch.empty(2, 24, 40, 3, dtype=dtype, device=device)
        matrices = shrink_matrices(24, 40, scale, device) if scale > 1 else None
        run_pass(enlarge, row, tiles, matrices, recordable=True)  # the first creates constants
        monkeypatch.setattr(torch, "tensor", None)  # copies from the host, which the recorder does not see
        with DeviceRecorder() as recorder:
            levels, rows = run_pass(enlarge, row, tiles, matrices, recordable=True)
        assert recorder.operations > 50
        assert recorder.mixed == []
        assert (levels.shape, levels.dtype) == ((2, 24 * scale, 40 * scale, 3), dtype)
        assert (rows.shape, rows.dtype) == ((2, len(FIELDS)), torch.float32)
        with pytest.raises((RuntimeError, NotImplementedError)):
            run_pass(enlarge, row, tiles, matrices, recordable=False)


def test_passes_agree_within_the_tolerance() -> None:
    tiles = draw_tiles(2, 16, 24)
    output = PassOutput(*(each.clone() for each in run(tiles, make_row(2), draw_output(tiles, 2, 3), recordable=True)))
    assert agree(output, output, 0.0)
    other = PassOutput(output.levels.clone(), output.rows.clone())
    other.levels[1, 3, 5, 2] = (int(output.levels[1, 3, 5, 2]) + 128) % 256
    assert not agree(other, output, 0.4)
    assert agree(other, output, 0.6)
    for passes in ((output, other), (other, output)):
        other.rows[1, RERUN] = 1
        assert not agree(*passes, 1.0)
    output.rows[1, RERUN] = 1
    assert agree(other, output, 0.0), "a tile that is not finite has no levels"
