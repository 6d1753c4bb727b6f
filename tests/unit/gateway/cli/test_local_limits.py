"""Limits of `superres upscale` follow from the memory of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.local_limits import find_memory_bytes, with_local_limits
from gateway.config.environment import read_settings
from gateway.config.settings import Settings
from gateway.jobs.limits import max_upload_pixels
from preprocessing.codec import MAX_DECODED_PIXELS

GIB = 1 << 30
HOME = "/nobody"


def limits(environ: dict[str, str], memory_bytes: int = 8 * GIB) -> Settings:
    return with_local_limits(read_settings({"HOME": HOME, **environ}), memory_bytes)


def test_limits_grow_with_memory() -> None:
    assert [max_upload_pixels(4, limits({}, size * GIB)) for size in (1, 4, 8, 64)] == [
        11_184_810,
        44_739_242,
        62_500_000,
        62_500_000,
    ]
    assert [max_upload_pixels(1, limits({}, size * GIB)) for size in (1, 8)] == [22_369_621, MAX_DECODED_PIXELS]


def test_small_machine_keeps_the_limits_of_the_service() -> None:
    small, service = limits({}, 100_000_000), Settings()

    assert small.max_job_memory_bytes == service.max_job_memory_bytes
    assert max_upload_pixels(1, small) == service.max_pixels


def test_settings_that_are_set_win() -> None:
    chosen = limits({"SUPERRES_MAX_PIXELS": "1000", "SUPERRES_DEADLINE_S": "7"})

    assert (chosen.max_pixels, chosen.deadline_s) == (1_000, 7)
    assert chosen.max_output_pixels == 1_000_000_000


def test_memory_that_is_set_bounds_the_others() -> None:
    chosen = limits({"SUPERRES_MAX_JOB_MEMORY_BYTES": "48000000"})

    assert (chosen.max_pixels, chosen.max_output_pixels) == (2_000_000, 16_000_000)


def test_remote_backend_keeps_the_limits_of_the_service() -> None:
    read = read_settings({"HOME": HOME, "SUPERRES_BACKEND_ADDRESS": "127.0.0.1:8001"})

    assert with_local_limits(read, 8 * GIB) == read.settings


@pytest.mark.parametrize(("text", "memory"), [("1000", 1_000), ("max\n", None), (None, None)])
def test_container_limits_the_memory(tmp_path: Path, text: str | None, memory: int | None) -> None:
    if text:
        (tmp_path / "memory.max").write_text(text)

    found = find_memory_bytes(tmp_path / "memory.max")

    assert found == memory if memory else found > 100_000_000
