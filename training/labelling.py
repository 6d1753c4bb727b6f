"""What the commands that label crops share: their options, and the loop that writes the missing files.

A run that is stopped continues with the next file when it is started again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import torch

from training.data import hold_out, read_images
from training.degradations import Pixels
from training.labels import Labels, write_labels
from training.schedule import TimeOfDay

Label = Callable[[Sequence[Pixels], int, int, int], tuple[Labels, int]]
"""(photos, seed, number of crops, their side in pixels) -> labelled crops, and how many others were left out."""


def labelling_options(patch: int, multiple: int = 1) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of `write_missing`; `patch` is the default side of a crop, in input pixels."""
    path = click.Path(path_type=Path)
    existing = click.Path(path_type=Path, exists=True)
    side = "Side of an input crop, pixels" + (f": a multiple of {multiple}." if multiple > 1 else ".")
    options = (
        click.option("--data", type=existing, required=True, help="Holds train/."),
        click.option("--extra", type=existing, help="Folder of more photos to train on."),
        click.option("--labels", type=path, required=True, help="Folder of the labels."),
        click.option("--files", default=20, show_default=True, help="Number of files that there are at the end."),
        click.option("--until", type=TimeOfDay(), help="Start no file after HH:MM (UTC)."),
        click.option("--per-file", default=100, show_default=True, help="Crops in a file."),
        click.option("--patch", default=patch, show_default=True, help=side),
    )

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def write_missing(
    label: Label, data: Path, extra: Path | None, labels: Path, until: float | None, **sizes: Any
) -> None:
    """Write the files that LABELS lacks, of the photos that are trained on; the seed of a file is its number."""
    torch.set_num_threads(1)
    labels.mkdir(parents=True, exist_ok=True)
    photos, _ = hold_out(read_images(data / "train", grey=False, extra=extra))
    for number in range(sizes["files"]):
        path = labels / f"{number:04}.npz"
        if until is not None and time.time() >= until:
            break
        if not path.exists():
            crops, left_out = label(photos, number, sizes["per_file"], sizes["patch"])
            write_labels(path, crops)
            print(f"{path.name}: {len(crops)} crops" + (f", {left_out} left out" if left_out else ""), flush=True)
