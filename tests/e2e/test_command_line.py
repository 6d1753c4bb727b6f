"""`superres upscale` with a real Triton: a folder, a pipe, the estimate of time, and the same images by a service."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

from testing.data import SET5, max_difference, read_pixels
from testing.stack import Stack, superres


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_folder_here_and_on_a_service(stack: Stack, tmp_path: Path) -> None:
    source, here, there = tmp_path / "in", tmp_path / "here", tmp_path / "there"
    (source / "sub").mkdir(parents=True)
    shutil.copy(SET5 / "x4" / "baby.png", source / "baby.png")
    shutil.copy(SET5 / "x4" / "head.png", source / "sub" / "head.png")
    (source / "notes.txt").write_text("not an image")
    environ = stack.environ | {"SUPERRES_STATE_DIR": str(tmp_path / "state"), "SUPERRES_CLIENT_KEY": stack.key}
    arguments = ["--variant", "compact_x4"]

    locally = superres("upscale", str(source), str(here), *arguments, environ=environ)
    remotely = superres("upscale", str(source), str(there), *arguments, "--to", stack.url, environ=environ)

    assert (locally.returncode, remotely.returncode) == (0, 0), locally.stderr + remotely.stderr
    assert names(here) == names(there) == ["baby_compact_x4.png", "sub/head_compact_x4.png"]
    for name in names(here):
        assert max_difference(read_pixels(here / name), read_pixels(there / name)) <= 1
    assert locally.stdout == remotely.stdout == ""
    assert not list((tmp_path / "state").glob("triton-*")), "the log of a run without a fault is removed"

    again = superres("upscale", str(source), str(here), *arguments, "--skip-existing", environ=environ)
    assert "Starting the embedded Triton" not in again.stderr
    assert "0 of 2 images upscaled, 2 there already." in again.stderr
    dry = superres("upscale", str(source), str(tmp_path / "new"), *arguments, "--dry-run", environ=environ)
    assert re.search(r"Time: about \d+ s, an estimate from the last images on this machine", dry.stdout), dry.stdout
    assert re.search(r"Triton boots in about \d+ s before", dry.stdout), dry.stdout


def test_pipe_through_the_embedded_triton(stack: Stack, tmp_path: Path) -> None:
    environ = stack.environ | {"SUPERRES_STATE_DIR": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-m", "gateway", "upscale", "-", "-", "--format", "jpg", "--variant", "compact_x4"],
        input=(SET5 / "x4" / "head.png").read_bytes(),
        env=environ,
        capture_output=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stderr.decode()
    with Image.open(io.BytesIO(done.stdout)) as made:
        assert (made.format, made.size) == ("JPEG", (280, 280))
