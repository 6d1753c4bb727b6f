"""Loads weights: check every tensor, build the network, convert a checkpoint.

Served weights are safetensors. A ``.pth`` checkpoint is read once, with ``weights_only``, to convert it. Pickled
code is never run.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from swinir.errors import InvalidWeightsError, WeightsError
from swinir.network.swinir import DERIVED_BUFFERS, SwinIR
from swinir.weights_file import MAX_WEIGHTS_FILE_BYTES
from swinir.zoo import Variant

# Keys of the state dict in files of BasicSR, KAIR, Lightning, NeoSR and others, which may also hold it at the top level
# or below two keys. Without a given key the first one found is used.
CHECKPOINT_KEYS = ("params_ema", "params-ema", "params", "state_dict", "model_state_dict", "model", "net")
_MAX_LEVELS = 3
# Names that wrappers put ahead of the names of the tensors: DataParallel, a GAN, torch.compile, Lightning.
_WRAPPED_FIRST_TENSOR = re.compile(r"((?:(?:module|netG|_orig_mod|model|net)\.)*)conv_first\.(?:1\.)?weight")
_MAX_NAMED_KEYS = 8


def load_network(variant: Variant, path: Path, device: torch.device | str = "cpu") -> SwinIR:
    """Return the network of a variant with the tensors of ``path``, ready to serve; raises InvalidWeightsError."""
    return build_network(variant.config, _read_safetensors(path), path.name).to(device)


def build_network(config: Mapping[str, Any], tensors: Mapping[str, Tensor], source: str) -> SwinIR:
    """Return a network with exactly these tensors; raises InvalidWeightsError naming the first wrong tensor."""
    try:
        with torch.device("meta"):  # skips initialising parameters that are replaced at once
            network = SwinIR(**config)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidWeightsError(f"{source} describes an invalid network: {error}") from error
    _check_tensors(network, tensors, source)
    try:
        network.load_state_dict(dict(tensors), strict=True, assign=True)
    except RuntimeError as error:  # derived buffers of a different configuration
        raise InvalidWeightsError(f"{source} does not fit its network: {error}") from error
    return network.requires_grad_(requires_grad=False).eval()


def _check_tensors(network: SwinIR, tensors: Mapping[str, Tensor], source: str) -> None:
    expected = dict(network.named_parameters())
    missing, extra = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    extra = [name for name in extra if not name.endswith(DERIVED_BUFFERS)]
    for names, verb in ((missing, "lacks"), (extra, "has unknown")):
        if names:
            raise InvalidWeightsError(f"{source} {verb} tensors: {len(names)}, the first is {names[0][:200]}")
    for name, parameter in expected.items():
        tensor = tensors[name]
        if tensor.shape != parameter.shape:
            raise InvalidWeightsError(
                f"{source}: {name} has shape {list(tensor.shape)}, expected {list(parameter.shape)}"
            )
        if not tensor.is_floating_point():
            raise InvalidWeightsError(f"{source}: {name} holds {tensor.dtype}, expected floating point")
        if not torch.isfinite(tensor).all():
            raise InvalidWeightsError(f"{source}: {name} holds values that are not finite")


def read_checkpoint(path: Path, key: str = "") -> dict[str, Tensor]:
    """Return the state dict of a ``.pth`` or ``.safetensors`` file, its floating point tensors in float32.

    ``key`` is the key of the state dict in a ``.pth``. Without one, the first of `CHECKPOINT_KEYS` is used, else the
    top level. The prefix of a wrapper such as ``module.`` is removed. Raises InvalidWeightsError.
    """
    state: object = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pth(path, key)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InvalidWeightsError(
            f"{path.name} holds no state dict; expected a mapping of names to tensors{_name_keys(state)}"
        )
    tensors = {str(name): each.float() if each.is_floating_point() else each for name, each in state.items()}
    return _remove_prefix(tensors, path.name)


def _remove_prefix(tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the tensors of the one network in a wrapper, without the wrapper's prefix.

    Tensors without the prefix belong to something else, such as the loss of a Lightning module.
    """
    found = (_WRAPPED_FIRST_TENSOR.fullmatch(name) for name in tensors)
    prefixes = sorted({match[1] for match in found if match})
    if len(prefixes) > 1:
        names = ", ".join(repr(prefix) for prefix in prefixes[:_MAX_NAMED_KEYS])
        raise InvalidWeightsError(f"{source} holds {len(prefixes)} networks, under {names}; expected one")
    if prefixes in ([], [""]):
        return tensors
    return {name.removeprefix(prefixes[0]): each for name, each in tensors.items() if name.startswith(prefixes[0])}


def _name_keys(state: object) -> str:
    """Return a sentence with the keys that may hold the state dict; empty when there are none."""
    keys = (
        [str(key) for key, value in state.items() if isinstance(value, Mapping)] if isinstance(state, Mapping) else []
    )
    if not keys:
        return ""
    more = f" and {len(keys) - _MAX_NAMED_KEYS} more" if len(keys) > _MAX_NAMED_KEYS else ""
    return f". Name its key with --key: {', '.join(repr(key[:60]) for key in keys[:_MAX_NAMED_KEYS])}{more}"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a file into memory. Mapped, overwriting it would change live weights, and truncating it would crash us."""
    try:
        if (size_bytes := path.stat().st_size) > MAX_WEIGHTS_FILE_BYTES:
            raise InvalidWeightsError(f"{path.name} has {size_bytes:,} bytes; {MAX_WEIGHTS_FILE_BYTES:,} is the limit")
        return load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise InvalidWeightsError(f"{path.name} cannot be read as safetensors: {error}") from error


def _read_pth(path: Path, key: str) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle's protocol; unreadable files fail below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InvalidWeightsError(
            f"{path.name} was rejected: it holds more than tensors (code in a checkpoint is never run)"
        ) from error
    except Exception as error:  # a damaged file makes torch raise IndexError, struct.error, AssertionError and others
        raise InvalidWeightsError(f"{path.name} cannot be read as a checkpoint: {str(error)[:300]}") from error
    if key and not (isinstance(state, Mapping) and key in state):
        raise InvalidWeightsError(f"{path.name} has no key {key!r}{_name_keys(state)}")
    inner: object = state[key] if key and isinstance(state, Mapping) else state
    for _ in range(_MAX_LEVELS):
        if not isinstance(inner, Mapping):
            break
        each = next((each for each in CHECKPOINT_KEYS if isinstance(inner.get(each), Mapping)), None)
        if each is None:
            break
        inner = inner[each]
    return inner


def write_weights(network: SwinIR, target: Path, metadata: Mapping[str, str]) -> None:
    """Write the parameters of a network to the safetensors file ``target``, by atomic rename."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        save_file({name: each.contiguous() for name, each in network.state_dict().items()}, partial, dict(metadata))
        partial.chmod(0o644)  # save_file uses 0600, and the server may run as another user
        partial.replace(target)
    except SafetensorError as error:  # such as a full disk
        raise WeightsError(f"Cannot write {target}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def convert(source: Path, target: Path, variant: Variant) -> None:
    """Convert the checkpoint ``source`` of a variant to the safetensors file ``target``; checks every tensor."""
    key = variant.checkpoint_key if source.suffix != ".safetensors" else ""
    try:
        tensors = read_checkpoint(source, key)
    except InvalidWeightsError:
        tensors = read_checkpoint(source)  # the state dict may be under the other key or at the top level
    write_weights(build_network(variant.config, tensors, source.name), target, {"variant": variant.name})
