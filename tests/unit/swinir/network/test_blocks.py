"""The blocks in PyTorch: padded heads, and caches that follow the parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from swinir.network import attention, blocks, fused
from swinir.network.swinir import SwinIR
from testing.networks import SMALL, draw_images, reference_network, relative_error

TOLERANCE = 1e-5
LIGHT_HEADS = {**SMALL, "embed_dim": 20}  # head length 10, as in lightweight


@pytest.fixture(autouse=True)
def in_pytorch() -> Iterator[None]:
    """The fused blocks have their own tests."""
    with fused.disabled():
        yield


def run(network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return network(images)


def first_attention(network: torch.nn.Module) -> attention.WindowAttention:
    return next(module for module in network.modules() if isinstance(module, attention.WindowAttention))


@pytest.mark.parametrize(("head_dim", "cpu", "cuda"), [(10, 16, 16), (12, 12, 16), (30, 30, 32), (8, 8, 8), (6, 6, 8)])
def test_heads_are_padded_for_the_device(head_dim: int, cpu: int, cuda: int) -> None:
    assert attention.padded_length(head_dim, "cpu") == cpu
    assert attention.padded_length(head_dim, "cuda") == cuda


@pytest.mark.parametrize("length", [16, 24])
def test_padded_heads_change_nothing(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    images = draw_images(1, 3, 24, 32)
    monkeypatch.setattr(attention, "padded_length", lambda head_dim, _device: head_dim)
    expected = run(reference_network(LIGHT_HEADS), images)
    monkeypatch.setattr(attention, "padded_length", lambda _head_dim, _device: length)

    network = reference_network(LIGHT_HEADS)

    assert relative_error(run(network, images), expected) <= TOLERANCE
    kept = first_attention(network)._cached
    assert isinstance(kept, tuple)
    assert kept[2].head_dim == length


def test_padded_heads_follow_an_update_in_place() -> None:
    network, images = reference_network(LIGHT_HEADS), draw_images(1, 3, 16, 16)
    before = run(network, images)

    for name in ("qkv.weight", "qkv.bias", "proj.weight"):
        with torch.no_grad():
            first_attention(network).get_parameter(name).mul_(3.0)
        after = run(network, images)
        assert relative_error(after, before) > 1e-4, name
        before = after


def kept_tensors(network: SwinIR) -> dict[int, Any]:
    """Return the tensors and arrays that the blocks cache, by identity."""
    found: list[Any] = []
    for module in network.modules():
        if isinstance(module, blocks.SwinBlock) and module._packed_cache:
            packed = module._packed_cache[1]._packed
            found += [*packed._arrays.values(), *packed._biases.values()]
        if isinstance(module, attention.WindowAttention) and module._cached:
            found += [*module._cached[1].values(), *module._cached[2][1:]]
    own = {id(parameter) for parameter in network.parameters()}
    return {id(tensor): tensor for tensor in found if id(tensor) not in own}


@pytest.mark.parametrize("is_fused", [True, False], ids=["fused", "in PyTorch"])
def test_prepared_network_allocates_nothing_more(monkeypatch: pytest.MonkeyPatch, *, is_fused: bool) -> None:
    monkeypatch.setattr(fused, "_enabled", is_fused)
    network = reference_network(LIGHT_HEADS)
    size_bytes = network.prepare()
    kept = kept_tensors(network)
    for sides in ((24, 32), (8, 8)):
        run(network, draw_images(1, 3, *sides))

    assert kept_tensors(network).keys() == kept.keys()
    assert network.prepare() == size_bytes
    parameters_bytes = sum(parameter.nbytes for parameter in network.parameters())
    assert size_bytes == parameters_bytes + sum(tensor.nbytes for tensor in kept.values()) > 1.5 * parameters_bytes


def test_path_of_devices_other_than_a_cpu_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in place, all windows at once, heads padded as for CUDA."""
    images = draw_images(2, 3, 24, 32)
    expected = run(reference_network(LIGHT_HEADS), images)
    monkeypatch.setattr(blocks, "_is_served_on_cpu", lambda _tokens: False)
    monkeypatch.setattr(attention, "padded_length", lambda _head_dim, _device: 16)
    in_place_calls: list[int] = []
    monkeypatch.setattr(blocks.SwinBlock, "_run_in_place", lambda *_: in_place_calls.append(1))

    assert relative_error(run(reference_network(LIGHT_HEADS), images), expected) <= TOLERANCE
    assert not in_place_calls


def test_convolutions_stay_in_float32() -> None:
    made: dict[type[torch.nn.Module], set[torch.dtype]] = {torch.nn.Linear: set(), blocks.Convolution: set()}
    network = reference_network(LIGHT_HEADS)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            assert type(module) in made
            module.register_forward_hook(lambda module, _, out: made[type(module)].add(out.dtype))
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        network(draw_images(1, 3, 24, 32))
    assert made == {torch.nn.Linear: {torch.bfloat16}, blocks.Convolution: {torch.float32}}


def test_bfloat16_runs_and_stays_close() -> None:
    """The GPU's precision on this machine's CPU: the image agrees to about two digits."""
    network, images = reference_network(LIGHT_HEADS), draw_images(1, 3, 24, 32)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        actual = network(images).float()
    assert relative_error(actual, run(network, images)) < 0.05
