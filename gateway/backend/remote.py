"""A remote backend: a Triton elsewhere that sleeps and boots by itself, as behind Knative's activator.

Its state follows from requests and wake calls. Before a request to a backend that may be asleep, one readiness call
wakes it; the activator holds that call until the backend is up. Without an activator, as in Docker Compose, a booting
Triton refuses connections, and the call is repeated until the boot has exceeded its limit. An image whose backend
disappeared, or whose connection went silent, is sent once more (`gateway.jobs.runner`).
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from gateway.backend.channel import Keepalive, TlsOptions
from gateway.backend.interface import (
    BackendDiedError,
    BackendError,
    BackendFaultError,
    BackendNotStartedError,
    BackendStillBootingError,
    BackendTimeoutError,
    BackendUnavailableError,
    Band,
)
from gateway.backend.state import BackendStateTracker
from gateway.backend.triton_client import STUB_NOT_HEALTHY, TritonClient
from gateway.cancellation import CancelledError, CancelToken
from gateway.config.addresses import parse_backend_address
from gateway.config.settings import Settings
from preprocessing.image import Pixels

# Seconds between two readiness calls to a server that refuses connections.
RETRY_INTERVAL_S = 0.5
# A shorter wait was none for a boot: the server was up already, for another gateway or since a boot that nobody saw.
MIN_BOOT_S = 1.0

_log = logging.getLogger(__name__)


def make_remote_backend(settings: Settings, keepalive: Keepalive | None = None) -> RemoteBackend:
    """Return a backend for the Triton at `backend_address`. Raises OSError if a certificate file cannot be read."""
    address = parse_backend_address(settings.backend_address)
    client = TritonClient(
        address.target,
        settings.model_keys(),
        tls=_tls_options(settings) if address.is_tls else None,
        keepalive=keepalive or Keepalive(),
    )
    tracker = BackendStateTracker(
        settings.boots_path(),
        assume_asleep_after_s=settings.scale_to_zero_after_s,
        hang_after_s=settings.hang_after_s,
        boot_limit_s=settings.boot_limit_s,
        min_boot_s=MIN_BOOT_S,
    )
    sharing = None
    if settings.redis_url:
        # Imported here because redis takes 70 ms, and most installations do not use it.
        from gateway.backend.state_sharing import StateSharing  # noqa: PLC0415

        sharing = StateSharing(tracker, settings.redis_url, address.target)
        sharing.start()
    return RemoteBackend(client, tracker, close_sharing=sharing.close if sharing else lambda: None)


def _tls_options(settings: Settings) -> TlsOptions:
    ca_file, cert_file, key_file = (
        Path(path) if path else None
        for path in (settings.backend_ca_file, settings.backend_cert_file, settings.backend_key_file)
    )
    return TlsOptions(ca_file, cert_file, key_file, settings.backend_server_name)


class _UnhealthyBeforeFirstBandError(BackendDiedError):
    """A process of the server is dead or stopped, and no part of the result has been sent."""


class RemoteBackend:
    """The `Backend` for a server that is run elsewhere. Safe to use from several threads."""

    def __init__(
        self,
        client: TritonClient,
        state_tracker: BackendStateTracker,
        *,
        close_sharing: Callable[[], None] = lambda: None,
    ) -> None:
        """`close_sharing` ends what shares the state with other gateways."""
        self._close_sharing = close_sharing
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
        """Yield the bands, after a boot if necessary. Raises BackendDiedError when the server disappears meanwhile.

        While a process of the server is dead or stopped, the image waits until the server is replaced, for at most
        the limit of a boot.
        """
        limit = min(deadline, time.monotonic() + self._state_tracker.boot_limit_s)
        while True:
            try:
                yield from self._upscale_bands(pixels, variant, deadline, request_id, cancel_token)
            except _UnhealthyBeforeFirstBandError as error:
                if time.monotonic() + RETRY_INTERVAL_S >= limit:
                    raise BackendDiedError(str(error)) from error
                _pause(cancel_token)
            else:
                return

    def _upscale_bands(
        self, pixels: Pixels, variant: str, deadline: float, request_id: str, cancel_token: CancelToken
    ) -> Iterator[Band]:
        self._ensure_up(deadline, cancel_token)
        sent_at, has_responded = time.monotonic(), False
        try:
            with self._state_tracker.calling():
                for band in self._client.upscale_bands(
                    pixels, variant, deadline=deadline, request_id=request_id, cancel_token=cancel_token
                ):
                    self._state_tracker.mark_up()
                    has_responded = True
                    yield band
        except BackendFaultError as error:
            if STUB_NOT_HEALTHY not in str(error):
                raise
            self._state_tracker.mark_failed("A process of the backend does not respond.")
            kind = BackendDiedError if has_responded else _UnhealthyBeforeFirstBandError
            raise kind(str(error)) from error
        except BackendTimeoutError:
            if not has_responded:
                self._state_tracker.mark_silent(time.monotonic() - sent_at)
            raise
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
        self._close_sharing()
        self._client.close()

    def _wake(self) -> None:
        try:
            self._wait_until_ready(time.monotonic() + self._state_tracker.boot_limit_s, self._closing)
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
                except BackendTimeoutError as error:  # slow, not failed: the state changes after the limit
                    if self._state_tracker.current().name == "up":  # for another gateway: it is busy
                        raise
                    raise BackendStillBootingError(str(error)) from error
                except BackendUnavailableError as error:  # such as refused: Triton listens once its models are loaded
                    if not self._state_tracker.mark_refused():
                        raise BackendNotStartedError(
                            f"the backend could not be reached for longer than a boot may take: {error}"
                        ) from error
                    if attempt == 0:
                        _log.warning("the backend cannot be reached, trying again: %s", error)
                    _pause(cancel_token)
                except BackendError:
                    self._state_tracker.mark_failed()
                    raise
                else:
                    self._state_tracker.mark_ready()
                    return


def _pause(cancel_token: CancelToken) -> None:
    """Wait for RETRY_INTERVAL_S, or raise CancelledError as soon as the token is cancelled."""
    woken = threading.Event()
    with cancel_token.on_cancel(woken.set):
        woken.wait(RETRY_INTERVAL_S)
    cancel_token.raise_if_cancelled()
