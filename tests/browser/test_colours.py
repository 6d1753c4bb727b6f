"""Before and after have the same colours on the page, for colour chunks of a PNG and in every format."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from testing.browser.page_states import await_state, choose, file, start
from testing.data import UPLOADS

MEANS = """async () => {
  const means = [];
  for (const image of document.querySelectorAll(".pane-before .plane, .pane-after .plane")) {
    await image.decode();
    const { naturalWidth: width, naturalHeight: height } = image;
    const canvas = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    canvas.drawImage(image, 0, 0);
    const levels = canvas.getImageData(0, 0, width, height).data;
    means.push([0, 1, 2].map((channel) => levels.filter((_, at) => at % 4 === channel).reduce((a, b) => a + b, 0)));
    means.at(-1).forEach((sum, channel, all) => { all[channel] = sum / (width * height); });
  }
  return means;
}"""


@pytest.mark.parametrize("output", ["PNG", "JPEG", "WebP"])
@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("gama_55100.png", (165, 133, 87)),
        ("cicp_p3.png", (159, 117, 61)),
        ("chrm2020.png", (171, 112, 56)),
    ],
)
def test_before_and_after_agree(page: Page, name: str, seen: tuple[int, int, int], output: str) -> None:
    page.get_by_role("radio", name=f"{output}: ").check()
    choose(page, file(name, (UPLOADS / name).read_bytes()))
    start(page)
    await_state(page, "done")
    expect(page.locator(".pane-before .plane")).to_be_visible()

    before, after = page.evaluate(MEANS)

    assert before == pytest.approx(seen, abs=1)
    assert after == pytest.approx(before, abs=0.5 if output == "PNG" else 3)
