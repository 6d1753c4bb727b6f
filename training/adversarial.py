"""The adversarial part of compact_photo_x4's training: a discriminator of patches and its two hinge losses.

The discriminator judges luminance alone: colours then follow from the loss of pixels, and flat areas get no specks of
colour.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from training.losses import LUMA

SLOPE = 0.2


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola et al., 2017) with spectral norms: 0.17 million parameters, judges patches of 34 pixels.

    With twice the channels a step takes 23 % longer (docs/how-to/train.md).
    """

    weights: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(LUMA).view(1, -1, 1, 1), persistent=False)
        self.layers = nn.Sequential(
            spectral_norm(nn.Conv2d(1, 32, 4, stride=2, padding=1)),
            nn.LeakyReLU(SLOPE),
            spectral_norm(nn.Conv2d(32, 64, 4, stride=2, padding=1)),
            nn.LeakyReLU(SLOPE),
            spectral_norm(nn.Conv2d(64, 128, 4, padding=1)),
            nn.LeakyReLU(SLOPE),
            spectral_norm(nn.Conv2d(128, 1, 4, padding=1)),
        )

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in 0..1 -> scores [B, 1, H / 4 - 2, W / 4 - 2]; positive where a patch looks true."""
        luminance = (images * self.weights).sum(dim=1, keepdim=True)
        scores: Tensor = self.layers(2.0 * luminance - 1.0)
        return scores


def discriminator_loss(scores_of_targets: Tensor, scores_of_results: Tensor) -> Tensor:
    """Hinge loss: zero when every target scores 1 or more and every result -1 or less."""
    return 0.5 * (functional.relu(1.0 - scores_of_targets).mean() + functional.relu(1.0 + scores_of_results).mean())


def adversarial_loss(scores_of_results: Tensor) -> Tensor:
    """Loss of the network that upscales: falls as the discriminator takes its results for targets."""
    return -scores_of_results.mean()
