"""`superres plan`: text and JSON output, advice, plots and errors."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from planning.advice import IDLE_TAILS, KNOBS, SimulationCache, recommend, sweep
from planning.cli import plan
from planning.prices import find_price
from planning.simulation import Service, simulate
from planning.traffic import draw_traffic
from testing.data import ROOT
from testing.traffic import images_at


def run(*options: str) -> Result:
    return CliRunner().invoke(plan, list(options))


def response(*options: str) -> dict[str, Any]:
    result = run(*options, "--json")
    assert result.exit_code == 0, result.output
    record: dict[str, Any] = json.loads(result.stdout)
    return record


def test_text_output_has_hours_dollars_and_assumption() -> None:
    result = run("--days", "5")

    assert result.exit_code == 0
    for words in (
        "GPU ",
        "h billed in",
        "at l4-high",
        "at original",
        "always on",
        "p50",
        "p95",
        "p99",
        "Cold",
        "Lost",
        "Assumes 2 GPU seconds per megapixel",
    ):
        assert words in result.output


def test_json_output_adds_up() -> None:
    record = response("--days", "5")

    assert sum(record["gpu_seconds"].values()) / 3600 == pytest.approx(record["gpu_hours"], abs=1e-5)
    assert record["usd"] == pytest.approx(record["gpu_hours"] * record["price"]["usd_per_hour"], abs=1e-3)
    assert record["usd_always_on"] == pytest.approx(5 * 24 * record["price"]["usd_per_hour"])
    assert record["served"] + record["refused"] + record["timed_out"] == record["images"]


def test_every_option_reaches_the_simulation() -> None:
    options = {
        "--window": ("window_s", 20),
        "--retention": ("retention_s", 7.5),
        "--concurrency": ("concurrency", 3),
        "--min-scale": ("min_scale", 1),
        "--max-scale": ("max_scale", 2),
        "--boot-s": ("boot_s", 9.0),
        "--boot-p90-s": ("boot_p90_s", 19.0),
        "--image-gb": ("image_gb", 1.5),
        "--pull-mb-per-s": ("pull_mb_per_s", 250.0),
        "--seconds-per-image": ("seconds_per_megapixel", 0.5),
        "--deadline-s": ("deadline_s", 99.0),
        "--queue-size": ("queue_size", 5),
        "--burst-capacity": ("burst_capacity", 211.0),
        "--gpus": ("gpus", 2),
        "--node-linger-s": ("node_linger_s", 60.0),
    }
    flags = [word for flag, (_, value) in options.items() for word in (flag, str(value))]

    setting = response("--days", "1", *flags)["setting"]

    assert {field: setting[field] for field, _ in options.values()} == dict(options.values())


def test_custom_price_replaces_the_named_one() -> None:
    record = response("--days", "2", "--price-per-hour", "2.5")

    assert record["price"]["usd_per_hour"] == 2.5
    assert record["usd"] == pytest.approx(2.5 * record["gpu_hours"], abs=1e-3)


def test_no_traffic_costs_nothing_and_has_no_percentiles() -> None:
    record = response("--trace", "nobody")

    assert (record["usd"], record["gpu_hours"], record["latency_s"]["p95"]) == (0, 0, None)
    assert "nothing" in run("--trace", "nobody").output


def test_trace_file_is_read_and_its_bad_line_named(tmp_path: Path) -> None:
    path = tmp_path / "visits.csv"
    path.write_text("100\n4000,0.5\n")
    record = response("--trace", str(path))
    path.write_text("100\nsoon\n")
    refused = run("--trace", str(path))

    assert (record["images"], record["days"], record["boots"]) == (2, 1, 2)
    assert refused.exit_code == 1
    assert "visits.csv, line 2" in refused.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--trace", "loud"), "and no such file"),
        (("--window", "5"), "Invalid window 5: must be between 6 and 3600"),
        (("--min-scale", "3"), "Invalid min-scale 3"),
        (("--price", "h100"), "'h100' is not one of"),
        (("--days", "0"), "0"),
        (("--days", "nan"), "nan is not a finite number"),
        (("--budget", "-1"), "-1"),
        (("--budget", "nan"), "nan is not a finite number"),
        (("--price-per-hour", "inf"), "inf is not a finite number"),
        (("--seed", "-1"), "-1 is not in the range"),
        (("--burst-capacity", "nan"), "Invalid burst-capacity nan: must be -1 or between 0 and 100000"),
        (("--burst-capacity", "-5"), "Invalid burst-capacity -5: must be -1 or"),
        (("--gpus", "-1"), "Invalid gpus -1: must be between 0 and 1000"),
        (("--min-scale", "3", "--max-scale", "4", "--gpus", "1"), "Invalid min-scale 3: must be between 0 and 1"),
        (("--boot-p90-s", "nan"), "Invalid boot-p90 nan"),
    ],
)
def test_invalid_scenario_is_rejected(options: tuple[str, ...], words: str) -> None:
    result = run(*options)

    assert result.exit_code != 0
    assert words in result.output
    assert "Traceback" not in result.output


def test_sweep_varies_every_setting_alone() -> None:
    service, traffic = Service(), draw_traffic("quiet", days=3, seed=1)
    trials = list(sweep(SimulationCache(traffic), service))

    assert [(trial.knob, trial.value) for trial in trials] == [
        (knob, value) for knob, values in KNOBS.items() for value in values
    ]
    for trial in trials:
        changed = {name for name in KNOBS if getattr(trial.month.service, name) != getattr(service, name)}
        assert changed <= {trial.knob}


@pytest.mark.slow
def test_sweep_skips_invalid_combinations() -> None:
    trials = list(sweep(SimulationCache(draw_traffic("nobody", days=1, seed=1)), Service(min_scale=3, max_scale=4)))
    values = {knob: [trial.value for trial in trials if trial.knob == knob] for knob in ("max_scale", "gpus")}

    assert values == {"max_scale": [4], "gpus": [0]}


def test_gpu_for_nothing_gives_a_bill_of_zero() -> None:
    assert run("--days", "2", "--price-per-hour", "0").exit_code == 0


def test_sweep_is_shown_as_a_table_and_in_json() -> None:
    assert "retention 300 s" in run("--days", "2", "--sweep").output
    assert len(response("--days", "2", "--sweep")["sweep"]) == sum(len(values) for values in KNOBS.values())


def test_longer_tail_makes_fewer_visits_cold() -> None:
    traffic = draw_traffic("quiet", days=20, seed=1)
    colds = [
        simulate(Service(window_s=window_s, retention_s=retention_s), traffic).cold
        for window_s, retention_s in IDLE_TAILS
    ]

    assert colds == sorted(colds, reverse=True)
    assert colds[0] > colds[-1]


def test_recommendation_is_within_the_budget() -> None:
    traffic, price = draw_traffic("quiet", days=30, seed=1), find_price("l4-high")
    advice = recommend(SimulationCache(traffic), Service(), price, 5)
    thrifty = recommend(SimulationCache(traffic), Service(), price, 0.01)

    assert advice.fits
    assert advice.month.dollars(price) <= 5
    assert advice.month.cold_share < thrifty.month.cold_share
    assert advice.tried >= len(IDLE_TAILS)


def test_too_small_budget_names_the_cheapest_setting() -> None:
    result = run("--budget", "0.01")

    assert "None of" in result.output
    assert "the cheapest is --window" in result.output


def test_budget_of_an_always_on_gpu_recommends_one() -> None:
    record = response("--days", "3", "--budget", "1000")["recommended"]

    assert record["setting"]["min_scale"] == 1
    assert record["cold_share"] == 0


def test_advice_for_a_queue_is_more_pods() -> None:
    traffic = images_at(*[100 + 0.5 * index for index in range(60)], megapixels=4)
    advice = recommend(SimulationCache(traffic), Service(deadline_s=900, queue_size=100), find_price("l4-high"), 5)

    assert advice.month.service.max_scale > 1


def test_plot_is_a_png_with_something_in_it(tmp_path: Path) -> None:
    path = tmp_path / "bill.png"
    result = run("--days", "2", "--plot", str(path))

    assert result.exit_code == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 10_000


def test_unwritable_plot_is_an_error(tmp_path: Path) -> None:
    result = run("--days", "1", "--plot", str(tmp_path / "nowhere" / "bill.png"))

    assert result.exit_code == 1
    assert "cannot be written" in result.output


def test_missing_matplotlib_names_the_install_command(tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not here')")
    script = "import sys; sys.path.insert(0, sys.argv.pop(1)); from planning.cli import plan; plan()"
    finished = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), "--days", "1", "--plot", str(tmp_path / "bill.png")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )

    assert finished.returncode == 1
    assert "pip install 'serverless-superres[plan]'" in finished.stderr


def test_module_runs_as_the_command() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "planning", "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert "python -m planning" in finished.stdout


def test_planning_imports_no_heavy_package() -> None:
    script = (
        "import sys, pkgutil, importlib, planning\n"
        "names = [m.name for m in pkgutil.iter_modules(planning.__path__) if m.name not in ('__main__', 'cli')]\n"
        "for name in names: importlib.import_module('planning.' + name)\n"
        "heavy = ('torch', 'flask', 'tritonclient', 'click', 'gateway', 'matplotlib')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)

    assert finished.stdout.strip() == "[]"
