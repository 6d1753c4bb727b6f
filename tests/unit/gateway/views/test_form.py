"""The form's options and defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from swinir.zoo import PHOTO_VARIANT
from testing.fixtures import MakeApp
from testing.requests import Elements
from testing.weights_files import write_weights_file


def test_form_offers_the_configured_variants(make_app: MakeApp, tmp_path: Path) -> None:
    write_weights_file(tmp_path / "weights", "real_x4")
    page = make_app(variants="compact_x4,real_x4").test_client().get("/").get_data(as_text=True)

    values = [field["value"] for field in Elements(page).by_tag["input"] if field.get("name") == "variant"]
    assert values == ["compact_x4", "real_x4"]
    assert "invents plausible texture" in page


@pytest.mark.parametrize(
    ("settings", "usual"),
    [({}, PHOTO_VARIANT), ({"form_variant": "compact_x2"}, "compact_x2"), ({"variants": "compact_x4"}, "compact_x4")],
)
def test_form_starts_with_the_photo_variant(make_app: MakeApp, settings: dict[str, Any], usual: str) -> None:
    page = make_app(**settings).test_client().get("/").get_data(as_text=True)

    first, *others = [field for field in Elements(page).by_tag["input"] if field.get("name") == "variant"]
    assert first["value"] == usual
    assert "checked" in first
    assert not any("checked" in field for field in others)
