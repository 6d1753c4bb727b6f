"""Train one compact variant: ``python -m training.train compact_x4 --data DIR --run DIR``.

Resumable (kill it when you like: the last checkpoint is at most ``--save-every`` steps old), warm-started from any
weights whose shapes fit, L1 loss, Muon and Adam with warm-up and cosine decay, exponential moving average. What is
written to ``RUN/weights.safetensors`` is the moving average, under the published parameter names, buffers left out.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from swinir.network.swinir import SwinIR
from training.data import Crops, read_photographs
from training.forward import TrainingForward
from training.initialise import grey_from_colour, start_as_upsampler
from training.measure import benchmarks_of, compare
from training.recipes import RECIPES, Recipe

EMA_DECAY = 0.999


@click.command()
@click.argument("variant", type=click.Choice(list(RECIPES)))
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Holds train/ and bench/.")
@click.option("--run", type=click.Path(path_type=Path), required=True, help="Where checkpoints and the log go.")
@click.option("--start", type=click.Path(path_type=Path, exists=True), help="Weights to start from (shapes that fit).")
@click.option("--steps", default=20_000, show_default=True)
@click.option("--minutes", type=float, help="Let the rate follow the clock instead, and end then; runs add up.")
@click.option("--patch", default=32, show_default=True, help="Side of an input crop, pixels.")
@click.option("--batch", default=8, show_default=True)
@click.option("--rate", default=1e-3, show_default=True, help="Adam's peak learning rate; Muon's is three times that.")
@click.option("--warm-up", default=200, show_default=True, help="Steps of linear warm-up.")
@click.option("--save-every", default=250, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--seed", default=1, show_default=True)
def train(variant: str, data: Path, run: Path, start: Path | None, **options: Any) -> None:
    """Train VARIANT from the photographs under DATA/train; judge it on DATA/bench."""
    torch.set_num_threads(options["threads"])
    torch.manual_seed(options["seed"])
    recipe = RECIPES[variant]
    run.mkdir(parents=True, exist_ok=True)
    photographs = read_photographs(data / "train", grey=recipe.channels == 1)
    network = SwinIR(**recipe.variant.config)
    if start:
        fitted = load_what_fits(network, grey_from_colour(network, load_file(start)))
        print(f"{fitted} tensors taken from {start}", flush=True)
    if not start or fitted < len(network.state_dict()):
        start_as_upsampler(network, photographs, recipe, keep_features=start is not None)
    Trainer(variant, recipe, network, run, options).train(photographs, data / "bench")


def load_what_fits(network: SwinIR, tensors: dict[str, Tensor]) -> int:
    """Copy the tensors whose names and shapes the network has; return how many."""
    own = network.state_dict()
    fitting = {name: tensor for name, tensor in tensors.items() if name in own and own[name].shape == tensor.shape}
    network.load_state_dict(fitting, strict=False)
    return len(fitting)


class Trainer:
    """One run: the network, its optimiser, its moving average, and where it stands."""

    def __init__(self, variant: str, recipe: Recipe, network: SwinIR, run: Path, options: dict[str, Any]) -> None:
        self.variant, self.recipe, self.network, self.run, self.options = variant, recipe, network, run, options
        self.forward = TrainingForward(network, options["patch"])
        self.optimisers = make_optimisers(network, options["rate"])
        self.peaks = [[group["lr"] for group in optimiser.param_groups] for optimiser in self.optimisers]
        self.average = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        self.step = 0
        self.seconds = 0.0
        checkpoint = run / "checkpoint.pt"
        if checkpoint.exists():
            state = torch.load(checkpoint, weights_only=True)
            network.load_state_dict(state["network"])
            for optimiser, held in zip(self.optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(held)
            self.average, self.step, self.seconds = state["average"], state["step"], state["seconds"]
            print(f"resumed at step {self.step}", flush=True)

    def train(self, photographs: list[Any], bench: Path) -> None:
        """Run until ``--steps``; every ``--save-every`` steps judge the average and save everything."""
        options = self.options
        crops = Crops(photographs, self.recipe.degradation, self.recipe.scale, options["seed"] + self.step)
        losses: list[float] = []
        first, held = self.step, self.seconds
        began = time.monotonic()
        for given, target in crops.batches(options["patch"], options["batch"]):
            if self.share_done() >= 1:
                break
            losses.append(self.take_step(given, target))
            self.seconds = held + time.monotonic() - began
            if self.step % options["save_every"] == 0 or self.share_done() >= 1:
                seconds = (self.seconds - held) / (self.step - first)
                self.save()
                score = judge(self.average_network(), self.recipe, bench)
                line = {"step": self.step, "loss": float(np.mean(losses)), "seconds_per_step": seconds, **score}
                with (self.run / "log.jsonl").open("a") as log:
                    log.write(json.dumps({name: round(value, 5) for name, value in line.items()}) + "\n")
                losses.clear()

    def take_step(self, given: Any, target: Any) -> float:
        """One optimiser step; returns the L1 loss."""
        rate = self.rate_now()
        for optimiser, peaks in zip(self.optimisers, self.peaks, strict=True):
            for group, peak in zip(optimiser.param_groups, peaks, strict=True):
                group["lr"] = peak * rate
            optimiser.zero_grad()
        loss = (self.forward(to_tensor(given)) - to_tensor(target)).abs().mean()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, tensor in self.network.state_dict().items():
                self.average[name].lerp_(tensor, 1 - decay)
        return float(loss.detach())

    def share_done(self) -> float:
        """How much of the run is behind, by the clock when ``--minutes`` says so, else by steps."""
        minutes = self.options["minutes"]
        return self.seconds / (60 * minutes) if minutes else self.step / self.options["steps"]

    def rate_now(self) -> float:
        """Linear warm-up over a cosine from 1 down to 1 %: a share of the peak rate."""
        cosine = max(0.01, 0.5 * (1 + math.cos(math.pi * min(1.0, self.share_done()))))
        return cosine * min(1.0, (self.step + 1) / self.options["warm_up"])

    def average_network(self) -> SwinIR:
        """A copy of the network that holds the moving average."""
        network = SwinIR(**self.recipe.variant.config)
        network.load_state_dict(self.average)
        return network

    def save(self) -> None:
        """Write the checkpoint and the weights, each by atomic rename."""
        state = {
            "network": self.network.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "average": self.average,
            "step": self.step,
            "seconds": self.seconds,
        }
        torch.save(state, self.run / "checkpoint.tmp")
        (self.run / "checkpoint.tmp").replace(self.run / "checkpoint.pt")
        config = {name: str(value).strip("[]").replace(" ", "") for name, value in self.recipe.variant.config.items()}
        metadata = {"variant": self.variant, "step": str(self.step), **config}
        save_file({n: t.contiguous() for n, t in self.average.items()}, self.run / "weights.tmp", metadata)
        (self.run / "weights.tmp").replace(self.run / "weights.safetensors")


def make_optimisers(network: SwinIR, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, Adam for all else (convolutions, norms, biases, bias tables).

    Measured from the same start on the same crops: docs/how-to/train.md, "Muon and Adam".
    """
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in network.named_parameters():
        is_matrix = parameter.ndim == 2 and not name.endswith("relative_position_bias_table")
        (matrices if is_matrix else others).append(parameter)
    muon = torch.optim.Muon(matrices, lr=3 * rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.Adam(others, rate, betas=(0.9, 0.99))]


def to_tensor(pixels: Any) -> Tensor:
    """uint8 [B, H, W, C] -> float32 [B, C, H, W] in 0..1."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 255.0


def restore(network: SwinIR, pixels: Any) -> Any:
    """One image, uint8 [H, W, C] -> uint8 [H * scale, W * scale, C]: clamped, rounded, cast."""
    with torch.inference_mode():
        restored = network(to_tensor(pixels[None]))[0]
    return restored.mul(255.0).round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def judge(network: SwinIR, recipe: Recipe, bench: Path) -> dict[str, float]:
    """Mean PSNR in dB on the variant's main benchmark, beside that of doing nothing (bicubic or the input itself)."""
    channels = recipe.channels
    _, pairs = next(benchmarks_of(recipe.variant, bench))
    # A benchmark's greys come in three equal channels.
    before, after = compare(
        lambda given: restore(network, given[..., :channels]).repeat(3 // channels, axis=2), recipe.scale, pairs
    )
    return {"plain_db": before, "db": after}


if __name__ == "__main__":
    train()
