"""The model cache: which networks it holds and evicts, and how often one is loaded."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from swinir.errors import InvalidWeightsError, MissingWeightsError
from swinir.inference.network_cache import NetworkCache
from swinir.network.swinir import SwinIR
from swinir.weights.load import load_network
from swinir.weights_file import MAX_WEIGHTS_FILE_BYTES
from swinir.zoo import VARIANTS, Variant
from testing.networks import install_small

UNLIMITED = 10**9


def load(row: Variant, path: Path) -> tuple[SwinIR, int]:
    network = load_network(row, path)
    return network, network.prepare()


def network_size_bytes(row: Variant) -> int:
    return SwinIR(**row.config).prepare()


def test_concurrent_requests_load_a_network_once(tmp_path: Path) -> None:
    row = install_small(tmp_path, "a")
    start, loads = threading.Barrier(8), []

    def load_counted(row: Variant, path: Path) -> tuple[SwinIR, int]:
        loads.append(row.name)
        return load(row, path)

    cache = NetworkCache(tmp_path, UNLIMITED, load_counted)

    def ask(_: int) -> SwinIR:
        start.wait()
        return cache.get(row)

    with ThreadPoolExecutor(8) as pool:
        networks = list(pool.map(ask, range(8)))
    assert loads == ["a"]
    assert cache.loads == 1
    assert all(network is networks[0] for network in networks)


def test_least_recently_used_is_evicted_when_memory_is_short(tmp_path: Path) -> None:
    rows = {name: install_small(tmp_path, name) for name in "abc"}
    cache = NetworkCache(tmp_path, 2 * network_size_bytes(rows["a"]), load)

    for name in "abac":
        cache.get(rows[name])

    assert cache.names == ("a", "c")
    assert cache.size_bytes == 2 * network_size_bytes(rows["a"])
    assert (cache.loads, cache.evictions) == (3, 1)
    cache.get(rows["b"])
    assert cache.names == ("c", "b")
    assert cache.loads == 4


def test_variant_larger_than_the_limit_is_held_alone(tmp_path: Path) -> None:
    small, large = install_small(tmp_path, "small"), install_small(tmp_path, "large", embed_dim=24)
    cache = NetworkCache(tmp_path, network_size_bytes(small), load)
    cache.get(small)
    cache.get(large)
    assert cache.names == ("large",)


def test_file_that_was_replaced_is_loaded_again(tmp_path: Path) -> None:
    row = install_small(tmp_path, "a")
    cache = NetworkCache(tmp_path, UNLIMITED, load)
    before = cache.get(row)
    row = install_small(tmp_path, "a", embed_dim=24)
    assert cache.get(row) is not before
    assert cache.get(row).conv_first.weight.shape[0] == 24
    assert cache.loads == 2


def test_failed_load_is_retried(tmp_path: Path) -> None:
    row, other = install_small(tmp_path, "a"), install_small(tmp_path, "b")
    cache = NetworkCache(tmp_path, UNLIMITED, load)
    cache.get(other)
    good = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(good[:1000])

    with pytest.raises(InvalidWeightsError, match=r"a\.safetensors cannot be read.*superres weights verify a$"):
        cache.get(row)

    assert cache.names == ("b",)
    (tmp_path / "a.safetensors").write_bytes(good)
    cache.get(row)
    assert cache.loads == 2


def test_missing_weights_name_the_command_that_fetches_them(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match="superres weights fetch real_x4"):
        NetworkCache(tmp_path, UNLIMITED, load).get(VARIANTS["real_x4"])


def test_weights_fetched_later_are_found_without_a_restart(tmp_path: Path) -> None:
    cache, row = (
        NetworkCache(tmp_path, UNLIMITED, load),
        Variant(**{**vars(install_small(tmp_path, "a")), "name": "later"}),
    )
    with pytest.raises(MissingWeightsError):
        cache.get(row)
    (tmp_path / "a.safetensors").rename(tmp_path / "later.safetensors")
    assert isinstance(cache.get(row), SwinIR)


def test_network_of_a_deleted_file_is_dropped(tmp_path: Path) -> None:
    row, other = install_small(tmp_path, "a"), install_small(tmp_path, "b")
    cache = NetworkCache(tmp_path, UNLIMITED, load)
    cache.get(row)
    cache.get(other)
    (tmp_path / "a.safetensors").unlink()
    with pytest.raises(MissingWeightsError):
        cache.get(row)
    assert cache.names == ("b",)
    assert cache.size_bytes == network_size_bytes(other)


def test_larger_file_than_any_published_one_is_not_read(tmp_path: Path) -> None:
    row = install_small(tmp_path, "a")
    os.truncate(tmp_path / "a.safetensors", MAX_WEIGHTS_FILE_BYTES + 1)  # sparse
    with pytest.raises(InvalidWeightsError, match=f"has {MAX_WEIGHTS_FILE_BYTES + 1:,} bytes"):
        NetworkCache(tmp_path, UNLIMITED, load).get(row)


SHORT = (
    torch.OutOfMemoryError("CUDA out of memory (injected)"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes (injected)"),
)


@pytest.mark.parametrize("error", SHORT, ids=("cuda", "cpu"))
def test_out_of_memory_during_a_load_evicts_the_others_and_retries_once(tmp_path: Path, error: Exception) -> None:
    rows = {name: install_small(tmp_path, name) for name in "abc"}
    short = iter([False, False, True, False])

    def load_short(row: Variant, path: Path) -> tuple[SwinIR, int]:
        if next(short):
            raise error
        return load(row, path)

    cache = NetworkCache(tmp_path, UNLIMITED, load_short)
    for name in "abc":
        cache.get(rows[name])
    assert cache.names == ("c",)
    assert cache.evictions == 2
