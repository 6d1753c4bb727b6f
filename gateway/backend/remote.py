"""An external backend: a Triton somewhere else that sleeps and boots by itself, as behind Knative's activator.

Nobody tells us how it is, so its state is inferred from requests and wake calls: before a request to a backend that may
be asleep, one call asks whether it is ready, which wakes it and is held until it is. Where nobody stands before it to
hold the call, as in Docker Compose, a Triton that boots refuses it, and is asked again until a boot has had all its
time. An image at which the backend went away is sent once more (`gateway.jobs.runner`).
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterator

from gateway.backend.interface import (
    BackendDiedError,
    BackendError,
    BackendNotStartedError,
    BackendStillBootingError,
    BackendTimeoutError,
    BackendUnavailableError,
    Band,
)
from gateway.backend.state import BOOT_LIMIT_S, BackendStateTracker
from gateway.backend.triton_client import TritonClient
from gateway.cancellation import CancelledError, CancelToken
from preprocessing.image import Pixels

ASK_AGAIN_S = 0.5
"""Between two questions to a server that does not listen yet."""

_log = logging.getLogger(__name__)


class RemoteBackend:
    """The `Upscaler` for a server that others run. Safe to use from several threads."""

    def __init__(self, client: TritonClient, state_tracker: BackendStateTracker) -> None:
        self._client = client
        self._state_tracker = state_tracker
        self._closing = CancelToken()

    @property
    def state_tracker(self) -> BackendStateTracker:
        """What is known of the server."""
        return self._state_tracker

    def upscale_bands(
        self, pixels: Pixels, variant: str, *, deadline: float, request_id: str, cancel_token: CancelToken
    ) -> Iterator[Band]:
        """Yield the bands, after waiting for a boot if need be; raise BackendDied when it went away meanwhile."""
        self._await_up(deadline, cancel_token)
        try:
            for band in self._client.upscale_bands(
                pixels, variant, deadline=deadline, request_id=request_id, cancel_token=cancel_token
            ):
                self._state_tracker.mark_up()
                yield band
        except BackendUnavailableError as error:
            self._state_tracker.mark_asleep()  # since we last heard of it: whoever comes next asks first
            raise BackendDiedError(f"the backend went away: {error}") from error

    def wake(self) -> None:
        """Ask the server whether it is ready, in the background, if it may be asleep."""
        if self._state_tracker.begin_boot():
            threading.Thread(target=self._wake, name="wake", daemon=True).start()

    def close(self) -> None:
        """Close the channel."""
        self._closing.cancel()
        self._client.close()

    def _wake(self) -> None:
        try:
            self._ask(time.monotonic() + BOOT_LIMIT_S, self._closing)
        except (BackendError, CancelledError) as error:
            _log.warning("the backend did not wake: %s", error)

    def _await_up(self, deadline: float, cancel_token: CancelToken) -> None:
        self._state_tracker.begin_boot()
        if self._state_tracker.current().name != "up":
            self._ask(deadline, cancel_token)

    def _ask(self, deadline: float, cancel_token: CancelToken) -> None:
        with self._state_tracker.waiting_for_boot():
            for number in itertools.count():
                try:
                    self._client.await_ready(deadline, cancel_token)
                except BackendTimeoutError as error:  # slow is not failed: the state says so after BOOT_LIMIT_S
                    raise BackendStillBootingError(str(error)) from error
                except BackendUnavailableError as error:  # refused: Triton listens once its models are loaded
                    if not self._state_tracker.mark_refused():
                        raise BackendNotStartedError(
                            f"nobody has listened for as long as a boot may take: {error}"
                        ) from error
                    if number == 0:
                        _log.warning("nobody listens at the backend's address yet, asking again: %s", error)
                    _pause(cancel_token)
                except BackendError:
                    self._state_tracker.mark_failed()
                    raise
                else:
                    self._state_tracker.mark_up()
                    return


def _pause(cancel_token: CancelToken) -> None:
    """Wait for ASK_AGAIN_S, or raise Stopped as soon as it is set."""
    woken = threading.Event()
    with cancel_token.on_cancel(woken.set):
        woken.wait(ASK_AGAIN_S)
    cancel_token.raise_if_cancelled()
