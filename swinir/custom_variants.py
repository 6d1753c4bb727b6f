"""Custom variants: imported checkpoints, each with its row of the zoo in the header of its safetensors file.

``superres weights import`` writes the row. This module reads it without torch, so Triton's tile step and the gateway
know the variant as soon as the file is in ``weights_dir``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from swinir.weights_file import is_complete, list_weights_files, read_header
from swinir.zoo import TASKS, VARIANTS, UnknownVariantError, Variant

# Metadata key in the safetensors header under which an imported file holds its row, as JSON.
ROW_KEY = "superres_variant"
NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")
# Maximum of any count in a row; the largest in the zoo is 256.
MAX_NUMBER = 4096
# Rows that are remembered, so that they are not parsed for each request.
_MAX_REMEMBERED = 512
# Keywords of `swinir.network.swinir.SwinIR` and their JSON types.
_CONFIG_TYPES: Mapping[str, tuple[type, ...]] = {
    "upscale": (int,),
    "in_chans": (int,),
    "window_size": (int,),
    "img_range": (int, float),
    "depths": (list,),
    "embed_dim": (int,),
    "num_heads": (list,),
    "mlp_ratio": (int, float),
    "resi_connection": (str,),
    "upsampler": (str,),
}
_ROW_KEYS = frozenset(
    ["name", "task", "scale", "summary", "config", "halo", "max_tile_px", "notice", "credit", "licence"]
)


class CustomVariantError(ValueError):
    """The header of a file does not describe a valid variant; the message says what is wrong."""


def find_row(name: str, weights_dir: Path | None) -> Variant:
    """Return the row of a variant of the zoo or of an imported file; raises UnknownVariantError."""
    if name in VARIANTS:
        return VARIANTS[name]
    if weights_dir and NAME_PATTERN.fullmatch(name):
        path = weights_dir / f"{name}.safetensors"
        if path.is_file():
            try:
                return read_row(path)
            except CustomVariantError as error:
                raise UnknownVariantError(name, tuple(read_rows(weights_dir)), str(error)) from error
    raise UnknownVariantError(name, tuple(read_rows(weights_dir)))


def read_rows(weights_dir: Path | None) -> Mapping[str, Variant]:
    """Return the rows of imported variants by name; incomplete files and files without a valid row are skipped."""
    return _read_rows(list_weights_files(weights_dir))


def _read_rows(files: Mapping[str, Path]) -> Mapping[str, Variant]:
    rows: dict[str, Variant] = {}
    for name, path in files.items():
        if name in VARIANTS:
            continue
        try:
            rows[name] = read_row(path)
        except CustomVariantError:
            continue
    return rows


def find_offered(names: Sequence[str], weights_dir: Path | None) -> Mapping[str, Variant]:
    """Return the rows that a server with these names offers; without names, all whose weights are on this machine.

    Unknown names and names without complete weights are skipped. Where no folder is known, all names are taken to have
    weights: they are on the machine of a remote Triton.
    """
    files = list_weights_files(weights_dir)
    rows = {**VARIANTS, **_read_rows(files)}
    known = [rows[name] for name in names or rows if name in rows]
    is_trusted = bool(names) and weights_dir is None

    def has_file(row: Variant) -> bool:
        return row.is_imported or (row.name in files and is_complete(files[row.name]))

    return {row.name: row for row in known if is_trusted or row.is_bundled or has_file(row)}


def find_known(weights_dir: Path | None) -> Mapping[str, Variant]:
    """Return the rows of the zoo and of the imported variants by name, with weights or without."""
    return {**VARIANTS, **read_rows(weights_dir)}


def has_weights(row: Variant, weights_dir: Path | None) -> bool:
    """Return whether the weights of a variant are on this machine, as a complete file; its tensors are not read."""
    return row.is_bundled or (weights_dir is not None and is_complete(weights_dir / f"{row.name}.safetensors"))


def read_row(path: Path) -> Variant:
    """Return the row in the header of an imported file; raises CustomVariantError."""
    header = read_header(path)
    if header.fault:
        raise CustomVariantError(f"{path.name} cannot be used: {header.fault}")
    text = header.metadata.get(ROW_KEY)
    if not text:
        raise CustomVariantError(
            f"{path.name} has no description of a variant in its header. Import it with: superres weights import"
        )
    try:
        return _parse(text, path)
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError) as error:
        if isinstance(error, CustomVariantError):
            raise
        raise CustomVariantError(f"{path.name} describes an invalid variant: {str(error)[:300]}") from error


@lru_cache(maxsize=_MAX_REMEMBERED)
def _parse(text: str, path: Path) -> Variant:
    fields = json.loads(text)
    if not isinstance(fields, dict) or fields.keys() != _ROW_KEYS or fields["config"].keys() != _CONFIG_TYPES.keys():
        raise CustomVariantError(f"{path.name} describes its variant with unknown or missing fields")
    row = Variant(is_imported=True, **fields)
    _check(row, path)
    return row


def write_row(row: Variant) -> str:
    """Return a row as JSON for `read_row`."""
    fields = {name: getattr(row, name) for name in sorted(_ROW_KEYS - {"config"})}
    return json.dumps({**fields, "config": dict(row.config)})


def _check(row: Variant, path: Path) -> None:
    if row.name != path.stem or not NAME_PATTERN.fullmatch(row.name):
        raise CustomVariantError(f"{path.name} describes a variant with a different name, {row.name!r}")
    texts = (row.summary, row.notice, row.credit, row.licence)
    wrong = [name for name, kinds in _CONFIG_TYPES.items() if type(row.config[name]) not in kinds]
    if wrong or not all(isinstance(text, str) for text in texts):
        raise CustomVariantError(
            f"{path.name} describes its variant with values of the wrong type: {', '.join(wrong) or 'texts'}"
        )
    numbers: list[object] = [row.scale, row.halo, row.max_tile_px, row.config["embed_dim"], row.window, row.channels]
    for name in ("depths", "num_heads"):
        numbers += row.config[name] or [0]
    is_valid = all(type(number) is int and 0 < number <= MAX_NUMBER for number in numbers)
    is_valid = is_valid and all(0 < row.config[name] <= MAX_NUMBER for name in ("img_range", "mlp_ratio"))
    is_valid = is_valid and len(row.config["depths"]) == len(row.config["num_heads"])
    if row.task not in TASKS or not is_valid or row.config["upscale"] != row.scale or row.channels not in (1, 3):
        raise CustomVariantError(f"{path.name} describes an impossible variant: task {row.task!r}, scale {row.scale!r}")
