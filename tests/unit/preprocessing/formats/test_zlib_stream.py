"""preprocessing.formats.zlib_stream: pieces with and without a search for matches are one zlib stream."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.formats import zlib_stream
from preprocessing.formats.zlib_stream import PIECE_BYTES, ZlibStream

# Differences of fur or noise: small, and without repetitions. The same in runs. Then a text that repeats itself,
# without runs.
PHOTO = np.random.default_rng(0).normal(0, 3, PIECE_BYTES).astype(np.int8).tobytes()
RUNS = np.repeat(np.frombuffer(PHOTO, np.uint8)[: PIECE_BYTES // 4], 4).tobytes()
TEXT = (bytes(range(32, 127)) * (PIECE_BYTES // 95 + 1))[:PIECE_BYTES]


def compress(data: bytes, cuts: list[int]) -> bytes:
    stream, parts = ZlibStream(), []
    for first, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        parts.append(stream.add(memoryview(data)[first:end]))
    return b"".join((*parts, stream.finish()))


@pytest.mark.parametrize("data", [PHOTO + TEXT + RUNS + PHOTO + TEXT[:1000], TEXT + TEXT + PHOTO[:70_000]])
def test_pieces_of_all_kinds_are_one_stream(data: bytes) -> None:
    packed = compress(data, [])

    assert zlib.decompress(packed) == data
    assert packed == compress(data, [1, 1, 300_000])


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=2_000), st.integers(0, 2_000))
def test_any_data_can_be_restored(data: bytes, cut: int) -> None:
    assert zlib.decompress(compress(data, [min(cut, len(data))])) == data


def test_matches_reach_into_the_piece_before() -> None:
    repeated = np.random.default_rng(1).integers(0, 256, 30_000, np.uint8).tobytes()
    text_to_the_end = TEXT[: PIECE_BYTES - len(repeated)] + repeated

    alone, both = (len(compress(data, [])) for data in (text_to_the_end, text_to_the_end + repeated + TEXT[:200_000]))

    assert both - alone < len(repeated) / 2


@pytest.mark.parametrize(
    ("data", "strategy"),
    [
        (PHOTO, zlib.Z_HUFFMAN_ONLY),
        (RUNS, zlib.Z_RLE),
        (TEXT, zlib.Z_DEFAULT_STRATEGY),
        (bytes(PIECE_BYTES), zlib.Z_DEFAULT_STRATEGY),
    ],
)
def test_a_sample_decides_on_the_search(data: bytes, strategy: int) -> None:
    assert zlib_stream._choose_strategy(data) == strategy
