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
    mine_replicas = run.replicas
    their_replicas = [(moment, after) for moment, kind, _, after in scenario["transitions"] if kind == "replicas"]
    if len(mine_replicas) != len(their_replicas):
        found.append(f"replicas {mine_replicas}, not {their_replicas}")
    for (my_s, my_number), (their_s, their_number) in zip(mine_replicas, their_replicas, strict=False):
        if abs(my_s - their_s) > TIME_TOLERANCE_S or my_number != their_number:
            found.append(f"{my_number} replicas at {my_s}, not {their_number} at {their_s}")
    return found


def replay_differences(name: str) -> list[str]:
    """Replay a scenario and return the differences."""
    scenario = read_scenario(name)
    return differences(scenario, replay_run(scenario))


def _same(actual: object, reference: object) -> bool:
    if isinstance(actual, float) and isinstance(reference, int | float):
        return abs(actual - reference) <= MEAN_TOLERANCE
    return actual == reference
