"""The command `superres`: serve, upscale, keys, block, settings, weights, plan; each lives in its noun's module."""

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


@click.group()
@click.version_option(package_name="serverless-superres")
def cli() -> None:
    """Serverless SuperRes: images come in, and come out four times as large on each side."""


@cli.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.")
def serve(**options: Any) -> None:
    """Serve the page and the API; PORT and SUPERRES_* set the rest."""
    # gRPC takes a second to import, which `keys` need not wait for.
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
@click.option("--variant", help="A name of the zoo; compact_x4 when left out.")
@click.option("--format", help="png, jpeg or webp; by the name of OUT when left out, png into a folder.")
@click.option("--quality", help="1 to 100, of JPEG and WebP.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there already.")
def upscale(paths: tuple[Path, ...], *, overwrite: bool, **parameters: str | None) -> None:
    """Upscale files without a browser, on SUPERRES_BACKEND_ADDRESS or an embedded server started for it.

    Exit code: 0 all made, 2 wrong usage, 3 an input was refused, 4 the backend failed.
    """
    from gateway.cli import upscale as upscale_command  # noqa: PLC0415 - gRPC takes a second to import

    chosen = {name: value for name, value in parameters.items() if value is not None}
    sys.exit(upscale_command.run(_settings({}).settings, list(paths), chosen, overwrite=overwrite))


@cli.command()
def settings() -> None:
    """Show every setting: its value, where that comes from, what it means. Secrets are not shown."""
    read = _settings({})
    rows = [
        (row.name, row.show(getattr(read.settings, row.name)), read.sources[row.name], row.help) for row in SETTINGS
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        click.echo("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]))


def _month(_: click.Context, __: click.Parameter, month: str) -> str:
    if month and not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", month):
        raise click.BadParameter(f"{month[:80]!r} is no month: write it as 2026-11.")
    return month


@cli.command()
@click.option(
    "--month",
    default="",
    metavar="YYYY-MM",
    callback=_month,
    help="Of which to show the clients; this one when left out.",
)
def usage(month: str) -> None:
    """Show the GPU seconds of each month, and what each client's pictures took of one."""
    # Not needed by `keys`, which should start quickly.
    from gateway.cli import usage as usage_command  # noqa: PLC0415
    from gateway.usage import meter  # noqa: PLC0415
    from gateway.usage import store as ledger  # noqa: PLC0415

    try:
        click.echo(usage_command.describe(_settings({}).settings, month, meter.month_of(time.time())))
    except ledger.UsageStoreError as error:
        _fail(error)


@cli.group()
@click.pass_context
def weights(context: click.Context) -> None:
    """List, fetch, verify, convert and import weights of SwinIR; they lie in the setting weights_dir."""
    context.obj = _settings({}).settings.path_of_weights()


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
