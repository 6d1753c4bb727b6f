"""The variant `auto` picks among the variants that are offered."""

from __future__ import annotations

from pathlib import Path

import pytest

from preprocessing.content import ImageKind
from swinir.auto import NEAREST, Candidates, choose_warm_variant, offer
from swinir.zoo import VARIANTS

BUNDLED = offer((), None)
CLEAN, WORN, DRAWING, ART = ImageKind.CLEAN_PHOTO, ImageKind.WORN_PHOTO, ImageKind.DRAWING, ImageKind.PIXEL_ART


def candidates(*names: str) -> Candidates:
    return Candidates(offer(names, None))


def test_each_kind_has_its_bundled_variant() -> None:
    chosen = Candidates(BUNDLED)
    names = [chosen[kind].name for kind in (CLEAN, WORN, DRAWING, ART)]
    assert names == ["compact_x4", "compact_real_x4", "compact_x4", "nearest_x4"]
    assert [chosen.find_gap(kind) for kind in ImageKind] == ["", "", "", ""]
    assert chosen.by_kind() == dict(zip(["clean photo", "worn photo", "drawing", "pixel art"], names, strict=True))


@pytest.mark.parametrize(
    ("offered", "kind", "variant", "gap"),
    [
        (("compact_x4", "nearest_x4"), WORN, "compact_x4", "compact_real_x4"),
        (("compact_x2", "real_x4_psnr"), WORN, "real_x4_psnr", "compact_real_x4"),
        (("compact_x2", "lightweight_x4"), CLEAN, "lightweight_x4", "compact_x4"),
        (("compact_real_x4", "compact_x4"), ART, "compact_x4", "nearest_x4"),
        (("compact_real_x4",), DRAWING, "compact_real_x4", "compact_x4"),
        (("color_jpeg_10", "compact_real_x4"), DRAWING, "compact_real_x4", "compact_x4"),
        (("real_x4", "real_x2", "color_jpeg_10"), CLEAN, "color_jpeg_10", "compact_x4"),
        (("real_x4",), WORN, "real_x4", "compact_real_x4"),
    ],
)
def test_a_variant_that_is_not_offered_is_replaced(
    offered: tuple[str, ...], kind: ImageKind, variant: str, gap: str
) -> None:
    chosen = candidates(*offered)
    assert (chosen[kind].name, chosen.find_gap(kind)) == (variant, gap)


def test_variants_that_invent_detail_are_never_chosen_beside_others() -> None:
    chosen = Candidates({**VARIANTS, NEAREST.name: NEAREST})
    assert not any(variant.notice for variant in chosen.variants())


def test_second_choice_is_another_variant() -> None:
    chosen = Candidates(BUNDLED)
    seconds = [second.name if (second := chosen.second(kind)) else "" for kind in (CLEAN, WORN, DRAWING, ART)]
    assert seconds == ["compact_real_x4", "compact_x4", "compact_real_x4", "compact_x4"]
    assert candidates("compact_x4").second(WORN) is None


def test_limits_follow_the_largest_candidate() -> None:
    assert candidates("compact_x2", "compact_real_x4").largest().name == "compact_real_x4"


@pytest.mark.parametrize(
    ("offered", "min_scale", "max_scale", "names"),
    [
        (("compact_x4", "compact_x2"), 2, 9, ["compact_x2"] * 4),
        (("compact_x4", "compact_x2"), 2.01, 9, ["compact_x4"] * 4),
        (
            ("compact_x4", "compact_real_x4", "compact_x2"),
            2,
            9,
            ["compact_x2", "compact_real_x4", "compact_x2", "compact_x2"],
        ),
        (("compact_x4", "compact_real_x4", "compact_x2"), 2, 2, ["compact_x2"] * 4),
        (("compact_color_denoise_25", "compact_x4"), 1, 9, ["compact_x4"] * 4),
    ],
)
def test_size_is_reached_by_the_smallest_of_a_family(
    offered: tuple[str, ...], min_scale: float, max_scale: float, names: list[str]
) -> None:
    chosen = Candidates(offer(offered, None), min_scale=min_scale, max_scale=max_scale)

    assert [chosen[kind].name for kind in (CLEAN, WORN, DRAWING, ART)] == names
    assert chosen.find_oversized(WORN) == ("compact_real_x4" if len(offered) == 3 and max_scale == 2 else "")


def test_families_differ_in_the_scale_only() -> None:
    chosen = Candidates(VARIANTS, min_scale=2)
    assert [chosen[kind].name for kind in (CLEAN, WORN)] == ["compact_x2", "compact_real_x4"]
    published = {
        name: row for name, row in VARIANTS.items() if name.startswith(("real_", "classical_", "lightweight_"))
    }
    assert Candidates(published, min_scale=2.5)[CLEAN].name == "lightweight_x3"
    assert Candidates(published, min_scale=2)[WORN].name == "real_x4_psnr"


def test_size_that_no_variant_reaches_has_no_candidates() -> None:
    with pytest.raises(LookupError, match="none of 1 variants has a scale from 3 to 9"):
        Candidates(offer(("compact_x2",), None), min_scale=3, max_scale=9)


def test_nearest_is_offered_by_default_and_by_name(tmp_path: Path) -> None:
    assert list(BUNDLED)[-1] == "nearest_x4"
    assert list(offer(["nearest_x4", "compact_x4", "nope"], tmp_path)) == ["nearest_x4", "compact_x4"]
    assert list(offer(["nearest_x4"], tmp_path)) == ["nearest_x4"]
    assert "nearest_x4" not in offer(["compact_x4"], tmp_path)


@pytest.mark.parametrize(
    ("default", "offered", "warm"),
    [
        ("auto", ("compact_x4", "compact_x2"), "compact_x4"),
        ("auto", ("compact_x2", "nearest_x4"), "compact_x2"),
        ("compact_x2", ("compact_x4", "compact_x2"), "compact_x2"),
        ("nearest_x4", ("nearest_x4",), "compact_x4"),
    ],
)
def test_variant_that_the_backend_loads_first(default: str, offered: tuple[str, ...], warm: str) -> None:
    assert choose_warm_variant(default, offer(offered, None)) == warm
