"""Reads the reference scenarios of tests/data/kpa and lists the differences of a replay."""

import dataclasses
import json
from typing import Any

from planning.knative.replay import Replay, replay_run
from testing.data import ROOT

DATA = ROOT / "tests" / "data" / "kpa"
SWEEP = "sweep_arrival_phase"
NAMES = sorted(path.stem for path in DATA.glob("*.json") if path.stem != SWEEP)

MEAN_TOLERANCE = 1.1e-6
"""The traces have six digits."""
TIME_TOLERANCE_S = 1.1e-6

Scenario = dict[str, Any]


def read_scenario(name: str) -> Scenario:
    """Return the reference scenario of a file name."""
    scenario: Scenario = json.loads((DATA / f"{name}.json").read_text())
    return scenario


def differences(scenario: Scenario, run: Replay) -> list[str]:
    """Return a message for each number in which the run's ticks or replica changes differ from the scenario's."""
    found = []
    if len(run.ticks) != len(scenario["ticks"]):
        found.append(f"{len(run.ticks)} ticks, not {len(scenario['ticks'])}")
    for replayed, expected in zip(run.ticks, scenario["ticks"], strict=False):
        pairs = zip(scenario["tick_fields"], dataclasses.astuple(replayed), expected, strict=True)
        found += [
            f"t={expected[0]} {field}: {actual}, not {reference}"
            for field, actual, reference in pairs
            if not _same(actual, reference)
        ]
    replicas = run.replicas
    expected_replicas = [(moment, after) for moment, kind, _, after in scenario["transitions"] if kind == "replicas"]
    if len(replicas) != len(expected_replicas):
        found.append(f"replicas {replicas}, not {expected_replicas}")
    for (moment_s, number), (expected_s, expected_number) in zip(replicas, expected_replicas, strict=False):
        if abs(moment_s - expected_s) > TIME_TOLERANCE_S or number != expected_number:
            found.append(f"{number} replicas at {moment_s}, not {expected_number} at {expected_s}")
    return found


def replay_differences(name: str) -> list[str]:
    """Replay a scenario and return the differences."""
    scenario = read_scenario(name)
    return differences(scenario, replay_run(scenario))


def _same(actual: object, reference: object) -> bool:
    if isinstance(actual, float) and isinstance(reference, int | float):
        return abs(actual - reference) <= MEAN_TOLERANCE
    return actual == reference
