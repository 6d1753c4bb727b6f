"""Triton's counters: what the metrics port says, and what it fails to say. tests/integration reads a real one."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.backend.triton_counters import CountersUnreadableError, ModelCounters, parse_counters, read_counters

TEXT = """# HELP nv_inference_request_success Number of successful inference requests, all batch sizes
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="swinir",version="1"} 4
nv_inference_request_success{model="swinir",version="2"} 1
nv_inference_request_failure{model="swinir",reason="OTHER",version="1"} 2
nv_inference_request_failure{model="upscale",reason="BACKEND",version="1"} 1
nv_inference_count{model="swinir",version="1"} 16
nv_inference_exec_count{model="swinir",version="1"} 3
nv_inference_request_duration_us{model="swinir",version="1"} 99
nv_inference_pending_request_count{model="swinir",version="1"} 5
nv_inference_pending_request_count{model="upscale",version="1"} 1
superres_tiles_total{device="cpu",model="swinir"} 17
superres_tiles_total{device="cuda",model="swinir"} 2
nv_cpu_utilization 0.5
"""


@contextmanager
def serve_text(text: str, status: int = 200) -> Iterator[int]:
    """Serve one text on a loopback port, as Triton's metrics port does; yield the port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_counters_are_summed_by_model() -> None:
    with serve_text(TEXT) as port:
        counters = read_counters(port)

    assert counters.models == {
        "swinir": ModelCounters(requests=7, inferences=16, executions=3, tiles=19),
        "upscale": ModelCounters(requests=1),
    }
    assert (counters.models["swinir"].pending, counters.pending) == (5, 6)


@pytest.mark.parametrize(
    ("changed", "moved"),
    [
        (TEXT, False),
        (TEXT.replace('"swinir",version="1"} 99', '"swinir",version="1"} 100'), False),
        (
            TEXT.replace(
                'pending_request_count{model="swinir",version="1"} 5',
                'pending_request_count{model="swinir",version="1"} 0',
            ),
            False,
        ),
        (TEXT.replace('reason="OTHER",version="1"} 2', 'reason="OTHER",version="1"} 3'), True),
        (TEXT.replace('device="cpu",model="swinir"} 17', 'device="cpu",model="swinir"} 18'), True),
        (TEXT + 'nv_inference_exec_count{model="tile",version="1"} 1\n', True),
    ],
    ids=("nothing", "durations", "fewer pending", "failure", "tile", "other model"),
)
def test_any_work_is_a_movement(changed: str, moved: bool) -> None:
    assert parse_counters(changed).has_moved_since(parse_counters(TEXT)) is moved


def test_closed_port_cannot_be_read() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(CountersUnreadableError, match=str(closed.getsockname()[1])):
            read_counters(closed.getsockname()[1])


def test_server_that_is_stopped_cannot_be_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(CountersUnreadableError, match="timed out"):
        read_counters(silent.getsockname()[1], timeout_s=0.05)


@pytest.mark.parametrize(("text", "status"), [("", 200), (TEXT, 503), ("<html>", 200)])
def test_other_responses_are_no_counters(text: str, status: int) -> None:
    with serve_text(text, status) as port, pytest.raises(CountersUnreadableError, match=f"status {status}"):
        read_counters(port)
