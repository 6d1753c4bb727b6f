"""The variant of a request: one that the server offers at this moment, or a problem that says why it is not offered."""

from __future__ import annotations

import difflib

from gateway.config.fields import split_list
from gateway.config.settings import Settings
from gateway.problems import BadParameter
from swinir.auto import AUTO, NEAREST
from swinir.custom_variants import find_known
from swinir.weights_file import file_version
from swinir.zoo import Variant

_MAX_SHOWN = 40


def find_offered_variant(name: str, settings: Settings) -> Variant:
    """Return the row of a variant that the server offers now; raise BadParameter with the names of those offered."""
    offered = settings.offered()
    if name in offered:
        return offered[name]
    allowed = [AUTO, *offered]
    raise BadParameter(
        f"{_explain(name, settings)} Allowed: {', '.join(allowed)}.", parameter="variant", allowed=allowed
    )


def weights_version(variant: Variant, settings: Settings) -> str:
    """Return a text that changes when the weights of a variant are replaced; empty if this machine cannot tell."""
    if variant.is_bundled or (folder := settings.local_weights()) is None:
        return ""
    try:
        return "-".join(map(str, file_version(folder / f"{variant.name}.safetensors")))
    except OSError:  # just deleted: the backend will say so
        return ""


def _explain(name: str, settings: Settings) -> str:
    folder = settings.local_weights()
    if name == AUTO:
        return "No variant of this server has its weights. Its operator can add them with: superres weights fetch NAME."
    known = (*find_known(folder), NEAREST.name)
    if name not in known:
        similar = difflib.get_close_matches(name[:_MAX_SHOWN], known, n=1)
        return f"Unknown variant {name[:_MAX_SHOWN]!r}." + (f" Did you mean {similar[0]}?" if similar else "")
    names = split_list(settings.variants)
    if folder is None or (names and name not in names):
        return f"This server does not offer {name}."
    state = "incomplete" if (folder / f"{name}.safetensors").exists() else "not on this server"
    return f"The weights of {name} are {state}. Its operator can add them with: superres weights fetch {name}."
