"""SwinIR in C and NumPy: the same network as `swinir.network.swinir`, without torch, for inference on a CPU.

Layers are calls of the C library on arrays [B, H, W, C]. The last division and addition of the network (``img_range``
and the mean of RGB) are part of the last convolution's weights.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from swinir.network.packing import MIN_TILE_INPUTS, Floats, PackedBlock, pack_convolution, pad, reorder_outputs
from swinir.network.shapes import RGB_MEAN, shuffle_factors
from swinir.network.window_order import Index, order_image

Weights = Mapping[str, Floats]


class _ConvolutionStruct(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("inputs", "outputs", "kernel", "upsample", "shuffle", "on_tiles")),
        ("slope", ctypes.c_float),
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
    )


class PackedConvolution:
    """One convolution with its weights packed for the C library.

    Args:
        weight: [outputs, inputs, k, k], k is 1 or 3.
        bias: [outputs].
        slope: factor of negative values of the result (leaky ReLU); 1 for none.
        upsample: factor by which the input is enlarged first, by repeating its pixels.
        shuffle: factor of the pixel shuffle after it.
        on_tiles: whether it multiplies on the tiles of AMX; only if the library has them.
    """

    def __init__(
        self,
        weight: Floats,
        bias: Floats,
        *,
        slope: float = 1.0,
        upsample: int = 1,
        shuffle: int = 1,
        on_tiles: bool = False,
    ) -> None:
        outputs, inputs, kernel, _ = weight.shape
        self.is_on_tiles = on_tiles = on_tiles and inputs >= MIN_TILE_INPUTS
        self._weight = pack_convolution(weight, shuffle, on_tiles=on_tiles)
        self._bias = pad(reorder_outputs(bias, shuffle))
        self._outputs, self._shuffle, self._upsample = outputs, shuffle, upsample
        self._struct = _ConvolutionStruct(
            *(inputs, outputs, kernel, upsample, shuffle, on_tiles),
            *(slope, self._weight.ctypes.data, self._bias.ctypes.data),
        )

    @property
    def size_bytes(self) -> int:
        """Memory of the packed weights."""
        return self._weight.nbytes + self._bias.nbytes

    def run(
        self,
        library: Any,
        threads: int,
        images: Floats,
        size: tuple[int, int, int],
        *,
        residual: Floats | None = None,
        kept: tuple[int, int] | None = None,
        out: Floats | None = None,
    ) -> Floats:
        """Return [B, H', W', C'] for the pixels of ``images``; ``size`` is (B, H, W) of the input.

        ``residual`` is added to the result. ``kept`` is the height and width of the input that is kept; the rest at
        the right and bottom only counts as neighbours. The result goes to ``out``, which may be ``residual``, or to a
        new array. Raises MemoryError when the buffers cannot be allocated.
        """
        batch, height, width = size[0], size[1] * self._upsample, size[2] * self._upsample
        kept_height, kept_width = (side * self._upsample for side in kept or size[1:])
        channels = self._outputs // self._shuffle**2
        shape = (batch, kept_height * self._shuffle, kept_width * self._shuffle, channels)
        out = np.empty(shape, np.float32) if out is None else out.reshape(shape)
        failed = library.run_convolution(
            ctypes.byref(self._struct),
            batch,
            height,
            width,
            kept_height,
            kept_width,
            images.ctypes.data,
            None if residual is None else residual.ctypes.data,
            out.ctypes.data,
            threads,
        )
        if failed:
            raise MemoryError("not enough memory for the rows of a convolution")
        return out


class CompiledNetwork:
    """The network of a configuration: [B, H, W, C] float32 in 0..1 -> [B, H * scale, W * scale, C], not clamped.

    Args:
        config: keywords of `swinir.network.swinir.SwinIR`.
        weights: float32 arrays by their published names, with the shapes of `swinir.network.shapes`.
        library: of `swinir.network.library.find_library`.
        threads: threads of a forward pass.
        on_tiles: whether it multiplies on the tiles of AMX; only if the library has them.
    """

    def __init__(
        self, config: Mapping[str, Any], weights: Weights, library: Any, threads: int, *, on_tiles: bool = False
    ) -> None:
        self.on_tiles = on_tiles
        self.scale, self.channels = int(config["upscale"]), int(config.get("in_chans", 3))
        self._window, self._range = int(config["window_size"]), float(config.get("img_range", 1.0))
        self._library, self._threads = library, threads
        self._mean = np.array(RGB_MEAN if self.channels == len(RGB_MEAN) else [0.0] * self.channels, np.float32)
        self._weights = weights
        self._is_residual = config["upsampler"] == ""
        self._first = self._pack("conv_first")
        self._norms = {name: self._pack_norm(name) for name in ("patch_embed.norm", "norm")}
        connection = config.get("resi_connection", "1conv")
        self._groups = [
            (
                [self._pack_block(group, index, heads) for index in range(depth)],
                self._pack_connection(f"layers.{group}.conv", connection),
            )
            for group, (depth, heads) in enumerate(zip(config["depths"], config["num_heads"], strict=True))
        ]
        self._after_body = self._pack_connection("conv_after_body", connection)
        self._last = self._pack_reconstruction(config["upsampler"])
        del self._weights  # everything is packed
        self._halves: list[list[PackedBlock]] | None = None

    @property
    def size_bytes(self) -> int:
        """Memory of the packed weights."""
        packed: list[PackedBlock | PackedConvolution] = [self._first, *self._after_body, *self._last]
        for blocks, ends in self._groups:
            packed += [*blocks, *ends]
        for blocks in self._halves or []:
            packed += blocks
        return sum(each.size_bytes for each in packed)

    @property
    def fits_bfloat16(self) -> bool:
        """Whether all blocks can run in bfloat16."""
        return not self.on_tiles and all(block.fits_bfloat16 for blocks, _ in self._groups for block in blocks)

    @property
    def in_bfloat16(self) -> bool:
        """Whether the blocks run in bfloat16."""
        return self._halves is not None

    def use_bfloat16(self) -> None:
        """Let the blocks run in bfloat16, only if `library.has_bfloat16` and `fits_bfloat16`."""
        self._halves = [[block.to_bfloat16() for block in blocks] for blocks, _ in self._groups]

    def run_in(self, images: Floats, in_bfloat16: bool) -> Floats:  # noqa: FBT001 - as `bfloat16.RunIn`
        """Return `forward` in bfloat16 or in float32. Leaves the blocks in float32."""
        if in_bfloat16:
            self.use_bfloat16()
        output = self.forward(images)
        self._halves = None
        return output

    def forward(self, images: Floats, *, in_float32: bool = False) -> Floats:
        """Return the network's output for images [B, H, W, C]. Raises MemoryError when its buffers do not fit.

        With ``in_float32`` its blocks run in float32 although they were to run in bfloat16.
        """
        batch, height, width, _ = images.shape
        padded = pad_to_window(images, self._window)
        size = (batch, padded.shape[1], padded.shape[2])
        x = (padded - self._mean) * np.float32(self._range)
        deep = self._run_body(x, size, None if in_float32 else self._halves)
        *middle, last = self._last
        for convolution in middle:
            deep = self._convolve(convolution, deep, size)
            size = (batch, deep.shape[1], deep.shape[2])
        factor = size[1] // padded.shape[1]
        residual = padded if self._is_residual else None
        return self._convolve(last, deep, size, residual=residual, kept=(height * factor, width * factor))

    def _run_body(
        self, images: Floats, size: tuple[int, int, int], halves: Sequence[Sequence[PackedBlock]] | None
    ) -> Floats:
        """Return the deep features of a network's input plus its shallow ones.

        Two arrays of features exist at a time, because blocks and residuals write over what they read. The shallow
        features are computed again at the end, which takes about a hundredth of the time.
        """
        orders = order_image(*size, self._window)
        features = self._convolve(self._first, images, size)
        self._normalise("patch_embed.norm", features)
        out = np.empty_like(features)
        for group, (blocks, ends) in enumerate(self._groups):
            x = features
            for index, block in enumerate(halves[group] if halves else blocks):
                order = "shifted" if index % 2 else "plain"
                gather, kinds = orders.gather["image", order], orders.kinds[order]
                block.run(self._library, x.reshape(-1, x.shape[-1]), gather, kinds, self._threads, out=out)
                x = out
            self._connect(ends, x, size, features)
        self._normalise("norm", features)
        return self._connect(self._after_body, features, size, self._convolve(self._first, images, size, out=out))

    def _connect(
        self, convolutions: Sequence[PackedConvolution], x: Floats, size: tuple[int, int, int], residual: Floats
    ) -> Floats:
        """Add the result of the convolutions to ``residual`` and return it."""
        for convolution in convolutions[:-1]:
            x = self._convolve(convolution, x, size)
        return self._convolve(convolutions[-1], x, size, residual=residual, out=residual)

    def _convolve(self, convolution: PackedConvolution, *given: Any, **named: Any) -> Floats:
        return convolution.run(self._library, self._threads, *given, **named)

    def _normalise(self, name: str, tokens: Floats) -> None:
        weight, bias = self._norms[name]
        dim, at = tokens.shape[-1], tokens.ctypes.data
        if self._library.run_layer_norm(
            at, tokens.size // dim, dim, weight.ctypes.data, bias.ctypes.data, at, self._threads
        ):
            raise MemoryError("not enough memory for the rows of a layer norm")

    def _pack(self, name: str, *, is_last: bool = False, **options: Any) -> PackedConvolution:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        if is_last:
            mean = np.repeat(self._mean, len(bias) // self.channels)
            weight, bias = weight / np.float32(self._range), bias / np.float32(self._range)
            bias = bias if self._is_residual else bias + mean
        return PackedConvolution(weight, bias, on_tiles=self.on_tiles, **options)

    def _pack_norm(self, name: str) -> tuple[Floats, Floats]:
        return pad(self._weights[f"{name}.weight"]), pad(self._weights[f"{name}.bias"])

    def _pack_block(self, group: int, index: int, heads: int) -> PackedBlock:
        prefix = f"layers.{group}.residual_group.blocks.{index}."
        own = {name.removeprefix(prefix): each for name, each in self._weights.items() if name.startswith(prefix)}
        return PackedBlock(own, heads, shifted=index % 2 == 1, products="bfloat16x3" if self.on_tiles else "float32")

    def _pack_connection(self, name: str, connection: str) -> list[PackedConvolution]:
        if connection == "1conv":
            return [self._pack(name)]
        return [self._pack(f"{name}.0", slope=0.2), self._pack(f"{name}.2", slope=0.2), self._pack(f"{name}.4")]

    def _pack_reconstruction(self, upsampler: str) -> list[PackedConvolution]:
        if upsampler == "pixelshuffledirect":
            return [self._pack("upsample.0", is_last=True, shuffle=self.scale)]
        last = self._pack("conv_last", is_last=True)
        if upsampler == "":
            return [last]
        before = self._pack("conv_before_upsample.0", slope=0.01)
        if upsampler == "pixelshuffle":
            steps = enumerate(shuffle_factors(self.scale))
            return [before, *(self._pack(f"upsample.{2 * step}", shuffle=factor) for step, factor in steps), last]
        doubled = [self._pack(name, slope=0.2, upsample=2) for name in ("conv_up1", "conv_up2")[: self.scale // 2]]
        return [before, *doubled, self._pack("conv_hr", slope=0.2), last]


def pad_to_window(images: Floats, window: int) -> Floats:
    """Pad right and bottom to the next multiple of the window: by reflection up to side - 1, then by the last pixel."""
    rows, columns = (_padded_line(side, window) for side in images.shape[1:3])
    if len(rows) == images.shape[1] and len(columns) == images.shape[2]:
        return np.ascontiguousarray(images)
    return np.ascontiguousarray(images[:, rows[:, None], columns])


@functools.lru_cache(maxsize=64)
def _padded_line(side: int, window: int) -> Index:
    missing = -side % window
    line = np.arange(side, dtype=np.int64)
    reflected = min(missing, side - 1)
    line = np.concatenate([line, line[side - 1 - reflected : side - 1][::-1]])
    return np.concatenate([line, np.repeat(line[-1:], missing - reflected)])
