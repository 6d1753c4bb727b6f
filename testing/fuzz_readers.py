"""Coverage-guided fuzzing of our own readers of headers with atheris: `make fuzz`.

    python -m testing.fuzz_readers FOLDER [options of libFuzzer, such as -max_total_time=60]

FOLDER gets a valid upload of every kind, and keeps inputs that reach new code. Each input must end as an ImageError or
as facts that make sense, in under five seconds and a gigabyte. Decoders are not called: they are not ours.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["preprocessing"]):
    from preprocessing.codec import UploadLimits, probe
    from preprocessing.errors import ImageError

from testing.damaged_images import SEEDS

LIMITS = UploadLimits(max_bytes=1_000_000, max_pixels=1_000_000, max_side=5_000)
OPTIONS = ("-max_len=8192", "-timeout=5", "-rss_limit_mb=1024", "-print_final_stats=1")


def check(data: bytes) -> None:
    """Probe an input; raise AssertionError if what is accepted makes no sense."""
    try:
        upload = probe(data, LIMITS)
    except ImageError as error:
        if not str(error).endswith("."):
            raise AssertionError(f"not a sentence: {error}") from error
        return
    if not (1 <= upload.width * upload.height <= LIMITS.max_pixels and max(upload.width, upload.height) <= 5_000):
        raise AssertionError(f"{upload.width} x {upload.height} pixels were accepted")
    if not (1 <= upload.orientation <= 8 and upload.frames >= 1 and upload.container.pages >= 1):
        raise AssertionError(f"orientation {upload.orientation}, {upload.frames} frames")
    sum(len(chunk) for chunk in upload.container.required_chunks)


def main() -> None:
    """Fuzz until the time of the options is over; ends the process with status 1 at the first failure."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in SEEDS.items():
        (folder / name).write_bytes(data)
    atheris.Setup([sys.argv[0], str(folder), *OPTIONS, *sys.argv[2:]], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
