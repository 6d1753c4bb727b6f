"""The networks that benchmarks compare: the plain formulation and ours, with equal weights, on equal noise.

Speed does not depend on the values of weights, so every architecture of the zoo is measured without its checkpoint.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.plain import PlainSwinIR
from swinir.network import fused
from swinir.network.swinir import SwinIR
from swinir.zoo import find_variant

# Maximum difference, relative to the largest magnitude, at which two networks count as equal.
TOLERANCE = 1e-5


class DisagreementError(Exception):
    """Ours and the plain formulation gave different images, so their times are meaningless."""


@dataclass(frozen=True)
class NetworkPair:
    """Both networks of a variant with equal weights."""

    variant: str
    plain: nn.Module
    ours: SwinIR


def make_pair(variant: str) -> NetworkPair:
    """Return both networks in evaluation mode."""
    config = find_variant(variant).config
    generator = torch.Generator().manual_seed(0)
    plain, ours = PlainSwinIR(**config), SwinIR(**config)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            parameter.copy_(_draw(name, parameter, generator))
    ours.load_state_dict(plain.state_dict(), strict=True)
    for network in (plain, ours):
        network.eval().requires_grad_(requires_grad=False)
    return NetworkPair(variant, plain, ours)


def make_runs(pair: NetworkPair, side: int) -> dict[str, Callable[[], Tensor]]:
    """Return {"plain": run, "ours": run, "pytorch": run} on one image of noise; raises DisagreementError.

    "ours" is the network as served on this machine, "pytorch" is ours with every block in PyTorch.
    """
    channels = find_variant(pair.variant).channels
    images = torch.rand(1, channels, side, side, generator=torch.Generator().manual_seed(1))
    runs: dict[str, Callable[[], Tensor]] = {
        "plain": functools.partial(_run, pair.plain, images),
        "ours": functools.partial(_run, pair.ours, images),
        "pytorch": functools.partial(_run_in_pytorch, pair.ours, images),
    }
    expected = runs["plain"]()
    for name in ("ours", "pytorch"):
        error = ((runs[name]() - expected).abs().max() / expected.abs().max()).item()
        if not error <= TOLERANCE:
            raise DisagreementError(
                f"{pair.variant} at {side}x{side}: {name} is {error:.1e} from the plain formulation"
            )
    return runs


@torch.inference_mode()
def _run(network: nn.Module, images: Tensor) -> Tensor:
    return network(images)


def _run_in_pytorch(network: nn.Module, images: Tensor) -> Tensor:
    with fused.disabled():
        return _run(network, images)


def _draw(name: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
    """Draw values that keep activations near 1 at any depth, without infinities and denormals."""
    noise = torch.randn(parameter.shape, generator=generator)
    if parameter.ndim > 1:
        spread = 0.5 if name.endswith("bias_table") else (0.25 / parameter[0].numel()) ** 0.5
        return spread * noise
    return 1.0 + 0.1 * noise if name.endswith("weight") else 0.05 * noise
