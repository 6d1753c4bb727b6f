"""The logs of gateway and Triton contain what they should of a request, and no secrets."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from testing import images
from testing.pages import read_code_blocks
from testing.stack import Stack

LIMIT_S = 120.0
WRONG_KEY = "ssr_a-key-that-nobody-made-4711"
FILE_NAME = "geheim-urlaub-2026"
GPS_MARKER = "XY-GPS-HOME"
CLIENT = "tests"  # the name of `stack.key`
# Milliseconds by which the phases of a line may exceed its `ms`: each is rounded.
ROUNDING_MS = 5.0
PHASES = ("upload_s", "queue_s", "decode_s", "work_s", "encode_s")


def multipart(data: bytes, filename: str) -> tuple[bytes, str]:
    head = f'Content-Disposition: form-data; name="image"; filename="{filename}"\r\n\r\n'.encode()
    return b"--b\r\n" + head + data + b"\r\n--b--\r\n", "multipart/form-data; boundary=b"


def send(stack: Stack, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    """Return status and headers, also of a rejected request."""
    request = urllib.request.Request(stack.url + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=300) as response:
            response.read()
            return response.status, response.headers
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.headers


def lines_with(path: Path, text: str) -> list[str]:
    """Return the lines of a log that contain a text; wait for the first."""
    end = time.monotonic() + LIMIT_S
    while True:
        lines = [line for line in path.read_text(errors="replace").splitlines() if text in line]
        if lines or time.monotonic() > end:
            return lines
        time.sleep(0.05)


def test_request_id_is_in_one_log_line_of_the_gateway_and_one_of_triton(stack: Stack) -> None:
    png = images.encode_png(images.draw_photo(40, 48, seed=time.monotonic_ns() % 2**31))

    with stack.post(png) as response:
        response.read()
        request_id = response.headers["X-Request-Id"]

    own = lines_with(stack.state_dir / "gateway.log", request_id)
    tritons = lines_with(stack.state_dir / "triton.log", request_id)
    [line] = [json.loads(line) for line in own]
    assert (line["route"], line["client"], line["variant"]) == ("/api/v1/upscale", CLIENT, "compact_x4")
    assert (line["input_pixels"], line["output_pixels"], line["cache"]) == (40 * 48, 160 * 192, "miss")
    assert line["bands"] >= 1
    assert line["work_s"] > 0
    assert 1000 * sum(line[name] for name in PHASES) <= line["ms"] + ROUNDING_MS
    assert len(tritons) == 1, tritons
    assert "48x40 through compact_x4" in tritons[0]


def test_commands_of_the_guide_answer_their_questions(stack: Stack) -> None:
    png = images.encode_png(images.draw_photo(40, 48, seed=time.monotonic_ns() % 2**31))
    _, headers = send(stack, "/api/v1/upscale", png, {"X-API-Key": stack.key, "Content-Type": "image/png"})
    status, refusal = send(stack, "/api/v1/upscale", png, {"X-API-Key": WRONG_KEY, "Content-Type": "image/png"})
    assert status == 401
    log = stack.state_dir / "gateway.log"
    upscaled, refused = headers["X-Request-Id"], refusal["X-Request-Id"]
    lines_with(log, upscaled)
    lines_with(log, refused)
    environ = {"PATH": os.environ["PATH"], "LOG": str(log), "ID": refused}
    why, who, where = (
        subprocess.run(["bash", "-ec", text], env=environ, text=True, capture_output=True, check=True).stdout
        for kind, text in read_code_blocks("docs/how-to/operate.md")
        if kind == "console" and text.startswith("jq")
    )

    assert json.loads(why)["problem"] == "key-required"
    clients = [row.split("\t") for row in who.splitlines()]
    assert {CLIENT, "(anonymous)"} <= {row[0] for row in clients}
    assert all(len(row) == 5 and int(row[2]) >= 1 for row in clients)
    slowest = [row.split("\t") for row in where.splitlines()]
    assert upscaled in [row[0] for row in slowest] or len(slowest) == 10
    for row in slowest:
        assert 1000 * sum(map(float, row[4:])) <= float(row[3]) + ROUNDING_MS


def test_logs_have_no_keys_file_names_or_addresses(stack: Stack) -> None:
    exif = b"Exif\0\0" + images.exif_with_orientation(1) + GPS_MARKER.encode()
    jpeg = images.encode_jpeg(images.draw_photo(40, 40, seed=time.monotonic_ns() % 2**31), exif=exif)
    body, content_type = multipart(jpeg, f"{FILE_NAME}.jpg")
    key = {"X-API-Key": stack.key, "Content-Type": content_type, "X-Forwarded-For": "203.0.113.77"}
    statuses = [
        send(stack, "/api/v1/upscale", body, key)[0],
        send(stack, "/api/v1/upscale", body, {**key, "Accept": "text/event-stream"})[0],
        send(stack, "/api/v1/upscale?quality=" + FILE_NAME, body, key)[0],
        send(stack, "/api/v1/upscale", jpeg[:300], {**key, "Content-Type": "image/jpeg"})[0],
        send(stack, "/api/v1/upscale", body, {**key, "X-API-Key": WRONG_KEY})[0],
        send(stack, "/api/v1/upscale", body, {"Authorization": f"Bearer {WRONG_KEY}", "Content-Type": content_type})[0],
        send(stack, f"/results/{FILE_NAME}/after", body, key)[0],
        send(stack, "/", body, {"Content-Type": content_type})[0],
    ]
    assert statuses == [200, 200, 400, 422, 401, 401, 405, 403]
    command = Path(f"/proc/{stack.triton_pid()}/cmdline").read_bytes().decode()
    secrets = {*re.findall(r"(?:model|api)-key=([^\0]+)", command)}
    assert len(secrets) == 2

    logs = {path.name: path.read_text(errors="replace") for path in stack.state_dir.glob("*.log")}
    logs["what it printed"] = "\n".join(stack.printed)

    assert logs.keys() >= {"gateway.log", "triton.log"}
    for text in (stack.key, WRONG_KEY, FILE_NAME, GPS_MARKER, "203.0.113.77", *secrets):
        assert [name for name, log in logs.items() if text in log] == [], text
    requests = [json.loads(line) for line in logs["gateway.log"].splitlines() if '"gateway.request"' in line]
    assert {line["address"] for line in requests} == {"127.0.0.0/24"}
    assert all(re.fullmatch("[0-9a-f]{16}", line["request_id"]) for line in requests)
