"""SIGTERM for a real Triton in the middle of an image: the image is sent again, to the next server."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.backend.client_ports import ClientPorts
from gateway.backend.interface import BackendUnavailableError
from gateway.backend.remote import RemoteBackend
from gateway.backend.state import BackendStateTracker
from gateway.backend.triton_client import TritonClient
from gateway.backend.triton_stubs import find_stubs
from gateway.cancellation import CancelToken
from gateway.jobs.job import Progress
from gateway.jobs.queue import Capacity, JobQueue
from gateway.jobs.runner import JobRunner
from testing.alive import link_processes
from testing.data import ROOT
from testing.images import draw_photo, encode_png
from testing.jobs import upscale_request
from testing.ports import find_free_port
from testing.triton import TritonServer, run_server

LIMIT_S = 240.0
COUNT = ROOT / "docker" / "triton" / "open-streams"
PIXELS = draw_photo(520, 600, seed=3)


def count_stream_threads(folder: Path) -> int:
    """Return what docker/triton/start waits for before it passes SIGTERM on, of the processes in a folder."""
    environ = {"PATH": os.environ["PATH"], "PROCESSES": str(folder)}
    return int(subprocess.run([COUNT], env=environ, capture_output=True, text=True, check=False).stdout)


def test_call_to_a_server_that_is_being_ended_means_unavailable(tmp_path: Path) -> None:
    with run_server(tmp_path, environ={}, may_end=True) as server:
        client = TritonClient(server.grpc_address, [server.model_key])
        bands = client.upscale_bands(
            PIXELS, "compact_x4", deadline=time.monotonic() + LIMIT_S, request_id="id", cancel_token=CancelToken()
        )
        processes = tmp_path / "processes"
        processes.mkdir()
        link_processes(processes, [stub.pid for stub in find_stubs(server.process.pid)])
        assert count_stream_threads(processes) == 0
        assert next(bands).top == 0
        assert count_stream_threads(processes) > 0
        os.kill(server.process.pid, signal.SIGTERM)
        with pytest.raises(BackendUnavailableError):
            list(bands)
        client.close()


def test_no_stream_is_open_after_an_image(triton_server: TritonServer, tmp_path: Path) -> None:
    link_processes(tmp_path, [stub.pid for stub in find_stubs(triton_server.process.pid)])
    client = TritonClient(triton_server.grpc_address, [triton_server.model_key])
    deadline = time.monotonic() + LIMIT_S
    list(client.upscale_bands(PIXELS, "compact_x4", deadline=deadline, request_id="id", cancel_token=CancelToken()))
    client.close()
    end = time.monotonic() + LIMIT_S
    while count_stream_threads(tmp_path):
        assert time.monotonic() < end, "a thread has kept the name of a stream"
        time.sleep(0.05)


def test_image_is_sent_again_to_the_next_of_two_servers_behind_one_address(tmp_path: Path) -> None:
    """As a cluster does it: the address leads to another pod once the first one is being ended."""
    port = find_free_port()
    with ExitStack() as stack:
        folders = [tmp_path / "first", tmp_path / "second"]
        for folder in folders:
            folder.mkdir()
        first, second = (stack.enter_context(run_server(folder, environ={}, may_end=True)) for folder in folders)
        address = ClientPorts({"grpc": port}, wake=lambda: None)
        address.open()
        stack.callback(address.close)
        address.connect({"grpc": first.process.ports.grpc})
        client = TritonClient(f"127.0.0.1:{port}", [first.model_key])
        stack.callback(client.close)
        runner = JobRunner(
            RemoteBackend(client, BackendStateTracker()), JobQueue(Capacity(running=1, waiting=0)), deadline_s=LIMIT_S
        )
        ended: list[float] = []

        def end_first(progress: Progress) -> None:
            if not ended:
                ended.append(progress.bands_done)
                os.kill(first.process.pid, signal.SIGTERM)
                address.disconnect()
                address.connect({"grpc": second.process.ports.grpc})

        job = runner.submit(upscale_request(encode_png(PIXELS), variant="compact_x4"), "id")
        result = job.run(end_first)
        assert (ended, result.width, result.height) == ([1], 4 * PIXELS.shape[1], 4 * PIXELS.shape[0])
