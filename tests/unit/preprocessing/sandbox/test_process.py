"""The decoder process: its limits, and what each kind of failure becomes. The faults are planted behind real limits."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import psutil
import pytest
from PIL import Image as PilImage

from preprocessing.decoder_limits import DecoderLimits
from preprocessing.errors import UnreadableImageError
from preprocessing.sandbox import process
from preprocessing.sandbox.process import DecodeJob, DecoderStartError, run
from testing import images
from testing.data import ROOT
from testing.redis_server import wait_for

PHOTO = images.draw_photo(12, 20)
JOB = DecodeJob("BMP", images.save(PilImage.fromarray(PHOTO), "BMP"), 20, 12, (20, 12))

# Replaces the decoder by `body`, an expression, in a process that has given up everything else.
PLANTED = (
    "import sys; sys.path.extend(sys.argv[1:3]); import ctypes, os, signal, socket; "
    "from preprocessing.sandbox import child; child._decode = lambda data, job: {body}; child.main()"
)


def plant(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    monkeypatch.setattr(process, "_PROGRAM", PLANTED.format(body=body))


def refusal(limits: DecoderLimits = DecoderLimits(max_s=20)) -> str:  # noqa: B008 - a constant
    with pytest.raises(UnreadableImageError) as caught:
        run(JOB, "BMP", limits)
    return str(caught.value)


def test_pixels_arrive_unchanged() -> None:
    decoded = run(JOB, "BMP", DecoderLimits())
    assert decoded.mode == "RGB"
    assert (decoded.pixels == PHOTO).all()


@pytest.mark.parametrize("crash", ["ctypes.string_at(0)", "ctypes.CDLL(None).abort()", "os._exit(3)"])
def test_crash_of_a_decoder_is_the_fault_of_the_image(monkeypatch: pytest.MonkeyPatch, crash: str) -> None:
    plant(monkeypatch, crash)
    assert "its decoder crashed" in refusal()


def test_decoder_in_an_endless_loop_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, "all(x == 0 for x in iter(int, 1))")
    assert (
        refusal(DecoderLimits(max_s=1))
        == "Decoding this BMP took more than 1 second, the maximum. Send a smaller image."
    )


def test_decoder_that_needs_too_much_memory_is_refused_with_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, "bytearray(2 * job['max_memory_bytes'])")
    assert "needs more than 95 MiB of memory" in refusal()
    assert "needs more than 85 MiB of memory" in refusal(DecoderLimits(max_memory_bytes=90_000_000))


@pytest.mark.parametrize("format_", ["BMP", "HEIF"])
@pytest.mark.parametrize(
    "forbidden",
    [
        "open('/etc/hostname')",
        "socket.socket()",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.pipe()",
        "os.kill(os.getppid(), 0)",
        "os.write(1, b'') or os.ftruncate(1, 9)",
    ],
)
def test_decoder_reaches_nothing_outside(monkeypatch: pytest.MonkeyPatch, forbidden: str, format_: str) -> None:
    plant(monkeypatch, forbidden)
    with pytest.raises(UnreadableImageError, match="Operation not permitted"):
        run(replace(JOB, format=format_), format_, DecoderLimits())


@pytest.mark.parametrize("forbidden", ["open('/etc/hostname')", "socket.socket()", "os.pipe()"])
def test_decoder_reaches_no_file_and_no_socket_without_seccomp(monkeypatch: pytest.MonkeyPatch, forbidden: str) -> None:
    without = PLANTED.replace("child.main()", "child.deny_system_calls = lambda **_: False; child.main()")
    monkeypatch.setattr(process, "_PROGRAM", without.format(body=forbidden))
    assert "Too many open files" in refusal()


def test_decoder_has_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERRES_CSRF_SECRET", "secret")
    plant(monkeypatch, "({'error': ' '.join(sorted(os.environ)) or 'nothing'}, b'')")
    assert "SUPERRES" not in refusal()


@pytest.mark.parametrize(
    ("facts", "body"),
    [
        ("{'mode': 'RGB', 'width': 21, 'height': 12}", "bytes(720)"),
        ("{'mode': 'RGB', 'width': 20, 'height': 12}", "bytes(719)"),
        ("{'mode': 'RGB', 'width': 20, 'height': 12}", "bytes(721)"),
        ("{'mode': 'RGB', 'width': 20, 'height': 12}", "bytes(10**7)"),
        ("{'mode': 'F', 'width': 20, 'height': 12}", "bytes(960)"),
        ("{'mode': 'RGB', 'width': True, 'height': None}", "bytes(720)"),
        ("['RGB', 20, 12]", "bytes(720)"),
        ("{'mode': 'x' * 5000}", "b''"),
    ],
)
def test_result_that_is_not_of_the_announced_size_is_refused(
    monkeypatch: pytest.MonkeyPatch, facts: str, body: str
) -> None:
    plant(monkeypatch, f"({facts}, {body})")
    assert refusal().startswith("Corrupt BMP")


def test_text_of_a_decoder_becomes_one_line_of_bounded_length(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, "({'error': 'a' + chr(10) + chr(27) + '[31m' + 'b' * 500}, b'')")
    text = refusal()
    assert text.isprintable()
    assert len(text) < 250


def test_process_that_cannot_start_is_not_the_fault_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_PROGRAM", "import sys; sys.exit(1)")
    with pytest.raises(DecoderStartError):
        run(JOB, "BMP", DecoderLimits())
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(DecoderStartError):
        run(JOB, "BMP", DecoderLimits())


def test_decoder_ends_with_the_process_that_started_it() -> None:
    program = (
        "from preprocessing.sandbox import process as p; "
        f"p._PROGRAM = {PLANTED.format(body='all(x == 0 for x in iter(int, 1))')!r}; "
        "p.run(p.DecodeJob('BMP', b'BM', 9, 9, (9, 9)), 'BMP', p.DecoderLimits(max_s=500))"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) as gateway:
        parent = psutil.Process(gateway.pid)
        wait_for(lambda: any(child.cpu_times().user > 0.3 for child in parent.children()), "a busy decoder", 120)
        (child,) = parent.children()
        gateway.kill()
    assert psutil.wait_procs([child], timeout=120)[1] == []
