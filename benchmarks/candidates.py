"""The networks that benchmarks compare: the plain formulation and ours, with equal weights, on equal noise.

Speed does not depend on the values of weights, so every architecture of the zoo is measured without its checkpoint.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.plain import PlainSwinIR
from swinir.inference import tiles
from swinir.inference.create_engine import create_engine
from swinir.network import fused
from swinir.network.compiled_network import CompiledNetwork
from swinir.network.library import find_library
from swinir.network.swinir import SwinIR
from swinir.settings import read_settings
from swinir.zoo import find_variant

# Maximum difference, relative to the largest magnitude, at which two networks count as equal: in float32, and on AMX.
TOLERANCE = 1e-5
TILE_TOLERANCE = tiles.TOLERANCE


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


def compile_network(pair: NetworkPair, threads: int) -> CompiledNetwork:
    """Return the network as CPUs serve it by default, without PyTorch."""
    library = find_library()
    if library is None:
        raise RuntimeError("the network is not compiled for this processor. Run: python -m swinir.network.fused")
    weights = {name: parameter.detach().numpy() for name, parameter in pair.plain.named_parameters()}
    config = find_variant(pair.variant).config
    return CompiledNetwork(config, weights, library, threads, on_tiles=tiles.uses_tiles("auto"))


def load_served_network(variant: str, threads: int | None = None) -> CompiledNetwork:
    """Return the network of a bundled variant as CPUs serve it by default. Raises TypeError if it runs in PyTorch."""
    environ = {} if threads is None else {"SUPERRES_ENGINE_THREADS": str(threads)}
    engine = create_engine(read_settings(environ))
    engine.load(variant)
    network = engine.networks.get(find_variant(variant))
    if not isinstance(network, CompiledNetwork):
        raise TypeError("the network runs in PyTorch. Compile it with: python -m swinir.network.fused")
    return network


def draw_image(variant: str, side: int) -> Tensor:
    """Return an image of noise for a variant, [1, C, side, side] in 0..1."""
    return torch.rand(1, find_variant(variant).channels, side, side, generator=torch.Generator().manual_seed(1))


def make_runs(pair: NetworkPair, side: int) -> dict[str, Callable[[], Tensor]]:
    """Return {"plain": run, "ours": run, "fused": run, "pytorch": run} on one image of noise.

    "ours" is the network as CPUs serve it by default, "fused" that of the engine in PyTorch with its blocks in C, and
    "pytorch" the same with every block in PyTorch. Raises DisagreementError.
    """
    images = draw_image(pair.variant, side)
    served = compile_network(pair, torch.get_num_threads())
    runs: dict[str, Callable[[], Tensor]] = {
        "plain": functools.partial(_run, pair.plain, images),
        "ours": functools.partial(_run_compiled, served, np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())),
        "fused": functools.partial(_run, pair.ours, images),
        "pytorch": functools.partial(_run_in_pytorch, pair.ours, images),
    }
    expected = runs["plain"]()
    for name in ("ours", "fused", "pytorch"):
        error = ((runs[name]() - expected).abs().max() / expected.abs().max()).item()
        if not error <= (TILE_TOLERANCE if name == "ours" and served.on_tiles else TOLERANCE):
            raise DisagreementError(
                f"{pair.variant} at {side}x{side}: {name} is {error:.1e} from the plain formulation"
            )
    return runs


@torch.inference_mode()
def _run(network: nn.Module, images: Tensor) -> Tensor:
    return network(images)


def _run_compiled(network: CompiledNetwork, images: npt.NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(network.forward(images)).permute(0, 3, 1, 2)


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
