"""The command line `superres`: serve, upscale, settings, usage, and the groups keys, block, weights and plan."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import click

from gateway.cli.access import block, keys
from gateway.config.environment import SettingsRead, read_settings
from gateway.config.fields import SettingsError
from gateway.config.settings import SETTINGS
from planning.cli import plan
from swinir.cli import COMMANDS
from swinir.zoo import DEFAULT_VARIANT


@click.group()
@click.version_option(package_name="serverless-superres")
def cli() -> None:
    """Serverless SuperRes: upscale images to four times their width and height."""


@cli.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 0 picks a free one.")
def serve(**options: Any) -> None:
    """Start the gateway: the web page and the API. The environment (PORT, SUPERRES_*) sets everything else."""
    # gRPC takes a second to import; `keys` and other commands start without it.
    from gateway import server  # noqa: PLC0415
    from gateway.backend import embedded  # noqa: PLC0415

    def await_ready(backend: Any) -> None:
        if isinstance(backend, embedded.EmbeddedBackend):
            backend.wait_until_ready(time.monotonic() + embedded.READY_LIMIT_S)

    settings = _settings(options).settings
    try:
        sys.exit(server.serve(settings, embedded.make_backend, await_ready))
    except server.ServeError as error:
        _fail(error)


@cli.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IN... OUT|DIR")
@click.option("--variant", help="Variant to use, as listed by `superres weights list`; auto or nearest_x4.")
@click.option("--format", help="png, jpeg or webp. Default: from the name of OUT; png for a folder.")
@click.option("--quality", help="Quality of JPEG and WebP, 1 to 100.")
@click.option(
    "--strength", help="How much of the restoration to keep, 0 to 1, if the variant keeps the size. Default: 1."
)
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
def upscale(paths: tuple[Path, ...], *, overwrite: bool, **parameters: str | None) -> None:
    """Upscale image files. Uses the Triton at SUPERRES_BACKEND_ADDRESS, or starts the embedded one.

    Exit code: 0 success, 2 invalid usage, 3 an input was rejected, 4 the backend failed.
    """
    from gateway.cli import upscale as upscale_command  # noqa: PLC0415 - gRPC takes a second to import

    chosen = {name: value for name, value in parameters.items() if value is not None}
    sys.exit(upscale_command.run(_settings({}).settings, list(paths), chosen, overwrite=overwrite))


@cli.command()
def settings() -> None:
    """Show every setting: its value, the source of the value and its meaning. Secrets are hidden."""
    read = _settings({})
    rows = [
        (row.name, row.show(getattr(read.settings, row.name)), read.sources[row.name], row.help) for row in SETTINGS
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        click.echo("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]))


def _month(_: click.Context, __: click.Parameter, month: str) -> str:
    if month and not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", month):
        raise click.BadParameter(f"Invalid month {month[:80]!r}: expected YYYY-MM.")
    return month


@cli.command()
@click.option(
    "--month",
    default="",
    metavar="YYYY-MM",
    callback=_month,
    help="Month whose clients are shown. Default: the current month.",
)
def usage(month: str) -> None:
    """Show the GPU seconds of each month, and of each client in one month."""
    # Imported here so that `keys` and other commands start quickly.
    from gateway.cli import usage as usage_command  # noqa: PLC0415
    from gateway.usage import meter  # noqa: PLC0415
    from gateway.usage.store import UsageStoreError  # noqa: PLC0415

    try:
        click.echo(usage_command.describe(_settings({}).settings, month, meter.format_month(time.time())))
    except UsageStoreError as error:
        _fail(error)


@cli.group()
@click.pass_context
def weights(context: click.Context) -> None:
    """List, fetch, verify, convert and import weights of SwinIR. They are stored in the folder weights_dir."""
    # Without these two settings: they may name a variant that this command is about to add.
    context.obj = _settings({"variants": "", "default_variant": DEFAULT_VARIANT}).settings.weights_path()


cli.add_command(keys)
cli.add_command(block)
cli.add_command(plan)
for _command in COMMANDS:
    weights.add_command(_command)


def _settings(options: dict[str, Any]) -> SettingsRead:
    try:
        return read_settings(options=options)
    except SettingsError as error:
        _fail(error)


def _fail(error: Exception) -> NoReturn:
    click.echo(f"superres: {error}", err=True)
    sys.exit(1)
