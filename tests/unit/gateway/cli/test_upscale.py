"""`superres upscale` with a fake backend; tests/e2e uses a real one."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import click
import pytest
from PIL import Image as PilImage

from gateway.backend import embedded
from gateway.backend.interface import BackendFaultError
from gateway.cli import upscale as upscale_command
from gateway.config.settings import Settings
from testing import images
from testing.backend import FakeBackend
from testing.content_images import draw_clean_photo, draw_pixel_art
from testing.image_files import draw_file


@pytest.mark.parametrize(("one", "other"), [("bird.png", "bird.png"), ("bird.png", "bird.jpg")])
def test_inputs_with_one_result_name_are_rejected(tmp_path: Path, backend: FakeBackend, one: str, other: str) -> None:
    x, y, z = (
        draw_file(tmp_path / "x" / one, 1),
        draw_file(tmp_path / "y" / other, 2),
        draw_file(tmp_path / "z" / "z.png", 3),
    )

    with pytest.raises(click.UsageError) as caught:
        upscale_command.run(
            Settings(state_dir=str(tmp_path)),
            [z, x, y, tmp_path / "out"],
            {},
            flags=upscale_command.Flags(overwrite=True),
        )

    assert caught.value.message.startswith(f"{x} and {y} would both be written to {tmp_path / 'out'}/")
    assert backend.calls == []
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("backend")
def test_size_is_part_of_the_name_in_a_folder(tmp_path: Path) -> None:
    x = draw_file(tmp_path / "x" / "bird.png", 1)

    code = upscale_command.run(
        Settings(state_dir=str(tmp_path)), [x, tmp_path / "out"], {"variant": "compact_x4", "scale": "1.5"}
    )

    made = [path.name for path in (tmp_path / "out").iterdir()]
    assert (code, made) == (0, ["bird_compact_x4_12x12.png"])
    with PilImage.open(tmp_path / "out" / made[0]) as opened:
        assert opened.size == (12, 12)


def test_image_over_a_limit_is_refused_with_the_name_of_the_setting(
    tmp_path: Path, backend: FakeBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    x = draw_file(tmp_path / "x" / "bird.png", 1)

    code = upscale_command.run(Settings(state_dir=str(tmp_path), max_pixels=63), [x, tmp_path / "out.png"], {})

    assert code == upscale_command.EXIT_REJECTED
    assert "8 x 8 = 64 pixels; 63 is the limit." in (said := capsys.readouterr().err)
    assert "at most max_pixels" in said
    assert backend.calls == []


def test_inputs_are_written_to_the_folder(tmp_path: Path, backend: FakeBackend) -> None:
    x, y = draw_file(tmp_path / "x" / "bird.png", 1), draw_file(tmp_path / "y" / "tree.png", 2)

    code = upscale_command.run(Settings(state_dir=str(tmp_path)), [x, y, tmp_path / "out"], {"format": "webp"})

    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert (code, made) == (0, ["bird_compact_x4.webp", "tree_compact_x4.webp"])
    assert backend.is_closed


NAMES = [
    "a b.png",
    "a?b.png",
    "a_b.png",
    "मेरी फोटो.png",
    "กิน.png",
    "กัน.png",
    "صُورَة.png",
    unicodedata.normalize("NFD", "Ảnh đẹp.png"),
    unicodedata.normalize("NFC", "Ảnh đẹp.png"),
    unicodedata.normalize("NFD", "がぎ.png"),
    "..two dots.png",
    "line\nbreak.png",
    "CON.png",
    "😀.png",
    "😎.png",
    os.fsdecode(b"not utf-8 \xff.png"),
]


def test_no_character_of_a_name_is_changed(tmp_path: Path, backend: FakeBackend) -> None:
    sources = [draw_file(tmp_path / "in" / name, seed) for seed, name in enumerate(NAMES)]

    code = upscale_command.run(Settings(state_dir=str(tmp_path)), [*sources, tmp_path / "out"], {})

    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert code == 0
    assert made == {f"{Path(name).stem}_compact_x4.png" for name in NAMES}
    assert backend.is_closed


@pytest.mark.parametrize("letter", ["x", "漢"])
def test_longest_name_is_cut_to_fit(tmp_path: Path, backend: FakeBackend, letter: str) -> None:
    stem = letter * (251 // len(letter.encode()))
    source = draw_file(tmp_path / f"{stem}.png", 1)

    code = upscale_command.run(Settings(state_dir=str(tmp_path)), [source, tmp_path / "out"], {})

    (made,) = (tmp_path / "out").iterdir()
    assert code == 0
    assert 250 <= len(os.fsencode(made.name)) <= 255
    assert made.name.startswith(letter * 40)
    assert made.name.endswith("_compact_x4.png")
    assert backend.is_closed


def test_log_of_a_running_server_is_kept(tmp_path: Path, backend: FakeBackend) -> None:
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    (state_dir / embedded.LOG_NAME).write_text("of another server")

    source = draw_file(tmp_path / "x" / "bird.png", 1)
    code = upscale_command.run(Settings(state_dir=str(state_dir)), [source, tmp_path / "out"], {})

    assert (code, len(backend.calls)) == (0, 1)
    assert [(path.name, path.read_text()) for path in state_dir.iterdir()] == [(embedded.LOG_NAME, "of another server")]


def test_log_of_a_failed_server_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make_backend(settings: Settings, log_name: str) -> FakeBackend:
        (Path(settings.state_dir) / log_name).write_text("why it failed")
        return FakeBackend(failures=[BackendFaultError("INTERNAL: no")] * 2)

    monkeypatch.setattr(embedded, "make_backend", make_backend)

    source = draw_file(tmp_path / "x" / "bird.png", 1)
    code = upscale_command.run(Settings(state_dir=str(tmp_path)), [source, tmp_path / "out"], {})

    assert code == upscale_command.EXIT_BACKEND
    assert [path.read_text() for path in tmp_path.glob("triton-*.log")] == ["why it failed"]


def test_strength_is_part_of_the_name_in_a_folder(
    tmp_path: Path, backend: FakeBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    source, parameters = draw_file(tmp_path / "x" / "bird.png", 1), {"variant": "compact_color_denoise_25"}
    paths = [source, tmp_path / "out"]

    codes = [
        upscale_command.run(Settings(state_dir=str(tmp_path)), paths, {**parameters, "strength": strength})
        for strength in ("0.5", "1")
    ]

    assert codes == [0, 0]
    assert len(backend.calls) == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "bird_compact_color_denoise_25_x1.png",
        "bird_compact_color_denoise_25_x1_strength50.png",
    ]
    assert "Strength 0.5: the result is a mix of 50 % restored and 50 % original." in capsys.readouterr().err


def test_strength_that_cannot_be_used_is_a_usage_error(tmp_path: Path, backend: FakeBackend) -> None:
    paths = [draw_file(tmp_path / "x" / "bird.png", 1), tmp_path / "out.png"]

    for strength, message in (("0,5", "use a number from 0 to 1"), ("0.5", "cannot be used with auto")):
        with pytest.raises(click.UsageError, match=message):
            upscale_command.run(Settings(state_dir=str(tmp_path)), paths, {"strength": strength})

    assert backend.calls == []


def test_variant_is_chosen_for_each_file_and_named(
    tmp_path: Path, backend: FakeBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, art = tmp_path / "photo.jpg", tmp_path / "art.png"
    photo.write_bytes(images.encode_jpeg(draw_clean_photo(), quality=30))
    art.write_bytes(images.encode_png(draw_pixel_art()))

    code = upscale_command.run(Settings(state_dir=str(tmp_path)), [photo, art, tmp_path / "out"], {})

    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert (code, made) == (0, ["art_nearest_x4.png", "photo_compact_real_x4.png"])
    assert len(backend.calls) == 1
    said = capsys.readouterr().err
    assert "  Looks like a worn JPEG (JPEG quality 30): compact_real_x4." in said
    assert "  Looks like pixel art (6 colours and hard edges): nearest_x4." in said


@pytest.mark.usefixtures("backend")
def test_existing_file_of_the_chosen_variant_is_kept(tmp_path: Path) -> None:
    art, kept = tmp_path / "art.png", tmp_path / "out" / "art_nearest_x4.png"
    art.write_bytes(images.encode_png(draw_pixel_art()))
    kept.parent.mkdir()
    kept.write_bytes(b"kept")

    code = upscale_command.run(Settings(state_dir=str(tmp_path)), [art, kept.parent], {})

    assert (code, kept.read_bytes()) == (upscale_command.EXIT_REJECTED, b"kept")


def test_file_that_cannot_be_decoded_is_rejected_before_the_choice(tmp_path: Path, backend: FakeBackend) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(images.encode_jpeg(draw_clean_photo())[:2_000])

    code = upscale_command.run(Settings(state_dir=str(tmp_path)), [broken, tmp_path / "out"], {})

    assert (code, backend.calls) == (upscale_command.EXIT_REJECTED, [])


def test_same_keeps_the_format_of_each_input(tmp_path: Path, backend: FakeBackend) -> None:
    pixels = images.draw_photo(8, 8)
    (tmp_path / "a.jpg").write_bytes(images.encode_jpeg(pixels))
    (tmp_path / "b.webp").write_bytes(images.encode_webp(pixels))
    (tmp_path / "c.png").write_bytes(images.encode_png(pixels))
    sources = [tmp_path / "a.jpg", tmp_path / "b.webp", tmp_path / "c.png"]

    code = upscale_command.run(Settings(state_dir=str(tmp_path)), [*sources, tmp_path / "out"], {"format": "same"})

    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert (code, made) == (0, ["a_compact_x4.jpeg", "b_compact_x4.webp", "c_compact_x4.png"])
    assert backend.is_closed


def test_same_never_writes_a_file_whose_ending_is_wrong(
    tmp_path: Path, backend: FakeBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jpg").write_bytes(images.encode_jpeg(images.draw_photo(8, 8)))

    code = upscale_command.run(
        Settings(state_dir=str(tmp_path)), [tmp_path / "a.jpg", tmp_path / "b.png"], {"format": "same"}
    )

    assert code == 3
    assert "ends in .png, but the format of this input is jpeg" in capsys.readouterr().err
    assert not (tmp_path / "b.png").exists()
    assert backend.calls == []
