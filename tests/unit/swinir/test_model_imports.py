"""What Triton's models import. Each has a process of its own, and all start when the backend wakes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from testing.data import ROOT

# What a model may import in addition to NumPy, Triton's utilities and this project.
ALLOWED = {
    "tile": "copy dataclasses difflib heapq",
    "stitch": "copy dataclasses",
    "upscale_stream": "atexit concurrent copy dataclasses difflib heapq logging queue string traceback",
    "swinir": "atexit copy dataclasses difflib heapq logging pwd safetensors string traceback",
}
LIST_IMPORTS = """
import importlib.util, json, numpy, numpy.typing, struct, sys, types

sys.modules["triton_python_backend_utils"] = utilities = types.ModuleType("triton_python_backend_utils")
utilities.TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
before = set(sys.modules)
spec = importlib.util.spec_from_file_location("model", sys.argv[1])
spec.loader.exec_module(importlib.util.module_from_spec(spec))
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""


@pytest.mark.parametrize("model", ALLOWED)
def test_models_of_triton_import_little(model: str) -> None:
    listed = subprocess.run(
        [sys.executable, "-c", LIST_IMPORTS, f"model_repository/{model}/1/model.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    names = {name for name in listed.stdout.split() if not name.startswith("_")}
    assert names - {"preprocessing", "swinir", *ALLOWED[model].split()} == set()
