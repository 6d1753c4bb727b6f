"""`superres upscale` on folders, with a fake backend: what is made, left out, resumed and refused."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import click
import pytest

from gateway.backend import embedded
from gateway.backend.triton_install import EmbeddedServerError
from gateway.cli import batch as batch_module
from gateway.cli.pace import Pace
from gateway.cli.upscale import EXIT_BACKEND, EXIT_REJECTED, Flags, run
from gateway.config.settings import Settings
from gateway.jobs.choice import choose_variant
from gateway.jobs.options import UpscaleRequest
from preprocessing.image import Image
from testing import images
from testing.backend import FakeBackend
from testing.content_images import draw_clean_photo, draw_pixel_art
from testing.image_files import draw_file

COMPACT = {"variant": "compact_x4"}
SKIP = Flags(skip_existing=True)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=str(tmp_path / "state"))


def made(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_folder_keeps_its_structure(
    tmp_path: Path, settings: Settings, backend: FakeBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_file(tmp_path / "in" / "a.png", 1)
    draw_file(tmp_path / "in" / "sub" / "a.png", 2)
    (tmp_path / "in" / "notes.txt").write_text("")

    code = run(settings, [tmp_path / "in", tmp_path / "out"], COMPACT)

    assert (code, len(backend.calls)) == (0, 2)
    assert made(tmp_path / "out") == ["a_compact_x4.png", "sub/a_compact_x4.png"]
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Left out: 1 of unknown suffix (.txt)." in printed.err
    assert "2 of 2 images upscaled." in printed.err
    assert "\r" not in printed.err, "progress is for terminals"


def test_results_inside_the_input_are_not_upscaled_again(
    tmp_path: Path, settings: Settings, backend: FakeBackend
) -> None:
    draw_file(tmp_path / "in" / "a.png", 1)

    codes = [run(settings, [tmp_path / "in", tmp_path / "in" / "out"], COMPACT, flags=SKIP) for _ in range(2)]

    assert (codes, len(backend.calls)) == ([0, 0], 1)
    assert made(tmp_path / "in") == ["a.png", "out/a_compact_x4.png"]


def test_existing_results_are_left_out_without_reading_their_images(
    tmp_path: Path, settings: Settings, backend: FakeBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = draw_file(tmp_path / "in" / "a.png", 1), draw_file(tmp_path / "in" / "b.png", 2)
    second.rename(tmp_path / "b.png")
    assert run(settings, [tmp_path / "in", tmp_path / "out"], COMPACT) == 0
    (tmp_path / "b.png").rename(second)
    first.write_text("no longer an image")

    code = run(settings, [tmp_path / "in", tmp_path / "out"], COMPACT, flags=SKIP)

    assert (code, len(backend.calls)) == (0, 2)
    assert "1 of 2 images upscaled, 1 there already." in capsys.readouterr().err


def test_existing_result_that_is_cut_is_reported(
    tmp_path: Path, settings: Settings, backend: FakeBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_file(tmp_path / "in" / "a.png", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a_compact_x4.png").write_bytes(b"\x89PNG cut")

    code = run(settings, [tmp_path / "in", tmp_path / "out"], COMPACT, flags=SKIP)

    assert (code, backend.calls) == (EXIT_REJECTED, [])
    assert "exists, but is not a whole image. Remove it, or use --overwrite." in capsys.readouterr().err


def test_auto_decodes_twice_only_where_a_result_may_exist(
    tmp_path: Path, settings: Settings, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[UpscaleRequest] = []

    def choose(request: UpscaleRequest, image: Image) -> UpscaleRequest:
        chosen.append(request)
        return choose_variant(request, image)

    monkeypatch.setattr(batch_module, "choose_variant", choose)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "photo.jpg").write_bytes(images.encode_jpeg(draw_clean_photo(), quality=30))
    (tmp_path / "in" / "art.png").write_bytes(images.encode_png(draw_pixel_art()))

    assert run(settings, [tmp_path / "in", tmp_path / "out"], {}, flags=SKIP) == 0
    assert (made(tmp_path / "out"), len(chosen)) == (["art_nearest_x4.png", "photo_compact_real_x4.png"], 0)

    (tmp_path / "out" / "art_nearest_x4.png").rename(tmp_path / "out" / "art_compact_x4.png")  # of another variant
    assert run(settings, [tmp_path / "in", tmp_path / "out"], {}, flags=SKIP) == 0
    assert len(chosen) == 2
    assert "art_nearest_x4.png" in made(tmp_path / "out")
    assert len(backend.calls) == 1


def test_interrupted_run_says_how_to_go_on(
    tmp_path: Path,
    settings: Settings,
    backend: FakeBackend,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for seed, name in enumerate(("a.png", "b c.png", "d.png")):
        draw_file(tmp_path / "in" / name, seed)
    upscale_bands = backend.upscale_bands

    def interrupt(*args: object, **options: object) -> object:
        if len(backend.calls) == 1:
            raise KeyboardInterrupt
        return upscale_bands(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(backend, "upscale_bands", interrupt)
    arguments = ["upscale", str(tmp_path / "in"), str(tmp_path / "my out")]

    code = run(settings, [tmp_path / "in", tmp_path / "my out"], COMPACT, arguments=arguments)

    assert code == 130
    assert made(tmp_path / "my out") == ["a_compact_x4.png"]
    said = capsys.readouterr().err
    assert "Interrupted. 1 of 3 images upscaled. No partial image is left.\n" in said
    assert f"To go on: superres upscale {tmp_path}/in '{tmp_path}/my out' --skip-existing\n" in said
    assert backend.is_closed
    monkeypatch.setattr(backend, "upscale_bands", upscale_bands)
    assert run(settings, [tmp_path / "in", tmp_path / "my out"], COMPACT, flags=SKIP) == 0
    assert len(backend.calls) == 3
    assert len(made(tmp_path / "my out")) == 3


def send_signal(backend: FakeBackend, number: signal.Signals, gate: threading.Event | None = None) -> None:
    """Send this process a signal once the backend works, and then open its gate."""
    backend.arrived.acquire()
    os.kill(os.getpid(), number)
    if gate is not None:
        gate.set()


def test_sigterm_ends_as_ctrl_c_does(tmp_path: Path, settings: Settings, backend: FakeBackend) -> None:
    source = draw_file(tmp_path / "a.png", 1)
    backend._gate = threading.Event()
    threading.Thread(target=send_signal, args=(backend, signal.SIGTERM)).start()

    code = run(settings, [source, tmp_path / "out.png"], COMPACT)

    assert code == 128 + signal.SIGTERM
    assert made(tmp_path) == ["a.png"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_ignored_hangup_stays_ignored(tmp_path: Path, settings: Settings, backend: FakeBackend) -> None:
    source, before = draw_file(tmp_path / "a.png", 1), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        backend._gate = gate = threading.Event()
        threading.Thread(target=send_signal, args=(backend, signal.SIGHUP, gate)).start()
        assert run(settings, [source, tmp_path / "out.png"], COMPACT) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_quiet_prints_errors_only(
    tmp_path: Path, settings: Settings, backend: FakeBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_file(tmp_path / "in" / "a.png", 1)
    (tmp_path / "in" / "b.png").write_text("not an image")

    code = run(settings, [tmp_path / "in", tmp_path / "out"], COMPACT, flags=Flags(quiet=True))

    (line,) = capsys.readouterr().err.splitlines()
    assert code == EXIT_REJECTED
    assert line.startswith(f"{tmp_path}/in/b.png: The upload begins with b'not an i'")
    assert backend.is_closed


def test_disk_that_is_too_small_is_reported_first(
    tmp_path: Path, settings: Settings, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_file(tmp_path / "in" / "a.png", 1, side=100)  # its result has 160,000 pixels: at least 48 kB
    monkeypatch.setattr(batch_module, "free_bytes", lambda _: 40_000)

    with pytest.raises(click.UsageError, match=r"need at least 48 kB \(an estimate\); the disk of .* has 40 kB free"):
        run(settings, [tmp_path / "in", tmp_path / "out"], COMPACT)

    assert (backend.calls, (tmp_path / "out").exists()) == ([], False)


def test_dry_run_shows_sizes_times_and_refusals_and_writes_nothing(
    tmp_path: Path, settings: Settings, backend: FakeBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_file(tmp_path / "in" / "a.png", 1, side=100)
    draw_file(tmp_path / "in" / "sub" / "b.png", 2, side=200)
    (tmp_path / "in" / "c.png").write_text("not an image")
    pace = Pace(tmp_path / "state" / "pace.json")
    pace.note("compact_x4", 1_000_000, 50.0)
    pace.save()
    before = made(tmp_path)

    code = run(settings, [tmp_path / "in", tmp_path / "out"], COMPACT, flags=Flags(dry_run=True))

    assert (code, backend.calls, made(tmp_path), (tmp_path / "out").exists()) == (EXIT_REJECTED, [], before, False)
    out = tmp_path / "out"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path}/in/a.png  100x100 -> {out}/a_compact_x4.png  400x400, about 224 kB, about 1 s"
    assert lines[1].startswith(f"{tmp_path}/in/c.png: refused. The upload begins with")
    assert lines[2].endswith(f"-> {out}/sub/b_compact_x4.png  800x800, about 896 kB, about 2 s")
    assert lines[3].startswith("2 to upscale, 0 there already, 1 refused. Results: about 1.1 MB (an estimate); ")
    assert lines[4].startswith("Time: about 2 s, an estimate from the last images on this machine; Triton boots")


def test_dry_run_names_the_variant_of_each_image(
    tmp_path: Path, settings: Settings, backend: FakeBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    art = tmp_path / "art.png"
    art.write_bytes(images.encode_png(draw_pixel_art()))

    assert run(settings, [art, tmp_path / "out"], {}, flags=Flags(dry_run=True)) == 0

    said = capsys.readouterr().out
    assert f"-> {tmp_path}/out/art_nearest_x4.png" in said
    assert "Time: unknown, because no image was upscaled with these variants on this machine yet." in said
    assert backend.calls == []


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["in", "in"], "is both the input and the output"),
        (["empty", "out"], "No images found in empty"),
        (["-", "-", "out"], "Standard input"),
        (["in", "in", "-"], "takes one image"),
        (["in", "file.png"], "is a file. The output of several inputs must be a folder."),
        (["in/a.png", "nowhere.gif"], "The formats are png, jpeg, webp"),
    ],
)
def test_invalid_usage_is_reported_before_any_work(
    tmp_path: Path,
    settings: Settings,
    backend: FakeBackend,
    monkeypatch: pytest.MonkeyPatch,
    paths: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    draw_file(Path("in") / "a.png", 1)
    draw_file(Path("file.png"), 2)
    Path("empty").mkdir()

    with pytest.raises(click.UsageError, match=words):
        run(settings, [Path(path) for path in paths], {})

    assert backend.calls == []


def test_pace_of_upscaled_images_is_recorded(tmp_path: Path, settings: Settings, backend: FakeBackend) -> None:
    source = draw_file(tmp_path / "a.png", 1, side=120)

    assert run(settings, [source, tmp_path / "out.png"], COMPACT) == 0

    assert Pace(tmp_path / "state" / "pace.json").estimate_s("compact_x4", 1_000_000) is not None
    assert backend.is_closed


def test_backend_that_does_not_start_ends_the_run(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise EmbeddedServerError("No Triton here.")

    monkeypatch.setattr(embedded, "make_backend", refuse)
    draw_file(tmp_path / "in" / "a.png", 1)
    draw_file(tmp_path / "in" / "b.png", 1)

    code = run(settings, [tmp_path / "in", tmp_path / "out"], COMPACT, arguments=["upscale", "in", "out"])

    assert code == EXIT_BACKEND
    assert capsys.readouterr().err.splitlines() == [
        "superres: No Triton here.",
        "Stopped. 0 of 2 images upscaled.",
        "To go on: superres upscale in out --skip-existing",
    ]


def test_existing_results_of_a_requested_size_are_left_out(
    tmp_path: Path, settings: Settings, backend: FakeBackend
) -> None:
    draw_file(tmp_path / "in" / "a.png", 1)
    paths, size = [tmp_path / "in", tmp_path / "out"], {"scale": "1.5"}

    assert run(settings, paths, size, flags=SKIP) == 0
    assert run(settings, paths, size, flags=SKIP) == 0
    assert (made(tmp_path / "out"), len(backend.calls)) == (["a_compact_x2_12x12.png"], 1)
    assert run(settings, paths, {"scale": "2"}, flags=SKIP) == 0
    assert len(backend.calls) == 2


def test_same_names_of_other_formats_do_not_collide_with_format_same(
    tmp_path: Path, settings: Settings, backend: FakeBackend
) -> None:
    draw_file(tmp_path / "in" / "a.png", 1)
    (tmp_path / "in" / "a.webp").write_bytes(images.encode_webp(images.draw_photo(8, 8)))

    assert run(settings, [tmp_path / "in", tmp_path / "out"], COMPACT | {"format": "same"}) == 0

    assert (made(tmp_path / "out"), len(backend.calls)) == (["a_compact_x4.png", "a_compact_x4.webp"], 2)
