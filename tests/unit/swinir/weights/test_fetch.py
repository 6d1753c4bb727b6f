"""Fetching weights from servers that abort, stall, send slowly or send wrong data; importing and verifying files."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from swinir import zoo
from swinir.custom_variants import find_row, read_rows
from swinir.errors import FetchError, InvalidWeightsError, MissingWeightsError, WeightsError
from swinir.weights import fetch as fetching
from swinir.weights.download import RetryPolicy
from swinir.weights.fetch import Description, convert_local, fetch, import_checkpoint, verify
from swinir.weights.lockfile import NAME, LockFile
from swinir.zoo import VARIANTS, UnknownVariantError, Variant
from testing.file_server import Behaviour, serve
from testing.networks import SMALL, reference_tensors

POLICY = RetryPolicy(stall_s=20, min_bytes=4096, max_attempts=3, backoff_s=0.001)
QUICK = replace(POLICY, stall_s=0.3)
"""For servers that stall; elsewhere a pause of this machine would look like a stall."""
UNPINNED, PINNED = "small_unpinned", "small_pinned"


def pth(tensors: dict[str, Tensor] | None = None) -> bytes:
    """Return the bytes of a small published checkpoint."""
    buffer = io.BytesIO()
    torch.save({"params": tensors or reference_tensors(SMALL)}, buffer)
    return buffer.getvalue()


DATA = pth()
OTHER = pth({name: tensor * 2 for name, tensor in reference_tensors(SMALL).items()})


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(autouse=True)
def small_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add two small published variants to the zoo, one with a pinned hash and one without."""
    row = Variant(UNPINNED, "lightweight_sr", 2, "", SMALL, halo=16, max_tile_px=64, file="small.pth")
    pinned = replace(row, name=PINNED, file="pinned.pth", sha256=sha256(DATA), size_bytes=len(DATA), sha256_sources="2")
    rows = {**VARIANTS, UNPINNED: row, PINNED: pinned}
    for module in (zoo, fetching, find_row.__globals__):
        if isinstance(module, dict):
            monkeypatch.setitem(module, "VARIANTS", rows)
        else:
            monkeypatch.setattr(module, "VARIANTS", rows)


def get(folder: Path, behaviour: Behaviour, name: str = UNPINNED, policy: RetryPolicy = POLICY, **options: Any) -> Any:
    behaviour.data = behaviour.data or DATA
    with serve(behaviour) as base_url:
        return fetch(name, folder, base_url=base_url, policy=policy, **options)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_file_is_fetched_checked_and_converted(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    entry = get(tmp_path, Behaviour(), on_progress=lambda done, total: seen.append((done, total)))
    assert (entry.sha256, entry.size_bytes, entry.trust) == (sha256(DATA), len(DATA), "first use")
    assert files(tmp_path) == {f"{UNPINNED}.safetensors", NAME}
    assert seen[-1] == (len(DATA), len(DATA))
    assert verify(UNPINNED, tmp_path) == "hash trusted on first use"


def test_matching_pinned_hash_is_reported(tmp_path: Path) -> None:
    assert get(tmp_path, Behaviour(), PINNED).trust == "pinned"
    assert verify(PINNED, tmp_path) == "hash pinned by the zoo"


def test_wrong_hash_is_rejected_and_keeps_the_good_file(tmp_path: Path) -> None:
    get(tmp_path, Behaviour(), PINNED)
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path)}
    wrong = DATA[:-1] + bytes([DATA[-1] ^ 1])
    with pytest.raises(InvalidWeightsError) as raised:
        get(tmp_path, Behaviour(data=wrong), PINNED)
    assert sha256(wrong) in str(raised.value)
    assert sha256(DATA) in str(raised.value)
    assert {name: (tmp_path / name).read_bytes() for name in files(tmp_path)} == before


def test_hash_trusted_on_first_use_must_not_change(tmp_path: Path) -> None:
    get(tmp_path, Behaviour())
    (tmp_path / f"{UNPINNED}.safetensors").unlink()
    with pytest.raises(
        InvalidWeightsError, match=rf"{sha256(OTHER)}; the lock file \(trusted on first use\) requires {sha256(DATA)}"
    ):
        get(tmp_path, Behaviour(data=OTHER))
    assert get(tmp_path, Behaviour()).trust == "first use"


def test_file_of_another_length_is_rejected_before_it_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=rf"has {len(DATA) + 1:,} bytes, expected {len(DATA):,}"):
        get(tmp_path, Behaviour(data=DATA + b"x"), PINNED)


def test_broken_download_is_resumed(tmp_path: Path) -> None:
    behaviour = Behaviour(break_after=[1000, 2000, 0, 500])
    get(tmp_path, behaviour)
    assert behaviour.range_headers == ["", "bytes=1000-", "bytes=3000-", "bytes=3000-", "bytes=3500-"]


def test_later_fetch_resumes_an_earlier_one(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"was closed after 700 of .* bytes are kept in .*small\.pth\.partial"):
        get(tmp_path, Behaviour(break_after=[700, 0, 0]))
    behaviour = Behaviour()
    get(tmp_path, behaviour)
    assert behaviour.range_headers == ["bytes=700-"]
    assert verify(UNPINNED, tmp_path)


def test_server_without_ranges_restarts_the_download(tmp_path: Path) -> None:
    behaviour = Behaviour(break_after=[1000], ignores_range=True)
    get(tmp_path, behaviour)
    assert behaviour.range_headers == ["", "bytes=1000-"]
    assert verify(UNPINNED, tmp_path)


def test_wrong_content_range_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"returned 'bytes 1007-.* for a request of bytes from 1000"):
        get(tmp_path, Behaviour(break_after=[1000], wrong_range=True))


@pytest.mark.slow
def test_stalled_download_is_retried(tmp_path: Path) -> None:
    behaviour = Behaviour(stall_after=[1500])
    get(tmp_path, behaviour, policy=replace(POLICY, stall_s=2))  # longer than a pause of this machine
    assert behaviour.range_headers == ["", "bytes=1500-"]


def test_server_that_always_stalls_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"timed out"):
        get(tmp_path, Behaviour(stall_after=[0, 0, 0]), policy=QUICK)


@pytest.mark.slow
def test_too_slow_server_is_given_up(tmp_path: Path) -> None:
    behaviour = Behaviour(drips=True)
    policy = replace(POLICY, stall_s=3, max_attempts=1)
    behaviour.data = DATA
    with serve(behaviour) as base_url, pytest.raises(FetchError, match=r"received only \d+ bytes in 3 s"):
        fetch(UNPINNED, tmp_path, base_url=base_url, policy=policy)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_trouble_is_waited_out(tmp_path: Path, status: int) -> None:
    get(tmp_path, Behaviour(statuses=[status, status]))
    assert verify(UNPINNED, tmp_path)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_lasting_refusal_is_said_at_once(tmp_path: Path, status: int) -> None:
    behaviour = Behaviour(statuses=[status] * 9)
    with pytest.raises(FetchError, match=f"returned {status}"):
        get(tmp_path, behaviour)
    assert len(behaviour.range_headers) == 1


def test_refused_connection_is_reported_with_the_address(tmp_path: Path) -> None:
    with serve(Behaviour()) as base_url:
        pass
    with pytest.raises(FetchError, match=r"Download of .*small\.pth failed: .*refused"):
        fetch(UNPINNED, tmp_path, base_url=base_url, policy=QUICK)


def test_address_that_is_not_http_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"^Invalid URL file:///etc/small\.pth"):
        fetch(UNPINNED, tmp_path, base_url="file:///etc/")


def test_endless_file_is_cut_at_the_declared_length(tmp_path: Path) -> None:
    """urllib stops at Content-Length, so a file that is too short is fetched again and then given up."""
    with pytest.raises(FetchError, match="has 100 bytes"):
        get(tmp_path, Behaviour(declared_length=100), PINNED)


def test_partial_file_longer_than_the_whole_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "small.pth.partial").write_bytes(DATA + b"more")
    behaviour = Behaviour()
    get(tmp_path, behaviour)
    assert behaviour.range_headers == [f"bytes={len(DATA) + 4}-", ""]
    assert verify(UNPINNED, tmp_path)


def test_truncated_file_without_length_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InvalidWeightsError, match=r"^small\.pth cannot be read"):
        get(tmp_path, Behaviour(data=DATA[:5000], sends_length=False))
    assert LockFile(tmp_path).find(UNPINNED) is None
    assert not (tmp_path / f"{UNPINNED}.safetensors").exists()


def test_two_fetches_of_one_file_do_not_mix(tmp_path: Path) -> None:
    behaviour = Behaviour(data=DATA)

    def fetch_again(_done: int, _total: int | None) -> None:
        with pytest.raises(FetchError, match="already fetching"):
            fetch(UNPINNED, tmp_path, base_url="http://127.0.0.1:9/", policy=QUICK)

    with serve(behaviour) as base_url:
        fetch(UNPINNED, tmp_path, base_url=base_url, policy=QUICK, on_progress=fetch_again)


def test_bundled_weights_are_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="compact_x4 are bundled"):
        fetch("compact_x4", tmp_path)
    with pytest.raises(UnknownVariantError):
        fetch("nope", tmp_path)


def test_checkpoint_at_hand_is_converted_under_the_same_rules(tmp_path: Path) -> None:
    (tmp_path / "mine.pth").write_bytes(OTHER)
    with pytest.raises(InvalidWeightsError, match=f"{sha256(OTHER)}; the zoo requires {sha256(DATA)}"):
        convert_local(tmp_path / "mine.pth", PINNED, tmp_path)
    assert convert_local(tmp_path / "mine.pth", UNPINNED, tmp_path).trust == "first use"
    assert (tmp_path / "mine.pth").exists()
    with pytest.raises(MissingWeightsError, match="File not found"):
        convert_local(tmp_path / "none.pth", UNPINNED, tmp_path)


def test_served_file_that_changed_since_is_found_by_verify(tmp_path: Path) -> None:
    get(tmp_path, Behaviour())
    path = tmp_path / f"{UNPINNED}.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\x00\x00\x00\x00")
    with pytest.raises(InvalidWeightsError, match="the lock file has"):
        verify(UNPINNED, tmp_path)


def test_unreadable_lock_file_is_reported_before_fetching(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("{")
    behaviour = Behaviour()
    with pytest.raises(WeightsError, match=rf"{NAME} cannot be read"):
        get(tmp_path, behaviour)
    assert behaviour.range_headers == []


DESCRIPTION = Description(
    name="mine_x2", task="real_sr", img_range=1.0, summary="Mine.", notice="Invents.", credit="Me"
)


def take_in(folder: Path, tensors: dict[str, Tensor], *, is_replacing: bool = False, **changes: Any) -> Variant:
    torch.save(tensors, folder / "mine.pth")
    description = replace(DESCRIPTION, **changes)
    return import_checkpoint(folder / "mine.pth", description, folder, is_replacing=is_replacing)


@pytest.mark.parametrize("change", [{}, {"window_size": 7}, {"embed_dim": 24, "num_heads": [3, 3]}, {"upscale": 8}])
def test_imported_checkpoint_gets_the_row_its_tensors_tell(tmp_path: Path, change: dict[str, Any]) -> None:
    config = {**SMALL, **change}
    row = take_in(tmp_path, reference_tensors(config))
    assert dict(row.config) == config
    assert row.halo % row.window == 0
    assert row.max_tile_px % row.window == 0
    assert row.max_tile_px > 2 * row.halo
    assert find_row("mine_x2", tmp_path) == row
    assert dict(read_rows(tmp_path)) == {"mine_x2": row}
    assert (row.notice, row.credit, row.is_bundled) == ("Invents.", "Me", False)
    assert verify("mine_x2", tmp_path) == "imported, hash unchanged"


REFUSED_IMPORTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a name of the zoo": ({}, {"name": "real_x4"}, "belongs to a variant of the zoo"),
    "a name that is a path": ({}, {"name": "../mine"}, "Invalid name '../mine'"),
    "a task of one channel": (
        {},
        {"task": "gray_denoise"},
        "does not fit a network with 3 input channels",
    ),
    "a task without enlargement": ({}, {"task": "color_jpeg"}, "color_jpeg does not fit a network of scale 2"),
    "a network of scale 5": ({"upscale": 5}, {}, "real_sr does not fit a network of scale 5"),
    "a key that is not there": ({}, {"key": "params_g"}, "has no key 'params_g'"),
}


@pytest.mark.parametrize("case", REFUSED_IMPORTS)
def test_import_that_cannot_be_right_is_rejected(tmp_path: Path, case: str) -> None:
    config, changes, text = REFUSED_IMPORTS[case]
    with pytest.raises(InvalidWeightsError, match=text):
        take_in(tmp_path, reference_tensors({**SMALL, **config}), **changes)
    assert files(tmp_path) == {"mine.pth"}


def test_import_replaces_only_with_the_option(tmp_path: Path) -> None:
    take_in(tmp_path, reference_tensors(SMALL))
    with pytest.raises(InvalidWeightsError, match="mine_x2 already exists"):
        take_in(tmp_path, reference_tensors({**SMALL, "embed_dim": 24}))
    assert take_in(tmp_path, reference_tensors({**SMALL, "embed_dim": 24}), is_replacing=True).config["embed_dim"] == 24


SPOILT_ROWS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another name": lambda row: {**row, "name": "yours"},
    "an unknown field": lambda row: {**row, "price": 3},
    "a field too few": lambda row: {name: value for name, value in row.items() if name != "scale"},
    "an impossible scale": lambda row: {**row, "scale": -1},
    "a task of nobody": lambda row: {**row, "task": "magic"},
    "a config of other words": lambda row: {**row, "config": {"depths": [1]}},
    "a config that is none": lambda row: {**row, "config": 3},
    "a list": lambda row: [row],
}


@pytest.mark.parametrize("kind", SPOILT_ROWS)
def test_file_with_invalid_metadata_is_ignored(tmp_path: Path, kind: str) -> None:
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    from swinir.custom_variants import ROW_KEY, write_row  # noqa: PLC0415

    row = take_in(tmp_path, reference_tensors(SMALL))
    path = tmp_path / "mine_x2.safetensors"
    spoilt = json.dumps(SPOILT_ROWS[kind](json.loads(write_row(row))))
    save_file(load_file(path), path, {ROW_KEY: spoilt})
    (tmp_path / "mine.pth").unlink()
    take_in(tmp_path, reference_tensors(SMALL), name="good_x2")

    assert set(read_rows(tmp_path)) == {"good_x2"}
    with pytest.raises(
        UnknownVariantError, match=r"Variant 'mine_x2' cannot be served: mine_x2\.safetensors describes"
    ):
        find_row("mine_x2", tmp_path)
