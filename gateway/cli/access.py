"""The commands for access control: `superres keys` and `superres block`. A running server applies changes at once."""

from __future__ import annotations

import getpass
import math
from datetime import UTC, datetime, timedelta

import click

from gateway.access.api_keys import ApiKey, ApiKeyStore
from gateway.access.ip_blocklist import Blocklist
from gateway.config.environment import read_settings
from gateway.config.fields import SettingsError
from gateway.config.settings import Settings
from gateway.storage.reloading_file import FileError

requests_option = click.option(
    "--requests",
    help='Request rate, such as "60 per minute; 500 per day", or "none". Default: the setting client_requests.',
)
megapixels_option = click.option(
    "--megapixels",
    help='Megapixel rate, such as "100 per hour", or "none". Default: the setting client_megapixels.',
)


class CommandError(click.ClickException):
    """Prints its message to standard error and exits with code 1."""

    def show(self, file: object = None) -> None:
        """Print the message with the prefix that all commands use."""
        del file
        click.echo(f"superres: {self.message}", err=True)


class _PlainErrorGroup(click.Group):
    """Prints errors of files and settings without a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (FileError, SettingsError) as error:
            raise CommandError(str(error)) from error


@click.group(cls=_PlainErrorGroup)
def keys() -> None:
    """Create, list, rotate and revoke API keys. A running server applies each change at once."""


@keys.command()
@click.argument("name")
@requests_option
@megapixels_option
def new(name: str, requests: str | None, megapixels: str | None) -> None:
    """Create a key for the client NAME and print it.

    The key is shown only this once; the server stores its hash.
    """
    click.echo(_key_store().new(name, requests=requests or "", megapixels=megapixels or ""))


@keys.command("list")
def list_keys() -> None:
    """List all keys: ID, creation date, client name, own rates and expiry."""
    now = datetime.now(UTC)
    entries = _key_store().entries()
    if not entries:
        click.echo(f"{_settings().keys_path()} has no API keys. Create one with: superres keys new NAME", err=True)
    for key in entries:
        click.echo(f"{key.id}  {key.created}  {key.name}{_describe(key, now)}")


def _not_nan(_: click.Context, __: click.Parameter, hours: float) -> float:
    if math.isnan(hours):  # FloatRange accepts it, because every comparison with it is false
        raise click.BadParameter("nan is not a number of hours.")
    return hours


@keys.command()
@click.argument("id_or_name")
@click.option(
    "--keep-hours",
    type=click.FloatRange(0, 8_760),
    default=24.0,
    show_default=True,
    callback=_not_nan,
    help="Hours for which the old key stays valid.",
)
def rotate(id_or_name: str, keep_hours: float) -> None:
    """Create a key that replaces the one with this ID, or all keys of this client, and print it."""
    click.echo(_key_store().rotate(id_or_name, timedelta(hours=keep_hours)))


@keys.command()
@click.argument("id_or_name")
@requests_option
@megapixels_option
def limit(id_or_name: str, requests: str | None, megapixels: str | None) -> None:
    """Set the rates of one key, or of all keys of a client. "" restores the default."""
    for key in _key_store().set_rates(id_or_name, requests=requests, megapixels=megapixels):
        click.echo(f"{key.id}  {key.name}{_describe(key, datetime.now(UTC))}")


@keys.command()
@click.argument("id_or_name")
def revoke(id_or_name: str) -> None:
    """Revoke the key with this ID, or all keys of this client."""
    for key in _key_store().revoke(id_or_name):
        click.echo(f"revoked {key.id}  {key.name}")


@click.group(cls=_PlainErrorGroup)
def block() -> None:
    """Block, list and unblock networks. A running server applies each change at once."""


@block.command("add")
@click.argument("network")
@click.option("--why", default="", help="Reason, stored next to the network with the date and your user name.")
def add_block(network: str, why: str) -> None:
    """Block a NETWORK (203.0.113.0/24, 2001:db8::/48) or a single address."""
    note = f"{datetime.now(UTC):%Y-%m-%d} {_user()}{f': {why}' if why.strip() else ''}"
    click.echo(f"blocked {_blocklist().add(network, note)}")


@block.command("list")
def list_blocks() -> None:
    """List all blocked networks: who blocked them, and why."""
    entries = _blocklist().entries()
    if not entries:
        click.echo(
            f"{_settings().blocklist_path()} blocks no network. Block one with: superres block add NETWORK", err=True
        )
    for entry in entries:
        click.echo(f"{entry.network}  {entry.note}".rstrip())


@block.command("remove")
@click.argument("network")
def remove_block(network: str) -> None:
    """Unblock a NETWORK."""
    click.echo(f"unblocked {_blocklist().remove(network)}")


def _describe(key: ApiKey, now: datetime) -> str:
    parts = [
        f"requests {key.requests}" if key.requests else "",
        f"megapixels {key.megapixels}" if key.megapixels else "",
    ]
    if key.expires:
        parts.append(f"{'expired' if key.has_expired(now) else 'expires'} {key.expires}")
    return "".join(f"  [{part}]" for part in parts if part)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the user of a container may not have a name
        return "unknown"


def _key_store() -> ApiKeyStore:
    return ApiKeyStore(_settings().keys_path())


def _blocklist() -> Blocklist:
    return Blocklist(_settings().blocklist_path())


def _settings() -> Settings:
    return read_settings().settings
