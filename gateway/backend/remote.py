"""A remote backend: a Triton elsewhere that sleeps and boots by itself, as behind Knative's activator.

Its state follows from requests and wake calls. Before a request to a backend that may be asleep, one readiness call
wakes it; the activator holds that call until the backend is up. Without an activator, as in Docker Compose, a booting
Triton refuses connections, and the call is repeated until the boot has exceeded its limit. An image whose backend
disappeared is sent once more (`gateway.jobs.runner`).
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

# Seconds between two readiness calls to a server that refuses connections.
RETRY_INTERVAL_S = 0.5

_log = logging.getLogger(__name__)


class RemoteBackend:
    """The `Backend` for a server that is run elsewhere. Safe to use from several threads."""

    def __init__(self, client: TritonClient, state_tracker: BackendStateTracker) -> None:
        self._client = client
        self._state_tracker = state_tracker
        self._closing = CancelToken()

    @property
    def state_tracker(self) -> BackendStateTracker:
        """The last known state of the server."""
        return self._state_tracker

    def upscale_bands(
        self, pixels: Pixels, variant: str, *, deadline: float, request_id: str, cancel_token: CancelToken
    ) -> Iterator[Band]:
        """Yield the bands, after a boot if necessary. Raises BackendDiedError when the server disappears meanwhile."""
        self._ensure_up(deadline, cancel_token)
        try:
            for band in self._client.upscale_bands(
                pixels, variant, deadline=deadline, request_id=request_id, cancel_token=cancel_token
            ):
                self._state_tracker.mark_up()
                yield band
        except BackendUnavailableError as error:
            self._state_tracker.mark_asleep()  # the next request checks readiness first
            raise BackendDiedError(f"the backend disappeared: {error}") from error

    def wake(self) -> None:
        """Call the server's readiness endpoint in the background, if it may be asleep."""
        if self._state_tracker.begin_boot():
            threading.Thread(target=self._wake, name="wake-backend", daemon=True).start()

    def close(self) -> None:
        """Close the channel."""
        self._closing.cancel()
        self._client.close()

    def _wake(self) -> None:
        try:
            self._wait_until_ready(time.monotonic() + BOOT_LIMIT_S, self._closing)
        except (BackendError, CancelledError) as error:
            _log.warning("the backend did not boot: %s", error)

    def _ensure_up(self, deadline: float, cancel_token: CancelToken) -> None:
        self._state_tracker.begin_boot()
        if self._state_tracker.current().name != "up":
            self._wait_until_ready(deadline, cancel_token)

    def _wait_until_ready(self, deadline: float, cancel_token: CancelToken) -> None:
        with self._state_tracker.waiting_for_boot():
            for attempt in itertools.count():
                try:
                    self._client.wait_until_ready(deadline, cancel_token)
                except BackendTimeoutError as error:  # slow, not failed: the state changes after BOOT_LIMIT_S
                    raise BackendStillBootingError(str(error)) from error
                except BackendUnavailableError as error:  # refused: Triton listens only once its models are loaded
                    if not self._state_tracker.mark_refused():
                        raise BackendNotStartedError(
                            f"connections were refused for longer than a boot may take: {error}"
                        ) from error
                    if attempt == 0:
                        _log.warning("the backend refuses connections, trying again: %s", error)
                    _pause(cancel_token)
                except BackendError:
                    self._state_tracker.mark_failed()
                    raise
                else:
                    self._state_tracker.mark_up()
                    return


def _pause(cancel_token: CancelToken) -> None:
    """Wait for RETRY_INTERVAL_S, or raise CancelledError as soon as the token is cancelled."""
    woken = threading.Event()
    with cancel_token.on_cancel(woken.set):
        woken.wait(RETRY_INTERVAL_S)
    cancel_token.raise_if_cancelled()
