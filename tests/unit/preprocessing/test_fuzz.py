"""Thousands of damaged uploads of every kind: each ends as an ImageError or as an image of the announced size.

Half of the damaged files get valid PNG checksums and RIFF lengths again, so that they pass our own checks.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from preprocessing.codec import UploadLimits, decode, encode, probe
from preprocessing.errors import ImageError
from preprocessing.formats.container import SANDBOXED_FORMATS
from testing.damaged_images import DAMAGES, SEEDS, seal

LIMITS = UploadLimits(max_bytes=1_000_000, max_pixels=100_000, max_side=5_000)
ROUNDS = 180
# Each starts a process.
SANDBOXED_ROUNDS = 20


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_uploads_are_rejected_by_name_or_decoded_whole(name: str) -> None:
    rng = random.Random(name)
    outcomes: Counter[str] = Counter()
    sentences: list[str] = []
    rounds = SANDBOXED_ROUNDS if probe(SEEDS[name], LIMITS).format in SANDBOXED_FORMATS else ROUNDS
    for _ in range(rounds):
        damaged = rng.choice(DAMAGES)(SEEDS[name], rng)
        data = seal(damaged) if rng.random() < 0.5 else damaged
        try:
            upload = probe(data, LIMITS)
            image = decode(upload, depth=upload.depth)
        except ImageError as error:
            outcomes[error.kind] += 1
            sentences.append(str(error))
        else:
            assert (image.height, image.width) == (upload.height, upload.width)
            encode(image, rng.choice(("png", "jpeg", "webp")))
            outcomes["decoded"] += 1
    assert outcomes["unreadable-image"] > 0  # damaged files do reach the decoders
    assert outcomes.total() == rounds
    assert [words for words in sentences if not words.endswith(".")] == []


@pytest.mark.parametrize("name", SEEDS)
def test_every_undamaged_seed_decodes(name: str) -> None:
    assert decode(probe(SEEDS[name], LIMITS)).pixels.size > 0
