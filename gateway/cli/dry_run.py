"""`superres upscale --dry-run`: what would be made, its size, the time, and what would be refused. Writes nothing."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.backend.state import BackendStateTracker
from gateway.cli.batch import AlreadyDone, Batch, InputFileError, describe_bytes
from gateway.cli.pace import Pace, describe_duration
from gateway.cli.sources import FoundSources
from gateway.cli.targets import WriteError, free_bytes
from gateway.config.settings import Settings
from gateway.problems import Problem


def describe(batch: Batch, found: FoundSources, pace: Pace, settings: Settings) -> int:
    """Print a line for each image and the totals; return the number of images that would be refused.

    Decodes images whose variant is still to be chosen. `settings` are those of this machine.
    """
    sizes: list[float] = []
    times: list[float | None] = []
    existing, refused = 0, len(found.unreadable)
    for sentence in found.unreadable:
        click.echo(sentence)
    for source in batch.sources:
        try:
            request = batch.prepare(source, must_choose=True)
        except AlreadyDone as done:
            existing += 1
            click.echo(f"{source}: left out, {done}.")
        except (InputFileError, WriteError, Problem) as error:
            refused += 1
            click.echo(f"{source}: refused. {error}")
        else:
            variant, upload = request.options.variant, request.upload
            width, height = request.width, request.height
            sizes.append(batch.estimate_bytes(request))
            times.append(pace.estimate_s(variant.name, request.pixels))
            where = batch.target if batch.target.is_stream else batch.destination(source, request.filename)
            size, seconds = describe_bytes(sizes[-1]), times[-1]
            time = f", about {describe_duration(seconds)}" if seconds is not None else ""
            click.echo(f"{source}  {upload.width}x{upload.height} -> {where}  {width}x{height}, about {size}{time}")
    if left_out := found.describe_left_out():
        click.echo(left_out)
    free = "" if batch.target.is_stream else f"; {describe_bytes(free_bytes(batch.target.path))} are free"
    counts = f"{len(sizes)} to upscale, {existing} there already, {refused} refused."
    click.echo(f"{counts} Results: about {describe_bytes(sum(sizes))} (an estimate){free}.")
    if sizes:
        click.echo(_describe_time(times, settings, is_here=pace.is_here))
    return refused


def _describe_time(times: list[float | None], settings: Settings, *, is_here: bool) -> str:
    known = [seconds for seconds in times if seconds is not None]
    where = "on this machine" if is_here else "on this service"
    if not known:
        return f"Time: unknown, because no image was upscaled with these variants {where} yet."
    text = f"Time: about {describe_duration(sum(known))}, an estimate from the last images {where}"
    if unknown := len(times) - len(known):
        text += f"; not counted are {unknown} whose variant was not used yet"
    if is_here and not settings.backend_address:
        boot = BackendStateTracker(Path(settings.boots_path())).current().usual_boot_s
        text += f"; Triton boots in about {boot[0]:.0f} s before" if boot else "; Triton boots before"
    return f"{text}."
