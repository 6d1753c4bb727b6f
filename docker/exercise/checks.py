"""Checks of the running system, from outside like a client or inside the containers."""

from __future__ import annotations

import http.client
import io
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from docker.exercise.podman import CommandFailedError, ExerciseError

ROOT = Path(__file__).resolve().parents[2]
SET5 = ROOT / "tests" / "data" / "Set5"
SERVICES = ("triton", "gateway", "redis", "front")
RESPONSE_TIMEOUT_S = 310.0
"""Longer than the gateway's deadline_s in docker-compose.yml, so that the gateway responds first."""

WAIT_LIMIT_S = 300.0
"""Longest wait for anything that must happen: on a slow machine, Triton boots for a minute."""

NEW_SIDE = 16

Compose = Callable[..., str]
Response = tuple[int, bytes]

CALL_TRITON = """
import sys, tritonclient.grpc as triton
client = triton.InferenceServerClient("triton:8001")
key = open("/run/secrets/model_key").read()
calls = {
    "inference": lambda h: client.get_model_metadata("upscale", headers=h),
    "admin": lambda h: client.get_model_repository_index(headers=h),
    "health": lambda h: client.is_server_live(headers=h),
}
for api, call in calls.items():
    for kind, headers in (("none", {}), ("model", {"triton-grpc-protocol-model-key": key})):
        try:
            call(headers)
            print(api, kind, "allowed")
        except triton.InferenceServerException as error:
            print(api, kind, "refused" if "restricted" in str(error) else error)
"""


def expect(holds: bool, words: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Print what holds, or raise ExerciseError."""
    if not holds:
        raise ExerciseError(f"check failed: {words}")
    print(f"  ok: {words}", flush=True)


def send(
    url: str, *, body: bytes | None = None, headers: dict[str, str] | None = None, timeout_s: float = RESPONSE_TIMEOUT_S
) -> Response:
    """Return status and body of any response; 0 and the reason without a response, for example during a restart."""
    request = urllib.request.Request(url, data=body, headers=headers or {})  # noqa: S310 - our own loopback URL
    try:
        try:
            response = urllib.request.urlopen(request, timeout=timeout_s)  # noqa: S310
        except urllib.error.HTTPError as error:  # a response with an error status
            response = error
        with response:
            return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        return 0, repr(error).encode()


def upscale(url: str, key: str, png: bytes, *, timeout_s: float = RESPONSE_TIMEOUT_S) -> Response:
    """Upscale a PNG with the API."""
    headers = {"X-API-Key": key, "Content-Type": "image/png"}
    return send(f"{url}/api/v1/upscale", body=png, headers=headers, timeout_s=timeout_s)


def draw_new(side: int = NEW_SIDE) -> bytes:
    """Return a random PNG, so that the result cannot come from the cache."""
    pixels = np.random.default_rng(time.monotonic_ns()).integers(0, 256, (side, side, 3), np.uint8)
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "png")
    return png.getvalue()


class Upscales:
    """Whether a new image is upscaled four times, and why the last one was not."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._key = key
        self.reason = ""
        """Seconds, status and body of the last response, in parentheses; empty if it was an image."""

    def __call__(self, timeout_s: float = 30.0) -> bool:
        """Send an image. Raises ExerciseError for a result of the wrong size.

        The default is for repeated tries while Triton restarts: one that hangs must not use up the time for all.
        """
        begun = time.monotonic()
        status, body = upscale(self._url, self._key, draw_new(), timeout_s=timeout_s)
        seconds = time.monotonic() - begun
        self.reason = "" if status == 200 else f" (after {seconds:.1f} s status {status}: {body[:500]!r})"
        if status != 200:
            return False
        size = Image.open(io.BytesIO(body)).size
        if size != (4 * NEW_SIDE, 4 * NEW_SIDE):
            raise ExerciseError(f"the result is {size}, expected {4 * NEW_SIDE} x {4 * NEW_SIDE}")
        return True


def check_upscaling(url: str, key: str) -> None:
    """Check that the result is four times as large and closer to the original than bicubic interpolation."""
    small, large = (Image.open(SET5 / folder / "butterfly.png").convert("RGB") for folder in ("x4", "HR"))
    status, body = upscale(url, key, (SET5 / "x4" / "butterfly.png").read_bytes())
    if status != 200:
        raise ExerciseError(f"POST /api/v1/upscale responds {status}: {body[:300]!r}")
    result = Image.open(io.BytesIO(body)).convert("RGB")
    expect(result.size == (4 * small.width, 4 * small.height), f"{small.size} became {result.size}")
    ours, bicubic = (_psnr(image, large) for image in (result, small.resize(result.size, Image.Resampling.BICUBIC)))
    expect(ours > bicubic + 1, f"{ours:.2f} dB against the original, bicubic {bicubic:.2f} dB")


def check_decoder_process(url: str, key: str) -> None:
    """Check that formats which are decoded in a separate process are accepted in the container, and CMYK too."""
    small = Image.open(SET5 / "x4" / "butterfly.png").convert("RGB")
    uploads = {"HEIC": (ROOT / "tests" / "data" / "heic" / "plain.heic").read_bytes()}
    for name, image in (("TIFF", small), ("AVIF", small), ("BMP", small), ("JPEG", small.convert("CMYK"))):
        file = io.BytesIO()
        image.save(file, name)
        uploads[f"{name} in {image.mode}"] = file.getvalue()
    for name, data in uploads.items():
        status, body = upscale(url, key, data)
        expect(status == 200, f"{name} is upscaled" if status == 200 else f"{name}: {status} {body[:200]!r}")
    status, body = upscale(url, key, uploads["TIFF in RGB"][:2_000])
    expect(status == 422, "a TIFF that was cut is 422")


def _psnr(image: Image.Image, original: Image.Image) -> float:
    """Return the PSNR in dB of all three channels in the area that both images have."""
    width, height = min(image.width, original.width), min(image.height, original.height)
    a, b = (np.asarray(each.crop((0, 0, width, height)), dtype=np.float64) for each in (image, original))
    return float(10 * np.log10(255**2 / np.mean((a - b) ** 2)))


def check_access(url: str, front_url: str, compose: Compose) -> None:
    """Check that access needs the right keys."""
    expect(upscale(url, "wrong", draw_new())[0] == 401, "a wrong key is 401")
    expect(send(f"{url}/")[0] == 200, "the page is 200")
    status, page = send(front_url)
    expect(status == 200 and b"<iframe" in page, "the front is 200 and has its frame")
    results = dict.fromkeys(compose("exec", "-T", "gateway", "python3", "-c", CALL_TRITON).split("\n"))
    for line in (
        "inference none refused",
        "inference model allowed",
        "admin none refused",
        "admin model refused",
        "health none allowed",
    ):
        expect(line in results, f"Triton: {line}" if line in results else f"Triton: {line} ({list(results)})")


def check_engine(compose: Compose) -> None:
    """Check that the image has the fused block and uses it on the machine that built it."""
    command = "from swinir.network import fused; print(fused.is_available())"
    output = compose("exec", "-T", "triton", "python3", "-c", command)
    expect(output.strip() == "True", "the fused block is compiled, agrees with PyTorch and is used")


def check_containers(compose: Compose, inspect: Callable[[str], str]) -> None:
    """Check the isolation of every container, and that two of them publish a port on loopback."""
    published = {}
    for service in SERVICES:
        status = compose("exec", "-T", service, "cat", "/proc/1/status")
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        limits = [facts["Uid"].split()[0] != "0", int(facts["CapEff"], 16) == 0, facts["NoNewPrivs"] == "1"]
        output = compose("exec", "-T", service, "sh", "-c", "touch /x /etc/x 2>&1; ls /x /etc/x 2>/dev/null; exit 0")
        expect(all(limits), f"{service}: uid {facts['Uid'].split()[0]}, no capability, no new privileges")
        expect(output.count("Read-only file system") == 2, f"{service}: its root file system is read-only")
        details = json.loads(inspect(compose("ps", "-q", service).strip()))[0]
        host = details["HostConfig"]
        bounded = [host["Memory"] > 0, host["PidsLimit"] > 0, host["NanoCpus"] > 0 or host["CpuQuota"] > 0]
        expect(all(bounded), f"{service}: memory, processes and CPU are limited")
        ports = host["PortBindings"] or {}
        published[service] = sorted({binding["HostIp"] for bindings in ports.values() for binding in bindings or []})
    expected: dict[str, list[str]] = {"triton": [], "gateway": ["127.0.0.1"], "redis": [], "front": ["127.0.0.1"]}
    expect(published == expected, f"published: {published}")


def wait_for(condition: Callable[[], bool], words: str, limit_s: float = WAIT_LIMIT_S) -> None:
    """Wait until the condition holds, or raise ExerciseError.

    Prints the `reason` of the condition, if it has one, or the command that failed, now and then.
    """
    begun, tries, reason = time.monotonic(), 0, ""

    def holds() -> bool:
        nonlocal reason
        try:
            is_true = condition()
        except CommandFailedError as error:  # a container that restarts
            is_true, reason = False, f" ({error})"
        else:
            reason = getattr(condition, "reason", "")
        return is_true

    while not holds():
        tries += 1
        if reason and tries & (tries - 1) == 0:  # the 1st, 2nd, 4th, 8th time and so on
            print(f"  try {tries}: not yet{reason}", flush=True)
        if time.monotonic() - begun > limit_s:
            raise ExerciseError(f"not within {limit_s:.0f} s: {words}{reason}")
        time.sleep(0.5)
    print(f"  ok: {words} ({time.monotonic() - begun:.1f} s)", flush=True)
