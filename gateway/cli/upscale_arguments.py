"""The arguments of `superres upscale`: checks them, and connects to the service that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.cli import upscale
from gateway.cli.client_key import read_client_key, reject_keys_in_arguments
from gateway.cli.local_limits import with_local_limits
from gateway.cli.service import ServiceError
from gateway.cli.variant_option import resolve_variant
from gateway.config.environment import SettingsRead
from gateway.jobs.options import PARAMETERS

if TYPE_CHECKING:
    from gateway.cli.remote_service import RemoteService


def run(read: SettingsRead, paths: list[Path], options: Mapping[str, Any], arguments: Sequence[str]) -> int:
    """Upscale as the options say and return the exit code. Raises click.UsageError.

    `arguments` are those of the whole command, as the shell passed them.
    """
    reject_keys_in_arguments(arguments)
    parameters = {name: options[name] for name in PARAMETERS if options.get(name) is not None}
    flags = upscale.Flags(
        overwrite=options["overwrite"],
        skip_existing=options["skip_existing"],
        dry_run=options["dry_run"],
        quiet=options["quiet"],
    )
    if not options["to"]:
        if options["ask_for_key"] or options["key_file"]:
            raise click.UsageError("--key and --key-file are for --to URL.")
        if variant := parameters.get("variant"):
            parameters["variant"] = resolve_variant(variant, read.settings)
        return upscale.run(with_local_limits(read), paths, parameters, arguments=arguments, flags=flags)
    key = read_client_key(options["key_file"], ask=options["ask_for_key"])
    try:
        service = _connect(options["to"], key, parameters)
    except ServiceError as error:
        click.echo(f"superres: {error}", err=True)
        return upscale.EXIT_BACKEND
    if not service.is_private:
        click.echo(
            f"The key and the images go to {service.name} unencrypted. Use https:// if others can listen.", err=True
        )
    return upscale.run(read.settings, paths, parameters, service=service, arguments=arguments, flags=flags)


def _connect(url: str, key: str, parameters: Mapping[str, str]) -> RemoteService:
    """Return the service at an address. Raises ServiceError, and click.UsageError without httpx."""
    try:
        # Imported here because httpx is an extra, which this machine's own backend does not need.
        from gateway.cli.remote_service import RemoteService  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "httpx":
            raise
        raise click.UsageError("--to needs httpx: pip install 'serverless-superres[client]'") from error
    return RemoteService(url, key, parameters)
