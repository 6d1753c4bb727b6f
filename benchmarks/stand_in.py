"""A stand-in for the network that takes almost no time and returns the network's own results.

The first time a tile comes, the network restores it; afterwards its output is copied from memory. What remains of the
time of a request is the stack around the network, with results that compress as real ones do.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import numpy as np

from benchmarks.report import ROOT
from swinir.network.compiled_network import CompiledNetwork
from swinir.network.packing import Floats

ADAPTER = """\
import importlib.util

from benchmarks.stand_in import replace_network

spec = importlib.util.spec_from_file_location("shipped_adapter", {adapter!r})
shipped = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shipped)
replace_network(seconds_path={seconds_path!r})
TritonPythonModel = shipped.TritonPythonModel
"""


class RememberedOutputs:
    """Replaces `CompiledNetwork.forward` by its remembered outputs, tile by tile."""

    def __init__(self, seconds_path: str | None = None) -> None:
        """`seconds_path` names a file that gets `seconds` with each call, for a measurement in another process.

        The file is opened once, and the time of a write counts with the next call, so that hardly any of it is left
        in the time of the process.
        """
        self._file = None if seconds_path is None else os.open(seconds_path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self._forward = CompiledNetwork.forward
        self._outputs: dict[bytes, Floats] = {}
        self.seconds = 0.0
        """CPU seconds in which outputs were looked up and copied."""

    def run(self, network: CompiledNetwork, images: Floats, *, in_float32: bool = False) -> Floats:
        """Return the network's output for images [N, H, W, C]."""
        began = time.thread_time()
        keys = [hashlib.blake2b(image.data).digest() for image in images]
        for key, image in zip(keys, images, strict=True):
            if key not in self._outputs:
                self._outputs[key] = self._forward(network, image[None], in_float32=in_float32)
        output = np.concatenate([self._outputs[key] for key in keys])
        self.seconds += time.thread_time() - began
        if self._file is not None:
            began = time.thread_time()
            os.pwrite(self._file, f"{self.seconds:20.9f}".encode(), 0)
            self.seconds += time.thread_time() - began
        return output


def replace_network(seconds_path: str | None = None) -> RememberedOutputs:
    """Let every compiled network of this process use remembered outputs."""
    remembered = RememberedOutputs(seconds_path)

    def forward(network: CompiledNetwork, images: Floats, *, in_float32: bool = False) -> Floats:
        return remembered.run(network, images, in_float32=in_float32)

    CompiledNetwork.forward = forward  # type: ignore[assignment,method-assign]
    return remembered


def write_adapter(models: Path, seconds_path: Path) -> None:
    """Let the model `swinir` of a copied repository run the shipped adapter with the stand-in.

    `seconds_path` gets the CPU seconds in which outputs were looked up and copied.
    """
    shipped = ROOT / "model_repository" / "swinir" / "1" / "model.py"
    (models / "swinir" / "1" / "model.py").write_text(
        ADAPTER.format(adapter=str(shipped), seconds_path=str(seconds_path))
    )
