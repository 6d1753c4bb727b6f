"""Weights: where they lie, how a checkpoint becomes a network, and why one is refused.

Served weights are safetensors. A published ``.pth`` is read once, with ``weights_only``, to convert it; nothing is
ever unpickled.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from swinir.errors import InvalidWeightsError, MissingWeightsError
from swinir.network.swinir import DERIVED_BUFFERS, SwinIR
from swinir.zoo import Variant

BUNDLED = Path(__file__).parents[1] / "bundled"
CHECKPOINT_KEYS = ("params_ema", "params")
"""Published files hold their state dict under one of these, or bare; the first found wins when nobody says which."""


def find_weights(variant: Variant, weights_dir: Path | None) -> Path:
    """Return the safetensors file of ``variant``: from ``weights_dir``, else bundled; else MissingWeights."""
    candidates = [weights_dir / f"{variant.name}.safetensors"] if weights_dir else []
    if variant.is_bundled:
        candidates.append(BUNDLED / f"{variant.name}.safetensors")
    for path in candidates:
        if path.is_file():
            return path
    raise MissingWeightsError(
        f"The weights of {variant.name} are not on this machine. Fetch them with: superres weights fetch {variant.name}"
    )


def load_network(variant: Variant, path: Path, device: torch.device | str = "cpu") -> SwinIR:
    """Build the network of ``variant`` with the tensors of ``path``, ready to serve, or raise BadWeights."""
    return build_network(variant.config, _read_safetensors(path), path.name).to(device)


def build_network(config: Mapping[str, Any], tensors: Mapping[str, Tensor], source: str) -> SwinIR:
    """Return a network that holds exactly ``tensors``, or raise BadWeights, naming the first tensor that is wrong."""
    try:
        with torch.device("meta"):  # no time lost on initialising what is replaced at once
            network = SwinIR(**config)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidWeightsError(f"{source} describes no network that can be built: {error}") from error
    _check_tensors(network, tensors, source)
    try:
        network.load_state_dict(dict(tensors), strict=True, assign=True)
    except RuntimeError as error:  # the buffers that follow from the configuration are those of another one
        raise InvalidWeightsError(f"{source} does not fit its network: {error}") from error
    return network.requires_grad_(requires_grad=False).eval()


def _check_tensors(network: SwinIR, tensors: Mapping[str, Tensor], source: str) -> None:
    wanted = dict(network.named_parameters())
    missing, extra = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    extra = [name for name in extra if not name.endswith(DERIVED_BUFFERS)]
    for names, what in ((missing, "lacks"), (extra, "holds unknown")):
        if names:
            raise InvalidWeightsError(f"{source} {what} {len(names)} tensors, the first is {names[0][:200]}")
    for name, parameter in wanted.items():
        tensor = tensors[name]
        if tensor.shape != parameter.shape:
            raise InvalidWeightsError(
                f"{source}: {name} has shape {list(tensor.shape)}, wanted {list(parameter.shape)}"
            )
        if not tensor.is_floating_point():
            raise InvalidWeightsError(f"{source}: {name} holds {tensor.dtype}, wanted floating point")
        if not torch.isfinite(tensor).all():
            raise InvalidWeightsError(f"{source}: {name} holds values that are not finite")


def read_checkpoint(path: Path, key: str = "") -> dict[str, Tensor]:
    """Return the state dict of a ``.pth`` or ``.safetensors`` file, its floating point tensors in float32.

    ``key`` names the state dict inside a ``.pth``; without one the first of `CHECKPOINT_KEYS` is taken, else the whole.
    """
    state: object = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pth(path, key)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InvalidWeightsError(f"{path.name} holds no state dict: a mapping of names to tensors was expected")
    return {str(name): each.float() if each.is_floating_point() else each for name, each in state.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read into memory: mapped, a file written over in place would change live weights, and a shortened one kill us."""
    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise InvalidWeightsError(f"{path.name} cannot be read as safetensors: {error}") from error


def _read_pth(path: Path, key: str) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle's protocol: what cannot be read is refused below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InvalidWeightsError(
            f"{path.name} is refused: it holds something other than tensors (code is never run)"
        ) from error
    except Exception as error:  # a damaged file makes torch raise IndexError, struct.error, AssertionError and others
        raise InvalidWeightsError(f"{path.name} cannot be read as a checkpoint: {str(error)[:300]}") from error
    if key and not (isinstance(state, Mapping) and key in state):
        raise InvalidWeightsError(f"{path.name} has nothing under the key {key!r}")
    for each in (key,) if key else CHECKPOINT_KEYS:
        if isinstance(state, Mapping) and isinstance(state.get(each), Mapping):
            return state[each]
    return state


def write_weights(network: SwinIR, target: Path, metadata: Mapping[str, str]) -> None:
    """Write a network's parameters as safetensors ``target``, by atomic rename."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        save_file({name: each.contiguous() for name, each in network.state_dict().items()}, partial, dict(metadata))
        partial.chmod(0o644)  # save_file makes it the owner's alone; the server may run as another user
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def convert(source: Path, target: Path, variant: Variant) -> None:
    """Write the checkpoint ``source`` of ``variant`` as safetensors ``target``, checked tensor by tensor."""
    key = variant.checkpoint_key if source.suffix != ".safetensors" else ""
    try:
        tensors = read_checkpoint(source, key)
    except InvalidWeightsError:
        tensors = read_checkpoint(source)  # the same tensors under the other key, or bare
    write_weights(build_network(variant.config, tensors, source.name), target, {"variant": variant.name})
