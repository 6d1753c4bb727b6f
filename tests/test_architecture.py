"""Which package may import what. Each rule names file and line, and each is tried on a small tree that breaks it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testing.data import ROOT
from testing.short_waits import LONG_S, find_short_waits
from testing.source_tree import PACKAGES, SHIPPED, SourceTree, find_cycle, is_below

MAX_LINES = 350
TRITON_UTILITIES = "triton_python_backend_utils"

# What a folder must not import, at module level or inside a function.
FORBIDDEN = {
    "preprocessing": ("flask", "tritonclient", "torch", "gateway", "swinir"),
    "gateway": ("torch", "training"),
    "swinir": ("flask", "tritonclient", "gateway", "training"),
    "training": ("flask", "tritonclient", "gateway"),
    "superres": (
        "flask",
        "tritonclient",
        "torch",
        "gateway",
        "swinir",
        "preprocessing",
        "training",
        "planning",
        "numpy",
        "PIL",
    ),
    "planning": ("flask", "tritonclient", "torch", "gateway", "swinir"),
    "model_repository": ("flask", "tritonclient", "gateway", "training", "torch"),
}

# What the parts of the gateway must not reach, not even through the modules that they import.
LAYERS = {
    **dict.fromkeys(
        ("gateway/access", "gateway/backend", "gateway/tracing", "gateway/usage", "gateway/wsgi"),
        ("gateway.views", "gateway.jobs"),
    ),
    "gateway/jobs": ("gateway.views",),
}

# These import nothing of the gateway but each other.
FOUNDATIONS = ("gateway.config", "gateway.storage", "gateway.problems", "gateway.cancellation")

# Triton's models that run in a process without torch, next to the gateway itself.
TORCH_FREE = ("gateway", *(f"model_repository/{name}/1/model.py" for name in ("tile", "stitch", "upscale_stream")))

MAY_READ_ENVIRONMENT = {"gateway/config/environment.py", "swinir/settings.py"}
MAY_USE_REQUEST = ("gateway/views/", "gateway/jobs/request_body.py", "gateway/app.py")

# Triton prescribes this name for the class in each model.py.
SHARED_CLASS_NAMES = {"TritonPythonModel"}

Rule = Callable[[SourceTree], Iterator[str]]


def forbidden_imports(tree: SourceTree) -> Iterator[str]:
    for folder, names in FORBIDDEN.items():
        for path in tree.files(folder):
            for line, name in tree.imports(path):
                if is_below(name, names):
                    yield f"{tree.name(path)}:{line}: {folder} must not import {name}"


def layer_violations(tree: SourceTree) -> Iterator[str]:
    for folder, names in LAYERS.items():
        for path in tree.files(folder):
            module = tree.name(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            for name in sorted(tree.reachable(module) | {name for _, name in tree.imports(path)}):
                if is_below(name, names):
                    yield f"{tree.name(path)}: {folder} must not import {name}, directly or through other modules"


def foundation_violations(tree: SourceTree) -> Iterator[str]:
    for foundation in FOUNDATIONS:
        folder = foundation.replace(".", "/")
        for path in [*tree.files(folder), *tree.root.glob(f"{folder}.py")]:
            for line, name in tree.imports(path):
                if is_below(name, ["gateway"]) and name != "gateway" and not is_below(name, FOUNDATIONS):
                    yield f"{tree.name(path)}:{line}: imports {name}; allowed of the gateway: {', '.join(FOUNDATIONS)}"


def torch_in_light_imports(tree: SourceTree) -> Iterator[str]:
    """The modules directly in swinir/ import no torch; the gateway and the light models use only those of swinir."""
    heavy = ("torch", *(f"swinir.{folder.name}" for folder in (tree.root / "swinir").glob("*/") if folder.is_dir()))
    top_level = sorted((tree.root / "swinir").glob("*.py"))
    for path in [*top_level, *tree.files(*(name for name in TORCH_FREE if (tree.root / name).exists()))]:
        for line, name in tree.imports(path, at_module_level=True):
            if is_below(name, heavy):
                yield f"{tree.name(path)}:{line}: {name} imports torch; import it where it is used, or use less of it"


def import_cycles(tree: SourceTree) -> Iterator[str]:
    """No cycle between modules, between the entries of a package (its files and folders), or between packages."""
    for depth in (1, 2, 99):
        graph: dict[str, set[str]] = defaultdict(set)
        for module, imported in tree.import_graph.items():
            start, *_ = ".".join(module.split(".")[:depth]), ""
            ends = {".".join(name.split(".")[:depth]) for name in imported}
            graph[start] |= {end for end in ends if end != start}
        if cycle := find_cycle(graph):
            yield f"import cycle: {' -> '.join(cycle)}"


def imports_of_test_code(tree: SourceTree) -> Iterator[str]:
    """Nobody imports a test; only tests and benchmarks import testing; nothing that ships imports benchmarks."""
    for path in tree.files(*PACKAGES, "tests"):
        package = tree.name(path).split("/")[0]
        banned = ["tests"]
        if package not in ("tests", "benchmarks", "testing"):
            banned.append("testing")
        if package in (*SHIPPED, "testing"):
            banned.append("benchmarks")
        for line, name in tree.imports(path):
            if is_below(name, banned):
                yield f"{tree.name(path)}:{line}: must not import {name}; code that tests share belongs into testing/"


def repeated_class_names(tree: SourceTree) -> Iterator[str]:
    places: dict[str, list[str]] = defaultdict(list)
    for path in tree.files(*PACKAGES):
        for node in tree.parse(path).body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{tree.name(path)}:{node.lineno}")
    for name, found in places.items():
        if len(found) > 1 and name not in SHARED_CLASS_NAMES:
            yield f"class {name} is defined {len(found)} times: {', '.join(found)}"


def triton_utilities_elsewhere(tree: SourceTree) -> Iterator[str]:
    for path in tree.files(*PACKAGES):
        if not Path(tree.name(path)).match("model_repository/*/1/model.py"):
            for line, name in tree.imports(path):
                if is_below(name, [TRITON_UTILITIES]):
                    yield f"{tree.name(path)}:{line}: {name} belongs into model_repository/*/1/model.py"


def environment_reads(tree: SourceTree) -> Iterator[str]:
    for path in tree.files(*SHIPPED, "benchmarks"):
        if tree.name(path) in MAY_READ_ENVIRONMENT:
            continue
        for node in ast.walk(tree.parse(path)):
            if not isinstance(node, ast.Attribute) or node.attr not in ("environ", "getenv", "environb"):
                continue
            if isinstance(node.value, ast.Name) and node.value.id == "os":
                yield f"{tree.name(path)}:{node.lineno}: only a settings module reads the environment"


def flask_request_elsewhere(tree: SourceTree) -> Iterator[str]:
    for path in tree.files("gateway"):
        if not tree.name(path).startswith(MAY_USE_REQUEST):
            for line, name in tree.imports(path):
                if name == "flask.request":
                    yield f"{tree.name(path)}:{line}: only {', '.join(MAY_USE_REQUEST)} use flask.request"


def meaningless_module_names(tree: SourceTree) -> Iterator[str]:
    empty_words = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
    for path in tree.files(*PACKAGES):
        if path.stem in empty_words:
            yield f"{tree.name(path)}: name the module by what it owns"


def short_waits(tree: SourceTree) -> Iterator[str]:
    for path in tree.files("tests", "testing"):
        for line, seconds in find_short_waits(tree.parse(path)):
            yield f"{tree.name(path)}:{line}: {seconds:g} s are too few on a busy machine; wait {2 * LONG_S:.0f} s"


RULES: dict[Rule, dict[str, str]] = {
    forbidden_imports: {"gateway/server.py": "def f():\n    import torch.nn\n"},
    layer_violations: {
        "gateway/access/control.py": "import gateway.services\n",
        "gateway/services.py": "from gateway.jobs import queue\n",
        "gateway/jobs/queue.py": "",
    },
    foundation_violations: {"gateway/problems.py": "def f():\n    from gateway import logs\n", "gateway/logs.py": ""},
    torch_in_light_imports: {
        "gateway/app.py": "from swinir.network.blocks import SwinBlock\n",
        "swinir/network/blocks.py": "import torch\n",
    },
    import_cycles: {
        "gateway/access/control.py": "from gateway.usage import meter\n",
        "gateway/usage/meter.py": "from gateway.access import csrf\n",
        "gateway/access/csrf.py": "",
        "gateway/usage/__init__.py": "",
    },
    imports_of_test_code: {"tests/unit/test_b.py": "from tests.unit.test_a import draw\n", "tests/unit/test_a.py": ""},
    repeated_class_names: {
        "gateway/jobs/queue.py": "class Reservation:\n    pass\n",
        "testing/jobs.py": "class Reservation:\n    pass\n",
    },
    triton_utilities_elsewhere: {"gateway/backend/remote.py": f"import {TRITON_UTILITIES} as pb\n"},
    environment_reads: {"planning/cli.py": "import os\nHOME = os.environ['HOME']\n"},
    flask_request_elsewhere: {"gateway/access/control.py": "from flask import request\n"},
    meaningless_module_names: {"swinir/utils.py": ""},
    short_waits: {"tests/unit/test_a.py": "LIMIT_S = 20.0\n"},
}
"""Each rule with the files of a tree that breaks it."""


@pytest.fixture(scope="module")
def project() -> SourceTree:
    return SourceTree()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_project_keeps_the_rule(rule: Rule, project: SourceTree) -> None:
    broken = list(rule(project))
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_finds_a_planted_violation(rule: Rule, tmp_path: Path) -> None:
    for name, text in RULES[rule].items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (found,) = rule(SourceTree(tmp_path))
    expected = next(iter(RULES[rule])) if rule is not import_cycles else "gateway.access -> gateway.usage"
    assert expected in found


@pytest.mark.parametrize(
    "other",
    [
        {"swinir/zoo.py": "import torch\n"},
        {"model_repository/tile/1/model.py": "import swinir.network\n", "swinir/network/a.py": ""},
        {"benchmarks/gpu.py": "from tests.unit import test_a\n"},
        {"gateway/app.py": "import testing.images\n"},
        {"swinir/zoo.py": "from benchmarks import gpu\n"},
        {"a.py": "", "planning/a.py": "import planning.b\n", "planning/b.py": "from planning.a import c\n"},
        {"swinir/a.py": "import preprocessing.a\n", "preprocessing/a.py": "import swinir.b\n", "swinir/b.py": ""},
    ],
    ids=["torch in the zoo", "torch in tile", "a test", "testing", "benchmarks", "two modules", "two packages"],
)
def test_other_violations_are_found_too(other: dict[str, str], tmp_path: Path) -> None:
    for name, text in other.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    tree = SourceTree(tmp_path)
    assert [*torch_in_light_imports(tree), *imports_of_test_code(tree), *import_cycles(tree)]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("START_LIMIT_S = 120.0", []),
        ("event.wait(30)", [30.0]),
        ("process.communicate(timeout=10)", [10.0]),
        ("process.wait(0.2)", []),
        ("urlopen(url, timeout=LIMIT_S)", []),
        ("wait_for(condition, 'it', limit_s=5)", [5.0]),
        ("names.get('a', 3)", []),
        ("', '.join(names)", []),
        ("join(images, 4)", []),
    ],
)
def test_short_waits_are_found(text: str, seconds: list[float]) -> None:
    assert [found for _, found in find_short_waits(ast.parse(text))] == seconds


LIGHT_MODULES = [
    *(f"swinir.{path.stem}" for path in sorted((ROOT / "swinir").glob("[!_]*.py"))),
    "gateway.cli.main",
    "gateway.app",
]


def test_importing_light_modules_does_not_import_torch() -> None:
    """Importing them all is the proof: the rules above do not read what other libraries import."""
    code = f"import sys, {', '.join(LIGHT_MODULES)}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"one of {LIGHT_MODULES} imports torch\n{done.stderr}"


def test_no_file_is_longer_than_350_lines() -> None:
    paths = SourceTree().files(*PACKAGES, "tests", "k8s")
    for folder in ("gateway", "front"):
        paths += [path for suffix in ("js", "css", "html") for path in (ROOT / folder).rglob(f"*.{suffix}")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in paths}
    broken = [
        f"{path} has {lines} lines: does it hold two nouns?" for path, lines in lengths.items() if lines > MAX_LINES
    ]
    assert not broken, "\n".join(broken)
