"""The model gives every number of every tick of the reference scenarios, which Knative's own code made."""

import copy
import json
import re

import pytest

from planning.knative.replay import (
    InvalidScenarioError,
    decider_spec,
    panic_window_matches,
    read_revision,
    replay,
    replay_run,
)
from testing.data import ROOT
from testing.knative_scenarios import (
    DATA,
    NAMES,
    SWEEP,
    TIME_TOLERANCE_S,
    differences,
    read_scenario,
    replay_differences,
)

NOT_MODELLED: dict[str, str] = {}
"""Scenario -> why the model does not reproduce it. docs/how-to/plan-costs.md has the same list."""

SWEEP_ANNOTATIONS = {
    "w60_r0": {},
    "w30_r0": {"window": "30s"},
    "w15_r15": {"window": "15s", "scale-to-zero-pod-retention-period": "15s"},
    "w6_r0": {"window": "6s"},
    "w6_r30": {"window": "6s", "scale-to-zero-pod-retention-period": "30s"},
    "w60_r0_tbc0": {"target-burst-capacity": "0"},
    "w6_r0_tbc0": {"window": "6s", "target-burst-capacity": "0"},
}


@pytest.mark.parametrize("name", NAMES)
def test_scenario_is_reproduced_or_listed(name: str) -> None:
    found = replay_differences(name)

    if name in NOT_MODELLED:
        assert found, f"{name} is reproduced after all: take it off NOT_MODELLED and docs/how-to/plan-costs.md"
    else:
        assert not found, f"{len(found)} differences, the first: {found[:5]}"


def test_at_least_32_scenarios_are_reproduced() -> None:
    assert len(NAMES) == 38
    assert set(NOT_MODELLED) <= set(NAMES)
    assert len(NAMES) - len(NOT_MODELLED) >= 32


def test_docs_list_exactly_the_scenarios_that_are_not_modelled() -> None:
    text = (ROOT / "docs/how-to/plan-costs.md").read_text()
    section = text.split("### Scenarios that are not reproduced", 1)[1].split("\n#", 1)[0]

    assert set(re.findall(r"^- `(\w+)`", section, re.MULTILINE)) == set(NOT_MODELLED)


@pytest.mark.parametrize(
    ("field", "value"),
    [("desired", 7), ("panic_mode", True), ("stable", 0.5), ("ebc", 1), ("replicas_after", 9), ("t_s", 3.25)],
)
def test_one_wrong_number_in_one_tick_is_a_difference(field: str, value: object) -> None:
    scenario = read_scenario("a_default_single")
    run = replay_run(scenario)
    wrong = copy.deepcopy(scenario)
    wrong["ticks"][20][scenario["tick_fields"].index(field)] = value

    assert not differences(scenario, run)
    assert len(differences(wrong, run)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"boot_s": 13},
        {"container_concurrency": 1},
        {"annotations": {"window": "59s"}},
        {"annotations": {"target-burst-capacity": "0"}},
        {"annotations": {"scale-to-zero-pod-retention-period": "1s"}},
        {"annotations": {"scale-down-delay": "4s"}},
        {"annotations": {"metric-aggregation-algorithm": "weightedExponential"}},
        {"annotations": {"min-scale": "1"}},
        {"annotations": {"activation-scale": "2"}},
    ],
    ids=str,
)
def test_replay_follows_the_settings_and_not_the_recorded_ticks(change: dict[str, object]) -> None:
    scenario = read_scenario("a_default_single")
    scenario["settings"].update(change)

    assert differences(scenario, replay_run(scenario))


@pytest.mark.parametrize("name", NAMES)
def test_annotations_resolve_as_in_knative(name: str) -> None:
    settings = read_scenario(name)["settings"]
    revision = read_revision(settings)

    assert decider_spec(revision) == settings["decider_spec_ns_durations"]
    assert panic_window_matches(settings, revision)


@pytest.mark.parametrize("name", NAMES)
def test_each_request_begins_and_ends_when_the_reference_says(name: str) -> None:
    scenario = read_scenario(name)
    expected = sorted((row[0], row[3], row[4]) for row in scenario["requests"])
    replayed = [
        (request.arrive_ns / 1e9, request.start_ns / 1e9 if request.start_ns >= 0 else -1, request.end_ns / 1e9)
        for request in replay_run(scenario).requests
    ]

    assert replayed == [pytest.approx(row, abs=2e-6) for row in expected]


@pytest.mark.parametrize("setting", sorted(SWEEP_ANNOTATIONS))
def test_phase_sweep_reproduces_the_times(setting: str) -> None:
    sweep = json.loads((DATA / f"{SWEEP}.json").read_text())
    rows = [row for row in sweep["rows"] if row[0] == setting]
    base = read_scenario("a_default_single")
    base["settings"]["annotations"] = SWEEP_ANNOTATIONS[setting]

    found = []
    for _, arrive_s, up_s, ready_s, end_s, _inactive_s, down_s in rows:
        base["requests"] = [[arrive_s, 3, 0, -1, -1, "A"]]
        run = replay_run(base)
        (request,) = run.requests
        times = (run.times(0, 1)[-1], request.start_ns / 1e9, request.end_ns / 1e9, run.times(1, 0)[-1])
        found += [
            (arrive_s, actual, expected)
            for actual, expected in zip(times, (up_s, ready_s, end_s, down_s), strict=True)
            if abs(actual - expected) > TIME_TOLERANCE_S
        ]

    assert len(rows) == 40
    assert not found


def test_sweep_settings_are_all_replayed() -> None:
    sweep = json.loads((DATA / f"{SWEEP}.json").read_text())

    assert {row[0] for row in sweep["rows"]} == set(SWEEP_ANNOTATIONS)
    assert len(sweep["rows"]) == 280


def test_burst_capacity_minus_one_keeps_pods_longer() -> None:
    # kpa.md "What a simulator would get wrong" 8: p2 keeps 6 pods to 116.5, p3 only to 84.5
    scenario = read_scenario("p3_tbc211_burst6")
    scraped = replay(scenario)
    scenario["settings"]["annotations"]["target-burst-capacity"] = "-1"
    unscraped = replay(scenario)

    assert max(tick.t_s for tick in scraped if tick.replicas_after == 6) == 82.5
    assert max(tick.t_s for tick in unscraped if tick.replicas_after == 6) == 114.5


def test_retention_of_60_s_adds_to_the_window_of_15_s() -> None:
    # kpa.md rule 8, example b2
    scenario = read_scenario("b_window15_retention15")
    scenario["settings"]["annotations"]["scale-to-zero-pod-retention-period"] = "60s"

    assert replay_run(scenario).times(1, 0)[-1] == 100.0


def test_unreachable_revision_goes_to_zero() -> None:
    # kpa.md "What a simulator would get wrong" 13
    scenario = read_scenario("p3_tbc211_burst6")
    scenario["settings"]["annotations"]["min-scale"] = "1"
    reachable = replay(scenario)
    scenario["settings"]["reachable"] = False
    unreachable = replay(scenario)

    assert reachable[-1].replicas_after == 1
    assert unreachable[-1].replicas_after == 0


def test_scenario_of_another_schema_is_rejected_by_name() -> None:
    with pytest.raises(InvalidScenarioError, match='schema is "kpa-trace/2"'):
        replay({"schema": "kpa-trace/2"})
