"""The real application with scripted responses: a test defines the events of the stream, the status and the wake
call. The script can wait at a gate while the test checks the page.

The final result is real: the API's response to the same upload.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from flask import Flask
from PIL import Image
from werkzeug import Request
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wsgi import ClosingIterator

from gateway.access.api_keys import ApiKeyStore
from gateway.app import create_app
from gateway.config.settings import Settings
from gateway.jobs.result_store import BeforeAfter, StoredImage
from gateway.services import services
from testing.backend import FakeBackend

GATE_LIMIT_S = 120.0
USUAL = {"p50": 12.0, "p90": 15.0}


@dataclass(frozen=True)
class Event:
    """One event of the stream, sent unchanged."""

    name: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Gate:
    """Holds the stream until the test opens the gate of that name; sends comments meanwhile unless it is silent."""

    name: str
    is_silent: bool = False


@dataclass(frozen=True)
class Bands:
    """Bands `first` to `last` of `of`, cut from the result, each with its progress."""

    first: int
    last: int
    of: int


class Whole:
    """Sends the result."""


class Broken:
    """Closes the connection."""


Step = Event | Gate | Bands | Whole | Broken

ASLEEP = Event("state", {"state": "asleep", "elapsed_s": None, "usual_s": USUAL})
UP = Event("state", {"state": "up", "elapsed_s": None, "usual_s": USUAL})


def booting(elapsed_s: float) -> Event:
    return Event("state", {"state": "booting", "elapsed_s": elapsed_s, "usual_s": USUAL})


def queued(ahead: int) -> Event:
    return Event("queue", {"position": ahead + 1, "ahead": ahead})


PLAIN: tuple[Step, ...] = (UP, Bands(1, 2, 2), Whole())


@dataclass
class Script:
    """Steps of the response to each of the next uploads; PLAIN for all later ones."""

    plays: list[tuple[Step, ...]] = field(default_factory=list)
    refusals: list[tuple[int, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    """(status, problem, headers) of responses that replace the stream of the next uploads."""
    is_live: bool = False
    """Whether the application itself responds to everything."""
    state: str = "up"
    reason: str | None = None
    since_s: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    """Members that replace those of the result event."""
    month: dict[str, Any] = field(default_factory=dict)
    """The member `month` of the status."""
    estimate: dict[str, Any] | None = None
    """The member `estimate` of the status."""
    woken: int = 0
    uploads: list[bytes] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    """The form's CSRF token of each upload."""
    fields: list[dict[str, str]] = field(default_factory=list)
    """The other fields of each upload that the page's script sent."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    gates: dict[str, threading.Event] = field(default_factory=dict)

    def open(self, gate: str) -> None:
        """Open a gate."""
        self.gate(gate).set()

    def gate(self, name: str) -> threading.Event:
        return self.gates.setdefault(name, threading.Event())


class ScriptedGateway:
    """Serves the scripted application on a free port, in threads of this process."""

    def __init__(self, state_dir: Path, *, upscaler: FakeBackend | None = None, **changes: Any) -> None:
        self.key = ApiKeyStore(state_dir / "keys.json").new("browser")
        self.app: Flask = create_app(
            Settings(**{"state_dir": str(state_dir), "small_jobs_per_slot": 1, **changes}), upscaler or FakeBackend()
        )
        self._inner = self.app.wsgi_app
        self.app.wsgi_app = self._answer  # type: ignore[method-assign,assignment]
        self.script = Script()
        self.server: BaseWSGIServer = make_server("127.0.0.1", 0, self.app, threaded=True, request_handler=_Quiet)
        self.url = f"http://127.0.0.1:{self.server.port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def api(self, upload: bytes, **fields: object) -> bytes:
        """Return the API's response to an upload with the form's variant and these fields."""
        with self.app.test_client() as client:
            path = f"/api/v1/upscale?{urlencode({'variant': 'auto', **fields})}"
            response = client.post(path, data=upload, headers={"X-API-Key": self.key}, buffered=True)
        assert response.status_code == 200, response.get_data(as_text=True)
        return response.data

    def _answer(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if self.script.is_live:
            path = ""
        if path == "/api/v1/status":
            return self._json(start, "200 OK", self._status())
        if path == "/api/v1/wake" and method == "POST":
            self.script.woken += 1
            self.script.state = "booting" if self.script.state == "asleep" else self.script.state
            return self._json(start, "202 Accepted", {"state": self.script.state})
        if path == "/" and method == "POST" and "text/event-stream" in environ.get("HTTP_ACCEPT", ""):
            return self._stream(environ, start)
        # Read whole: werkzeug's server leaves the response and its file open if the client resets the connection.
        with closing(ClosingIterator(self._inner(environ, start))) as response:
            return [b"".join(response)]

    def _status(self) -> dict[str, Any]:
        since = self.script.since_s or 0.0
        backend = {"state": self.script.state, "since_s": since, "usual_boot_s": USUAL, "reason": self.script.reason}
        return {
            "backend": backend,
            "queue": {"running": 0, "waiting": 0, "size": 8},
            "month": self.script.month,
            "estimate": self.script.estimate,
        }

    def _json(
        self, start: Any, status: str, body: dict[str, Any], headers: Iterable[tuple[str, str]] = ()
    ) -> list[bytes]:
        start(status, [("Content-Type", "application/json"), *headers])
        return [json.dumps(body).encode()]

    def _stream(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        script = self.script
        with Request(environ) as sent:
            fields, filename = sent.form.to_dict(), sent.files["image"].filename
            script.uploads.append(sent.files["image"].read())
        script.tokens.append(fields.pop("token", ""))
        script.fields.append(fields)
        if script.refusals:
            status, problem, headers = script.refusals.pop(0)
            return self._json(start, f"{status} Refused", {"status": status, **problem}, headers.items())
        image = (BytesIO(script.uploads[-1]), filename)
        with self.app.test_client() as client:
            response = client.post(
                "/api/v1/upscale", data={"image": image, **fields}, headers={"X-API-Key": self.key}, buffered=True
            )
        if response.status_code != 200:
            return self._json(start, f"{response.status_code} Refused", response.get_json() or {})
        result = _result(response) | self._store(script.uploads[-1], response)
        start("200 OK", [("Content-Type", "text/event-stream"), ("Cache-Control", "no-store")])
        steps = script.plays.pop(0) if script.plays else PLAIN
        return self._play(script, steps, response, result)

    def _store(self, upload: bytes, response: Any) -> dict[str, Any]:
        """Store a result with its upload, and return the members of its event that say where."""
        filename = response.headers["Content-Disposition"].partition("filename=")[2]
        image = StoredImage(response.data, response.mimetype, filename)
        before = StoredImage(upload, "application/octet-stream", "upload")
        result_id = services(self.app).result_store.put(BeforeAfter(before, image))
        urls = {"url": f"/api/v1/results/{result_id}", "upload_url": f"/results/{result_id}/before"}
        return {**urls, "expires_s": 900.0}

    def _play(self, script: Script, steps: tuple[Step, ...], response: Any, result: dict[str, Any]) -> Iterator[bytes]:
        ended = False
        choice = response.headers.get("X-Superres-Choice")
        try:
            for step in steps:
                if choice and isinstance(step, Bands | Whole):
                    yield _line("choice", _choice(choice, response.headers["X-Superres-Variant"]))
                    choice = None
                if isinstance(step, Gate):
                    yield from self._wait(script.gate(step.name), step.is_silent)
                elif isinstance(step, Event):
                    yield _line(step.name, step.data)
                elif isinstance(step, Bands):
                    yield from _bands(step, response.data)
                elif isinstance(step, Broken):
                    ended = True
                    return
                else:
                    yield _line("result", result | script.extra)
            ended = True
        finally:
            if not ended:
                script.cancelled.set()

    def _wait(self, gate: threading.Event, is_silent: bool) -> Iterator[bytes]:
        deadline = time.monotonic() + GATE_LIMIT_S
        if is_silent:
            gate.wait(GATE_LIMIT_S)
        while not gate.wait(0.05) and time.monotonic() < deadline:
            yield b": heartbeat\n\n"


class _Quiet(WSGIRequestHandler):
    """Logs nothing: tests check the browser's console."""

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        del type, message, args


def _line(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _bands(step: Bands, data: bytes) -> Iterator[bytes]:
    with Image.open(BytesIO(data)) as image:
        whole = image.convert("RGB")
    for band in range(step.first, step.last + 1):
        top, bottom = (whole.height * edge // step.of for edge in (band - 1, band))
        target = BytesIO()
        whole.crop((0, top, whole.width, bottom)).save(target, "JPEG", quality=90, subsampling=0)
        facts = {"top": top, "rows": bottom - top, "width": whole.width, "height": whole.height}
        encoded = base64.b64encode(target.getvalue()).decode()
        yield _line("band", {**facts, "media_type": "image/jpeg", "data": encoded})
        left = {"elapsed_s": 1.5 * band, "left_s": 15.0 * (step.of - band)}
        yield _line("progress", {"bands_done": band, "bands": step.of, **left})


def _choice(sentence: str, variant: str) -> dict[str, Any]:
    other = "compact_x4" if variant in ("compact_real_x4", "nearest_x4") else "compact_real_x4"
    return {"kind": "clean photo", "variant": variant, "alternative": other, "sentence": sentence}


def _result(response: Any) -> dict[str, Any]:
    width, height = map(int, response.headers["X-Superres-Size"].split("x"))
    return {
        "filename": response.headers["Content-Disposition"].partition("filename=")[2],
        "media_type": response.mimetype,
        "width": width,
        "height": height,
        "bytes": len(response.data),
        "seconds": float(response.headers["X-Superres-Seconds"]),
        "variant": response.headers["X-Superres-Variant"],
        "strength": float(response.headers.get("X-Superres-Strength", 1)),
        "notes": [note for note in [response.headers.get("X-Superres-Notes")] if note],
        "checks": {
            "tiles": 2,
            "reruns": 0,
            "halvings": 0,
            "lowest": -3.0,
            "highest": 260.0,
            "clamped": 0.001,
            "back_db": 41.2,
        },
        "cache": "miss",
    }
