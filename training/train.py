"""Train one compact variant: ``python -m training.train compact_x4 --data DIR --run RUN --start shipped``.

A run that is stopped continues from its last checkpoint when it is started again with the same options. The result is
``RUN/weights.safetensors``: the moving average, under the published parameter names, buffers left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import torch
from safetensors.torch import load_file
from torch import Tensor

from swinir.network.swinir import SwinIR
from swinir.weights.find import find_weights
from training.data import PERMUTED_SHARE, Crops, hold_out, read_images
from training.degradations import to_grey
from training.drawings import draw_images
from training.initialise import grey_from_colour, start_as_upsampler
from training.losses import LOSSES
from training.photo_crops import PhotoCrops
from training.recipes import RECIPES, Recipe
from training.schedule import TimeOfDay
from training.trainer import Options, Trainer, choose_precision

DRAWINGS = 60
DRAWING_SIDE = 480
SHIPPED = "shipped"


@click.command()
@click.argument("variant", type=click.Choice(list(RECIPES)))
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Holds train/ and bench/.")
@click.option("--extra", type=click.Path(path_type=Path, exists=True), help="Folder of more photos to train on.")
@click.option("--labels", type=click.Path(path_type=Path, exists=True), help="Crops of a teacher, see label_clean.")
@click.option("--labelled", default=6, show_default=True, help="Crops per step that come from LABELS, if given.")
@click.option("--run", type=click.Path(path_type=Path), required=True, help="Folder of the checkpoints and the log.")
@click.option("--start", help="Weights to start from: a file, or 'shipped'. Tensors of other shapes are left out.")
@click.option("--steps", default=20_000, show_default=True)
@click.option("--minutes", type=float, help="Train for minutes instead of steps; several starts add up.")
@click.option("--until", type=TimeOfDay(), help="Train until HH:MM (UTC) instead; the rate follows the clock.")
@click.option("--patch", default=64, show_default=True, help="Side of an input crop, pixels: a multiple of the window.")
@click.option("--batch", default=8, show_default=True)
@click.option("--loss", default="l1+fft", show_default=True, type=click.Choice(list(LOSSES)))
@click.option("--rate", default=5e-4, show_default=True, help="Adam's peak learning rate; Muon's is three times that.")
@click.option("--average", default=0.9995, show_default=True, help="Decay of the moving average of the weights.")
@click.option("--precision", default="auto", show_default=True, type=click.Choice(["auto", "bfloat16", "float32"]))
@click.option("--device", default="cpu", show_default=True, type=click.Choice(["cpu", "cuda"]))
@click.option("--warm-up", default=200, show_default=True, help="Steps of linear warm-up.")
@click.option("--save-every", default=250, show_default=True, help="Steps between checkpoints.")
@click.option("--threads", default=1, show_default=True)
@click.option("--seed", default=1, show_default=True)
def train(
    variant: str, data: Path, extra: Path | None, labels: Path | None, run: Path, start: str | None, **options: Any
) -> None:
    """Train VARIANT on the photos under DATA/train and drawings; judge it on DATA/bench and held-out photos."""
    labelled = options.pop("labelled")
    torch.set_num_threads(options.pop("threads"))
    torch.manual_seed(options["seed"])
    if options["precision"] == "auto":
        options["precision"] = choose_precision(options["device"])
    recipe = RECIPES[variant]
    run.mkdir(parents=True, exist_ok=True)
    photos, held_out = hold_out(read_images(data / "train", grey=recipe.channels == 1, extra=extra))
    # Squared errors of drawings outweigh those of photos: compact_x4 lost 0.03 dB on Set5 (docs/how-to/train.md).
    drawings = [] if options["loss"] == "mse" else draw_images(DRAWINGS, DRAWING_SIDE, options["seed"])
    if recipe.channels == 1:
        drawings = [to_grey(drawing) for drawing in drawings]
    network = SwinIR(**recipe.variant.config)
    initialise(network, recipe, photos, start)
    trainer = Trainer(recipe, network, run, Options(**options))
    if labels is None:
        trainer.train(photos, drawings, held_out, data)
        return
    batches = teach(recipe, labels, photos, drawings, trainer, labelled)
    trainer.train_on(batches, held_out, data)


def teach(
    recipe: Recipe, labels: Path, photos: list[Any], drawings: list[Any], trainer: Trainer, labelled: int
) -> Iterator[tuple[Any, Any]]:
    """Batches with `labelled` crops of LABELS; the rest are those that a run without a teacher draws."""
    others = trainer.options.batch - labelled
    if not 0 < labelled <= trainer.options.batch:
        raise click.BadParameter(
            f"{labelled} of {trainer.options.batch} crops per step cannot come from LABELS.", param_hint="--labelled"
        )
    seed = trainer.options.seed + trainer.step
    # Drawings keep their share of all crops.
    share = min(1.0, recipe.drawn_share * trainer.options.batch / max(1, others))
    drawn = Crops(photos, dataclasses.replace(recipe, drawn_share=share), seed, drawings)
    crops = PhotoCrops(labels, drawn, recipe.scale, truth_share=0.0, seed=seed, permuted_share=PERMUTED_SHARE)
    print(f"{crops.count} labelled crops", flush=True)
    return crops.batches(trainer.options.patch, labelled, others)


def initialise(network: SwinIR, recipe: Recipe, photos: list[Any], start: str | None) -> None:
    """Load the weights that `start` names, and make what they leave out an upsampler (see `training.initialise`)."""
    fitted = 0
    if start:
        path = find_weights(recipe.variant, None) if start == SHIPPED else Path(start)
        if not path.is_file():
            raise click.BadParameter(f"The weights {start} were not found.", param_hint="--start")
        fitted = load_what_fits(network, grey_from_colour(network, load_file(path)))
        print(f"{fitted} tensors loaded from {path}", flush=True)
    if fitted < len(network.state_dict()):
        start_as_upsampler(network, photos, recipe, keep_features=start is not None)


def load_what_fits(network: SwinIR, tensors: dict[str, Tensor]) -> int:
    """Copy the tensors whose names and shapes the network has; return how many."""
    own = network.state_dict()
    fitting = {name: tensor for name, tensor in tensors.items() if name in own and own[name].shape == tensor.shape}
    network.load_state_dict(fitting, strict=False)
    return len(fitting)


if __name__ == "__main__":
    train()
