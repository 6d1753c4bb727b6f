"""The training loop: forward and backward passes, optimisers, moving average, checkpoints and the log of a run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from swinir.network.swinir import SwinIR
from training import swin_block
from training.data import Crops
from training.degradations import Pixels
from training.evaluate import judge, judge_held_out, to_tensor
from training.forward import TrainingForward
from training.losses import LOSSES, pair_weights
from training.muon import BatchedMuon
from training.photo_loss import PhotoLoss
from training.recipes import Recipe
from training.schedule import Schedule

MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class Options:
    """What a run is trained with; the command line of `training.train` has the defaults."""

    patch: int
    batch: int
    rate: float
    loss: str
    average: float
    precision: str
    """float32, or bfloat16: matrix products in bfloat16, everything else in float32."""

    steps: int
    minutes: float | None
    until: float | None
    warm_up: int
    save_every: int
    seed: int
    device: str = "cpu"


def choose_precision(device: str) -> str:
    """bfloat16 on a GPU and on CPUs with instructions for it, else float32."""
    return "bfloat16" if device != "cpu" or "avx512_bf16" in swin_block.cpu_flags() else "float32"


def choose_block(network: SwinIR, device: str, precision: str) -> swin_block.Products | None:
    """The products with which `training.swin_block` runs the blocks; None: PyTorch runs them."""
    products: swin_block.Products = "bfloat16" if precision == "bfloat16" else "float32"
    suits = device == "cpu" and swin_block.suits(network)
    return products if suits and swin_block.is_available(products) else None


class Trainer:
    """One run: the network, its optimisers, its moving average, and the steps taken."""

    def __init__(
        self, recipe: Recipe, network: SwinIR, run: Path, options: Options, photo_loss: PhotoLoss | None = None
    ) -> None:
        self.recipe, self.network, self.run, self.options = recipe, network.to(options.device), run, options
        half = options.precision == "bfloat16"
        fused = choose_block(network, options.device, options.precision)
        self.forward = TrainingForward(network, options.patch, fused=fused)
        self.photo_loss = photo_loss
        self.loss = photo_loss or LOSSES[options.loss]
        self.autocast = torch.autocast(options.device, torch.bfloat16, enabled=half)
        self.optimisers = make_optimisers(network, options.rate)
        self.peaks = [[group["lr"] for group in optimiser.param_groups] for optimiser in self.optimisers]
        self.average = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        self.step, self.pixels, self.seconds, self.began = 0, 0, 0.0, time.time()
        if (run / "checkpoint.pt").exists():
            self._resume(run / "checkpoint.pt")
        self.schedule = Schedule(options.steps, options.minutes, options.until, options.warm_up, self.began)

    def train(
        self, photos: Sequence[Pixels], drawings: Sequence[Pixels], held_out: Sequence[Pixels], data: Path
    ) -> None:
        """Run until the schedule ends; every `save_every` steps judge the average on DATA/bench and save everything."""
        crops = Crops(photos, self.recipe, self.options.seed + self.step, drawings)
        self.train_on(crops.batches(self.options.patch, self.options.batch), held_out, data)

    def train_on(self, batches: Iterator[tuple[Any, Any]], held_out: Sequence[Pixels], data: Path) -> None:
        """The same on (input, target) batches of pixels [B, H, W, C] that the caller draws."""
        options = self.options
        losses: list[float] = []
        first, before = self.step, self.seconds
        started = time.monotonic()
        done = self.share_done() >= 1
        while not done:
            losses.append(self.take_step(*next(batches)))
            self.seconds = before + time.monotonic() - started
            done = self.share_done() >= 1  # read once: a run that ends by the clock saves its last steps
            if done or self.step % options.save_every == 0:
                self.save()
                network = self.average_network()
                scores = judge(network, self.recipe, data / "bench")
                scores |= judge_held_out(network, self.recipe, held_out)
                parts = self.photo_loss.means() if self.photo_loss else {}
                seconds_per_step = (self.seconds - before) / (self.step - first)
                self._log({"loss": float(np.mean(losses)), "seconds_per_step": seconds_per_step, **scores, **parts})
                losses.clear()

    def take_step(self, given: Any, target: Any) -> float:
        """One step of the optimisers on a batch of pixels [B, H, W, C]; returns the loss."""
        device, rate = self.options.device, self.schedule.rate(self.step, self.share_done())
        for optimiser, peaks in zip(self.optimisers, self.peaks, strict=True):
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * rate
            optimiser.zero_grad()
        inputs, targets = to_tensor(given).to(device), to_tensor(target).to(device)
        with self.autocast:
            restored = self.forward(inputs)
        weights = pair_weights(inputs, targets) if self.recipe.scale == 1 else 1.0
        loss = self.loss(restored.float() * weights, targets * weights)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT_NORM)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        self.pixels += int(np.prod(given.shape[:3]))
        decay = min(self.options.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, tensor in self.network.state_dict().items():
                self.average[name].lerp_(tensor, 1 - decay)
        return float(loss.detach())

    def share_done(self) -> float:
        """Share of the run that is behind."""
        return self.schedule.share_done(self.step, self.seconds, time.time())

    def average_network(self) -> SwinIR:
        """A copy of the network, on the CPU, that holds the moving average."""
        network = SwinIR(**self.recipe.variant.config)
        network.load_state_dict(self.average)
        return network

    def save(self) -> None:
        """Write the checkpoint and the weights, each by atomic rename."""
        state = {
            "network": self.network.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "average": self.average,
            **{name: getattr(self, name) for name in ("step", "pixels", "seconds", "began")},
        }
        if self.photo_loss:
            state["photo_loss"] = self.photo_loss.state_dict()
        torch.save(state, self.run / "checkpoint.tmp")
        (self.run / "checkpoint.tmp").replace(self.run / "checkpoint.pt")
        config = {name: str(value).strip("[]").replace(" ", "") for name, value in self.recipe.variant.config.items()}
        metadata = {"variant": self.recipe.variant.name, "step": str(self.step), **config}
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.average.items()}
        save_file(tensors, self.run / "weights.tmp", metadata)
        (self.run / "weights.tmp").replace(self.run / "weights.safetensors")

    def _resume(self, checkpoint: Path) -> None:
        state = torch.load(checkpoint, map_location=self.options.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.average = state["average"]
        self.step, self.pixels, self.seconds = state["step"], state["pixels"], state["seconds"]
        self.began = state["began"]
        if self.photo_loss:
            self.photo_loss.load_state_dict(state["photo_loss"])
        print(f"resumed at step {self.step}", flush=True)

    def _log(self, values: dict[str, float]) -> None:
        line = {"step": self.step, "megapixels": self.pixels / 1e6, **values}
        with (self.run / "log.jsonl").open("a") as log:
            log.write(json.dumps({name: round(value, 5) for name, value in line.items()}) + "\n")


def make_optimisers(network: SwinIR, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, Adam for all else (convolutions, norms, biases, bias tables).

    Measured from the same start on the same crops: docs/how-to/train.md, "Muon and Adam".
    """
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in network.named_parameters():
        is_matrix = parameter.ndim == 2 and not name.endswith("relative_position_bias_table")
        (matrices if is_matrix else others).append(parameter)
    return [BatchedMuon(matrices, 3 * rate), torch.optim.Adam(others, rate, betas=(0.9, 0.99))]
