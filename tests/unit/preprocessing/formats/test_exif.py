"""Orientation is read from valid EXIF of either byte order; broken, nested or circular EXIF means 1."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocessing.formats.exif import read_orientation, swaps_sides
from testing.images import exif_with_orientation


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_read_in_either_byte_order(orientation: int, byte_order: str) -> None:
    exif = exif_with_orientation(orientation, byte_order=byte_order, gps=True)
    assert read_orientation(exif) == orientation
    assert read_orientation(b"Exif\0\0" + exif) == orientation
    assert swaps_sides(orientation) == (orientation in (5, 6, 7, 8))


@pytest.mark.parametrize("value", [0, 9, 255, 65535])
def test_orientation_outside_1_to_8_means_1(value: int) -> None:
    assert read_orientation(exif_with_orientation(value)) == 1


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"Exif\0\0",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        exif_with_orientation(6)[:-8],
        exif_with_orientation(6)[:-6],
        b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 0x8769, 4, 1, 8),
        b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHIHH", 0x0112, 7, 1, 6, 0),
        b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHIHH", 0x0112, 3, 99, 6, 0),
    ],
    ids=["empty", "header", "start", "far", "count", "cut", "cut in the entry", "circular", "type", "many"],
)
def test_broken_exif_means_upright(broken: bytes) -> None:
    assert read_orientation(broken) == 1


@given(st.binary(max_size=200), st.sampled_from([b"", b"II*\0", b"MM\0*", b"Exif\0\0II*\0\x08\0\0\0"]))
def test_no_bytes_make_the_reader_fail(tail: bytes, start: bytes) -> None:
    assert read_orientation(start + tail) in range(1, 9)
