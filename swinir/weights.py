"""Weights: where they lie, how a checkpoint becomes a network, and why one is refused.

Served weights are safetensors. A published ``.pth`` is read once, with ``weights_only``, to convert it; nothing is
ever unpickled.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from swinir.network import DERIVED_BUFFERS, SwinIR
from swinir.zoo import Variant

BUNDLED = Path(__file__).parent / "bundled"
# Published files hold their state dict under one of these, or bare.
CHECKPOINT_KEYS = ("params_ema", "params")


class WeightsError(Exception):
    """Weights that cannot be served; the text says which file, what is wrong and what to do."""


class MissingWeights(WeightsError):
    """No file for this variant on this machine."""


class BadWeights(WeightsError):
    """A file that is not what the variant needs."""


def find_weights(variant: Variant, weights_dir: Path | None) -> Path:
    """Return the safetensors file of ``variant``: from ``weights_dir``, else bundled; else MissingWeights."""
    candidates = [weights_dir / f"{variant.name}.safetensors"] if weights_dir else []
    if variant.is_bundled:
        candidates.append(BUNDLED / f"{variant.name}.safetensors")
    for path in candidates:
        if path.is_file():
            return path
    raise MissingWeights(
        f"The weights of {variant.name} are not on this machine. Fetch them with: superres weights fetch {variant.name}"
    )


def load_network(variant: Variant, path: Path, device: torch.device | str = "cpu") -> SwinIR:
    """Build the network of ``variant`` with the tensors of ``path``, ready to serve, or raise BadWeights."""
    try:
        tensors = load_file(path, device="cpu")
    except (OSError, SafetensorError) as error:
        raise BadWeights(f"{path.name} cannot be read as safetensors: {error}") from error
    with torch.device("meta"):  # no time lost on initialising what is replaced at once
        network = SwinIR(**variant.config)
    check_tensors(network, tensors, path.name)
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.requires_grad_(requires_grad=False).eval().to(device)


def check_tensors(network: SwinIR, tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise BadWeights unless ``tensors`` are exactly the network's, of its shapes, floating and finite."""
    wanted = dict(network.named_parameters())
    missing, extra = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    extra = [name for name in extra if not name.endswith(DERIVED_BUFFERS)]
    for names, what in ((missing, "lacks"), (extra, "holds unknown")):
        if names:
            raise BadWeights(f"{source} {what} {len(names)} tensors, the first is {names[0]}")
    for name, parameter in wanted.items():
        tensor = tensors[name]
        if tensor.shape != parameter.shape:
            raise BadWeights(f"{source}: {name} has shape {list(tensor.shape)}, wanted {list(parameter.shape)}")
        if not tensor.is_floating_point():
            raise BadWeights(f"{source}: {name} holds {tensor.dtype}, wanted floating point")
        if not torch.isfinite(tensor).all():
            raise BadWeights(f"{source}: {name} holds values that are not finite")


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the parameters of a ``.pth`` or ``.safetensors`` file in float32, derived buffers left out."""
    if path.suffix == ".safetensors":
        try:
            state: object = load_file(path, device="cpu")
        except (OSError, SafetensorError) as error:
            raise BadWeights(f"{path.name} cannot be read as safetensors: {error}") from error
    else:
        state = _read_pth(path)
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise BadWeights(f"{path.name} holds no state dict: a mapping of names to tensors was expected")
    return {name: tensor.float() for name, tensor in state.items() if not name.endswith(DERIVED_BUFFERS)}


def _read_pth(path: Path) -> object:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BadWeights(
            f"{path.name} is refused: it holds something other than tensors (code is never run)"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise BadWeights(f"{path.name} cannot be read as a checkpoint: {error}") from error
    for key in CHECKPOINT_KEYS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            return state[key]
    return state


def convert(source: Path, target: Path, variant: Variant) -> None:
    """Write the checkpoint ``source`` of ``variant`` as safetensors ``target``, checked, by atomic rename."""
    tensors = read_checkpoint(source)
    with torch.device("meta"):
        network = SwinIR(**variant.config)
    check_tensors(network, tensors, source.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, {"variant": variant.name})
    partial.replace(target)
