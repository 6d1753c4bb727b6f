"""Adds weights: fetch a published checkpoint, convert a local one, import a custom one; and verify existing weights.

Each writes ``NAME.safetensors`` into the weights folder by atomic rename, and an entry into the lock file. A failure
leaves existing weights unchanged.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swinir.custom_variants import NAME_PATTERN, ROW_KEY, find_row, write_row
from swinir.errors import FetchError, InvalidWeightsError, MissingWeightsError, WeightsError
from swinir.weights.architecture import infer_config
from swinir.weights.download import Progress, RetryPolicy, download
from swinir.weights.find import find_weights
from swinir.weights.load import build_network, convert, load_network, read_checkpoint, write_weights
from swinir.weights.lockfile import LockedWeights, LockFile, hash_file
from swinir.zoo import RELEASE_URL, VARIANTS, Variant, find_variant


def fetch(
    name: str,
    weights_dir: Path,
    *,
    base_url: str = RELEASE_URL,
    on_progress: Progress | None = None,
    policy: RetryPolicy | None = None,
) -> LockedWeights:
    """Download the published checkpoint of a variant from ``base_url``, check its hash and convert it.

    Raises UnknownVariantError and WeightsError.
    """
    row = find_variant(name)
    if row.is_bundled:
        raise WeightsError(f"The weights of {name} are bundled: there is nothing to fetch.")
    LockFile(weights_dir).find(name)  # reports an unreadable lock file before 140 MB are downloaded
    folder = weights_dir / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{row.file}.partial"
    with _exclusive(folder / f"{row.file}.lock", name):
        url = base_url.rstrip("/") + "/" + row.file
        download(url, partial, size_bytes=row.size_bytes, on_progress=on_progress, policy=policy)
        whole = partial.with_name(row.file)
        partial.replace(whole)
        try:
            return _convert_checked(row, whole, weights_dir)
        finally:
            whole.unlink(missing_ok=True)


def convert_local(source: Path, name: str, weights_dir: Path) -> LockedWeights:
    """Convert a local copy of a published checkpoint to the weights of a variant, under the rules of `fetch`."""
    row = find_variant(name)
    if row.is_bundled:
        raise WeightsError(
            f"The weights of {name} are bundled. Import your own under another name: superres weights import"
        )
    if not source.is_file():
        raise MissingWeightsError(f"File not found: {source}")
    return _convert_checked(row, source, weights_dir)


def _convert_checked(row: Variant, source: Path, weights_dir: Path) -> LockedWeights:
    """Check the hash of a checkpoint, then its tensors, then install it."""
    lock_file, found = LockFile(weights_dir), hash_file(source)
    known = lock_file.find(row.name)
    expected, source_of_hash = row.sha256, "the zoo"
    if not expected and known:
        expected, source_of_hash = known.sha256, "the lock file (trusted on first use)"
    if expected and found != expected:
        raise InvalidWeightsError(
            f"{source.name} has sha256 {found}; {source_of_hash} requires {expected}. Nothing was changed."
        )
    target = weights_dir / f"{row.name}.safetensors"
    size_bytes = source.stat().st_size
    convert(source, target, row)
    trust = "pinned" if row.sha256 else "first use"
    entry = LockedWeights(row.file, found, size_bytes, trust, hash_file(target))
    lock_file.record(row.name, entry)
    return entry


@dataclass(frozen=True)
class Description:
    """Facts about an imported checkpoint that its tensors do not show."""

    name: str
    task: str
    img_range: float
    summary: str
    notice: str = ""
    credit: str = "unknown"
    licence: str = "unknown"
    key: str = ""
    """Key of the state dict in a .pth file; empty: `CHECKPOINT_KEYS` in turn."""


def import_checkpoint(source: Path, description: Description, weights_dir: Path, *, is_replacing: bool) -> Variant:
    """Import a checkpoint of any SwinIR as a new variant and return its row; the architecture follows from its tensors.

    Raises WeightsError.
    """
    name = description.name
    if not NAME_PATTERN.fullmatch(name):
        raise InvalidWeightsError(f"Invalid name {name[:80]!r}: use 1 to 64 lowercase letters, digits or underscores.")
    if name in VARIANTS:
        raise InvalidWeightsError(f"The name {name} belongs to a variant of the zoo. Choose another name.")
    target = weights_dir / f"{name}.safetensors"
    if target.exists() and not is_replacing:
        raise InvalidWeightsError(f"The variant {name} already exists. Add --replace to replace it.")
    if not source.is_file():
        raise MissingWeightsError(f"File not found: {source}")
    tensors = read_checkpoint(source, description.key)
    config = infer_config(tensors, img_range=description.img_range, source=source.name)
    network = build_network(config, tensors, source.name)
    row = _row(description, config)
    write_weights(network, target, {"variant": name, ROW_KEY: write_row(row)})
    entry = LockedWeights(source.name, hash_file(source), source.stat().st_size, "imported", hash_file(target))
    LockFile(weights_dir).record(name, entry)
    return row


def _row(description: Description, config: dict[str, Any]) -> Variant:
    """Return the row of an imported checkpoint, with halo and tile size of the network in the zoo closest in depth."""
    scale, window, in_chans = config["upscale"], config["window_size"], config["in_chans"]
    task = description.task
    if task.startswith("gray") != (in_chans == 1) or in_chans not in (1, 3):
        raise InvalidWeightsError(f"The task {task} does not fit a network with {in_chans} input channels")
    if task.endswith("_sr") == (scale == 1) or scale not in (1, 2, 3, 4, 8):
        raise InvalidWeightsError(f"The task {task} does not fit a network of scale {scale}")
    depth = sum(config["depths"])
    similar = min(VARIANTS.values(), key=lambda row: (abs(sum(row.config["depths"]) - depth), row.name))
    halo = -(-similar.halo // window) * window
    return Variant(
        name=description.name,
        task=task,
        scale=scale,
        summary=description.summary,
        config=config,
        halo=halo,
        max_tile_px=max(similar.max_tile_px // window * window, 2 * halo + window),
        notice=description.notice,
        credit=description.credit,
        licence=description.licence,
        is_imported=True,
    )


def verify(name: str, weights_dir: Path) -> str:
    """Check the hash of a variant's file against the lock file, then every tensor; return how well the hash is known.

    Raises UnknownVariantError and WeightsError.
    """
    row = find_row(name, weights_dir)
    path = find_weights(row, weights_dir)
    entry = LockFile(weights_dir).find(name) if path.parent == weights_dir else None
    if entry and (found := hash_file(path)) != entry.converted_sha256:
        raise InvalidWeightsError(
            f"{path} has sha256 {found}; the lock file has {entry.converted_sha256}: the file was changed. "
            f"{_describe_remedy(row)}"
        )
    try:
        load_network(row, path)
    except InvalidWeightsError as error:
        raise InvalidWeightsError(f"{error}. {_describe_remedy(row)}") from error
    if entry:
        return {"pinned": "hash pinned by the zoo", "first use": "hash trusted on first use"}.get(
            entry.trust, "imported, hash unchanged"
        )
    return "bundled" if row.is_bundled else "no known hash: not in the lock file"


def _describe_remedy(row: Variant) -> str:
    if row.is_bundled:
        return "Install the package again"
    return f"Create it again: superres weights {'import --replace' if row.is_imported else f'fetch --again {row.name}'}"


@contextmanager
def _exclusive(lock: Path, name: str) -> Iterator[None]:
    """Prevent two processes from downloading one file at the same time."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FetchError(f"Another process is already fetching {name}. Wait for it to finish.") from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
