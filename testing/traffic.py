"""Builds traffic for tests of the simulation."""

from collections.abc import Sequence

import numpy as np

from planning.traffic import Traffic


def images_at(*moments_s: float, megapixels: float = 1.0, days: float = 1.0) -> Traffic:
    """Return images of one size at these moments."""
    return images([(moment, megapixels) for moment in moments_s], days=days)


def images(rows: Sequence[tuple[float, float]], *, days: float = 1.0) -> Traffic:
    """Return images from (moment in seconds, megapixels), in any order."""
    ordered = sorted(rows)
    return Traffic(
        "made up",
        days,
        np.array([row[0] for row in ordered], dtype=np.float64),
        np.array([row[1] for row in ordered], dtype=np.float64),
        len(ordered),
    )
