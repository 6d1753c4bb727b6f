"""The network cache: what it holds, what it evicts, and how often it loads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from swinir.errors import InvalidWeightsError, MissingWeightsError
from swinir.inference.network_cache import NetworkCache
from swinir.network.swinir import SwinIR
from swinir.weights.load import load_network
from swinir.zoo import VARIANTS, Variant
from testing.networks import install_small

CPU = torch.device("cpu")
MUCH = 10**9


def size_of(row: Variant) -> int:
    return SwinIR(**row.config).prepare()


def test_a_network_is_loaded_once_however_many_ask_at_once(tmp_path: Path) -> None:
    row = install_small(tmp_path, "a")
    began, loads = threading.Barrier(8), []

    def load(row: Variant, path: Path, device: torch.device) -> SwinIR:
        loads.append(row.name)
        return load_network(row, path, device)

    shelf = NetworkCache(tmp_path, CPU, MUCH, load)

    def ask(_: int) -> SwinIR:
        began.wait()
        return shelf.take(row)

    with ThreadPoolExecutor(8) as pool:
        networks = list(pool.map(ask, range(8)))
    assert loads == ["a"]
    assert shelf.loads == 1
    assert all(network is networks[0] for network in networks)


def test_the_least_recently_used_is_put_away_when_room_is_short(tmp_path: Path) -> None:
    rows = {name: install_small(tmp_path, name) for name in "abc"}
    shelf = NetworkCache(tmp_path, CPU, 2 * size_of(rows["a"]))

    for name in "abac":
        shelf.take(rows[name])

    assert shelf.names == ("a", "c")
    assert shelf.size_bytes == 2 * size_of(rows["a"])
    assert (shelf.loads, shelf.evictions) == (3, 1)
    shelf.take(rows["b"])
    assert shelf.names == ("c", "b")
    assert shelf.loads == 4


def test_a_variant_larger_than_all_the_room_is_held_alone(tmp_path: Path) -> None:
    small, large = install_small(tmp_path, "small"), install_small(tmp_path, "large", embed_dim=24)
    shelf = NetworkCache(tmp_path, CPU, size_of(small))
    shelf.take(small)
    shelf.take(large)
    assert shelf.names == ("large",)


def test_a_file_that_was_replaced_is_loaded_anew(tmp_path: Path) -> None:
    row = install_small(tmp_path, "a")
    shelf = NetworkCache(tmp_path, CPU, MUCH)
    before = shelf.take(row)
    row = install_small(tmp_path, "a", embed_dim=24)
    assert shelf.take(row) is not before
    assert shelf.take(row).conv_first.weight.shape[0] == 24
    assert shelf.loads == 2


def test_a_load_that_failed_is_tried_again_and_hurts_nobody(tmp_path: Path) -> None:
    row, other = install_small(tmp_path, "a"), install_small(tmp_path, "b")
    shelf = NetworkCache(tmp_path, CPU, MUCH)
    shelf.take(other)
    good = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(good[:1000])

    with pytest.raises(InvalidWeightsError, match=r"a\.safetensors cannot be read"):
        shelf.take(row)

    assert shelf.names == ("b",)
    (tmp_path / "a.safetensors").write_bytes(good)
    shelf.take(row)
    assert shelf.loads == 2


def test_missing_weights_name_the_command_that_fetches_them(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match="superres weights fetch real_x4"):
        NetworkCache(tmp_path, CPU, MUCH).take(VARIANTS["real_x4"])


def test_weights_fetched_later_are_found_without_a_restart(tmp_path: Path) -> None:
    shelf, row = NetworkCache(tmp_path, CPU, MUCH), Variant(**{**vars(install_small(tmp_path, "a")), "name": "later"})
    with pytest.raises(MissingWeightsError):
        shelf.take(row)
    (tmp_path / "a.safetensors").rename(tmp_path / "later.safetensors")
    assert isinstance(shelf.take(row), SwinIR)


SHORT = (
    torch.OutOfMemoryError("CUDA out of memory (injected)"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes (injected)"),
)


@pytest.mark.parametrize("error", SHORT, ids=("cuda", "cpu"))
def test_memory_short_at_a_load_puts_the_others_away_and_tries_once_more(tmp_path: Path, error: Exception) -> None:
    rows = {name: install_small(tmp_path, name) for name in "abc"}
    short = iter([False, False, True, False])

    def load(row: Variant, path: Path, device: torch.device) -> SwinIR:
        if next(short):
            raise error
        return load_network(row, path, device)

    shelf = NetworkCache(tmp_path, CPU, MUCH, load)
    for name in "abc":
        shelf.take(rows[name])
    assert shelf.names == ("c",)
    assert shelf.evictions == 2
