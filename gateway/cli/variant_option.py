"""The value of --variant: short spellings, and what to do about a published variant that is not fetched yet."""

from __future__ import annotations

import click

from gateway.config.fields import split_list
from gateway.config.settings import Settings
from swinir.auto import AUTO
from swinir.variant_names import resolve_name
from swinir.zoo import VARIANTS


def resolve_variant(text: str, settings: Settings) -> str:
    """Return the name of the variant that a text means, or the text if it means none.

    Raises click.UsageError for a published variant whose weights this machine could fetch.
    """
    offered = settings.offered()
    if text == AUTO or text in offered:
        return text
    name = resolve_name(text)
    if name in offered:
        return name
    names = split_list(settings.variants)
    if name in VARIANTS and settings.local_weights() is not None and (not names or name in names):
        raise click.UsageError(f"{name} is not fetched yet. Fetch it with: superres weights fetch {name}")
    return text
