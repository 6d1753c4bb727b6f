"""Compare our variants with other upscalers: ``python -m benchmarks.peers measure --data DIR [NAME...]``.

`measure` renews the figures of the networks that are named and the tables of docs/reference/variants.md, `clean` only
their PSNR on clean images, `time` their times, `sheets` the crops in docs/images/, `tables` only the tables.
benchmarks/packages.txt lists the packages needed.
"""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.peers.measurements import (
    CLEAN_NETWORKS,
    KNOWN,
    NETWORKS,
    PLAIN,
    load_restore,
    load_results,
    measure_network,
    measure_sets,
    measure_speed,
    save_results,
)
from benchmarks.peers.networks import PEERS, PeerError, choose
from benchmarks.peers.tables import write_tables
from benchmarks.report import ROOT
from swinir.inference.torch_engine import TorchEngine
from swinir.zoo import VARIANTS
from training.crops import NAMES as OURS
from training.crops import SCALE, read_crops
from training.measure import BUNDLED, load_perceptual
from training.packages import PackageMissingError
from training.sheet import draw_rows

# Crops on one sheet, and the middle of each that is drawn, in pixels of the input.
ROWS = 10
SHOWN_PX = 60
SHEET_PEER = "x4plus"
_DATA = click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Holds bench/.")


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (PackageMissingError, PeerError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Group, help=__doc__)
def peers() -> None:
    """Group of the commands below."""


@peers.command()
@click.argument("names", nargs=-1)
@_DATA
@click.option("--threads", default=1, show_default=True)
def measure(names: tuple[str, ...], data: Path, threads: int) -> None:
    """Measure the networks NAMED; without names bicubic and all bundled variants, which leaves out the peers."""
    results = load_results()
    engine = TorchEngine(device="cpu", threads=threads)
    for name in choose(names or (PLAIN, *BUNDLED), KNOWN):
        results["networks"][name] = measure_network(name, data / "bench", engine, load_perceptual())
        save_results(results)
        print(name, flush=True)
    write_tables(load_results())


@peers.command()
@click.argument("names", nargs=-1)
@_DATA
def clean(names: tuple[str, ...], data: Path) -> None:
    """Measure the networks NAMED, or all, on the sets of clean images alone; `measure` includes this."""
    engine = TorchEngine(device="cpu", threads=1)
    for name in choose(names, CLEAN_NETWORKS):
        figures = measure_sets(load_restore(name, engine), data / "bench")
        results = load_results()
        results["networks"].setdefault(name, {})["sets"] = figures
        save_results(results)
        print(name, figures, flush=True)
    write_tables(load_results())


@peers.command("time")
@click.argument("names", nargs=-1)
@click.option("--rounds", default=3, show_default=True)
def take_times(names: tuple[str, ...], rounds: int) -> None:
    """Time the networks NAMED, or all, in turn on one thread; on a quiet machine."""
    chosen = [name for name in choose(names, NETWORKS) if name != PLAIN]
    save_results({**load_results(), "speed": measure_speed(chosen, rounds, TorchEngine(device="cpu", threads=1))})
    write_tables(load_results())


@peers.command()
def tables() -> None:
    """Write the tables of docs/reference/variants.md from the results."""
    write_tables(load_results())


@peers.command()
@_DATA
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "docs" / "images")
def sheets(data: Path, out: Path) -> None:
    """Draw the crops by bicubic, by our variants for photos and by Real-ESRGAN x4plus: crops-1.webp, crops-2.webp."""
    engine = TorchEngine(device="cpu", threads=1)
    names = (PLAIN, *(name for name in OURS if VARIANTS[name].task == "real_sr"), SHEET_PEER)
    restores = [load_restore(name, engine) for name in names]
    rows = [[restore(pixels) for restore in restores] for _, pixels in read_crops(data / "bench")]
    titles = [PEERS[name].title if name in PEERS else name for name in names]
    for number, first in enumerate(range(0, len(rows), ROWS), start=1):
        sheet = draw_rows(titles, rows[first : first + ROWS], SHOWN_PX * SCALE)
        sheet.save(out / f"crops-{number}.webp", quality=80, method=6)


if __name__ == "__main__":
    peers()
