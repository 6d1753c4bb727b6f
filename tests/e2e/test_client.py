"""`superres.client` on the real stack."""

from __future__ import annotations

from superres.client import Client, UpscaleProgress
from testing.data import SET5
from testing.stack import Stack

BIRD = SET5 / "x4" / "bird.png"


def test_client_returns_the_image_of_the_api_by_events_and_as_a_job(stack: Stack) -> None:
    shown: list[UpscaleProgress] = []
    expected = stack.post(BIRD.read_bytes(), "?variant=compact_x4").read()

    with Client(stack.url, stack.key) as client:
        result = client.upscale(BIRD, variant="compact_x4", on_progress=shown.append)
        with client.submit(BIRD, variant="compact_x4") as job:
            of_job = job.result(poll_s=0.1)
        fresh = client.upscale(BIRD, variant="compact_x4", format="webp", on_progress=shown.append)

    assert result.data == of_job.data == expected
    assert (result.filename, of_job.filename) == ("bird_compact_x4.png",) * 2
    assert (fresh.width, fresh.height, fresh.media_type) == (288, 288, "image/webp")
    assert "working" in {each.phase for each in shown}
