"""The reference network of the benchmarks computes what the published network computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.plain import PlainSwinIR
from testing.networks import (
    CASES,
    PARITY,
    PARITY_CASES,
    SMALL,
    draw_images,
    reference_network,
    reference_tensors,
    relative_error,
)

TOLERANCE = 1e-5


@pytest.mark.parametrize("case", PARITY_CASES)
def test_plain_formulation_agrees_with_the_published_network(case: str) -> None:
    config = CASES[case]["config"]
    network = PlainSwinIR(**config)
    own = {name: value for name, value in config.items() if name != "img_size"}
    network.load_state_dict(reference_tensors(own), strict=True)
    with np.load(PARITY / f"{case}.npz") as arrays, torch.inference_mode():
        restored = network(torch.from_numpy(arrays["input"]))
        assert relative_error(restored, torch.from_numpy(arrays["output"])) <= TOLERANCE


@pytest.mark.parametrize("size", [(16, 16), (24, 40)], ids=["training size", "another size"])
def test_plain_formulation_agrees_with_ours(size: tuple[int, int]) -> None:
    network = PlainSwinIR(**SMALL, img_size=16)
    network.load_state_dict(reference_tensors(SMALL), strict=True)
    images = draw_images(2, 3, *size)
    with torch.inference_mode():
        assert relative_error(reference_network(SMALL)(images), network(images)) <= TOLERANCE
