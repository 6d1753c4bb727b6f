"""Writes the results into docs/reference/variants.md, between its marks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.peers.measurements import CLEAN_NETWORKS, GREY_SETS, NETWORKS, PLAIN, REFERENCE
from benchmarks.peers.networks import PEERS
from benchmarks.report import ROOT, replace_part, table
from swinir.zoo import VARIANTS
from training.measure import BUNDLED, HEADER

PAGE = ROOT / "docs" / "reference" / "variants.md"
UNKNOWN = "-"


def write_tables(results: Mapping[str, Any], page: Path = PAGE) -> None:
    """Write the tables of the variants, of the comparison, of clean images, of the crops and of the packages."""
    replace_part(page, "variants", variant_table(results["networks"]))
    replace_part(page, "peers", [*comparison_table(results), "", *describe_speed(results)])
    replace_part(page, "clean", clean_table(results))
    replace_part(page, "crops", crops_table(results["networks"]))
    replace_part(page, "packages", packages_table())


def variant_table(networks: Mapping[str, Any]) -> list[str]:
    """Return the table of the bundled variants on their own benchmarks."""
    return [*HEADER, *(line for name in BUNDLED if name in networks for line in networks[name]["variant"])]


def comparison_table(results: Mapping[str, Any]) -> list[str]:
    """Return a row for each network: quality on clean and damaged input, BRISQUE of the crops, CPU time."""
    header = ["network", "made for", "clean: PSNR, dB", "SSIM", "VGG distance"]
    header += ["damaged: PSNR, dB", "SSIM", "VGG distance", "BRISQUE of 20 crops", "CPU time"]
    return table(header, (_row(name, results) for name in NETWORKS if name in results["networks"]))


def clean_table(results: Mapping[str, Any]) -> list[str]:
    """Return PSNR on the sets of clean images, and CPU time, of the networks that are made for them."""
    networks = results["networks"]
    rows = [(name, networks[name]["sets"]) for name in CLEAN_NETWORKS if "sets" in networks.get(name, {})]
    sets = ("Set5", *GREY_SETS)
    return table(
        ["network", *(f"{title}, dB" for title in sets), "CPU time"],
        ([_title(name), *(f"{found[title]:.2f}" for title in sets), _ratio(name, results)] for name, found in rows),
    )


def crops_table(networks: Mapping[str, Any]) -> list[str]:
    """Return BRISQUE of each crop by each network, and the means."""
    names = [name for name in NETWORKS if name in networks]
    titles = list(networks[names[0]]["crops"]) if names else []
    rows = [[title, *(f"{networks[name]['crops'][title]:.1f}" for name in names)] for title in titles]
    means = ["**mean**", *(f"**{_crops_mean(networks[name]):.1f}**" for name in names)]
    return table(["crop", *(_plain_title(name) for name in names)], [*rows, means])


def packages_table() -> list[str]:
    """Return where each peer comes from."""
    return table(
        ["network", "PyPI package", "licence of the package", "credit"],
        ([peer.title, f"{peer.package} {peer.version}", peer.licence, peer.credit] for peer in PEERS.values()),
    )


def describe_speed(results: Mapping[str, Any]) -> list[str]:
    """Return a paragraph about how times were taken; nothing without times."""
    if "speed" not in results:
        return []
    speed = results["speed"]
    machine, seconds = speed["machine"], speed["cpu_s_per_megapixel"][REFERENCE]
    busy = "" if machine["quiet"] else " The machine was busy, so only the ratios count."
    text = (
        f"CPU time is that of one thread, divided by that of `{REFERENCE}` ({seconds:.2f} s for each megapixel of the "
        f"result), all in turn, {speed['rounds']} rounds ({machine['date'][:10]}, {machine['processor']}).{busy}"
    )
    return [text]


def _row(name: str, results: Mapping[str, Any]) -> list[str]:
    found = results["networks"][name]
    cells = [_title(name), _purpose(name)]
    for part in (found["clean"], found["damaged"]):
        cells += [f"{part['psnr_db']:.2f}", f"{part['ssim']:.3f}", f"{part['vgg']:.3f}"]
    return [*cells, f"{_crops_mean(found):.1f}", _ratio(name, results)]


def _ratio(name: str, results: Mapping[str, Any]) -> str:
    times: Mapping[str, float] = results.get("speed", {}).get("cpu_s_per_megapixel", {})
    return f"{times[name] / times[REFERENCE]:.2f}x" if name in times and name != PLAIN else UNKNOWN


def _crops_mean(found: Mapping[str, Any]) -> float:
    return mean(found["crops"].values())


def _title(name: str) -> str:
    return f"`{name}`" if name in VARIANTS else _plain_title(name)


def _plain_title(name: str) -> str:
    return PEERS[name].title if name in PEERS else name


def _purpose(name: str) -> str:
    if name in PEERS:
        return PEERS[name].purpose
    if name not in VARIANTS:
        return UNKNOWN
    row = VARIANTS[name]
    return ("photos" if row.task == "real_sr" else "clean images") + (", invents texture" if row.notice else "")
