"""What PSNR does not see: a distance of VGG features to the target, and BRISQUE, which needs no target.

Both come from packages that only measurements need: benchmarks/packages.txt. They are imported when a `Perceptual` is
built.
"""

from __future__ import annotations

import hashlib
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.packages import PackageMissingError
from training.vgg import feature_distance, load_features

BRISQUE_PACKAGE = "brisque==0.2.0"
# Targets whose features are kept: Set5 takes 270 MB.
KEPT_TARGETS = 6


class Perceptual:
    """Both measures of uint8 images [H, W, 3]; PackageMissingError when a package is not installed."""

    def __init__(self) -> None:
        self._features = load_features()
        self._brisque = _load_brisque()
        self._targets: dict[bytes, list[Tensor]] = {}

    def vgg_distance(self, image: npt.NDArray[np.uint8], target: npt.NDArray[np.uint8]) -> float:
        """Relative L1 distance of VGG16 features, mean of blocks 1 to 4 (`training.vgg`): 0 for equal images."""
        with torch.inference_mode():
            return float(feature_distance(self._features(_to_tensor(image)), self._target_features(target)))

    def _target_features(self, target: npt.NDArray[np.uint8]) -> list[Tensor]:
        """Features of a target, kept: several images are compared with each, and the features take most of the time."""
        key = hashlib.sha256(repr(target.shape).encode() + target.tobytes()).digest()
        if key not in self._targets:
            while len(self._targets) >= KEPT_TARGETS:
                self._targets.pop(next(iter(self._targets)))
            self._targets[key] = self._features(_to_tensor(target))
        return self._targets[key]

    def brisque(self, image: npt.NDArray[np.uint8]) -> float:
        """BRISQUE (Mittal et al. 2012): about 0 for an undamaged photo, 100 for a badly damaged one; not bounded."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fits of flat areas divide by 0
            return float(self._brisque.score(image))


def _load_brisque() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it imports scipy's old module names
            from brisque import BRISQUE  # noqa: PLC0415 - only who measures has it
    except ImportError as error:
        raise PackageMissingError(
            f"{BRISQUE_PACKAGE} cannot be imported ({error}). "
            "Install it: python -m pip install --no-deps -r benchmarks/packages.txt"
        ) from error
    return BRISQUE(url=False)


def _to_tensor(image: npt.NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255.0
