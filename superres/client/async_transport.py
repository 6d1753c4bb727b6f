"""Performs the effects of a call with httpx; asynchronous, on asyncio."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Protocol

import httpx

from superres.client.effects import Effect, Pause, ReadChunk, Report, Send, Steps, T
from superres.client.progress import OnProgress
from superres.client.service_url import ServiceUrl
from superres.client.transport import FAILURES, describe_failure, read_head, request_arguments


class AwaitCall(Protocol):
    """Performs the effects of a call and returns its outcome."""

    async def __call__(self, steps: Steps[T], on_progress: OnProgress | None = None, /) -> T:
        """Return the outcome."""
        ...


class AsyncTransport:
    """Calls one service. Several tasks may share it."""

    def __init__(
        self,
        url: ServiceUrl,
        http: httpx.AsyncClient,
        timeout_s: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`timeout_s` is what `http` waits for a byte."""
        self._url = url
        self._http = http
        self._timeout_s = timeout_s
        self._sleep = sleep

    async def run(self, steps: Steps[T], on_progress: OnProgress | None = None, /) -> T:
        """Perform the effects of a call and return its outcome.

        An exception, also that of a cancelled task, closes its connection.
        """
        exchange = _AsyncExchange(self._url, self._http)
        step: Callable[[], Effect] = partial(next, steps)
        try:
            while True:
                try:
                    effect = step()
                except StopIteration as done:
                    return done.value
                try:
                    outcome = await exchange.perform(effect)
                except FAILURES as error:
                    step = partial(
                        steps.throw, describe_failure(error, self._url, exchange.silence_s or self._timeout_s)
                    )
                    continue
                match effect:
                    case Pause():
                        await exchange.close()
                        await self._sleep(effect.seconds)
                    case Report() if on_progress:
                        reported = on_progress(effect.progress)
                        if inspect.isawaitable(reported):
                            await reported
                step = partial(steps.send, outcome)
        finally:
            steps.close()
            await exchange.close()


class _AsyncExchange:
    """The requests of one call, one open at a time. Closing an unfinished event stream cancels its job."""

    def __init__(self, url: ServiceUrl, http: httpx.AsyncClient) -> None:
        self._url = url
        self._http = http
        self._response: httpx.Response | None = None
        self.silence_s = 0.0
        """Seconds without a byte that the current request waits for, if they are not those of `http`."""
        self._chunks: AsyncIterator[bytes] | None = None

    async def perform(self, effect: Effect) -> object:
        """Return the outcome of a Send or ReadChunk; None for others. Raises FAILURES."""
        match effect:
            case Send():
                await self.close()
                request = self._http.build_request(**request_arguments(self._url, effect, self._http.timeout))
                self.silence_s = effect.silence_s
                self._response = await self._http.send(request, stream=True, follow_redirects=False)
                # As pieces arrive: with a size, httpx waits until one is full, and loses it if the connection breaks.
                self._chunks = self._response.aiter_raw()
                return read_head(self._response)
            case ReadChunk():
                return await anext(self._chunks, b"") if self._chunks else b""
        return None

    async def close(self) -> None:
        """Close the connection."""
        if self._response is not None:
            await self._response.aclose()
            self._response = None
