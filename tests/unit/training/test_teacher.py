"""The reader of ncnn's files and the network of the teacher, on a network of one group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional

from training.degradations import Pixels
from training.teacher import FLOAT16_TAG, Convolution, InvalidTeacherError, Teacher, read_convolutions

WIDTH, GROWTH = 64, 32


def make_convolutions(seed: int = 0) -> list[Convolution]:
    """Random convolutions of the widths of x4plus, with one group instead of 23; weights that float16 holds exactly."""
    block = [(WIDTH + GROWTH * index, GROWTH if index < 4 else WIDTH) for index in range(5)]
    widths = [(3, WIDTH), *block * 3, *[(WIDTH, WIDTH)] * 4, (WIDTH, 3)]
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            (torch.randn(wide, narrow, 3, 3, generator=generator) / (3 * narrow**0.5)).half().float(),
            torch.randn(wide, generator=generator) * 0.1,
        )
        for narrow, wide in widths
    ]


def write_ncnn(folder: Path, convolutions: list[Convolution], *, half: bool = True, tag: int | None = None) -> None:
    """Write the files as ncnn's converter does: layers as text, weights as tagged float16 or float32."""
    lines, stored = ["7767517", "2 2", "Input input 0 1 data"], b""
    for index, (weight, bias) in enumerate(convolutions):
        lines.append(f"Convolution conv{index} 1 1 a b 0={len(bias)} 1=3 4=1 5=1 6={weight.numel()} 9=2 -23310=1,0.2")
        stored += (tag if tag is not None else FLOAT16_TAG if half else 0).to_bytes(4, "little")
        values = weight.numpy().astype("<f2" if half else "<f4").tobytes()
        stored += values + b"\0" * (-len(values) % 4) + bias.numpy().astype("<f4").tobytes()
    (folder / "teacher.param").write_text("\n".join(lines))
    (folder / "teacher.bin").write_bytes(stored)


def files(folder: Path) -> tuple[Path, Path]:
    return folder / "teacher.param", folder / "teacher.bin"


@pytest.mark.parametrize("half", [True, False])
def test_weights_are_read_in_order_from_float16_and_float32(tmp_path: Path, half: bool) -> None:
    convolutions = make_convolutions()
    write_ncnn(tmp_path, convolutions, half=half)

    read = read_convolutions(*files(tmp_path))

    assert len(read) == len(convolutions) == 21
    for (weight, bias), (expected_weight, expected_bias) in zip(read, convolutions, strict=True):
        assert torch.equal(weight, expected_weight)
        assert torch.equal(bias, expected_bias)


def truncate(folder: Path) -> None:
    path = folder / "teacher.bin"
    path.write_bytes(path.read_bytes() + b"\0" * 4)


def widen_a_kernel(folder: Path) -> None:
    path = folder / "teacher.param"
    path.write_text(path.read_text().replace(" 1=3 ", " 1=5 ", 1))


def drop_a_layer(folder: Path) -> None:
    write_ncnn(folder, make_convolutions()[:-1])


def change_the_tag(folder: Path) -> None:
    write_ncnn(folder, make_convolutions(), tag=7)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "bytes; its layers need"),
        (widen_a_kernel, "Layer conv0 of teacher.param is not a 3x3 convolution"),
        (drop_a_layer, "found 20"),
        (change_the_tag, "Unknown kind of weights 0x7"),
    ],
)
def test_files_of_another_network_are_refused(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    write_ncnn(tmp_path, make_convolutions())
    damage(tmp_path)

    with pytest.raises(InvalidTeacherError, match=message):
        Teacher(read_convolutions(*files(tmp_path)), half=False)


def test_output_is_that_of_the_dense_blocks_written_out() -> None:
    convolutions = make_convolutions()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3), np.uint8)

    result = Teacher(convolutions, half=False).upscale(pixels)

    assert result.shape == (2, 24, 20, 3)
    assert result.dtype == np.uint8
    np.testing.assert_allclose(result.astype(int), written_out(convolutions, pixels), atol=1)


def test_bfloat16_stays_near_float32() -> None:
    convolutions = make_convolutions()
    pixels = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), np.uint8)

    full, half = (Teacher(convolutions, half=half).upscale(pixels).astype(int) for half in (False, True))

    assert 0 < np.abs(full - half).mean() < 2


def written_out(convolutions: list[Convolution], pixels: Pixels) -> npt.NDArray[np.int64]:
    """RRDBNet by its definition, one index for each convolution."""

    def conv(index: int, x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, *convolutions[index], padding=1)

    def active(index: int, x: torch.Tensor) -> torch.Tensor:
        return functional.leaky_relu(conv(index, x), 0.2)

    x = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255.0
    first = conv(0, x)
    group = first
    for start in (1, 6, 11):
        one = active(start, group)
        two = active(start + 1, torch.cat([group, one], 1))
        three = active(start + 2, torch.cat([group, one, two], 1))
        four = active(start + 3, torch.cat([group, one, two, three], 1))
        group = group + 0.2 * conv(start + 4, torch.cat([group, one, two, three, four], 1))
    body = first + conv(16, first + 0.2 * group)
    for index in (17, 18):
        body = active(index, body.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
    result = conv(20, active(19, body)).clamp(0, 1) * 255
    return result.round().permute(0, 2, 3, 1).numpy().astype(np.int64)
