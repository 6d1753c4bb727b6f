"""Which variants this machine can offer: the zoo's and the imported, with weights or by name."""

from __future__ import annotations

from pathlib import Path

from gateway.settings import Settings
from swinir.imported import find_offered, has_weights
from swinir.zoo import VARIANTS
from tests.swinir.networks import install_small

BUNDLED = [name for name, row in VARIANTS.items() if row.is_bundled]


def test_without_names_everything_with_weights_here_is_offered(tmp_path: Path) -> None:
    install_small(tmp_path, "mine_x2")
    (tmp_path / "real_x4.safetensors").touch()
    (tmp_path / "downloads").mkdir()
    assert set(find_offered((), tmp_path)) == {*BUNDLED, "real_x4", "mine_x2"}
    assert list(find_offered((), None)) == BUNDLED
    assert list(find_offered((), tmp_path / "none")) == BUNDLED


def test_names_are_offered_in_their_order_weights_or_not(tmp_path: Path) -> None:
    install_small(tmp_path, "mine_x2")
    assert list(find_offered(("real_x4", "mine_x2", "nope", "compact_x4"), tmp_path)) == [
        "real_x4",
        "mine_x2",
        "compact_x4",
    ]


def test_weights_are_here_when_they_ship_or_lie_in_the_folder(tmp_path: Path) -> None:
    assert has_weights(VARIANTS["compact_x4"], None)
    assert not has_weights(VARIANTS["real_x4"], tmp_path)
    (tmp_path / "real_x4.safetensors").touch()
    assert has_weights(VARIANTS["real_x4"], tmp_path)


def test_the_gateway_offers_what_its_own_folder_holds_and_of_a_backend_elsewhere_what_ships(tmp_path: Path) -> None:
    install_small(tmp_path, "mine_x2")
    assert "mine_x2" in Settings(weights_dir=str(tmp_path)).offered()
    assert "mine_x2" in Settings(weights_dir=str(tmp_path), variants="compact_x4,mine_x2").offered()
    assert list(Settings(weights_dir=str(tmp_path), backend_address="elsewhere:8001").offered()) == BUNDLED
