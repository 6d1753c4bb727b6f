"""benchmarks.goals: which goals are reached, and the command that measures the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import goals
from benchmarks.goals import Goal

MACHINE = {"date": "2026-11-30T01:20:00+00:00", "commit": "abc", "quiet": True}


def stored_goals() -> list[Goal]:
    return [*goals.card_goals(), *goals.stack_goals(), *goals.start_goals(), *goals.throughput_goals()]


@pytest.mark.parametrize(
    ("is_minimum", "measured", "ratio", "verdict"),
    [(False, 5.0, "0.50", "reached"), (False, 20.0, "2.00", "missed"), (True, 20.0, "0.50", "reached")],
)
def test_ratio_above_one_misses_the_goal(is_minimum: bool, measured: float, ratio: str, verdict: str) -> None:
    row = Goal("a goal", 10.0, measured, "today", is_minimum=is_minimum).to_row()

    assert row[3:5] == [ratio, verdict]


def test_goal_without_results_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goals, "RESULTS", tmp_path)

    rows = [goal.to_row() for goal in stored_goals()]

    assert {row[4] for row in rows} == {"not measured"}
    assert {row[5] for row in rows} == {
        "make gpu",
        *(f"python -m benchmarks.{name}" for name in ("stack", "cold_start", "throughput")),
    }


def test_stored_results_are_compared_with_the_goals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goals, "RESULTS", tmp_path)
    timings = {
        kind: {"median_s": seconds} for kind, seconds in (("plain", 0.001), ("ours", 0.009), ("bfloat16", 0.008))
    }
    networks = [{"variant": "real_x4", "side": side, "timings": timings} for side in (64, 128)]
    stack = {"machine": MACHINE, "cpu_ms_per_megapixel": {"png": 90.0, "jpeg": 10.0}}
    row = {
        "clients": 4,
        "of_network": 0.97,
        "images_per_s": {"ours": 10.0, "a slot each": 99.0, "LitServe": 8.0, "Flask + torch": 5.0},
        "p99_s": {"ours": 0.2, "a slot each": 0.01, "LitServe": 0.1, "Flask + torch": 0.4},
    }
    (tmp_path / "gpu.json").write_text(json.dumps({"machine": MACHINE, "networks": networks}))
    (tmp_path / "stack.json").write_text(json.dumps(stack))
    (tmp_path / "throughput.json").write_text(json.dumps({"machine": MACHINE, "rows": [row]}))

    start = {"machine": MACHINE, "ratios": {"first_band": 0.9, "memory": 0.2}}
    (tmp_path / "cold_start.json").write_text(json.dumps(start))

    found = {goal.name: goal.ratio for goal in stored_goals()}

    assert found == {
        "H200: real_x4, ms a tile of 128": 4.0,
        "H200: compact_x4, ms a tile of 256": None,
        "stack: CPU ms per megapixel as PNG": 2.0,
        "stack: CPU ms per megapixel as JPEG": 0.5,
        "CPU: from asleep to the first band / the same in PyTorch": 2.0,
        "CPU: memory of the backend awake / the same in PyTorch": 0.5,
        "throughput, 4 clients: images per second / best peer's": 0.8,
        "throughput, 4 clients: p99 / best peer's": 2.0,
        "throughput, 4 clients: of the network alone": 1.0,
    }
