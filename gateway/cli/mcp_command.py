"""`superres mcp`: an MCP server with a tool that upscales local files on a service elsewhere."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from gateway.cli.client_key import read_client_key, reject_keys_in_arguments

_MISSING = "superres mcp needs its extra: pip install 'serverless-superres[mcp]'"


@click.command()
@click.option("--to", metavar="URL", required=True, help="Address of the running service.")
@click.option("--key-file", type=click.Path(path_type=Path), help="File with the API key of --to.")
@click.option(
    "--root",
    "roots",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder whose files the tool may read and write; several times for several. Default: the working directory.",
)
def mcp(to: str, key_file: Path | None, roots: tuple[Path, ...]) -> None:
    """Serve the tool `upscale_image` to AI applications, by the Model Context Protocol.

    It reads an image file, upscales it on the service --to, and writes a file. Speaks on standard input and output; the
    application starts it. The API key is in SUPERRES_CLIENT_KEY or a file, never in the arguments.
    """
    reject_keys_in_arguments(sys.argv[1:])
    key = read_client_key(key_file, ask=False)
    try:
        asyncio.run(_serve(to, key, roots or (Path.cwd(),)))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "httpx"):
            raise
        raise click.UsageError(_MISSING) from error


async def _serve(to: str, key: str, folders: Sequence[Path]) -> None:
    # Imported here because they need an extra, which other commands do not.
    from superres.client import AsyncClient, ClientError  # noqa: PLC0415
    from superres.mcp_server import Roots, make_server  # noqa: PLC0415

    try:
        client = AsyncClient(to, key)
    except ClientError as error:
        raise click.UsageError(str(error)) from error
    if not client.url.is_private:
        click.echo(
            f"The key and the images go to {client.url} unencrypted. Use https:// if others can listen.", err=True
        )
    async with client:
        await make_server(client, Roots(folders)).run_stdio_async()
