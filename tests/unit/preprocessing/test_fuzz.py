"""Thousands of damaged uploads of every kind: each ends as an ImageError or as an image of the announced size.

Half of the damaged files get valid PNG checksums and RIFF lengths again, so that they pass our own checks.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from preprocessing.codec import UploadLimits, decode, probe
from preprocessing.errors import ImageError
from testing.damaged_images import DAMAGES, SEEDS, seal

LIMITS = UploadLimits(max_bytes=1_000_000, max_pixels=100_000, max_side=5_000)
ROUNDS = 180


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_uploads_are_rejected_by_name_or_decoded_whole(name: str) -> None:
    rng = random.Random(name)
    outcomes: Counter[str] = Counter()
    sentences: list[str] = []
    for _ in range(ROUNDS):
        damaged = rng.choice(DAMAGES)(SEEDS[name], rng)
        data = seal(damaged) if rng.random() < 0.5 else damaged
        try:
            upload = probe(data, LIMITS)
            image = decode(upload)
        except ImageError as error:
            outcomes[error.kind] += 1
            sentences.append(str(error))
        else:
            assert (image.height, image.width) == (upload.height, upload.width)
            outcomes["decoded"] += 1
    assert outcomes["unreadable-image"] > 0  # damaged files do reach the decoders
    assert outcomes.total() == ROUNDS
    assert [words for words in sentences if not words.endswith(".")] == []


@pytest.mark.parametrize("name", SEEDS)
def test_every_undamaged_seed_decodes(name: str) -> None:
    assert decode(probe(SEEDS[name], LIMITS)).pixels.size > 0
