"""Many requests about jobs, webhooks and DELETE at once lose and swap nothing, with Redis and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing.job_storm import run_storm


@pytest.mark.parametrize("has_redis", [True, False])
def test_600_mixed_requests_lose_and_swap_nothing(
    tmp_path: Path, has_redis: bool, request: pytest.FixtureRequest
) -> None:
    redis = request.getfixturevalue("redis_server") if has_redis else None

    counts = run_storm(600, tmp_path, redis)

    assert counts["requests"] >= 600
    assert counts["done"] + counts["cancelled"] + counts["forgotten"] == counts["jobs"]
    assert counts["webhooks"] >= counts["done"] + counts["cancelled"]
