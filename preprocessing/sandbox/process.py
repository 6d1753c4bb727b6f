"""Runs a decoder in a separate short-lived process, so that a hostile file costs one error and nothing else.

The process gets the file through a pipe and no environment, and its limits are those of `preprocessing.sandbox.child`.
A crash, too much memory, too much time and an output of the wrong size each become an UnreadableImageError. At most one
such process runs per `decode`, so the queue that bounds decoding bounds the processes too.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from preprocessing.decoder_limits import DecoderLimits
from preprocessing.errors import UnreadableImageError
from preprocessing.sandbox.child import READY

# Address space of the process before it reads the image: 45 MB with Pillow and LittleCMS; allocators round up.
BASE_MEMORY_BYTES = 100_000_000
# Bytes per pixel in the process, measured with 12 and 16 megapixels: BMP and TIFF 6, GIF and CMYK 9, AVIF and HEIC 17.
MEMORY_BYTES_PER_PIXEL = 24
# Seconds on top of the limit that the process sets on itself, for its start.
_START_S = 10
_MAX_LINE_BYTES = 1_024
_PIPE_BYTES = 1_048_576
_MAX_PIXEL_BYTES = 4

_PROGRAM = "import sys; sys.path.extend(sys.argv[1:3]); from preprocessing.sandbox.child import main; main()"
# Channels and type of each mode that the process may return.
_MODES: dict[str, tuple[int, npt.DTypeLike]] = {
    "L": (1, np.uint8),
    "LA": (2, np.uint8),
    "RGB": (3, np.uint8),
    "RGBA": (4, np.uint8),
    "I;16": (1, np.dtype("<u2")),
    "I;16B": (1, np.dtype(">u2")),
    # Not modes of Pillow: the high bytes of all pixels, then the low bytes.
    "RGB;16": (3, np.uint16),
    "RGBA;16": (4, np.uint16),
}


class DecoderStartError(RuntimeError):
    """The decoder process could not start; the image is not the cause."""


@dataclass(frozen=True)
class DecodeJob:
    """What the process shall decode, and the size that its result must have."""

    format: str
    """A format of `preprocessing.formats.container`, or CMYK for raw pixels."""
    data: bytes | memoryview
    width: int
    """Pixels of the stored image."""
    height: int
    """Pixels of the stored image."""
    result_size: tuple[int, int]
    """Width and height of the upright result."""
    transposition: int | None = None
    """Number of Pillow's transposition that makes the image upright; None when the decoder does that itself."""
    profile: bytes = b""
    """The ICC profile of CMYK pixels; empty when there is none."""
    default_profile: bytes = b""
    """The ICC profile for CMYK pixels whose own is missing or broken."""
    keeps_16_bits: bool = False
    """Whether TIFF colours of 16 bits keep them; otherwise only their high bytes are read."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """Pixels from the process: [H, W, channels] uint8, or uint16 in modes with 16 in their name."""

    mode: str
    pixels: npt.NDArray[Any]
    is_default_profile_used: bool


def memory_limit(width: int, height: int, data_bytes: int, max_bytes: int) -> int:
    """Return the address space that the process may use for an image of this size, in bytes, at most `max_bytes`."""
    return min(BASE_MEMORY_BYTES + width * height * MEMORY_BYTES_PER_PIXEL + 2 * data_bytes, max_bytes)


def run(job: DecodeJob, name: str, limits: DecoderLimits) -> Decoded:
    """Decode in a new process; `name` is the format in errors.

    Raises UnreadableImageError for every failure of the decoder, and DecoderStartError when it could not start.
    """
    max_memory_bytes = memory_limit(job.width, job.height, len(job.data), limits.max_memory_bytes)
    argument = {
        "format": job.format,
        "width": job.width,
        "height": job.height,
        "transposition": job.transposition,
        "profile_bytes": len(job.profile),
        "default_profile_bytes": len(job.default_profile),
        "keeps_16_bits": job.keeps_16_bits,
        "max_memory_bytes": max_memory_bytes,
        "max_s": limits.max_s,
        "parent_pid": os.getpid(),
    }
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM, *_folders(), json.dumps(argument)]
    with _start(command) as process:
        received = _exchange(process, (job.profile, job.default_profile, job.data), _max_bytes(job), limits.max_s)
    if received[:1] != READY:
        raise DecoderStartError(f"The decoder process did not start: {bytes(received[:200])!r}, {process.returncode}.")
    line, _, _ = bytes(received[1:_MAX_LINE_BYTES]).partition(b"\n")
    if not line:
        raise UnreadableImageError(_describe_end(process.returncode, name, limits.max_s))
    del received[: len(line) + 2]
    return _check(line, received, job, name, max_memory_bytes)


def _folders() -> tuple[str, str]:
    """Return the folders of this package and of Pillow, the only ones on the path of the process."""
    pillow = find_spec("PIL")
    if pillow is None or pillow.origin is None:
        raise DecoderStartError("Pillow is not installed.")
    return str(Path(__file__).resolve().parents[2]), str(Path(pillow.origin).resolve().parents[1])


@contextmanager
def _start(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Start the process without an environment, and end it in any case."""
    try:
        process = subprocess.Popen(  # noqa: S603 - our own program; the image goes through the pipe
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            bufsize=0,
        )
    except OSError as error:  # no memory or no process left
        raise DecoderStartError(f"The decoder process did not start: {error}.") from error
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _max_bytes(job: DecodeJob) -> int:
    """Return one byte more than the largest output for this job has."""
    width, height = job.result_size
    return 1 + _MAX_LINE_BYTES + width * height * _MAX_PIXEL_BYTES * (2 if job.keeps_16_bits else 1) + 1


def _exchange(
    process: subprocess.Popen[bytes],
    parts: Iterable[bytes | memoryview],
    max_bytes: int,
    max_s: int,
) -> bytearray:
    """Send the parts and return what the process wrote until it closed its output, or until its time was over.

    About `max_bytes` are read at most.
    """
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise DecoderStartError("The decoder process has no pipes.")
    pending = [memoryview(part) for part in parts if len(part)]
    deadline = time.monotonic() + max_s + _START_S
    received = bytearray()
    with selectors.DefaultSelector() as selector:
        for pipe, event in ((stdin, selectors.EVENT_WRITE), (stdout, selectors.EVENT_READ)):
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, event)
        while len(received) < max_bytes and (ready := selector.select(max(0.0, deadline - time.monotonic()))):
            sources = {key.fileobj for key, _ in ready}
            if stdin in sources and not _send(stdin.fileno(), pending):
                selector.unregister(stdin)
                stdin.close()
            if stdout in sources:
                data = os.read(stdout.fileno(), _PIPE_BYTES)
                received += data
                if not data:
                    process.wait(_START_S)
                    break
    return received


def _send(pipe: int, pending: list[memoryview]) -> bool:
    """Write as much as the pipe takes; return whether anything is left to write."""
    try:
        written = os.write(pipe, pending[0][:_PIPE_BYTES]) if pending else 0
    except BrokenPipeError:  # the process has ended
        return False
    if pending:
        pending[0] = pending[0][written:]
        if not len(pending[0]):
            del pending[0]
    return bool(pending)


def _describe_end(status: int, name: str, max_s: int) -> str:
    """Return a sentence on how the process ended without a result."""
    if status in (-signal.SIGALRM, -signal.SIGXCPU, -signal.SIGKILL):
        limit = "1 second" if max_s == 1 else f"{max_s} seconds"
        return f"Decoding this {name} took more than {limit}, the maximum. Send a smaller image."
    return (
        f"Corrupt {name}: its decoder crashed, or ran out of memory. Send the original file, or save it as PNG or JPEG."
    )


def _check(line: bytes, body: bytearray, job: DecodeJob, name: str, max_memory_bytes: int) -> Decoded:
    """Return the pixels; raise UnreadableImageError if they are not of the announced size. Trusts nothing."""
    try:
        facts = json.loads(line)
        error, mode = str(facts.get("error", "")), str(facts.get("mode", ""))
        size = (facts.get("width"), facts.get("height"))
    except (ValueError, AttributeError) as problem:
        raise UnreadableImageError(
            f"Corrupt {name}: its decoder returned no image. Send the original file."
        ) from problem
    if error == "memory":
        raise UnreadableImageError(
            f"Decoding this {name} needs more than {max_memory_bytes // 2**20:,} MiB of memory, the maximum for its "
            f"{job.width} x {job.height} pixels. Save it as PNG or JPEG, or send a smaller image."
        )
    if error:
        reason = "".join(letter if letter.isprintable() else " " for letter in error)[:120].rstrip(". ")
        raise UnreadableImageError(f"Truncated or corrupt {name} ({reason}). Send the original file.")
    channels, sample = _MODES.get(mode, (0, np.uint8))
    width, height = job.result_size
    if size != job.result_size or not channels or len(body) != width * height * channels * np.dtype(sample).itemsize:
        raise UnreadableImageError(
            f"Corrupt {name}: {width} x {height} pixels in its header and {size[0]} x {size[1]} in its data. "
            "Send the original file."
        )
    if mode in ("RGB;16", "RGBA;16"):
        high, low = np.frombuffer(body, np.uint8).reshape(2, height, width, channels)
        pixels = high.astype(np.uint16) << np.uint16(8) | low
    else:
        pixels = np.frombuffer(body, sample).reshape(height, width, channels)
    return Decoded(mode=mode, pixels=pixels, is_default_profile_used=facts.get("is_default_profile_used") is True)
