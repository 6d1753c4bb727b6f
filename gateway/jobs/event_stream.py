"""Live: the events of one picture in the making, as text/event-stream: states, queue, progress, bands, the result.

The work runs on a thread of its own; whoever iterates gets its events, a look at the backend's state and the queue ten
times a second, and a comment now and then, so that no proxy takes a silent connection for dead.
"""

from __future__ import annotations

import base64
import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

from PIL import Image as PilImage

from gateway.backend.state import BackendStateTracker
from gateway.cancellation import CancelledError
from gateway.jobs.result_cache import CachedJob
from gateway.jobs.runner import Job, Progress, Result
from gateway.problems import INTERNAL_DETAIL, InternalError, Problem

HEARTBEAT_S = 5.0
STATE_EVERY_S = 1.0
"""While the backend boots, so that a page can count along."""
LOOK_EVERY_S = 0.1
PREVIEW_WIDTH = 2_048
"""A wider band is sent smaller: it is for the eye, and a page scales it to the canvas anyway."""
PREVIEW_QUALITY = 80
DATA_SLICE_BYTES = 98_304
"""A multiple of 3, so that slices of base64 can be laid end to end."""

_log = logging.getLogger(__name__)

Ending = Result | Problem | CancelledError


class JobEvents:
    """One picture in the making, and the events of it."""

    def __init__(
        self,
        work: Job | CachedJob,
        states: BackendStateTracker,
        *,
        with_bands: bool,
        settle: Callable[[Problem], object] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`settle` is told of a problem that ends the work after the stream has begun."""
        self._settle = settle
        self._work = work
        self._state_tracker = states
        self._with_bands = with_bands
        self._clock = clock
        self._happened: queue.SimpleQueue[bytes | Ending] = queue.SimpleQueue()
        self._state = ""
        """The state last told, and when; then the turn."""
        self._state_told = 0.0
        self._turn = (0, 0)

    def start(self) -> None:
        """Begin the work; it ends with an event, or when its `stop` is set."""
        threading.Thread(target=self._run, name="work", daemon=True).start()

    def events(self) -> Iterator[bytes]:
        """Yield the stream. Closing the iterator stops the work."""
        try:
            spoke = self._clock()
            yield from self._look()
            while True:
                try:
                    happened = self._happened.get(timeout=LOOK_EVERY_S)
                except queue.Empty:
                    happened = b""
                chunks = self._look()
                if isinstance(happened, Result):
                    yield b"".join(chunks)
                    yield from _result(happened, self._work.order.choices.variant.name)
                    return
                if isinstance(happened, Problem):
                    yield b"".join((*chunks, format_event("problem", happened.body(self._work.request_id))))
                    return
                if isinstance(happened, CancelledError):
                    return
                if happened:
                    chunks.append(happened)
                if not chunks and self._clock() - spoke >= HEARTBEAT_S:
                    chunks.append(b": still here\n\n")
                if chunks:
                    spoke = self._clock()
                    yield b"".join(chunks)
        finally:
            self._work.cancel_token.cancel()

    def _run(self) -> None:
        try:
            ending: Ending = self._work.run(self._watch)
        except Problem as problem:
            self._settle(problem)
            ending = problem
        except CancelledError as stopped:
            _log.info("%s: stopped: nobody waits for the picture any more", self._work.request_id)
            ending = stopped
        except Exception as error:  # noqa: BLE001 - a bug must end the stream in words
            _log.exception("%s: %s", self._work.request_id, type(error).__name__)
            ending = InternalError(INTERNAL_DETAIL)
            self._settle(ending)
        self._happened.put(ending)

    def _watch(self, progress: Progress) -> None:
        chunks = []
        if self._with_bands:
            chunks.append(format_event("band", _preview(progress)))
        done = {
            "bands_done": progress.bands_done,
            "bands": progress.bands,
            "elapsed_s": round(progress.elapsed_s, 2),
            "left_s": round(progress.left_s, 1),
        }
        self._happened.put(b"".join((*chunks, format_event("progress", done))))

    def _look(self) -> list[bytes]:
        """Return an event for the state and the queue, each when it has changed, the state also while it boots."""
        chunks = []
        state = self._state_tracker.current()
        is_due = state.name == "booting" and self._clock() - self._state_told >= STATE_EVERY_S
        if self._state != state.name or is_due:
            self._state, self._state_told = state.name, self._clock()
            elapsed_s = round(state.since_s, 1) if state.name == "booting" else None
            told = {"state": state.name, "elapsed_s": elapsed_s, "usual_s": state.describe_boot_times()}
            chunks.append(format_event("state", told))
        turn = self._work.ticket.turn
        if turn != self._turn:
            self._turn = turn
            chunks.append(format_event("queue", {"place": turn[0], "ahead": turn[1]}))
        return chunks


def format_event(name: str, data: dict[str, Any]) -> bytes:
    """Return one event of a text/event-stream (HTML Living Standard, section 9.2)."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def _preview(progress: Progress) -> dict[str, Any]:
    pixels = progress.band.pixels
    picture, target = PilImage.fromarray(pixels), BytesIO()
    if picture.width > PREVIEW_WIDTH:
        height = max(1, round(picture.height * PREVIEW_WIDTH / picture.width))
        picture = picture.resize((PREVIEW_WIDTH, height), PilImage.Resampling.BILINEAR)
    picture.save(target, "JPEG", quality=PREVIEW_QUALITY)
    return {
        "top": progress.band.top,
        "rows": len(pixels),
        "width": progress.width,
        "height": progress.height,
        "media_type": "image/jpeg",
        "data": base64.b64encode(target.getvalue()).decode(),
    }


def _result(result: Result, variant: str) -> Iterator[bytes]:
    """Yield the last event; its data goes out in slices, never in memory as a whole."""
    about = {
        "filename": result.filename,
        "media_type": result.media_type,
        "width": result.width,
        "height": result.height,
        "bytes": len(result.data),
        "seconds": round(result.seconds, 3),
        "variant": variant,
        "notes": list(result.notes),
        "checks": None if result.checks is None else vars(result.checks),
        "cache": result.cache,
    }
    yield f'event: result\ndata: {json.dumps(about)[:-1]}, "data": "'.encode()
    view = memoryview(result.data)
    for start in range(0, len(view), DATA_SLICE_BYTES):
        yield base64.b64encode(view[start : start + DATA_SLICE_BYTES])
    yield b'"}\n\n'
