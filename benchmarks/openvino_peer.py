"""Compares the network as CPUs serve it with the plain formulation in OpenVINO, in float32 and in bfloat16.

OpenVINO compiles a network for one size of images. Both have the same weights, image and number of threads, and run in
turn; dB are those of the output against the plain formulation in PyTorch, for values of 0 to 1.
"""

from __future__ import annotations

import functools
import importlib
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.candidates import compile_network, draw_image, make_pair
from benchmarks.rounds import compare, measure_in_turn

# OpenVINO's names of the precisions.
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}

Run = Callable[[], Any]


def measure_openvino(sizes: Mapping[str, tuple[int, ...]], rounds: int, threads: int) -> list[dict[str, Any]]:
    """Return a row for each network and side: OpenVINO's times relative to ours, and the dB of all."""
    rows = []
    for variant, sides in sizes.items():
        pair = make_pair(variant)
        for side in sides:
            images = draw_image(variant, side)
            pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
            served = compile_network(pair, threads)
            runs: dict[str, Run] = {"ours": functools.partial(served.forward, pixels)}
            runs |= compile_in_openvino(pair.plain, images, threads)
            with torch.inference_mode():
                expected = pair.plain(images).permute(0, 2, 3, 1).numpy()
            distances = {name: _distance_db(run(), expected) for name, run in runs.items()}
            timings = measure_in_turn(runs, rounds)
            rows.append(
                {
                    "variant": variant,
                    "side": side,
                    "db": distances,
                    "ratios": {name: compare(timings[name], timings["ours"]).to_json() for name in PRECISIONS},
                    "timings": {name: timing.to_json() for name, timing in timings.items()},
                }
            )
    return rows


def compile_in_openvino(network: nn.Module, images: Tensor, threads: int) -> dict[str, Run]:
    """Return a run for each precision; its results are [N, H, W, C]. Needs the package openvino."""
    openvino = importlib.import_module("openvino")  # of benchmarks/packages.txt
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the traced network holds for one size, as it is meant to
        model = openvino.convert_model(network, example_input=images, input=[tuple(images.shape)])
    runs: dict[str, Run] = {}
    for name, hint in PRECISIONS.items():
        settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
        runs[name] = functools.partial(_infer, request, images.numpy())
    return runs


def _infer(request: Any, images: Any) -> Any:
    return request.infer({0: images})[0].transpose(0, 2, 3, 1)


def _distance_db(actual: Any, expected: Any) -> float:
    return round(-10 * math.log10(float(((actual.astype(np.float64) - expected) ** 2).mean())), 1)
