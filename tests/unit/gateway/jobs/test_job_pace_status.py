"""The pace of past jobs in the status: what the page needs to estimate the time of an upload."""

from __future__ import annotations

from flask.testing import FlaskClient

from gateway.jobs.job_pace import JobPace
from testing.requests import post_image


def test_pace_is_in_seconds_per_megapixel_and_averages() -> None:
    pace = JobPace()
    assert pace.seconds_per_megapixel() == {}

    pace.observe("compact_x4", 500_000, {"decode": 0.5, "work": 1.0, "encode": 0.5, "queue": 9.0, "boot": 9.0})
    assert pace.seconds_per_megapixel() == {"compact_x4": 4.0}
    pace.observe("compact_x4", 500_000, {"work": 1.0})

    assert pace.seconds_per_megapixel() == {"compact_x4": 3.6}


def test_status_has_the_pace_of_variants_that_were_used(client: FlaskClient, key: str) -> None:
    assert client.get("/api/v1/status").get_json()["estimate"] == {"queue_s": 0.0, "s_per_megapixel": {}}

    assert post_image(client, key, query="?variant=compact_x2").status_code == 200

    assert list(client.get("/api/v1/status").get_json()["estimate"]["s_per_megapixel"]) == ["compact_x2"]
