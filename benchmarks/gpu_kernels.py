"""The kernels of blocks and CUDA graphs on a GPU, each measured with and without the other (part of `make gpu`)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.candidates import make_pair
from benchmarks.rounds import measure_in_turn
from swinir.inference.cuda_graphs import Captured, CudaGraph, Recordable
from swinir.network.blocks import SwinBlock
from swinir.network.cuda.archive import KernelsUnavailableError
from swinir.network.cuda.block import KernelBlock, shape_of
from swinir.network.cuda.choose import Find, find_compiled
from swinir.network.swinir import SwinIR
from swinir.zoo import find_variant


def measure_kernels(
    device: torch.device,
    sizes: Mapping[str, Sequence[int]],
    rounds: int,
    find: Find = find_compiled,
    capture: Callable[[Recordable, Tensor], Captured] = CudaGraph,
) -> list[dict[str, Any]]:
    """Compare passes in bfloat16 by PyTorch and by kernels, started one by one and as a graph, and their errors.

    A row has a ``problem`` where kernels or graphs cannot be used. Unlike the engine this uses kernels that are slower.
    """
    rows: list[dict[str, Any]] = []
    for variant, sides in sizes.items():
        networks = {"pytorch": make_pair(variant).ours.to(device), "kernels": make_pair(variant).ours.to(device)}
        try:
            _set_kernels(networks["kernels"], find, device)
        except KernelsUnavailableError as error:
            rows.append({"variant": variant, "problem": str(error)})
            continue
        for side in sides:
            images = torch.rand(1, find_variant(variant).channels, side, side).to(device)
            try:
                rows.append({"variant": variant, "side": side, **_compare(networks, images, rounds, capture)})
            except RuntimeError as error:  # torch's: the recording of a graph, or the driver
                rows.append({"variant": variant, "problem": str(error)})
    return rows


def _compare(
    networks: Mapping[str, SwinIR], images: Tensor, rounds: int, capture: Callable[[Recordable, Tensor], Captured]
) -> dict[str, Any]:
    runs: dict[str, Callable[[], object]] = {}
    errors_db = {}
    with torch.inference_mode():
        exact = networks["pytorch"](images).float()
        for name, network in networks.items():
            forward = functools.partial(_run, network)
            graph = capture(forward, images)
            runs[name] = functools.partial(_wait, forward, images)
            runs[f"{name}, graph"] = functools.partial(_wait, graph.run, images)
            errors_db[name] = -10 * math.log10((graph.run(images)[0] - exact).square().mean().item())
        timings = measure_in_turn(runs, rounds)
    return {"timings": {name: timing.to_json() for name, timing in timings.items()}, "errors_db": errors_db}


@torch.no_grad()
def _set_kernels(network: SwinIR, find: Find, device: torch.device) -> None:
    for module in network.modules():
        if isinstance(module, SwinBlock):
            module.kernels = KernelBlock(module, find(shape_of(module), device))


@torch.inference_mode()
def _run(network: SwinIR, images: Tensor) -> tuple[Tensor]:
    with torch.autocast(images.device.type, dtype=torch.bfloat16):
        output: Tensor = network(images)
    return (output.float(),)


@torch.inference_mode()
def _wait(run: Recordable, images: Tensor) -> None:
    run(images)
    if images.device.type == "cuda":
        torch.cuda.synchronize(images.device)
