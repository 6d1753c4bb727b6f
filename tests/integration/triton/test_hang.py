"""A real Triton that hangs or has a stopped stub: what the gateway and the container's health check do."""

from __future__ import annotations

import logging
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

from gateway import problems
from gateway.backend.embedded import EmbeddedBackend
from gateway.backend.triton_process import TritonProcess
from gateway.backend.triton_stubs import find_stubs
from gateway.config.settings import Settings
from gateway.jobs.options import make_request, parse_options
from gateway.jobs.queue import Capacity, JobQueue
from gateway.jobs.runner import JobRunner
from testing.alive import link_processes, load_alive
from testing.images import draw_photo, encode_png
from testing.triton import TritonServer, lay_out_faulty_repository
from testing.triton_clients import metric
from testing.triton_clients import upscale as upscale_on

LIMIT_S = 120.0
# Of the gateway; the health check of the container, which is tested on the same server, is faster.
HANG_AFTER_S = 4.0


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[EmbeddedBackend]:
    repository = lay_out_faulty_repository(tmp_path, tmp_path / "faults")
    settings = Settings(
        state_dir=str(tmp_path / "state"),
        model_repository=str(repository),
        hang_after_s=HANG_AFTER_S,
        deadline_s=LIMIT_S,
    )
    backend = EmbeddedBackend(settings)
    backend.start()
    yield backend
    backend.close()


def await_server(backend: EmbeddedBackend) -> TritonProcess:
    backend.wait_until_ready(time.monotonic() + LIMIT_S)
    assert backend.process is not None
    return backend.process


def upscale(backend: EmbeddedBackend, seed: int) -> tuple[int, int]:
    """Send an image as the gateway does, and return the size of the result."""
    settings = Settings()
    request = make_request(encode_png(draw_photo(8, 8, seed=seed)), "a.png", parse_options({}, settings), settings)
    result = JobRunner(backend, JobQueue(Capacity(running=1, waiting=0)), deadline_s=LIMIT_S).run(request, "id")
    return result.width, result.height


def test_hung_server_is_replaced_and_its_images_are_sent_again(
    backend: EmbeddedBackend, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = tmp_path / "faults"
    reasons: list[str] = []
    mark_failed = backend.state_tracker.mark_failed

    def record(reason: str = "") -> None:
        reasons.append(reason)
        mark_failed(reason)

    monkeypatch.setattr(backend.state_tracker, "mark_failed", record)

    # a model that never returns: the image waits for the next server
    first = await_server(backend)
    faults.write_text("hang")
    assert upscale(backend, 1) == (32, 32)
    second = await_server(backend)
    assert second.pid != first.pid
    assert len(reasons) == 1
    assert re.fullmatch(r"The backend did not respond for \d s and is being replaced\.", reasons[0])
    assert backend.state_tracker.current().reason == ""
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert re.search(r"work has waited for \d s; no tile was restored", errors[0].getMessage())

    # the health check of the container lets a busy server live, and ends one that hangs
    server = TritonServer(second, backend.model_key, backend.api_key)
    alive = load_health_check(server, tmp_path, monkeypatch)
    faults.write_text("always no large jobs")
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(upscale_on, server, draw_photo(320, 320), "compact_x4")
        wait_for(lambda: metric(server, "nv_inference_exec_count", "tile") > 0, "the start of the work")
        assert alive.main() == 0
        assert not work.done(), "the server was not busy"
        faults.write_text("always hang")
        work.result()
    assert alive.main() == 1
    assert not second.find_fault(), "one check without progress is too early"
    wait_for(lambda: alive.main() == 1 and bool(second.find_fault()), "the end of the server")
    assert second.find_fault() == "tritonserver ended with status -9"

    # a stopped stub, and then a hang on the next server: the image is given up
    wait_for(lambda: backend.process is not second, "the next server")
    third = await_server(backend)
    stopped = next(stub for stub in find_stubs(third.pid) if stub.model == "upscale_stream")
    os.kill(stopped.pid, signal.SIGSTOP)
    faults.write_text("hang")
    with pytest.raises(problems.BackendHung) as raised:
        upscale(backend, 2)
    assert not stopped.is_alive()
    assert "a signal has stopped 1 of Triton's 4 Python stubs" in caplog.text
    assert raised.value.status == 503
    assert "size is not the cause" in raised.value.detail
    assert len(reasons) == 2
    assert backend.state_tracker.current().reason == reasons[-1]


def load_health_check(server: TritonServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Load `alive --end` for this server, with short times."""
    key_file = folder / "key"
    key_file.write_text(server.model_key)
    processes = folder / "processes"
    processes.mkdir()
    link_processes(processes, [server.process.pid, *(stub.pid for stub in find_stubs(server.process.pid))])
    alive = load_alive(
        monkeypatch,
        processes,
        key_file,
        HTTP_PORT=str(server.process.ports.http),
        METRICS_PORT=str(server.process.ports.metrics),
        HANG_AFTER_S="1.5",
    )
    monkeypatch.setattr(alive, "BUSY_AFTER_S", 0.4)
    monkeypatch.setattr(alive, "ENDPOINT_TIMEOUT_S", LIMIT_S)
    monkeypatch.setattr("sys.argv", ["alive", "--end"])
    return alive


def wait_for(condition: Callable[[], bool], description: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, f"waited {LIMIT_S:.0f} s in vain for {description}"
        time.sleep(0.01)
