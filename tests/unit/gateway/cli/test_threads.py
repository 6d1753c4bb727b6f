"""The command line starts no threads that spin: NumPy's OpenBLAS has one thread in it, and in the embedded Triton."""

from __future__ import annotations

import os
import subprocess
import sys

from gateway.backend.model_environ import make_model_environ
from gateway.config.environment import read_settings

# Prints the threads of the process after a product of matrices that OpenBLAS would split.
COUNT_THREADS = """
import os
import numpy as np
np.ones((500, 500)) @ np.ones((500, 500))
print(len(os.listdir("/proc/self/task")))
"""


def count_threads(code: str, **variables: str) -> int:
    environ = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    finished = subprocess.run(
        [sys.executable, "-c", code], env=environ | variables, capture_output=True, text=True, check=True
    )
    return int(finished.stdout)


def test_numpy_has_one_thread_in_the_command_line() -> None:
    assert count_threads("import gateway.cli.main" + COUNT_THREADS) == 1


def test_numpy_has_one_thread_in_the_embedded_triton() -> None:
    environ = make_model_environ(read_settings({}).settings)

    assert count_threads(COUNT_THREADS, OPENBLAS_NUM_THREADS=environ["OPENBLAS_NUM_THREADS"]) == 1


def test_a_chosen_number_of_threads_is_kept() -> None:
    code = "import os, gateway.cli.main; print(os.environ['OPENBLAS_NUM_THREADS'])"

    assert count_threads(code, OPENBLAS_NUM_THREADS="3") == 3
