"""The command line `superres`: serve, upscale, settings, usage, preflight, plan, mcp; groups: keys, block, weights."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import click

from gateway.cli.access import block, keys
from gateway.cli.mcp_command import mcp
from gateway.config.environment import SettingsRead, read_settings
from gateway.config.fields import SettingsError
from gateway.config.settings import SETTINGS
from gateway.preflight.command import preflight
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
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IN... OUT")
@click.option("--variant", help="Variant to use, as listed by `superres weights list`; auto or nearest_x4.")
@click.option(
    "--format",
    help="png, jpeg, jpg, webp, avif, or same as the input. Default: from the name of OUT; png for a folder.",
)
@click.option("--quality", help="Quality of JPEG, AVIF and lossy WebP, 1 to 100.")
@click.option("--lossless", flag_value="1", help="Keep every pixel of WebP exactly; PNG always does.")
@click.option("--depth", help="Bits per channel of PNG results: 8, 16, or auto, as the input has. Default: auto.")
@click.option(
    "--strength",
    help="How much of the restoration to keep, 0 to 1, if the variant keeps the size. Default: auto, by its damage.",
)
@click.option("--scale", help="Side of the result / side of the image, such as 1.5; at most that of the variant.")
@click.option("--width", help="Width of the result in pixels; with --height the result fits inside both.")
@click.option("--height", help="Height of the result in pixels.")
@click.option("--megapixels", help="Pixels of the result in millions, such as 12.5.")
@click.option(
    "--metadata",
    help="keep: EXIF, the location included, XMP, IPTC and comments stay in the results. Default: strip.",
)
@click.option(
    "--transparent-colour",
    help="bleed: under full transparency use the colours of visible neighbours. keep: upscale the colours there, for "
    "textures of games. Default: bleed.",
)
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@click.option("--skip-existing", is_flag=True, help="Leave out images whose result exists; goes on after a stop.")
@click.option("--dry-run", is_flag=True, help="Show what would be made, with sizes and time; write nothing.")
@click.option("--quiet", "-q", is_flag=True, help="Print errors only.")
@click.option("--to", metavar="URL", help="Upscale on the running service at this address.")
@click.option("--key", "ask_for_key", is_flag=True, help="Ask for the API key of --to. Keys never go in arguments.")
@click.option("--key-file", type=click.Path(path_type=Path), help="File with the API key of --to.")
def upscale(paths: tuple[Path, ...], **options: Any) -> None:
    """Upscale image files, folders, or standard input.

    IN is a file, a folder (searched with all folders in it), or - for standard input. OUT is a file, a folder, or -
    for standard output. Uses the Triton at SUPERRES_BACKEND_ADDRESS, or starts the embedded one; with --to, a running
    service, whose API key is in SUPERRES_CLIENT_KEY.

    With the embedded one, the limits of images follow from the memory of this machine, unless a setting such as
    SUPERRES_MAX_PIXELS is set.

    Exit code: 0 success, 2 invalid usage, 3 an input was rejected, 4 the backend or the service failed, 130 Ctrl-C.
    """
    from gateway.cli import upscale_arguments  # noqa: PLC0415 - gRPC takes a second to import

    sys.exit(upscale_arguments.run(_settings({}), list(paths), options, sys.argv[1:]))


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
    from gateway.usage.records import UsageStoreError  # noqa: PLC0415

    try:
        click.echo(usage_command.describe(_settings({}).settings, month))
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
cli.add_command(mcp)
cli.add_command(preflight)
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
