"""The remote backend: the state that it infers of a server that wakes and sleeps by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from gateway.backend.interface import (
    BackendDiedError,
    BackendError,
    BackendNotStartedError,
    BackendStillBootingError,
    BackendTimeoutError,
    BackendUnavailableError,
    Band,
)
from gateway.backend.remote import RemoteBackend
from gateway.backend.state import BOOT_LIMIT_S, BackendStateTracker
from gateway.backend.triton_client import TritonClient
from gateway.backend.triton_process import find_free_ports
from gateway.cancellation import CancelledError, CancelToken
from gateway.jobs.queue import Capacity, JobQueue
from gateway.jobs.runner import JobRunner
from preprocessing.codec import Pixels
from testing.backend import FakeBackend
from testing.clock import ManualClock
from testing.jobs import upscale_request

LIMIT_S = 30.0
PIXELS = np.zeros((8, 8, 3), np.uint8)


class Activator(FakeBackend):
    """A proxy in front of a sleeping server: it holds a readiness request until the server is ready."""

    def __init__(self, *, failures: list[Exception] | None = None) -> None:
        super().__init__(failures=failures or [])
        self.is_up = threading.Event()
        self.questions = threading.Semaphore(0)
        self.readiness_calls = 0
        self.broken: BackendError | None = None

    def wait_until_ready(self, deadline: float, cancel_token: CancelToken) -> None:
        self.readiness_calls += 1
        self.questions.release()
        if time.monotonic() > deadline:
            raise BackendTimeoutError("still booting")
        if self.broken:
            raise self.broken
        while not self.is_up.wait(0.005):
            cancel_token.raise_if_cancelled()
            if time.monotonic() > deadline:
                raise BackendTimeoutError("still booting")


def external(activator: Activator, states: BackendStateTracker | None = None) -> RemoteBackend:
    return RemoteBackend(cast("TritonClient", activator), states or BackendStateTracker())


def ask(backend: RemoteBackend, limit_s: float = LIMIT_S, cancel_token: CancelToken | None = None) -> list[Band]:
    bands: Iterator[Band] = backend.upscale_bands(
        PIXELS,
        "compact_x4",
        deadline=time.monotonic() + limit_s,
        request_id="id",
        cancel_token=cancel_token or CancelToken(),
    )
    return list(bands)


def wait_for(states: BackendStateTracker, name: str) -> None:
    end = time.monotonic() + LIMIT_S
    while states.current().name != name:
        assert time.monotonic() < end, f"it never upscaled to {name}"
        time.sleep(0.005)


def whole(bands: list[Band]) -> Pixels:
    return np.concatenate([band.pixels for band in bands])


def test_first_request_wakes_the_server_once() -> None:
    activator = Activator()
    backend = external(activator)
    assert backend.state_tracker.current().name == "asleep"
    asking = threading.Thread(target=ask, args=(backend,))
    asking.start()
    assert activator.questions.acquire(timeout=LIMIT_S)
    assert backend.state_tracker.current().name == "booting"

    activator.is_up.set()
    asking.join(LIMIT_S)

    assert backend.state_tracker.current().name == "up"
    assert backend.state_tracker.current().usual_boot_s is not None
    assert whole(ask(backend)).shape == (32, 32, 3)
    assert activator.readiness_calls == 1, "asking is waking: never without need"


def test_idle_backend_sends_no_calls() -> None:
    activator = Activator()
    backend = external(activator)
    assert (backend.state_tracker.current().name, activator.readiness_calls, activator.calls) == ("asleep", 0, [])


def test_repeated_wake_calls_the_server_once() -> None:
    activator = Activator()
    backend = external(activator)

    for _ in range(5):
        backend.wake()
    assert activator.questions.acquire(timeout=LIMIT_S)
    assert backend.state_tracker.current().name == "booting"
    activator.is_up.set()
    wait_for(backend.state_tracker, "up")

    assert activator.readiness_calls == 1


def test_slow_boot_has_not_failed() -> None:
    backend = external(Activator())
    with pytest.raises(BackendStillBootingError):
        ask(backend, limit_s=0.02)
    assert backend.state_tracker.current().name == "booting"


def test_failed_boot_is_reported_and_retried() -> None:
    activator = Activator()
    activator.broken = BackendNotStartedError("not ready")
    backend = external(activator)
    with pytest.raises(BackendNotStartedError):
        ask(backend)
    assert backend.state_tracker.current().name == "failed"

    activator.broken = None
    activator.is_up.set()
    assert len(ask(backend)) == 2
    assert backend.state_tracker.current().name == "up"


@contextmanager
def asking(backend: RemoteBackend, activator: Activator) -> Iterator[Future[list[Band]]]:
    """Call a closed port, like a Triton that has not loaded its models; run the block after two attempts."""
    activator.broken = BackendUnavailableError("connection refused")
    while activator.questions.acquire(blocking=False):
        pass  # the earlier ones
    cancel_token = CancelToken()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, backend, LIMIT_S, cancel_token)
        try:
            for _ in range(2):
                assert activator.questions.acquire(timeout=LIMIT_S)
            yield waiting
        finally:
            cancel_token.cancel()


def begin_to_listen(activator: Activator) -> None:
    activator.broken = None
    activator.is_up.set()


def test_closed_port_means_booting_and_is_retried() -> None:
    activator = Activator()
    backend = external(activator)
    with asking(backend, activator) as waiting:
        assert not waiting.done()
        assert backend.state_tracker.current().name == "booting"
        begin_to_listen(activator)
        assert whole(waiting.result(LIMIT_S)).shape == (32, 32, 3)
    assert backend.state_tracker.current().name == "up"
    assert backend.state_tracker.current().usual_boot_s is not None, "it was watched from its beginning to its end"


def test_wait_for_a_closed_port_ends_at_the_deadline() -> None:
    activator = Activator()
    activator.broken = BackendUnavailableError("connection refused")
    backend = external(activator)
    with pytest.raises(BackendStillBootingError):
        ask(backend, limit_s=0.02)
    assert backend.state_tracker.current().name == "booting"

    begin_to_listen(activator)
    assert len(ask(backend)) == 2
    assert backend.state_tracker.current().name == "up"
    assert backend.state_tracker.current().usual_boot_s is None, (
        "the boot's end was not observed: the time to the next request is not a boot"
    )


def test_cancel_ends_the_wait_for_a_closed_port() -> None:
    activator = Activator()
    backend = external(activator)
    with asking(backend, activator) as waiting:
        pass  # and is cancelled
    with pytest.raises(CancelledError):
        waiting.result(LIMIT_S)


def test_port_that_stays_closed_means_failed() -> None:
    clock, activator = ManualClock(), Activator()
    backend = external(activator, BackendStateTracker(clock=clock))

    with asking(backend, activator) as waiting:
        clock.now += BOOT_LIMIT_S
        assert backend.state_tracker.current().name == "booting"
        clock.now += 1
        with pytest.raises(BackendNotStartedError, match="refused for longer than a boot may take"):
            waiting.result(LIMIT_S)
    assert backend.state_tracker.current().name == "failed"
    before = activator.readiness_calls
    with pytest.raises(BackendNotStartedError, match="refused for longer than a boot may take"):
        ask(backend)
    assert activator.readiness_calls == before + 1, "it had all its time: nobody else waits for it"
    assert backend.state_tracker.current().name == "failed", "else each request to a dead server would count a boot"

    begin_to_listen(activator)
    assert len(ask(backend)) == 2
    backend.state_tracker.mark_asleep()
    with asking(backend, activator):
        assert backend.state_tracker.current().name == "booting"


class Unready(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """A Triton that listens and is not ready, because its models could not be loaded."""

    def ServerReady(self, _: object, __: object) -> service_pb2.ServerReadyResponse:  # noqa: N802 - gRPC's name
        return service_pb2.ServerReadyResponse(ready=False)


class Ready(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """A Triton that listens and is ready."""

    def ServerReady(self, _: object, __: object) -> service_pb2.ServerReadyResponse:  # noqa: N802 - gRPC's name
        return service_pb2.ServerReadyResponse(ready=True)


@contextmanager
def listening(servicer: service_pb2_grpc.GRPCInferenceServiceServicer, port: int) -> Iterator[None]:
    server = grpc.server(ThreadPoolExecutor(1))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    assert server.add_insecure_port(f"127.0.0.1:{port}") == port
    server.start()
    try:
        yield
    finally:
        server.stop(None).wait(LIMIT_S)


def test_server_not_ready_over_grpc_has_failed() -> None:
    port = find_free_ports().grpc
    backend = RemoteBackend(TritonClient(f"127.0.0.1:{port}", []), BackendStateTracker())
    with listening(Unready(), port), pytest.raises(BackendNotStartedError):
        ask(backend)
    assert backend.state_tracker.current().name == "failed"
    backend.close()


def test_refused_grpc_connection_means_booting(caplog: pytest.LogCaptureFixture) -> None:
    port = find_free_ports().grpc
    backend = RemoteBackend(TritonClient(f"127.0.0.1:{port}", []), BackendStateTracker())
    backend.wake()
    end = time.monotonic() + LIMIT_S
    while "the backend refuses connections" not in caplog.text:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert backend.state_tracker.current().name == "booting"

    with listening(Ready(), port):
        wait_for(backend.state_tracker, "up")

    backend.close()
    assert caplog.text.count("the backend refuses connections") == 1


def test_cancel_during_the_boot_ends_the_wait() -> None:
    activator, cancel_token = Activator(), CancelToken()
    backend = external(activator)
    threading.Timer(0.02, cancel_token.cancel).start()
    with pytest.raises(CancelledError):
        ask(backend, cancel_token=cancel_token)
    assert activator.calls == [], "the image was never sent"


def test_readiness_is_checked_again_after_idle_time(tmp_path: Path) -> None:
    clock, activator = ManualClock(), Activator()
    activator.is_up.set()
    backend = external(activator, BackendStateTracker(tmp_path / "boots.json", assume_asleep_after_s=60, clock=clock))
    ask(backend)
    clock.now += 61

    assert backend.state_tracker.current().name == "asleep"
    ask(backend)

    assert activator.readiness_calls == 2


def test_readiness_is_checked_again_after_a_lost_server() -> None:
    activator = Activator(failures=[BackendUnavailableError("gone")])
    activator.is_up.set()
    backend = external(activator)
    with pytest.raises(BackendDiedError):
        ask(backend)
    assert backend.state_tracker.current().name == "asleep"
    assert len(ask(backend)) == 2
    assert activator.readiness_calls == 2


def test_image_of_a_lost_server_is_retried_on_the_next() -> None:
    activator = Activator(failures=[BackendUnavailableError("gone")])
    activator.is_up.set()
    making = JobRunner(external(activator), JobQueue(Capacity(running=1, waiting=0)), deadline_s=LIMIT_S)
    assert making.run(upscale_request(), "id").width == 4 * upscale_request().upload.width
    assert activator.readiness_calls == 2
