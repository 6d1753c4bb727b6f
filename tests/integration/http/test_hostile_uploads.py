"""Two thousand hostile uploads to the real server: each gets a problem, and the memory stays bounded.

Half are damaged images of every format; the others are decompression bombs, lying sizes, large profiles, many parts and
long headers.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.access.api_keys import ApiKeyStore
from gateway.jobs.request_body import MAX_FORM_PARTS
from testing import hostile_images, images
from testing.damaged_images import DAMAGES, SEEDS, seal
from testing.raw_http import Request, multipart
from testing.server import Served, read_memory_bytes, read_worker_pid, serving

UPLOADS = 2_000
THREADS = 4
"""Few enough to fill neither the queue, so that a 503 is a failure, nor MAX_LINGERING."""
MAX_GROWTH_BYTES = 300_000_000
LIMIT_S = 120.0
HIGH_RATE = "100000 per minute"
PIXELS = images.draw_photo(16, 16)
PNG, JPEG, WEBP = images.encode_png(PIXELS), images.encode_jpeg(PIXELS), images.encode_webp(PIXELS)

Dice = random.Random


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with the default limits on images and without rate limits."""
    names = ("ANONYMOUS_REQUESTS", "ANONYMOUS_MEGAPIXELS", "CLIENT_REQUESTS", "CLIENT_MEGAPIXELS", "BAN_AFTER")
    ample = {f"SUPERRES_{name}": HIGH_RATE for name in names}
    each = {"SUPERRES_MAX_CONCURRENT_REQUESTS": "1000"}
    with serving(tmp_path_factory.mktemp("exposed"), **ample, **each) as server:
        yield server


def post(server: Served, key: str, request: Request) -> tuple[int, str]:
    """Send a request and return (status, slug); status 0 if the server closes the connection instead."""
    path, body, headers = request
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT_S)
    try:
        connection.request("POST", path, body, {"X-API-Key": key, **headers})
        response = connection.getresponse()
        data = response.read()
    except (BrokenPipeError, ConnectionResetError):
        return 0, "closed"
    finally:
        connection.close()
    if response.status < 400:
        return response.status, ""
    problem = json.loads(data)
    assert problem["status"] == response.status
    assert problem["detail"].endswith("."), problem
    return response.status, problem["type"].removeprefix("/problems/")


def raw(data: bytes) -> Request:
    return "/api/v1/upscale", data, {"Content-Type": "application/octet-stream"}


def image_part(data: bytes, head: bytes = b"") -> bytes:
    return b'Content-Disposition: form-data; name="image"; filename="a.png"\r\n' + head + b"\r\n" + data


def damaged(rng: Dice) -> Request:
    data = rng.choice(DAMAGES)(SEEDS[rng.choice(list(SEEDS))], rng)
    data = seal(data) if rng.random() < 0.5 else data
    return raw(data) if rng.random() < 0.5 else multipart(image_part(data))


def zeros(rng: Dice) -> bytes:
    """Return up to 64 MB of zeros, compressed to a thousandth of their size."""
    packer = zlib.compressobj(9)
    block = bytes(1_000_000)
    return b"".join(packer.compress(block) for _ in range(rng.choice((1, 8, 64)))) + packer.flush()


def pixel_bomb(rng: Dice) -> Request:
    """Return a PNG with more pixels than its header declares, or with a header that declares too many."""
    side = rng.choice((1, 40, 2_048, 2_049, 8_193, 65_535, 2**31 - 1))
    size = images.png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, rng.choice((1, side)), 8, 2, 0, 0, 0))
    body = images.png_chunk(b"IDAT", zeros(rng) if side <= 2_048 else b"")
    # The last chunk is missing, so that no variant is a valid image.
    return raw(images.PNG_SIGNATURE + size + body)


def text_bomb(rng: Dice) -> Request:
    kind, head = rng.choice(((b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0"), (b"iCCP", b"a\0\0")))
    bomb = images.insert_png_chunk(PNG, kind, head + zeros(rng), copies=rng.choice((1, 3)))
    return raw(bomb[:-20])


def wild_profile(rng: Dice) -> Request:
    profile = bytearray(images.icc_profile(n_bytes=rng.choice((180, 5_000))))
    for _ in range(20):
        struct.pack_into(">I", profile, 4 * rng.randrange(len(profile) // 4), rng.choice((0, 2**32 - 1, 2**31)))
    return raw(images.truncated(images.encode_jpeg(PIXELS, icc_profile=bytes(profile)), 0.9))


def many_frames(rng: Dice) -> Request:
    chunk = images.png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 16, 16, 0, 0, 1, 10, 0, 0))
    at = PNG.index(b"IDAT") - 4
    control = images.png_chunk(b"acTL", struct.pack(">II", rng.choice((0, 2**31 - 1)), 0))
    return raw(PNG[:at] + control + chunk * rng.choice((1, 1_000, 20_000)) + PNG[at:-30])


def many_segments(rng: Dice) -> Request:
    marker, body = rng.choice(
        ((0xE1, b"Exif\0\0II*\0" + bytes(500)), (0xE2, b"ICC_PROFILE\0\1\xff"), (0xFE, b"x" * 60))
    )
    return raw(images.truncated(images.insert_jpeg_segment(JPEG, marker, body, copies=rng.choice((10, 5_000))), 0.95))


def many_chunks(rng: Dice) -> Request:
    return raw(images.add_webp_chunk(WEBP, b"EXIF", b"II*\0", copies=rng.choice((10, 50_000)))[:-7])


def many_parts(rng: Dice) -> Request:
    part = rng.choice((b'Content-Disposition: form-data; name="a"\r\n\r\nx', image_part(PNG), b"\r\n", b""))
    return multipart(*[part] * rng.choice((MAX_FORM_PARTS + 1, 10_000)))


def long_part_headers(rng: Dice) -> Request:
    head = b"X-Pad: " + b"a" * rng.choice((10_000, 300_000)) + b"\r\n"
    return multipart(image_part(PNG, head * rng.choice((1, 20))), b"broken")


def long_names(rng: Dice) -> Request:
    name = rng.choice(('"', "\\", "%", "../", "\N{SNOWMAN}")) * rng.choice((100, 60_000))
    part = f'Content-Disposition: form-data; name="{name}"; filename="{name}"\r\n\r\n'.encode()
    return multipart(part + PNG)


def nameless_parts(rng: Dice) -> Request:
    disposition = rng.choice((b": form-data", b":", b": form-data; filename=x", b": form-data; filename*=utf-8''x"))
    part = b"Content-Disposition" + disposition + b"\r\n\r\n" + PNG
    return multipart(*rng.choice(((part,), (image_part(PNG), part))))


def odd_boundaries(rng: Dice) -> Request:
    boundary = rng.choice(("", "x" * 5_000, '"', "boundary; boundary=b", "--", "bound"))
    return multipart(image_part(PNG), boundary=boundary)


def open_part(rng: Dice) -> Request:
    path, body, headers = multipart(image_part(bytes(rng.choice((100, 2_000_000)))))
    return path, body[:-14], headers


def noise(rng: Dice) -> Request:
    return raw(
        rng.choice((b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")) + rng.randbytes(rng.choice((9, 90_000)))
    )


def odd_parameters(rng: Dice) -> Request:
    query = rng.choice(
        ("quality=1e9", "strength=nan", "strength=" + "9" * 3_000, "format=%00", "variant=" + "a" * 3_000, "a" * 3_000)
    )
    return f"/api/v1/upscale?{query}", PNG, {}


BUILDERS: tuple[Callable[[Dice], Request], ...] = (
    pixel_bomb,
    text_bomb,
    wild_profile,
    many_frames,
    many_segments,
    many_chunks,
    many_parts,
    long_part_headers,
    long_names,
    nameless_parts,
    odd_boundaries,
    open_part,
    noise,
    odd_parameters,
)


def of_image(make: Callable[[Dice], bytes]) -> Callable[[Dice], Request]:
    """Return a builder of requests with an image in its body."""

    def build(rng: Dice) -> Request:
        return raw(make(rng))

    build.__name__ = make.__name__
    return build


BUILDERS += tuple(of_image(make) for make in hostile_images.BUILDERS)


def test_two_thousand_hostile_uploads_end_as_problems(exposed: Served) -> None:
    key = ApiKeyStore(exposed.state_dir / "keys.json").new("tests")
    pid = read_worker_pid(exposed)
    assert post(exposed, key, raw(PNG))[0] == 200
    idle = read_memory_bytes(pid, "VmRSS")

    def attack(number: int) -> tuple[str, int, str]:
        rng = Dice(number)
        make = damaged if number % 2 else BUILDERS[number // 2 % len(BUILDERS)]
        return make.__name__, *post(exposed, key, make(rng))

    with ThreadPoolExecutor(THREADS) as pool:
        outcomes = Counter(pool.map(attack, range(UPLOADS)))

    faults = {
        outcome: count for outcome, count in outcomes.items() if not (outcome[1] == 200 or 400 <= outcome[1] < 500)
    }
    assert not faults
    assert {name for name, status, _ in outcomes if status >= 400} == {make.__name__ for make in (damaged, *BUILDERS)}
    assert read_worker_pid(exposed) == pid, "the worker died and was replaced"
    assert post(exposed, key, raw(PNG))[0] == 200
    growth = read_memory_bytes(pid, "VmHWM") - idle
    assert growth < MAX_GROWTH_BYTES, f"{growth:,} bytes above idle"
    assert "Traceback" not in exposed.log()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"X-Pad: " + b"a" * 100_000, b"431"),
        (b"X: y\r\n" * 5_000, b"431"),
        (b"Cookie: " + b"\xff" * 9_000, b"431"),
        (b"\0" * 500, b"400"),
    ],
)
def test_headers_without_end_are_rejected(exposed: Served, line: bytes, expected: bytes) -> None:
    with socket.create_connection(("127.0.0.1", exposed.port), timeout=LIMIT_S) as sock:
        with contextlib.suppress(OSError):  # rejected and closed while sending
            sock.sendall(b"POST /api/v1/upscale HTTP/1.1\r\nHost: here\r\n" + line)
            sock.sendall(b"\r\nContent-Length: 0\r\n\r\n")

        status = sock.recv(100).split()[1]

    assert status == expected


@pytest.mark.parametrize("way", [raw, lambda data: multipart(image_part(data))], ids=["raw", "form"])
def test_sixteen_large_uploads_stay_within_memory(tmp_path: Path, way: Callable[[bytes], Request]) -> None:
    """The bodies have 320 MB; the limit on upload memory reads 100 MB at once and lets the others wait unread."""
    large = images.insert_png_chunk(PNG, b"teSt", bytes(19_900_000))
    ample = {"SUPERRES_MAX_CONCURRENT_REQUESTS": "1000"}
    with serving(tmp_path, **ample) as server:
        key = ApiKeyStore(tmp_path / "keys.json").new("tests")
        pid = read_worker_pid(server)
        assert post(server, key, raw(PNG))[0] == 200
        idle = read_memory_bytes(pid, "VmRSS")

        with ThreadPoolExecutor(16) as pool:
            outcomes = Counter(pool.map(lambda _: post(server, key, way(large)), range(32)))

        assert outcomes.keys() <= {(200, ""), (503, "uploads-full"), (503, "queue-full")}, outcomes
        assert outcomes[(200, "")] >= 5
        growth = read_memory_bytes(pid, "VmHWM") - idle
        assert growth < MAX_GROWTH_BYTES / 2, f"{growth:,} bytes above idle"
