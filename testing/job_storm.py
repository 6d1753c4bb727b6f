"""Sends many requests about asynchronous jobs at once and checks that none is lost and no two are swapped.

`python -m testing.job_storm --requests 10000` runs it without and with Redis and prints what it counted. Each job has
an image of its own, so a result, a status or a webhook of another job is noticed. Which job is repeated, deleted, has
several images or a receiver that fails at first follows from its number.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from gateway.access.api_keys import ApiKeyStore
from preprocessing.codec import Pixels
from testing.images import draw_photo, encode_png
from testing.redis_server import RedisServer
from testing.requests import read_image
from testing.server import Served, serving
from testing.webhook_receiver import Message, Receiver, is_signed_by, receiving

LIMIT_S = 120.0
CLIENTS = 12
# Seconds of work per image: some jobs are deleted before they have ended.
WORK_S = 0.05
WEBHOOK_KEY = "whsk_" + "A" * 43 + "="
RATES = ("CLIENT_REQUESTS", "CLIENT_MEGAPIXELS", "POLL_RATE")
VARIABLES = {
    **{f"SUPERRES_{name}": "100000 per minute" for name in RATES},
    "SUPERRES_MAX_CONCURRENT_REQUESTS": "64",
    "SUPERRES_QUEUE_SIZE_PER_CLIENT": "24",
    "SUPERRES_WEBHOOK_KEY": WEBHOOK_KEY,
}


class Storm:
    """One run against one gateway, or against several that share jobs."""

    def __init__(self, servers: list[Served], key: str, receiver: Receiver) -> None:
        self.counts: Counter[str] = Counter()
        self._servers, self._key, self._receiver = servers, key, receiver
        self._lock = threading.Lock()
        self._public_key = ""
        # Ids of the jobs by number, once they are known.
        self._ids: dict[int, str] = {}

    def run(self, requests: int) -> None:
        """Live through jobs until as many requests were sent; raise AssertionError for the first fault."""
        (public_key,) = json.loads(self._ask(0, "GET", "/.well-known/jwks.json")[2])["keys"]
        self._public_key = public_key["standard_webhooks"]
        numbers = count(1)
        faults: list[Exception] = []

        def live_on() -> None:
            while not faults and self.counts["requests"] < requests:
                try:
                    self._live(next(numbers))
                except Exception as error:  # noqa: BLE001 - ends the storm
                    faults.append(error)

        with ThreadPoolExecutor(CLIENTS) as pool:
            for _ in range(CLIENTS):
                pool.submit(live_on)
        if faults:
            raise faults[0]
        self._check_messages()
        for server in self._servers:
            assert "Traceback" not in server.log(), server.log()

    def _live(self, number: int) -> None:
        """Send a job and check everything that comes back for it."""
        images = [draw(number, index) for index in range(3 if number % 7 == 0 else 1)]
        path = self._submit(number, images)
        if number % 3 == 0:
            assert self._submit(number, images) == path, f"job {number}: the key was not recognised"
        with self._lock:
            self._ids[number] = path.rpartition("/")[2]
        if number % 5 == 0:
            self._delete_unfinished(number, path)
            return
        status = self._await_end(number, path)
        assert status["state"] == "done", f"job {number}: {status}"
        self._check_result(number, images, status)
        self._await_message(number)
        assert self._ask(number, "DELETE", path)[0] == 204
        for deleted in (path, f"{path}/result"):
            assert self._ask(number + 1, "GET", deleted)[0] == 404, f"job {number} is still there"
        self._count("done")

    def _submit(self, number: int, images: list[Pixels]) -> str:
        webhook = quote(f"{self._receiver.url}&number={number}", safe="")
        query = f"variant=compact_x4&webhook={webhook}"
        headers = {"Prefer": "respond-async", "Idempotency-Key": f"key-{number}"}
        if len(images) == 1:
            body, headers["Content-Type"] = encode_png(images[0]), "image/png"
        else:
            body, headers["Content-Type"] = _form([encode_png(pixels) for pixels in images])
            headers["Accept"] = "application/zip"
        status, found, answer = self._ask(number, "POST", f"/api/v1/upscale?{query}", body, headers)
        assert status == 202, f"job {number}: {status} {answer[:500]!r}"
        return str(found["Location"])

    def _delete_unfinished(self, number: int, path: str) -> None:
        assert self._ask(number, "DELETE", path)[0] == 204
        status, _, body = self._ask(number + 1, "GET", path)
        if status == 200:
            assert json.loads(body)["state"] == "cancelled", body
            self._await_message(number)
            self._count("cancelled")
        else:
            assert status == 404, body
            self._count("forgotten")

    def _await_end(self, number: int, path: str) -> dict[str, Any]:
        end = time.monotonic() + LIMIT_S
        while True:
            status, _, body = self._ask(number + 1, "GET", path)
            assert status == 200, f"job {number}: {status} {body[:500]!r}"
            read: dict[str, Any] = json.loads(body)
            if read["finished_at"]:
                return read
            assert time.monotonic() < end, f"job {number} has not ended: {read}"
            time.sleep(0.02)

    def _check_result(self, number: int, images: list[Pixels], status: dict[str, Any]) -> None:
        code, _, data = self._ask(number, "GET", status["result"]["url"])
        assert code == 200, f"job {number}: {code} {data[:500]!r}"
        assert status["id"] == self._ids[number]
        files = [data]
        if len(images) > 1:
            with zipfile.ZipFile(BytesIO(data)) as archive:
                files = [archive.read(name) for name in archive.namelist() if name != "report.json"]
        assert len(files) == len(images), f"job {number} has lost an image"
        for file, pixels in zip(files, images, strict=True):
            expected = pixels.repeat(4, 0).repeat(4, 1)
            assert (read_image(file) == expected).all(), f"job {number} has the result of another image"

    def _await_message(self, number: int) -> None:
        """Wait until the receiver has accepted a message about a job."""
        end = time.monotonic() + LIMIT_S
        needed = 2 if fails_at_first(number) else 1
        while sum(number_of(message) == number for message in list(self._receiver.messages)) < needed:
            assert time.monotonic() < end, f"no webhook about job {number}"
            time.sleep(0.05)

    def _check_messages(self) -> None:
        """Check that each message is about the job of its URL, is signed, and that repetitions are equal."""
        bodies: dict[int, set[bytes]] = {}
        for message in self._receiver.messages:
            number = number_of(message)
            assert message.id == self._ids[number] == message.status()["id"], f"webhook {number} is about another job"
            assert is_signed_by(message, self._public_key), f"webhook {number} has a wrong signature"
            assert message.status()["state"] in (("done", "cancelled") if number % 5 == 0 else ("done",))
            bodies.setdefault(number, set()).add(message.body)
        assert all(len(each) == 1 for each in bodies.values()), "a repeated message differs"
        self.counts["webhooks"] = len(self._receiver.messages)
        self.counts["jobs"] = len(self._ids)
        assert len(set(self._ids.values())) == len(self._ids), "two jobs have one id"

    def _ask(
        self, turn: int, method: str, path: str, data: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, bytes]:
        """Return status, headers and body. `turn` chooses the gateway."""
        server = self._servers[turn % len(self._servers)]
        named = {"X-API-Key": self._key, **(headers or {})}
        asked = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", data, named, method=method)
        self._count("requests")
        self._count(method)
        try:
            with urllib.request.urlopen(asked, timeout=LIMIT_S) as response:
                return response.status, response.headers, response.read()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.headers, refused.read()

    def _count(self, name: str) -> None:
        with self._lock:
            self.counts[name] += 1


def draw(number: int, index: int) -> Pixels:
    """Return an image that no other job has."""
    return draw_photo(6 + number % 7, 5 + number // 7 % 9, seed=10 * number + index)


def fails_at_first(number: int) -> bool:
    """Return whether the receiver rejects the first message about a job."""
    return number % 100 == 1


def number_of(message: Message) -> int:
    """Return the number of the job in the URL of a webhook."""
    return int(parse_qs(urlsplit(message.path).query)["number"][0])


def run_storm(requests: int, folder: Path, redis: RedisServer | None) -> Counter[str]:
    """Run against one gateway, or with Redis against two; return what was counted."""
    seen: set[int] = set()

    def respond(message: Message) -> int:
        number = number_of(message)
        is_first = number not in seen
        seen.add(number)
        return 503 if is_first and fails_at_first(number) else 200

    key = ApiKeyStore(folder / "keys.json").new("storm")
    with receiving(respond) as receiver, ExitStack() as stack:
        variables = {
            **VARIABLES,
            "SUPERRES_KEYS_FILE": str(folder / "keys.json"),
            "SUPERRES_WEBHOOK_HOSTS": receiver.authority,
            **({"SUPERRES_REDIS_URL": redis.url} if redis else {}),
        }
        names = ("a", "b") if redis else ("a",)
        servers = [stack.enter_context(serving(folder / name, f"takes={WORK_S}", **variables)) for name in names]
        storm = Storm(servers, key, receiver)
        storm.run(requests)
        return storm.counts


def _form(images: list[bytes]) -> tuple[bytes, str]:
    """Return the body of a form with several images, and its Content-Type."""
    parts = [
        f'--storm\r\nContent-Disposition: form-data; name="image"; filename="{index}.png"\r\n\r\n'.encode() + data
        for index, data in enumerate(images)
    ]
    return b"\r\n".join(parts) + b"\r\n--storm--\r\n", "multipart/form-data; boundary=storm"


def main() -> None:
    """Run the storm without and with Redis."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=10_000)
    wanted = parser.parse_args().requests
    for has_redis in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            redis = RedisServer(Path(folder)) if has_redis else None
            started_at = time.monotonic()
            try:
                counts = run_storm(wanted, Path(folder), redis)
            finally:
                if redis:
                    redis.kill()
            store = "Redis, two gateways" if has_redis else "memory, one gateway"
            listed = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
            print(f"{store}: {listed}; {time.monotonic() - started_at:.0f} s")


if __name__ == "__main__":
    main()
