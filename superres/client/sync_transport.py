"""Performs the effects of a call with httpx; synchronous."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import httpx

from superres.client.effects import Effect, Pause, ReadChunk, Report, Send, Steps, T
from superres.client.progress import OnProgress
from superres.client.service_url import ServiceUrl
from superres.client.transport import FAILURES, describe_failure, read_head, request_arguments


class RunCall(Protocol):
    """Performs the effects of a call and returns its outcome."""

    def __call__(self, steps: Steps[T], on_progress: OnProgress | None = None, /) -> T:
        """Return the outcome."""
        ...


class SyncTransport:
    """Calls one service. Several threads may share it."""

    def __init__(
        self,
        url: ServiceUrl,
        http: httpx.Client,
        timeout_s: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`timeout_s` is what `http` waits for a byte."""
        self._url = url
        self._http = http
        self._timeout_s = timeout_s
        self._sleep = sleep

    def run(self, steps: Steps[T], on_progress: OnProgress | None = None, /) -> T:
        """Perform the effects of a call and return its outcome. An exception closes its connection."""
        exchange = _SyncExchange(self._url, self._http)
        step: Callable[[], Effect] = partial(next, steps)
        try:
            while True:
                try:
                    effect = step()
                except StopIteration as done:
                    return done.value
                try:
                    outcome = exchange.perform(effect)
                except FAILURES as error:
                    step = partial(
                        steps.throw, describe_failure(error, self._url, exchange.silence_s or self._timeout_s)
                    )
                    continue
                match effect:
                    case Pause():
                        exchange.close()
                        self._sleep(effect.seconds)
                    case Report() if on_progress:
                        on_progress(effect.progress)
                step = partial(steps.send, outcome)
        finally:
            steps.close()
            exchange.close()


class _SyncExchange:
    """The requests of one call, one open at a time. Closing an unfinished event stream cancels its job."""

    def __init__(self, url: ServiceUrl, http: httpx.Client) -> None:
        self._url = url
        self._http = http
        self._response: httpx.Response | None = None
        self.silence_s = 0.0
        """Seconds without a byte that the current request waits for, if they are not those of `http`."""
        self._chunks: Iterator[bytes] = iter(())

    def perform(self, effect: Effect) -> object:
        """Return the outcome of a Send or ReadChunk; None for others. Raises FAILURES."""
        match effect:
            case Send():
                self.close()
                request = self._http.build_request(**request_arguments(self._url, effect, self._http.timeout))
                self.silence_s = effect.silence_s
                self._response = self._http.send(request, stream=True, follow_redirects=False)
                # As pieces arrive: with a size, httpx waits until one is full, and loses it if the connection breaks.
                self._chunks = self._response.iter_raw()
                return read_head(self._response)
            case ReadChunk():
                return next(self._chunks, b"")
        return None

    def close(self) -> None:
        """Close the connection."""
        if self._response is not None:
            self._response.close()
            self._response = None
