"""The form's options and defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from preprocessing import upload as upload_module
from testing.fixtures import MakeApp
from testing.images import draw_photo, encode_jpeg
from testing.requests import Elements, api_form, form
from testing.weights_files import write_weights_file


def test_form_offers_the_configured_variants(make_app: MakeApp, tmp_path: Path) -> None:
    write_weights_file(tmp_path / "weights", "real_x4")
    page = make_app(variants="compact_x4,real_x4").test_client().get("/").get_data(as_text=True)

    values = [field["value"] for field in Elements(page).by_tag["input"] if field.get("name") == "variant"]
    assert values == ["compact_x4", "real_x4"]  # real_x4 invents detail, so there is nothing to choose from
    assert "invents plausible texture" in page


@pytest.mark.parametrize(
    ("settings", "usual"),
    [
        ({}, "auto"),
        ({"default_variant": "compact_x2"}, "compact_x2"),
        ({"form_variant": "compact_x2"}, "compact_x2"),
        ({"form_variant": "auto", "default_variant": "compact_x2"}, "auto"),
        ({"form_variant": "real_x4"}, "auto"),  # its weights are missing
        ({"variants": "compact_x4"}, "compact_x4"),
    ],
)
def test_form_starts_with_the_default(make_app: MakeApp, settings: dict[str, Any], usual: str) -> None:
    page = make_app(**settings).test_client().get("/").get_data(as_text=True)

    fields = [field for field in Elements(page).by_tag["input"] if field.get("name") == "variant"]
    assert [field["value"] for field in fields if "checked" in field] == [usual]
    assert usual in [field["value"] for field in fields[:2]]


def test_form_lists_automatic_and_its_candidates_first(make_app: MakeApp) -> None:
    page = make_app().test_client().get("/").get_data(as_text=True)

    values = [field["value"] for field in Elements(page).by_tag["input"] if field.get("name") == "variant"]
    assert values[:4] == ["auto", "compact_x4", "compact_real_x4", "nearest_x4"]


@pytest.mark.parametrize(("asked", "checked"), [("compact_x2", "compact_x2"), ("nope", "auto"), ("<b>", "auto")])
def test_address_preselects_a_variant(make_app: MakeApp, asked: str, checked: str) -> None:
    page = make_app().test_client().get("/", query_string={"variant": asked}).get_data(as_text=True)

    fields = [field for field in Elements(page).by_tag["input"] if field.get("name") == "variant"]
    assert [field["value"] for field in fields if "checked" in field] == [checked]


def strength_fields(page: str) -> list[dict[str, str | None]]:
    return [field for field in Elements(page).by_tag["input"] if field.get("name") == "strength"]


def test_form_asks_for_the_strength_if_a_variant_takes_it(make_app: MakeApp) -> None:
    [field] = strength_fields(make_app().test_client().get("/").get_data(as_text=True))

    expected = {"type": "number", "min": "0", "max": "1", "step": "0.01", "value": ""}
    assert {name: field[name] for name in expected} == expected
    assert "required" not in field
    assert strength_fields(make_app(variants="compact_x4").test_client().get("/").get_data(as_text=True)) == []


@pytest.mark.parametrize(
    ("sent", "shown"),
    [("0.50", "0.5"), ("0", "0"), ("1", "1"), ("", ""), ("auto", ""), ("0,5", ""), ('"><script>', ""), ("2", "")],
)
def test_expired_form_keeps_a_valid_strength(make_app: MakeApp, sent: str, shown: str) -> None:
    page = make_app().test_client().post("/", **api_form(token="1.old", strength=sent))

    [field] = strength_fields(page.get_data(as_text=True))
    assert (page.status_code, field["value"]) == (403, shown)


def test_result_page_names_the_strength(make_app: MakeApp) -> None:
    client = make_app().test_client()

    half, full = (
        client.post("/", follow_redirects=True, **form(variant="compact_color_jpeg_20", strength=strength)).get_data(
            as_text=True
        )
        for strength in ("0.5", "1")
    )

    assert "with compact_color_jpeg_20 at 50\N{NO-BREAK SPACE}%." in half
    assert (
        "Strength 0.5: the result is a mix of 50\N{NO-BREAK SPACE}% restored and 50\N{NO-BREAK SPACE}% original."
        in half
    )
    assert "with compact_color_jpeg_20." in full


def test_empty_field_leaves_the_strength_to_the_gateway(make_app: MakeApp) -> None:
    good = encode_jpeg(draw_photo(64, 64), quality=98)

    page = (
        make_app()
        .test_client()
        .post("/", follow_redirects=True, **form(good, variant="compact_color_jpeg_20", strength=""))
    )

    said = "Strength 0, because the JPEG damage is weak (quality 98): the result is the original."
    assert said in page.get_data(as_text=True)


def test_form_states_the_limit_of_each_scale(make_app: MakeApp) -> None:
    page = make_app().test_client().get("/").get_data(as_text=True)

    assert "4.2\N{NO-BREAK SPACE}megapixels at 4×, 12.5 at 2× and 1×" in page


def test_form_accepts_what_this_installation_decodes(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    with_heic = make_app().test_client().get("/").get_data(as_text=True)
    monkeypatch.setattr(upload_module, "find_spec", lambda _: None)
    without = make_app().test_client().get("/").get_data(as_text=True)

    assert "JPEG, PNG, WebP, AVIF, HEIC, TIFF, BMP or GIF, up to" in with_heic
    assert "JPEG, PNG, WebP, AVIF, TIFF, BMP or GIF, up to" in without
    accepted, fewer = (
        next(field["accept"] for field in Elements(page).by_tag["input"] if field.get("type") == "file")
        for page in (with_heic, without)
    )
    assert accepted is not None
    assert ",image/avif,image/heic,image/heif,.heic,.heif,image/tiff,.tif,.tiff,image/bmp,image/gif" in accepted
    assert fewer == accepted.replace("image/heic,image/heif,.heic,.heif,", "")


@pytest.mark.parametrize(
    ("name", "value"),
    [("format", "same"), ("lossless", "1"), ("depth", "16"), ("transparent_colour", "keep"), ("metadata", "keep")],
)
def test_expired_form_keeps_the_options_of_the_result(make_app: MakeApp, name: str, value: str) -> None:
    fields: dict[str, Any] = {name: value}
    fresh, expired = (
        Elements(text).by_tag["input"]
        for text in (
            make_app().test_client().get("/").get_data(as_text=True),
            make_app().test_client().post("/", **api_form(token="1.old", **fields)).get_data(as_text=True),
        )
    )

    def is_checked(fields: list[dict[str, str | None]]) -> bool:
        [field] = [field for field in fields if (field.get("name"), field.get("value")) == (name, value)]
        return "checked" in field

    assert (is_checked(fresh), is_checked(expired)) == (False, True)
