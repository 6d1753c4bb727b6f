"""Muon on all matrices of a shape at once takes the steps of PyTorch's, here made to run in float32."""

from __future__ import annotations

import copy

import pytest
import torch

from training.muon import BatchedMuon, orthogonalise

SHAPES = ((24, 8), (8, 8), (24, 8), (8, 16))
RATE = 0.01


def new_matrices() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def set_gradients(matrices: list[torch.Tensor], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for matrix in matrices:
        matrix.grad = torch.randn(matrix.shape, generator=generator)


def test_steps_are_those_of_pytorch_also_from_its_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    start, expected, found = new_matrices(), new_matrices(), new_matrices()
    reference = torch.optim.Muon(expected, lr=RATE, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    muon = BatchedMuon(found, RATE)
    for seed in range(4):
        set_gradients(expected, seed)
        set_gradients(found, seed)
        reference.step()  # type: ignore[no-untyped-call]
        if seed == 2:
            muon.load_state_dict(copy.deepcopy(reference.state_dict()))
            with torch.no_grad():
                for a, b in zip(found, expected, strict=True):
                    a.copy_(b)
        else:
            muon.step()
    for before, a, b in zip(start, found, expected, strict=True):
        assert float((a - b).detach().norm() / (b - before).detach().norm()) < 1e-4


def test_singular_values_come_near_one() -> None:
    matrices = torch.randn((3, 6, 20), generator=torch.Generator().manual_seed(2))
    found = orthogonalise(matrices, (3.4445, -4.7750, 2.0315), 5, 1e-7)
    values = torch.linalg.svdvals(found)
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3
    tall = orthogonalise(matrices.mT, (3.4445, -4.7750, 2.0315), 5, 1e-7)
    assert torch.allclose(tall, found.mT, atol=1e-5)


def test_a_closure_is_refused() -> None:
    with pytest.raises(ValueError, match="without a closure"):
        BatchedMuon(new_matrices(), RATE).step(lambda: 0.0)
