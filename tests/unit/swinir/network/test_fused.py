"""The fused block gives the output of PyTorch for every shape and any weights; without it PyTorch is used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from swinir.network import blocks, fused, library
from swinir.network.packing import MAX_HEAD_DIM
from swinir.network.windows import window_orders
from testing.compiled_library import compile_changed, forget_library
from testing.networks import (
    PARITY,
    PARITY_CASES,
    SMALL,
    draw_images,
    parity_config,
    reference_network,
    relative_error,
)

TOLERANCE = 1e-5


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Compile as `make setup` does; without a C compiler these tests fail, they are not skipped."""
    library.compile_library()
    forget_library()
    assert fused.is_available()


@pytest.fixture
def clear_library_cache() -> Iterator[None]:
    """Forget the loaded library before and after the test."""
    forget_library()
    yield
    forget_library()


def draw_block(
    dim: int, heads: int, window: int, ratio: float, *, shifted: bool, spread: float = 0.25
) -> blocks.SwinBlock:
    generator = torch.Generator().manual_seed(7)
    block = blocks.SwinBlock(dim, heads, window, ratio, shifted=shifted)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return block


def run(block: blocks.SwinBlock, tokens: Tensor, batch: int, height: int, width: int) -> Tensor:
    orders = window_orders(batch, height, width, block.attn.window_size, tokens.device)
    to, of = ("plain", "shifted") if block.shifted else ("shifted", "plain")
    with torch.inference_mode():
        return block(tokens, orders.gather[to, of], orders.kinds[of])


@pytest.mark.parametrize("shifted", [False, True], ids=["plain", "shifted"])
@pytest.mark.parametrize(
    ("dim", "heads", "window", "ratio"),
    [
        (48, 4, 8, 2.0),  # compact
        (60, 6, 8, 2.0),  # lightweight
        (180, 6, 8, 2.0),  # classical, real, denoise
        (180, 6, 7, 2.0),  # jpeg
        (240, 8, 8, 2.0),  # real large
        (21, 3, 4, 1.5),  # nothing is a multiple of anything
        (8, 1, 2, 4.0),
        (34, 2, 9, 2.0),  # heads longer than a panel, windows larger than 64 tokens
    ],
)
def test_fused_block_agrees_with_pytorch(dim: int, heads: int, window: int, ratio: float, *, shifted: bool) -> None:
    block = draw_block(dim, heads, window, ratio, shifted=shifted)
    tokens = torch.randn(2 * 3 * window * 2 * window, dim, generator=torch.Generator().manual_seed(1))

    actual = run(block, tokens, 2, 3 * window, 2 * window)

    with fused.disabled():
        assert relative_error(actual, run(block, tokens, 2, 3 * window, 2 * window)) <= TOLERANCE


@pytest.mark.parametrize("case", PARITY_CASES)
def test_fused_network_agrees_with_the_published_one(case: str) -> None:
    with np.load(PARITY / f"{case}.npz") as arrays, torch.inference_mode():
        restored = reference_network(parity_config(case))(torch.from_numpy(arrays["input"]))
        assert relative_error(restored, torch.from_numpy(arrays["output"])) <= TOLERANCE


def test_number_of_threads_changes_no_bit() -> None:
    block = draw_block(48, 4, 8, 2.0, shifted=True)
    tokens = torch.randn(40 * 24, 48, generator=torch.Generator().manual_seed(1))
    orders = window_orders(1, 40, 24, 8, tokens.device)
    results = [
        fused.FusedBlock(block).run(tokens, orders.gather["plain", "shifted"], orders.kinds["shifted"], threads)
        for threads in (1, 2, 3, 16, 1000)
    ]
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("size", [0.0, 1e-30, 30.0, 1e4], ids=["zero", "tiny", "large", "huge"])
def test_tokens_of_any_size_agree_with_pytorch(size: float) -> None:
    block = draw_block(60, 6, 8, 2.0, shifted=True)
    tokens = size * torch.randn(16 * 16, 60, generator=torch.Generator().manual_seed(1))
    actual = run(block, tokens, 1, 16, 16)
    with fused.disabled():
        assert relative_error(actual, run(block, tokens, 1, 16, 16)) <= TOLERANCE


def test_scores_far_apart_agree_with_pytorch() -> None:
    """Weights of a few units make a softmax of ones and zeros, and perceptrons far into both tails."""
    block = draw_block(48, 4, 8, 2.0, shifted=True, spread=3.0)
    tokens = torch.randn(16 * 24, 48, generator=torch.Generator().manual_seed(1))
    actual = run(block, tokens, 1, 16, 24)
    with fused.disabled():
        expected = run(block, tokens, 1, 16, 24)
    assert relative_error(actual, expected) <= 1e-3  # a softmax this hard turns on the last bits of its scores
    assert torch.isfinite(actual).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_not_finite_stay_in_their_window(value: float) -> None:
    block = draw_block(60, 6, 8, 2.0, shifted=False)
    tokens = torch.randn(16 * 16, 60, generator=torch.Generator().manual_seed(1))
    sound = run(block, tokens, 1, 16, 16)
    orders = window_orders(1, 16, 16, 8, tokens.device)
    source = orders.gather["shifted", "plain"][70]  # the second window's seventh token
    tokens[source, 3] = value

    actual = run(block, tokens, 1, 16, 16)

    assert not torch.isfinite(actual[64:128]).all(dim=1).any()
    others = torch.cat([actual[:64], actual[128:]])
    assert torch.equal(others, torch.cat([sound[:64], sound[128:]]))


def test_new_weights_are_packed_anew() -> None:
    network, images = reference_network(SMALL), draw_images(1, 3, 16, 24)
    before = network_run(network, images)
    for name, parameter in network.named_parameters():
        if "residual_group.blocks.0." in name and name.endswith(("norm1.bias", "fc2.weight", "table")):
            with torch.no_grad():
                parameter.mul_(2.0)
            after = network_run(network, images)
            assert relative_error(after, before) > 1e-5, name
            with fused.disabled():
                assert relative_error(after, network_run(network, images)) <= TOLERANCE
            before = after


def network_run(network: torch.nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(images)


def test_other_precisions_run_in_pytorch() -> None:
    network, images = reference_network(SMALL), draw_images(1, 3, 16, 16)
    expected = network_run(network, images)
    assert relative_error(network_run(network.double(), images.double()).float(), expected) <= TOLERANCE


@pytest.mark.usefixtures("clear_library_cache")
def test_without_the_library_blocks_run_in_pytorch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    images = draw_images(1, 3, 16, 16)
    expected = network_run(reference_network(SMALL), images)
    forget_library()
    monkeypatch.setattr(library, "COMPILED", tmp_path)
    monkeypatch.setattr(library, "CACHE", tmp_path / "cache")

    assert not fused.is_available()
    assert relative_error(network_run(reference_network(SMALL), images), expected) <= TOLERANCE


@pytest.mark.usefixtures("clear_library_cache")
def test_library_that_computes_something_else_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compile_changed(monkeypatch, tmp_path, "vectors.h", ("0.39894214272499084f", "0.41894214272499084f"))

    assert not fused.is_available()
    assert "blocks run in PyTorch: the fused block differs" in caplog.text


@pytest.mark.parametrize("width", [8, 16])
@pytest.mark.usefixtures("clear_library_cache")
def test_each_vector_width_agrees_with_pytorch_on_every_processor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, width: int
) -> None:
    """AVX-512 has 16 floats in a vector. On other processors the compiler makes two vectors of it."""
    monkeypatch.setattr(library, "COMPILED", tmp_path)
    monkeypatch.setattr(library, "FLAGS", (*library.FLAGS, f"-DVECTOR_WIDTH={width}"))
    library.compile_library()
    assert fused.is_available(), "find_library compares it with PyTorch"
    for dim, heads, window in ((48, 4, 8), (180, 6, 7), (21, 3, 4)):
        block = draw_block(dim, heads, window, 2.0, shifted=True)
        tokens = torch.randn(6 * window**2, dim, generator=torch.Generator().manual_seed(1))
        actual = run(block, tokens, 1, 3 * window, 2 * window)
        with fused.disabled():
            assert relative_error(actual, run(block, tokens, 1, 3 * window, 2 * window)) <= TOLERANCE


def test_missing_compiler_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(library, "COMPILED", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(library.CompileError, match="no C compiler found"):
        library.compile_library()


def test_compile_error_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "broken.c"
    broken.write_text("no C at all")
    monkeypatch.setattr(library, "SOURCE", broken)
    monkeypatch.setattr(library, "COMPILED", tmp_path / "compiled")
    with pytest.raises(library.CompileError, match=r"failed to compile broken\.c"):
        library.compile_library()
    assert not list((tmp_path / "compiled").iterdir())


@pytest.mark.usefixtures("clear_library_cache")
def test_read_only_package_is_compiled_into_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "package").touch()  # a file in the way: root may write to read-only folders
    monkeypatch.setattr(library, "COMPILED", tmp_path / "package" / "compiled")
    monkeypatch.setattr(library, "CACHE", tmp_path / "cache")
    path = library.compile_library()
    assert path.parent == tmp_path / "cache"
    assert library.library_path() == path
    assert fused.is_available()


def test_nowhere_to_write_names_both_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(library, "COMPILED", tmp_path / "file" / "package")
    monkeypatch.setattr(library, "CACHE", tmp_path / "file" / "cache")
    with pytest.raises(library.CompileError, match=r"file/package cannot be written.*; .*file/cache cannot be written"):
        library.compile_library()


def test_compiling_removes_libraries_of_older_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(library, "COMPILED", tmp_path)
    old = tmp_path / "fused_block-0123456789abcdef.so"
    old.touch()
    path = library.compile_library()
    assert path.exists()
    assert not old.exists()
    stamp = path.stat().st_mtime_ns
    assert library.compile_library() == path
    assert path.stat().st_mtime_ns == stamp, "compiled again for nothing"


def test_too_long_heads_run_in_pytorch() -> None:
    """A larger head would read past its zero padding."""
    tokens = torch.randn(4 * 4, MAX_HEAD_DIM + 32, generator=torch.Generator().manual_seed(3))
    for heads, is_fused in ((1, False), (2, True)):
        block = draw_block(tokens.shape[1], heads, 2, 1.0, shifted=False, spread=0.02)
        actual = run(block, tokens, 1, 4, 4)
        assert (block._packed_cache is not None) == is_fused
        with fused.disabled():
            assert relative_error(actual, run(block, tokens, 1, 4, 4)) <= TOLERANCE
