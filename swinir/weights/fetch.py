"""Getting weights: fetch a published checkpoint, convert one at hand, import one from elsewhere, verify what is here.

Each ends with ``NAME.safetensors`` in the weights folder, by atomic rename, and a line in the ledger; a failure leaves
what was good before as it was.
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
from swinir.weights.download import Patience, Progress, download
from swinir.weights.load import build_network, convert, find_weights, load_network, read_checkpoint, write_weights
from swinir.weights.lockfile import LockedWeights, LockFile, hash_file
from swinir.zoo import RELEASE_URL, VARIANTS, Variant, find_variant


def fetch(
    name: str,
    weights_dir: Path,
    *,
    base_url: str = RELEASE_URL,
    on_progress: Progress | None = None,
    patience: Patience | None = None,
) -> LockedWeights:
    """Fetch the published checkpoint of a variant from ``base_url``, check it, convert it and write it down."""
    row = find_variant(name)
    if row.is_bundled:
        raise WeightsError(f"{name} ships with the project: there is nothing to fetch")
    ledger = LockFile(weights_dir)
    ledger.find(name)  # a lock file that cannot be read is said before 140 MB are fetched
    folder = weights_dir / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{row.file}.partial"
    with _alone(folder / f"{row.file}.lock", name):
        url = base_url.rstrip("/") + "/" + row.file
        download(url, partial, size_bytes=row.size_bytes, on_progress=on_progress, patience=patience)
        whole = partial.with_name(row.file)
        partial.replace(whole)
        try:
            return _take_in(row, whole, weights_dir)
        finally:
            whole.unlink(missing_ok=True)


def convert_local(source: Path, name: str, weights_dir: Path) -> LockedWeights:
    """Take a published checkpoint that is on this machine already as the weights of a variant of the zoo."""
    row = find_variant(name)
    if row.is_bundled:
        raise WeightsError(
            f"{name} ships with the project; give weights of your own another name: superres weights import"
        )
    if not source.is_file():
        raise MissingWeightsError(f"File not found: {source}")
    return _take_in(row, source, weights_dir)


def _take_in(row: Variant, source: Path, weights_dir: Path) -> LockedWeights:
    """Check a checkpoint's hash, then its tensors, and only then put it in place."""
    ledger, found = LockFile(weights_dir), hash_file(source)
    known = ledger.find(row.name)
    expected, by = row.sha256, "the table"
    if not expected and known:
        expected, by = known.sha256, "the lock file (trusted on first use)"
    if expected and found != expected:
        raise InvalidWeightsError(
            f"{source.name} has sha256 {found}, but {by} says {expected}. It was not taken; nothing else was changed."
        )
    target = weights_dir / f"{row.name}.safetensors"
    size_bytes = source.stat().st_size
    convert(source, target, row)
    trust = "pinned" if row.sha256 else "first use"
    entry = LockedWeights(row.file, found, size_bytes, trust, hash_file(target))
    ledger.write_down(row.name, entry)
    return entry


@dataclass(frozen=True)
class Description:
    """What has to be said of a checkpoint from elsewhere, because its tensors do not tell."""

    name: str
    task: str
    img_range: float
    summary: str
    notice: str = ""
    credit: str = "unknown"
    licence: str = "unknown"
    key: str = ""
    """Of the state dict inside a .pth; empty for the usual ones."""


def import_checkpoint(source: Path, description: Description, weights_dir: Path, *, is_replacing: bool) -> Variant:
    """Take in any SwinIR under a name of its own, its architecture read from its tensors; return its row."""
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
    LockFile(weights_dir).write_down(name, entry)
    return row


def _row(description: Description, config: dict[str, Any]) -> Variant:
    """The row of an imported checkpoint; its halo and tile are those of the zoo's network of its depth."""
    scale, window, in_chans = config["upscale"], config["window_size"], config["in_chans"]
    task = description.task
    if task.startswith("gray") != (in_chans == 1) or in_chans not in (1, 3):
        raise InvalidWeightsError(f"The task {task} does not fit a network with {in_chans} input channels")
    if task.endswith("_sr") == (scale == 1) or scale not in (1, 2, 3, 4, 8):
        raise InvalidWeightsError(f"The task {task} does not fit a network of scale {scale}")
    depth = sum(config["depths"])
    alike = min(VARIANTS.values(), key=lambda row: (abs(sum(row.config["depths"]) - depth), row.name))
    halo = -(-alike.halo // window) * window
    return Variant(
        name=description.name,
        task=task,
        scale=scale,
        summary=description.summary,
        config=config,
        halo=halo,
        max_tile_px=max(alike.max_tile_px // window * window, 2 * halo + window),
        notice=description.notice,
        credit=description.credit,
        licence=description.licence,
        is_imported=True,
    )


def verify(name: str, weights_dir: Path) -> str:
    """Check the file of one variant: its hash against the ledger, then every tensor; return how sure we are of it."""
    row = find_row(name, weights_dir)
    path = find_weights(row, weights_dir)
    entry = LockFile(weights_dir).find(name) if path.parent == weights_dir else None
    if entry and (found := hash_file(path)) != entry.converted_sha256:
        raise InvalidWeightsError(
            f"{path} has sha256 {found}, but the lock file says {entry.converted_sha256}: it changed since. "
            f"Make it again: superres weights {'import' if row.is_imported else f'fetch {name}'}"
        )
    load_network(row, path)
    if entry:
        return {"pinned": "hash pinned by the table", "first use": "hash trusted on first use"}.get(
            entry.trust, "imported, hash unchanged"
        )
    return "bundled" if row.is_bundled else "no known hash: not in the lock file"


@contextmanager
def _alone(lock: Path, name: str) -> Iterator[None]:
    """Keep a second fetch of the same file from writing into the first one's."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FetchError(f"{name} is being fetched already by another process") from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
