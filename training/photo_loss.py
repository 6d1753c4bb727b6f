"""The loss of compact_photo_x4: pixels, grids, features of VGG16, and later a discriminator.

Owns the discriminator and its optimiser, and the running means of the parts for the log.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from training.adversarial import PatchDiscriminator, adversarial_loss, discriminator_loss
from training.losses import grid_loss, l1_fft
from training.vgg import VGGFeatures

DISCRIMINATOR_RATE = 2e-4


@dataclass(frozen=True)
class PhotoWeights:
    """What the parts of the loss are multiplied with."""

    pixel: float
    grid: float
    feature: float
    adversarial: float
    adversarial_after: int
    """Calls without the discriminator, so that it does not learn from results that are plainly soft."""


class PhotoLoss:
    """Callable (restored, target), [B, 3, H, W] in 0..1 -> loss. The last `drawings` of a batch are drawings.

    Drawings are left out of the adversarial part: letters and flat areas need no texture.
    """

    def __init__(self, weights: PhotoWeights, features: VGGFeatures, *, drawings: int, half: bool) -> None:
        self.weights = weights
        self.calls = 0
        self._drawings = drawings
        # Channels last: a third less time for the discriminator in bfloat16, and no copies in VGG16.
        self._features: nn.Module = features.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._autocast = torch.autocast("cpu", torch.bfloat16, enabled=half)
        self.discriminator: nn.Module = PatchDiscriminator().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._optimiser = torch.optim.Adam(self.discriminator.parameters(), DISCRIMINATOR_RATE, betas=(0.9, 0.99))
        self._parts: dict[str, list[float]] = defaultdict(list)

    def __call__(self, restored: Tensor, target: Tensor) -> Tensor:
        """Return the loss; once the adversarial part is on, also take a step of the discriminator."""
        weights = self.weights
        total = weights.pixel * self._part("pixel", l1_fft(restored, target))
        if weights.grid:
            total = total + weights.grid * self._part("grid", grid_loss(restored, target))
        restored, target = _channels_last(restored), _channels_last(target)
        if weights.feature:
            total = total + weights.feature * self._part("feature", self._feature_loss(restored, target))
        if weights.adversarial and self.calls >= weights.adversarial_after:
            photos = len(restored) - self._drawings
            adversarial = self._adversarial_loss(restored[:photos], target[:photos])
            total = total + weights.adversarial * self._part("adversarial", adversarial)
        self.calls += 1
        return total

    def means(self) -> dict[str, float]:
        """Mean of each part, unweighted, since the last call of this method."""
        means = {f"{name}_loss": float(np.mean(values)) for name, values in self._parts.items()}
        self._parts.clear()
        return means

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "calls": self.calls,
            "discriminator": self.discriminator.state_dict(),
            "optimiser": self._optimiser.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.calls = state["calls"]
        self.discriminator.load_state_dict(state["discriminator"])
        self._optimiser.load_state_dict(state["optimiser"])

    def _part(self, name: str, value: Tensor) -> Tensor:
        self._parts[name].append(float(value.detach()))
        return value

    def _feature_loss(self, restored: Tensor, target: Tensor) -> Tensor:
        with self._autocast:
            with torch.no_grad():
                wanted = self._features(target)
            found = self._features(restored)
        distances = [mean_absolute(a, b) / b.mean(dtype=torch.float32) for a, b in zip(found, wanted, strict=True)]
        return torch.stack(distances).mean()

    def _adversarial_loss(self, restored: Tensor, target: Tensor) -> Tensor:
        self.discriminator.requires_grad_(True)  # noqa: FBT003 - torch's own signature
        self._optimiser.zero_grad()
        with self._autocast:
            scores = self.discriminator(torch.cat([target, restored.detach()])).float()
        loss = discriminator_loss(scores[: len(target)], scores[len(target) :])
        torch.autograd.backward(self._part("discriminator", loss))
        self._optimiser.step()
        # The network's step needs the gradient of the images, not that of the discriminator.
        self.discriminator.requires_grad_(False)  # noqa: FBT003
        with self._autocast:
            scores = self.discriminator(restored)
        return adversarial_loss(scores.float())


class _MeanAbsolute(torch.autograd.Function):
    """Mean absolute difference whose gradient stays in the type and the layout of its arguments.

    PyTorch's own takes the features of a batch through float32: more time than the convolutions.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        difference = a - b
        ctx.save_for_backward(difference.sign())
        return difference.abs_().mean(dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (sign,) = ctx.saved_tensors
        return sign.mul_(float(gradient) / sign.numel()), None


def mean_absolute(a: Tensor, b: Tensor) -> Tensor:
    """Mean of |a - b| as float32, differentiable once and in `a` alone."""
    result: Tensor = _MeanAbsolute.apply(a, b)  # type: ignore[no-untyped-call]
    return result


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
