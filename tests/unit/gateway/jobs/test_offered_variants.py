"""The offer of a running gateway follows the weights folder, and a request for anything else learns what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from gateway.config.settings import Settings
from gateway.jobs.offered_variants import find_offered_variant, weights_version
from gateway.problems import BadParameter
from swinir.zoo import DEFAULT_VARIANT, VARIANTS
from testing.fixtures import MakeApp
from testing.networks import install_small
from testing.requests import Elements, post_image, read_problem
from testing.weights_files import write_weights_file


def offered(client: FlaskClient) -> list[list[str]]:
    """Return the names that the API and the page offer, asked as a browser with a copy of yesterday asks."""
    cached = {"If-None-Match": "*", "If-Modified-Since": "Sat, 28 Nov 2099 00:00:00 GMT"}
    listed, page = client.get("/api/v1/variants", headers=cached), client.get("/", headers=cached)
    assert listed.headers["Cache-Control"] == page.headers["Cache-Control"] == "no-store"
    assert (listed.status_code, page.status_code) == (200, 200)
    fields = Elements(page.get_data(as_text=True)).by_tag["input"]
    return [
        sorted(row["name"] for row in listed.get_json()["variants"]),
        sorted(str(field["value"]) for field in fields if field.get("name") == "variant" and field["value"] != "auto"),
    ]


def test_offer_of_page_and_api_follows_the_folder(client: FlaskClient, key: str, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    bundled = sorted(["nearest_x4", *(name for name, row in VARIANTS.items() if row.is_bundled)])
    assert offered(client) == [bundled] * 2

    write_weights_file(weights, "real_x4", missing=1)
    assert offered(client) == [bundled] * 2
    assert read_problem(post_image(client, key, query="?variant=real_x4")) == (400, "bad-parameter")

    path = write_weights_file(weights, "real_x4")
    install_small(weights, "mine_x2")
    assert offered(client) == [sorted([*bundled, "real_x4", "mine_x2"])] * 2
    assert post_image(client, key, query="?variant=real_x4").status_code == 200

    path.unlink()
    (weights / "mine_x2.safetensors").unlink()
    assert offered(client) == [bundled] * 2
    gone = post_image(client, key, query="?variant=real_x4")
    assert read_problem(gone) == (400, "bad-parameter")
    assert "superres weights fetch real_x4" in gone.get_json()["detail"]


EXPLANATIONS = [
    ({}, "real_x4", "The weights of real_x4 are not on this server. Its operator can add them with: superres weights "),
    ({}, "real_x2", "The weights of real_x2 are incomplete. Its operator can add them with: superres weights fetch r"),
    ({}, "rael_x4", "Unknown variant 'rael_x4'. Did you mean real_x4? Allowed: auto, compact_x4, "),
    ({}, "x" * 500, f"Unknown variant '{'x' * 40}'. Allowed: "),
    ({"variants": "compact_x4"}, "real_x4", "This server does not offer real_x4. Allowed: auto, compact_x4."),
    ({"variants": "compact_x4,real_x4"}, "real_x4", "The weights of real_x4 are not on this server. Its operator "),
    (
        {"backend_address": "elsewhere:8001"},
        "real_x4",
        "This server does not offer real_x4. Allowed: auto, ",
    ),
]


@pytest.mark.parametrize(("changes", "name", "text"), EXPLANATIONS)
def test_variant_that_is_not_offered_is_explained(
    tmp_path: Path, changes: dict[str, str], name: str, text: str
) -> None:
    write_weights_file(tmp_path / "weights", "real_x2", missing=1)
    settings = Settings(state_dir=str(tmp_path), **changes)  # type: ignore[arg-type]
    with pytest.raises(BadParameter) as caught:
        find_offered_variant(name, settings)
    assert caught.value.detail.startswith(text)
    assert caught.value.extensions["allowed"] == ["auto", *settings.offered()]


def test_default_variant_may_be_fetched_later(make_app: MakeApp, key: str, tmp_path: Path) -> None:
    client = make_app(default_variant="real_x4", form_variant="real_x4").test_client()
    missing = post_image(client, key)
    assert "superres weights fetch real_x4" in missing.get_json()["detail"]
    checked = [field for field in Elements(client.get("/").text).by_tag["input"] if "checked" in field]
    assert DEFAULT_VARIANT in [field["value"] for field in checked]

    write_weights_file(tmp_path / "weights", "real_x4")

    assert post_image(client, key).headers["X-Superres-Variant"] == "real_x4"


def test_version_changes_with_the_file(tmp_path: Path) -> None:
    settings = Settings(state_dir=str(tmp_path))
    row = install_small(tmp_path / "weights", "mine_x2")
    before = weights_version(row, settings)
    assert before == weights_version(row, settings)
    row = install_small(tmp_path / "weights", "mine_x2")
    assert weights_version(row, settings) not in ("", before)
    assert weights_version(VARIANTS["compact_x4"], settings) == ""
    assert weights_version(VARIANTS["real_x4"], settings) == ""
    assert weights_version(row, Settings()) == ""


def test_cached_result_of_replaced_weights_is_not_served(make_app: MakeApp, key: str, tmp_path: Path) -> None:
    client = make_app(cache_max_bytes=10**7).test_client()
    write_weights_file(tmp_path / "weights", "real_x4")
    cached = [post_image(client, key, query="?variant=real_x4").headers["X-Superres-Cache"] for _ in range(2)]
    write_weights_file(tmp_path / "weights", "real_x4")
    cached.append(post_image(client, key, query="?variant=real_x4").headers["X-Superres-Cache"])
    assert cached == ["miss", "hit", "miss"]
