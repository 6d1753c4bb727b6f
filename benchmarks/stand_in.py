"""A stand-in for the network that takes almost no time and returns the network's own results.

The first time a tile comes, the network restores it; afterwards its output is copied from memory. What remains of the
time of a request is the stack around the network, with results that compress as real ones do.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.report import ROOT
from swinir.inference.torch_engine import TorchEngine

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
    """Replaces `TorchEngine._forward` by its remembered outputs, tile by tile."""

    def __init__(self, seconds_path: str | None = None) -> None:
        """`seconds_path` names a file that gets `seconds` after each call, for a measurement in another process."""
        self._seconds_path = seconds_path
        self._forward = TorchEngine._forward  # noqa: SLF001 - the step that a measurement leaves out
        self._outputs: dict[bytes, Tensor] = {}
        self.seconds = 0.0
        """CPU seconds in which outputs were looked up and copied."""

    def run(self, of_engine: Any, network: Any, images: Tensor, precision: torch.dtype) -> Tensor:
        """Return the network's output for images [N, C, H, W]."""
        began = time.thread_time()
        keys = [hashlib.blake2b(image.contiguous().numpy().data).digest() for image in images]
        for key, image in zip(keys, images, strict=True):
            if key not in self._outputs:
                self._outputs[key] = self._forward(of_engine, network, image[None], precision)
        output = torch.cat([self._outputs[key] for key in keys])
        self.seconds += time.thread_time() - began
        if self._seconds_path is not None:
            Path(self._seconds_path).write_text(repr(self.seconds))
        return output


def replace_network(seconds_path: str | None = None) -> RememberedOutputs:
    """Let every engine of this process use remembered outputs."""
    remembered = RememberedOutputs(seconds_path)

    def forward(of_engine: TorchEngine, network: Any, images: Tensor, precision: torch.dtype) -> Tensor:
        return remembered.run(of_engine, network, images, precision)

    TorchEngine._forward = forward  # type: ignore[assignment,method-assign]  # noqa: SLF001
    return remembered


def write_adapter(models: Path, seconds_path: Path) -> None:
    """Let the model `swinir` of a copied repository run the shipped adapter with the stand-in.

    `seconds_path` gets the CPU seconds in which outputs were looked up and copied.
    """
    shipped = ROOT / "model_repository" / "swinir" / "1" / "model.py"
    (models / "swinir" / "1" / "model.py").write_text(
        ADAPTER.format(adapter=str(shipped), seconds_path=str(seconds_path))
    )
