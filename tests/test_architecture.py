"""Which room may know what: walks every import of the project and names file, line and rule when one is broken."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from testing.data import ROOT
from testing.source_tree import ROOMS, imports, parse, python_files, starts_with

MAX_LINES = 350

FORBIDDEN = {
    "preprocessing": ("flask", "tritonclient", "torch", "gateway", "swinir", "triton_python_backend_utils"),
    "gateway": ("torch", "training", "benchmarks", "triton_python_backend_utils"),
    "swinir": ("flask", "tritonclient", "gateway", "training", "benchmarks", "triton_python_backend_utils"),
    "training": ("flask", "tritonclient", "gateway"),
    "planning": ("flask", "tritonclient", "torch", "gateway", "swinir"),
    "model_repository": ("flask", "tritonclient", "gateway", "training", "torch"),
}
"""Room -> what it must not import, at module level or inside a function."""

TORCH_FREE = (
    "swinir.zoo",
    "swinir.request_limits",
    "swinir.streaming",
    "swinir.custom_variants",
    "swinir.settings",
    "swinir.checks",
    "swinir.cli",
)
"""What the gateway and Triton's light steps may import of swinir at module level: none of it may import torch."""

LIGHT_MODELS = ("tile", "stitch", "upscale_stream")

MAY_READ_ENVIRONMENT = {"gateway/config/environment.py", "swinir/settings.py"}
MAY_USE_REQUEST = ("gateway/views/", "gateway/jobs/request_body.py", "gateway/app.py")


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_imports_nothing_it_must_not_know(room: str) -> None:
    broken = [
        f"{path.relative_to(ROOT)}:{line}: {room} must not import {name}"
        for path in python_files(room)
        for line, name in imports(parse(path))
        if starts_with(name, FORBIDDEN[room])
    ]
    assert not broken, "\n".join(broken)


def test_the_gateway_and_the_light_models_import_of_swinir_only_what_is_free_of_torch() -> None:
    paths = python_files("gateway") + [ROOT / f"model_repository/{name}/1/model.py" for name in LIGHT_MODELS]
    broken = [
        f"{path.relative_to(ROOT)}:{node.lineno}: imports {node.module}; allowed here: {TORCH_FREE}"
        for path in paths
        for node in parse(path).body
        if isinstance(node, ast.ImportFrom)
        and starts_with(node.module or "", ("swinir",))
        and node.module not in TORCH_FREE
    ]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("module", [*TORCH_FREE, "gateway.cli.main", "gateway.app"])
def test_importing_what_must_be_free_of_torch_does_not_import_it(module: str) -> None:
    """The import itself is the witness: a walk over one file would not see what its imports import."""
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{module} imports torch\n{done.stderr}"


def test_only_the_adapters_know_tritons_backend_utilities() -> None:
    allowed = {ROOT / f"model_repository/{folder.name}/1/model.py" for folder in (ROOT / "model_repository").iterdir()}
    broken = [
        f"{path.relative_to(ROOT)}:{line}"
        for room in ROOMS
        for path in python_files(room)
        for line, name in imports(parse(path))
        if name.startswith("triton_python_backend_utils") and path not in allowed
    ]
    assert not broken, "triton_python_backend_utils belongs into model_repository/*/1/model.py:\n" + "\n".join(broken)


def test_only_settings_modules_read_the_environment() -> None:
    broken = []
    for room in ROOMS:
        for path in python_files(room):
            if str(path.relative_to(ROOT)) in MAY_READ_ENVIRONMENT:
                continue
            for node in ast.walk(parse(path)):
                if not isinstance(node, ast.Attribute) or node.attr not in ("environ", "getenv", "environb"):
                    continue
                if isinstance(node.value, ast.Name) and node.value.id == "os":
                    broken.append(
                        f"{path.relative_to(ROOT)}:{node.lineno}: only a settings module reads the environment"
                    )
    assert not broken, "\n".join(broken)


def test_flask_request_appears_in_views_and_uploads_alone() -> None:
    broken = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in python_files("gateway")
        for line, name in imports(parse(path))
        if name == "flask.request" and not str(path.relative_to(ROOT)).startswith(MAY_USE_REQUEST)
    ]
    assert not broken, "\n".join(broken)


def test_no_file_of_ours_is_longer_than_350_lines() -> None:
    paths = [path for room in (*ROOMS, "tests", "k8s", "docker") for path in python_files(room)]
    paths += [path for suffix in ("js", "css", "html") for path in (ROOT / "gateway").rglob(f"*.{suffix}")]
    paths += [path for suffix in ("js", "css", "html") for path in (ROOT / "front").rglob(f"*.{suffix}")]
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in paths}
    broken = [f"{path} has {lines} lines: does it hold two nouns?" for path, lines in long.items() if lines > MAX_LINES]
    assert not broken, "\n".join(broken)


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty_words = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
    broken = [str(path.relative_to(ROOT)) for room in ROOMS for path in python_files(room) if path.stem in empty_words]
    assert not broken, broken
