"""The commands of the doors: `superres keys` and `superres block`. A running server honours each change at once."""

from __future__ import annotations

import getpass
import math
from datetime import datetime, timedelta, timezone

import click

from gateway.access.api_keys import ApiKeyStore, Client
from gateway.access.ip_blocklist import Blocklist
from gateway.config.settings import Settings, SettingsError, read_settings
from gateway.storage.reloading_file import FileError

requests_option = click.option("--requests", help='As "60 per minute; 500 per day"; the settings\' when left out.')
megapixels_option = click.option("--megapixels", help='As "100 per hour"; the settings\' when left out.')


class CommandError(click.ClickException):
    """Says why on standard error and exits with 1."""

    def show(self, file: object = None) -> None:
        """Say it in the words of all other commands."""
        del file
        click.echo(f"superres: {self.message}", err=True)


class _PlainErrorGroup(click.Group):
    """Turns what the files of the doors refuse into words."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (FileError, SettingsError) as error:
            raise CommandError(str(error)) from error


@click.group(cls=_PlainErrorGroup)
def keys() -> None:
    """Make, list, rotate and revoke the keys of the API; a running server honours each change at once."""


@keys.command()
@click.argument("name")
@requests_option
@megapixels_option
def new(name: str, requests: str | None, megapixels: str | None) -> None:
    """Make a key for the client NAME and print it, alone. It is shown this once; only its hash is kept."""
    click.echo(_key_file().new(name, requests=requests or "", megapixels=megapixels or ""))


@keys.command("list")
def list_keys() -> None:
    """List id, date and name of every key, its own allowance and its end, where it has them."""
    now = datetime.now(timezone.utc)
    for client in _key_file().clients():
        click.echo(f"{client.id}  {client.created}  {client.name}{_describe(client, now)}")


def _finite(_: click.Context, __: click.Parameter, hours: float) -> float:
    if math.isnan(hours):  # compares with nothing, so that no range refuses it
        raise click.BadParameter("nan is no number of hours.")
    return hours


@keys.command()
@click.argument("id_or_name")
@click.option(
    "--keep-hours",
    type=click.FloatRange(0, 8_760),
    default=24.0,
    show_default=True,
    callback=_finite,
    help="How long the old key counts on.",
)
def rotate(id_or_name: str, keep_hours: float) -> None:
    """Make a key in place of that id, or of every key of that name, and print it; the old ones end a while later."""
    click.echo(_key_file().rotate(id_or_name, timedelta(hours=keep_hours)))


@keys.command()
@click.argument("id_or_name")
@requests_option
@megapixels_option
def limit(id_or_name: str, requests: str | None, megapixels: str | None) -> None:
    """Give a key, or every key of a name, an allowance of its own; "" gives the settings' again."""
    for client in _key_file().allow(id_or_name, requests=requests, megapixels=megapixels):
        click.echo(f"{client.id}  {client.name}{_describe(client, datetime.now(timezone.utc))}")


@keys.command()
@click.argument("id_or_name")
def revoke(id_or_name: str) -> None:
    """Revoke the key with that id, or every key of that name."""
    for client in _key_file().revoke(id_or_name):
        click.echo(f"revoked {client.id}  {client.name}")


@click.group(cls=_PlainErrorGroup)
def block() -> None:
    """Block, list and unblock networks; a running server honours each change at once."""


@block.command("add")
@click.argument("network")
@click.option("--why", default="", help="Kept beside it, with the date and your name.")
def add_block(network: str, why: str) -> None:
    """Block a NETWORK (203.0.113.0/24, 2001:db8::/48) or a single address."""
    note = f"{datetime.now(timezone.utc):%Y-%m-%d} {_user()}{f': {why}' if why.strip() else ''}"
    click.echo(f"blocked {_block_file().add(network, note)}")


@block.command("list")
def list_blocks() -> None:
    """List every blocked network with who blocked it and why."""
    for row in _block_file().blocks():
        click.echo(f"{row.network}  {row.note}".rstrip())


@block.command("remove")
@click.argument("network")
def remove_block(network: str) -> None:
    """Let a network in again."""
    click.echo(f"unblocked {_block_file().remove(network)}")


def _describe(client: Client, now: datetime) -> str:
    parts = [
        f"requests {client.requests}" if client.requests else "",
        f"megapixels {client.megapixels}" if client.megapixels else "",
    ]
    if client.expires:
        parts.append(f"{'ended' if client.has_expired(now) else 'ends'} {client.expires}")
    return "".join(f"  [{part}]" for part in parts if part)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user has no name
        return "somebody"


def _key_file() -> ApiKeyStore:
    return ApiKeyStore(_settings().path_of_keys())


def _block_file() -> Blocklist:
    return Blocklist(_settings().path_of_blocks())


def _settings() -> Settings:
    return read_settings().settings
