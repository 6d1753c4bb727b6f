"""Train compact_photo_x4: ``python -m training.train_photo --labels LABELS --data DIR --run RUN``.

The network of compact_real_x4 learns to do what a large teacher does (`training.label`), by the losses of
`training.photo_loss`. Like every run it continues from its last checkpoint when it is started again.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click
import torch

from swinir.network.swinir import SwinIR
from swinir.zoo import VARIANTS
from training.data import Crops
from training.drawings import draw_images
from training.photo_crops import PhotoCrops
from training.photo_loss import PhotoLoss, PhotoWeights
from training.recipes import RECIPES
from training.schedule import TimeOfDay
from training.train import DRAWING_SIDE, DRAWINGS, SHIPPED, initialise
from training.trainer import Options, Trainer, choose_precision
from training.vgg import load_features

VARIANT = "compact_photo_x4"
START = "compact_real_x4"


@click.command()
@click.option("--labels", type=click.Path(path_type=Path, exists=True), required=True, help="See training.label.")
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Holds bench/.")
@click.option("--run", type=click.Path(path_type=Path), required=True, help="Folder of the checkpoints and the log.")
@click.option("--start", default=SHIPPED, show_default=True, help=f"Weights to start from: a file, or {START}'s.")
@click.option("--steps", default=3000, show_default=True)
@click.option("--minutes", type=float, help="Train for minutes instead of steps; several starts add up.")
@click.option("--until", type=TimeOfDay(), help="Train until HH:MM (UTC) instead; the rate follows the clock.")
@click.option("--patch", default=40, show_default=True, help="Side of an input crop, pixels: a multiple of the window.")
@click.option("--photos", default=5, show_default=True, help="Labelled crops per step.")
@click.option("--drawings", default=2, show_default=True, help="Crops of drawings per step.")
@click.option("--truth-share", default=0.1, show_default=True, help="Share of labelled crops with the true target.")
@click.option("--pixel", default=1.0, show_default=True, help="Weight of the loss of pixels.")
@click.option("--grid", default=10.0, show_default=True, help="Weight of the loss of grids.")
@click.option("--feature", default=0.3, show_default=True, help="Weight of the loss of features.")
@click.option("--adversarial", default=0.006, show_default=True, help="Weight of the adversarial loss; 0: none.")
@click.option("--adversarial-after", default=100, show_default=True, help="Steps without it.")
@click.option("--rate", default=3e-4, show_default=True, help="Adam's peak learning rate; Muon's is three times that.")
@click.option("--average", default=0.99, show_default=True, help="Decay of the moving average of the weights.")
@click.option("--warm-up", default=50, show_default=True, help="Steps of linear warm-up.")
@click.option("--save-every", default=200, show_default=True, help="Steps between checkpoints.")
@click.option("--seed", default=1, show_default=True)
def train_photo(labels: Path, data: Path, run: Path, start: str, **options: Any) -> None:
    """Train on the labelled crops under LABELS and on drawings; judge the average on DATA/bench."""
    torch.set_num_threads(1)
    torch.manual_seed(options["seed"])
    run.mkdir(parents=True, exist_ok=True)
    precision = choose_precision("cpu")
    recipe = dataclasses.replace(RECIPES[START], variant=VARIANTS[VARIANT])
    photos, drawings, truth_share = (options.pop(name) for name in ("photos", "drawings", "truth_share"))
    weights = PhotoWeights(**{field.name: options.pop(field.name) for field in dataclasses.fields(PhotoWeights)})
    loss = PhotoLoss(weights, load_features(), drawings=drawings, half=precision == "bfloat16")
    network = SwinIR(**recipe.variant.config)
    initialise(network, RECIPES[START], [], start)
    settings = Options(batch=photos + drawings, loss="l1+fft", precision=precision, **options)
    trainer = Trainer(recipe, network, run, settings, loss)
    drawn = draw_images(DRAWINGS, DRAWING_SIDE, settings.seed)
    seed = settings.seed + trainer.step
    crops = PhotoCrops(labels, Crops(drawn, recipe, seed), recipe.scale, truth_share=truth_share, seed=seed)
    print(f"{crops.count} labelled crops", flush=True)
    trainer.train_on(crops.batches(settings.patch, photos, drawings), [], data)


if __name__ == "__main__":
    train_photo()
