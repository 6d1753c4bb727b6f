"""docs/how-to/plan-costs.md and docs/measurements/scale.md match the simulations: tables, plots, options and the
shipped settings.
"""

import re
import subprocess
import sys

import click
import pytest

from gateway.config.settings import Settings
from planning.cli import plan
from planning.prices import PRICES
from planning.reports.bill_tables import make_visitors_row
from planning.reports.drawings import PLOTS
from planning.reports.report import DOCS, DOCUMENTS, TABLES, UnknownTableError, fill_tables, names_in
from planning.simulation import Service
from planning.traffic import TRACES
from testing.data import ROOT

SLOW = frozenset({"visitors", "steps"})
"""Tables that take many seconds: the tests compare one row of the first; `report --check` compares all."""
QUICK = frozenset(TABLES) - SLOW


def document(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", DOCUMENTS)
def test_tables_are_what_their_simulations_give(name: str) -> None:
    text = document(name)

    assert fill_tables(text, only=QUICK) == text, "run python -m planning.reports.report"


@pytest.mark.slow
def test_row_of_four_visits_a_day_matches_its_simulation() -> None:
    # the row that the heading "$300 becomes $3: for about four visitors a day" stands on
    (written,) = re.findall(r"^\| 4 \|.*$", document("how-to/plan-costs.md"), re.MULTILINE)

    assert make_visitors_row(4) == written.strip("| ").split(" | ")


def test_every_table_stands_in_a_document_once_and_is_filled() -> None:
    names = [table for name in DOCUMENTS for table in names_in(document(name))]

    assert sorted(names) == sorted(TABLES)
    for name in DOCUMENTS:
        for table in re.findall(r"<!-- table: [\w-]+ -->\n(.*?)<!-- end -->", document(name), re.DOTALL):
            assert table.count("\n|") > 2


def test_every_plot_is_drawn_shown_and_described() -> None:
    text = "".join(document(name) for name in DOCUMENTS)
    shown = dict(re.findall(r"!\[(.+?)\]\(\.\./images/([\w.-]+)\)", text))

    assert set(shown.values()) == set(PLOTS)
    for name in PLOTS:
        assert (DOCS / "images" / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_changed_number_in_a_table_is_found() -> None:
    text = document("how-to/plan-costs.md")

    assert fill_tables(text.replace("$0.684", "$0.685"), only=QUICK) == text


def test_unknown_table_is_named() -> None:
    with pytest.raises(UnknownTableError, match='Unknown table "weather"'):
        fill_tables("<!-- table: weather -->\n<!-- end -->")


def test_commands_of_the_document_use_options_that_there_are() -> None:
    used = set(re.findall(r"(--[a-z][\w-]*)", document("how-to/plan-costs.md"))) - {"--check"}
    there_are = {option for param in plan.params if isinstance(param, click.Option) for option in param.opts}

    assert used <= there_are


def test_python_of_the_document_runs_and_prints_the_ticks() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", document("how-to/plan-costs.md"), re.DOTALL)
    finished = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=True, cwd=ROOT)

    assert "100.5 1.011666 1.116662 2 True 2" in finished.stdout
    assert len(finished.stdout.splitlines()) == 242


def test_document_names_every_trace_and_price() -> None:
    text = document("how-to/plan-costs.md")

    for name in (*TRACES, *PRICES):
        assert f"`{name}`" in text


def test_simulated_settings_match_the_manifest() -> None:
    manifest = (ROOT / "k8s/base/backend/service.yaml").read_text(encoding="utf-8")
    service = Service()

    def written(name: str) -> str:
        match = re.search(
            rf'^\s*(?:autoscaling\.knative\.dev/)?{name}: "?([\w.-]+?)"?\s*(?:#.*)?$', manifest, re.MULTILINE
        )
        assert match, f"{name} is not in k8s/base/backend/service.yaml"
        return match[1]

    assert written("window") == f"{service.window_s}s"
    assert written("scale-to-zero-pod-retention-period") == f"{service.retention_s:g}s"
    assert written("min-scale") == str(service.min_scale)
    assert written("max-scale") == str(service.max_scale)
    assert written("target-burst-capacity") == f"{service.burst_capacity:g}"
    assert written("target-utilization-percentage") == f"{service.utilisation_percent:g}"
    assert written("containerConcurrency") == str(service.concurrency)
    assert float(written("timeoutSeconds")) >= service.deadline_s


def test_simulated_deadline_matches_the_gateway() -> None:
    gateway = (ROOT / "k8s/base/gateway/service.yaml").read_text(encoding="utf-8")
    (deadline_s,) = re.findall(r'name: SUPERRES_DEADLINE_S, value: "([\d.]+)"', gateway)

    assert float(deadline_s) == Service().deadline_s
    assert "SUPERRES_QUEUE_SIZE" not in gateway
    assert Settings().queue_size == Service().queue_size
