"""Output checks: from a row per tile to the summary of an image; and the number of CPUs of a container."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from swinir.checks import FIELDS, IDENTICAL_DB, summarise
from swinir.inference.cpu_count import count_cpus
from swinir.settings import MAX_WEIGHTS_BYTES, read_settings


def rows(*tiles: tuple[float, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array(tiles, np.float32)


def test_image_is_as_sound_as_its_tiles() -> None:
    checks = summarise(rows((0, 1, -3.5, 250, 0.25, 1.0), (1, 2, 4, 259.25, 0.75, 3.0)))
    assert checks.tiles == 2
    assert checks.reruns == 1
    assert checks.halvings == 2
    assert (checks.lowest, checks.highest) == (-3.5, 259.25)
    assert checks.clamped == 0.5
    assert checks.back_db == pytest.approx(10 * np.log10(255**2 / 2))
    assert checks.to_header() == (
        "finite; tiles=2; reruns=1; halvings=2; range=-3.5..259.2; clamped=0.50000; back_db=45.12"
    )


def test_no_difference_has_a_number_too() -> None:
    assert summarise(rows((0, 0, 0, 255, 0, 0))).back_db == IDENTICAL_DB


@pytest.mark.parametrize(
    "bad", [np.zeros((0, len(FIELDS))), np.zeros((2, 5)), np.zeros(6), np.full((1, len(FIELDS)), np.nan)]
)
def test_invalid_rows_are_rejected(bad: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    with pytest.raises(ValueError, match="CHECKS has shape"):
        summarise(bad.astype(np.float32))


@pytest.mark.parametrize(
    ("written", "granted"),
    [("max 100000", 1000), ("150000 100000", 2), ("50000 100000", 1), ("900000 100000", 9), ("nonsense", 1000)],
)
def test_containers_quota_bounds_the_threads(tmp_path: Path, written: str, granted: int) -> None:
    (tmp_path / "cpu.max").write_text(written + "\n")
    assert count_cpus(tmp_path) == min(granted, len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(("quota", "granted"), [("-1", 1000), ("100000", 1)])
def test_older_cgroup_is_read_too(tmp_path: Path, quota: str, granted: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    assert count_cpus(tmp_path) == min(granted, len(os.sched_getaffinity(0)))


def test_settings_come_from_the_environment_and_have_defaults() -> None:
    assert read_settings({}).max_weights_bytes == MAX_WEIGHTS_BYTES
    assert read_settings({}).weights_dir is None
    environ = {"SUPERRES_WEIGHTS_DIR": "/w", "SUPERRES_ENGINE_THREADS": "3", "SUPERRES_MAX_WEIGHTS_BYTES": "5"}
    settings = read_settings({**environ, "SUPERRES_DEFAULT_VARIANT": "compact_x4"})
    assert (settings.weights_dir, settings.threads, settings.max_weights_bytes) == (Path("/w"), 3, 5)
    assert settings.precision == "auto"
    assert settings.engine == "auto"
    assert read_settings({"SUPERRES_ENGINE": "torch"}).engine == "torch"
    with pytest.raises(ValueError, match="Invalid SUPERRES_ENGINE 'c': expected one of auto, torch"):
        read_settings({"SUPERRES_ENGINE": "c"})
    assert read_settings({"SUPERRES_PRECISION": "bfloat16"}).precision == "bfloat16"
    with pytest.raises(ValueError, match="Invalid SUPERRES_PRECISION 'half': expected one of auto, float32, bfloat16"):
        read_settings({"SUPERRES_PRECISION": "half"})


def test_limits_of_images_come_from_the_environment_where_it_has_them() -> None:
    assert read_settings({}).image_limits == {}
    environ = {"SUPERRES_MAX_PIXELS": "7", "SUPERRES_MAX_OUTPUT_PIXELS": ""}
    assert read_settings(environ).image_limits == {"max_pixels": 7}


@pytest.mark.parametrize(
    ("value", "variant"),
    [("", "compact_x4"), ("auto", "compact_x4"), ("nearest_x4", "compact_x4"), ("real_x4", "real_x4")],
)
def test_defaults_of_the_gateway_that_name_no_network_are_ignored(value: str, variant: str) -> None:
    assert read_settings({"SUPERRES_DEFAULT_VARIANT": value}).default_variant == variant
