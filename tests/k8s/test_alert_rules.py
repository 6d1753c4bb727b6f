"""The alert rules and the table "Monitor" of docs/how-to/operate.md agree, and every name in a rule exists."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import jsonschema
import pytest

from gateway.jobs.phases import PHASES
from gateway.problems import QueueFull, all_problems
from gateway.services import services
from testing.backend import FakeBackend
from testing.data import ROOT
from testing.fixtures import MakeApp
from testing.k8s.manifests import find

# Exported by cAdvisor and kube-state-metrics. Those of Triton are read from a running one (test_monitoring.py).
OTHERS = {
    "container_memory_working_set_bytes": {"namespace", "pod", "container"},
    "kube_pod_container_resource_limits": {"namespace", "pod", "container", "resource"},
}
TRITON_LABELS = {"namespace", "pod", "model", "version", "reason"}
# Labels that Prometheus adds to each metric of a pod.
TARGET_LABELS = {"namespace", "pod", "container"}
RULE = {
    "type": "object",
    "required": ["alert", "expr", "labels", "annotations"],
    "additionalProperties": False,
    "properties": {
        "alert": {"type": "string", "pattern": "^[A-Z][A-Za-z]+$"},
        "expr": {"type": "string"},
        "for": {"type": "string", "pattern": r"^\d+m$"},
        "labels": {
            "type": "object",
            "required": ["severity"],
            "additionalProperties": False,
            "properties": {"severity": {"enum": ["warning", "critical"]}},
        },
        "annotations": {
            "type": "object",
            "required": ["summary", "description"],
            "additionalProperties": False,
            "properties": {"summary": {"type": "string"}, "description": {"type": "string"}},
        },
    },
}
_SELECTOR = re.compile(r"\b([a-z]\w*_\w+)\b(?!\s*\()(?:\s*\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"[^"]*"')


@dataclass(frozen=True)
class Query:
    """A PromQL expression: its text without label matchers and spaces, and the matchers of each metric."""

    skeleton: str
    selectors: tuple[tuple[str, frozenset[str]], ...]

    @classmethod
    def parse(cls, text: str) -> Query:
        selectors = []
        for metric, matchers in _SELECTOR.findall(text):
            found = [match.group(0).replace(" ", "") for match in _MATCHER.finditer(matchers)]
            selectors.append((metric, frozenset(found) - {'namespace="superres"'}))
        return cls(re.sub(r"\{[^}]*\}|\s", "", text), tuple(selectors))

    def contains(self, other: Query) -> bool:
        """Return whether this has the other query in it, perhaps with more label matchers."""
        return other.skeleton in self.skeleton and all(
            any(metric == own and matchers <= more for own, more in self.selectors)
            for metric, matchers in other.selectors
        )


def rules() -> dict[str, dict[str, Any]]:
    groups = find("monitoring", "PrometheusRule", "superres")["spec"]["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def rows() -> list[list[str]]:
    """Return the cells of each row: what, query, condition, alert."""
    section = (ROOT / "docs/how-to/operate.md").read_text().partition("## Monitor\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert lines[0] == "| what | query | alert if | alert |"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def find_disagreements(row: list[str], rule: dict[str, Any]) -> list[str]:
    _, queries, condition, _ = row
    expression = Query.parse(rule["expr"])
    missing = [text for text in re.findall(r"`([^`]+)`", queries) if not expression.contains(Query.parse(text))]
    minutes = re.findall(r"for (?:more than )?(\d+) min", condition)
    if rule.get("for", "") != "".join(f"{number}m" for number in minutes):
        missing.append(condition)
    return missing


def test_each_row_has_a_rule_that_agrees_with_it() -> None:
    with_alert = [row for row in rows() if not row[2].startswith("no alert")]

    assert [row[3] for row in with_alert] == list(rules())
    assert len(with_alert) >= 10
    assert {row[3]: find_disagreements(row, rules()[row[3]]) for row in with_alert} == {
        row[3]: [] for row in with_alert
    }


def test_disagreement_is_found() -> None:
    row = ["", '`rate(nv_inference_count{model="swinir"}[5m])`', "above 0 for 5 min", "A"]
    fitting = {"expr": 'rate(nv_inference_count{namespace="superres", model="swinir"}[5m]) > 0', "for": "5m"}

    assert find_disagreements(row, fitting) == []
    assert find_disagreements(row, {**fitting, "for": "10m"}) == ["above 0 for 5 min"]
    for old, new in (("swinir", "upscale"), ("[5m]", "[1m]"), ("rate", "increase"), ("_count", "_exec_count")):
        assert len(find_disagreements(row, {**fitting, "expr": fitting["expr"].replace(old, new)})) == 1


@pytest.mark.parametrize("rule", rules().values(), ids=rules())
def test_rule_is_one_that_the_operator_reads(rule: dict[str, Any]) -> None:
    jsonschema.validate(rule, RULE)
    expression = rule["expr"]
    for opening, closing in ("()", "{}", "[]"):
        assert expression.count(opening) == expression.count(closing)
    assert expression.count('"') % 2 == 0
    placeholders = re.findall(r"\{\{(.*?)\}\}", rule["annotations"]["summary"])
    labels = {label for text in placeholders for label in re.findall(r"\$labels\.(\w+)", text)}
    if kept := re.findall(r"\bby \(([^)]*)\)", expression):
        assert labels <= {label.strip() for group in kept for label in group.split(",")}
    assert labels <= {"model", "reason", "pod", "slug", "container", "quantile"}


def gateway_labels(text: str) -> dict[str, set[str]]:
    """Return the labels of each metric in the text format of Prometheus."""
    return {
        name: set(re.findall(r'(\w+)="', labels))
        for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", text, re.M)
    }


def test_metrics_and_labels_of_rules_exist(make_app: MakeApp, upscaler: FakeBackend) -> None:
    upscaler.state_tracker.begin_boot()
    upscaler.state_tracker.mark_up()
    metrics = services(make_app()).metrics
    metrics.observe_phases("compact_x4", dict.fromkeys(PHASES, 1.0))
    ours = gateway_labels(metrics.text())

    for rule in rules().values():
        selectors = Query.parse(rule["expr"]).selectors
        assert selectors, rule["expr"]
        for metric, matchers in selectors:
            named = {_MATCHER.match(matcher).group(1) for matcher in matchers}  # type: ignore[union-attr]
            if metric.startswith("nv_"):
                assert named <= TRITON_LABELS, metric
            else:
                known = ours[metric] | TARGET_LABELS if metric in ours else OTHERS[metric]
                assert named <= known, metric


def test_rule_of_problems_names_every_5xx_but_full_queues() -> None:
    [slugs] = re.findall(r'slug=~"([^"]+)"', rules()["GatewayProblems"]["expr"])
    expected = [kind.slug for kind in all_problems() if kind.status >= 500 and not issubclass(kind, QueueFull)]
    assert slugs.split("|") == expected
