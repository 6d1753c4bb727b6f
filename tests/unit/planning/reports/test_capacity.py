"""Internet scale: the capacity model's arithmetic and the simulations behind docs/measurements/scale.md."""

import math
from dataclasses import replace

import numpy as np
import pytest

from planning.reports.capacity import (
    GRID_OVERHEAD,
    REGIONS,
    Workload,
    capacity_for_region_loss,
    demand_at,
    gateway_memory_bytes,
    global_peak_share,
    in_flight,
    list_layers,
    scraped_pods,
)
from planning.reports.capacity_simulation import Step, cell_waits_s, draw_work_s, pool_waits_s, run_step
from swinir.image_grid import tile_grid
from swinir.zoo import find_variant


def test_gpu_time_is_operations_over_what_the_gpu_does() -> None:
    workload = Workload(variant="lightweight_x4", gpu="L4", megapixels=1.0, efficiency=0.5)

    assert workload.gpu_s == pytest.approx(2.130 * 1.45 / (121 * 0.5))


def test_grid_overhead_is_that_of_the_tiles_today() -> None:
    width, height = 960, 720
    assert width * height / 1e6 == pytest.approx(Workload().megapixels, abs=0.01)

    for variant, overhead in GRID_OVERHEAD.items():
        assert tile_grid(find_variant(variant), height, width).computed_ratio == pytest.approx(overhead, abs=0.001)


def test_raw_pixels_of_input_and_result() -> None:
    assert Workload(megapixels=1.0).raw_bytes == 3e6 * 17


def test_layers_come_in_the_order_in_which_they_are_full() -> None:
    layers = list_layers(Workload())

    assert [layer.full_at for layer in layers] == sorted(layer.full_at for layer in layers)
    for layer in layers:
        assert layer.units(layer.full_at * 7) in {7, 8}
        assert layer.units(1000) == math.ceil(1000 / layer.full_at)


def test_png_is_full_before_the_gpu_and_a_heavy_network_before_png() -> None:
    assert list_layers(Workload())[0].unit == "CPU core"
    assert list_layers(Workload(variant="real_x4"))[0].unit == "L4"
    assert not any("activator" in layer.name for layer in list_layers(Workload(activator_in_path=False)))


def test_memory_follows_littles_law() -> None:
    assert in_flight(1000, 2) == 2000
    assert gateway_memory_bytes(Workload(), 1000, 2) == 2000 * Workload().raw_bytes


def test_scrape_sample_is_four_of_five_and_sixteen_of_1000() -> None:
    assert [scraped_pods(pods) for pods in (0, 3, 5, 1000)] == [0, 3, 4, 16]


def test_losing_a_region_needs_more_than_the_peak() -> None:
    quietest = min(sum(demand_at(region, hour) for region in REGIONS) for hour in range(24))

    assert sum(region.share for region in REGIONS) == pytest.approx(1)
    assert 0.25 < quietest < global_peak_share() < 1
    assert capacity_for_region_loss() > global_peak_share()


def test_region_is_busiest_at_its_own_noon() -> None:
    for region in REGIONS:
        assert demand_at(region, 12 - region.utc_offset_h) == pytest.approx(region.share)
        assert demand_at(region, 24 - region.utc_offset_h) == pytest.approx(0.25 * region.share)


def test_work_times_have_the_requested_mean() -> None:
    assert draw_work_s(np.random.default_rng(1), 0.08, 200_000).mean() == pytest.approx(0.08, rel=0.02)


def test_waits_match_pollaczek_khinchine() -> None:
    work_s, busy = 0.1, 0.6
    variance = np.exp(0.8**2) - 1  # of a log-normal, over its squared mean
    expected = busy * work_s * (1 + variance) / (2 * (1 - busy))

    waits = pool_waits_s(busy / work_s, 1, work_s, seconds=60_000, seed=5)

    assert waits.mean() == pytest.approx(expected, rel=0.08)


def test_one_pool_waits_less_than_cells_of_the_same_gpus() -> None:
    pool = pool_waits_s(100, 12, 0.09, seconds=300)
    cells = cell_waits_s(100, 12, 4, 0.09, seconds=300)

    assert np.percentile(pool, 99) < np.percentile(cells, 99)


def test_idle_pool_never_waits() -> None:
    assert pool_waits_s(10, 100, 0.01, seconds=20).max() == 0


def test_held_requests_scale_up_to_the_maximum() -> None:
    quick = Step(boot_s=12, step_at_s=60, seconds=160)
    outcomes = [
        run_step(step, seed=1) for step in (quick, replace(quick, boot_s=60), replace(quick, boot_s=60, max_scale=24))
    ]
    quick_pods, slow_pods, capped_pods = (outcome.pods.max() for outcome in outcomes)

    assert slow_pods > 2 * quick_pods
    assert capped_pods <= 24
    assert outcomes[2].gpu_s < outcomes[1].gpu_s / 2
    assert outcomes[2].slow_s <= outcomes[1].slow_s + 10
