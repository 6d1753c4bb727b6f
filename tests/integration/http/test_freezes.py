"""A server that gets no CPU for a while (docker pause, SIGSTOP, a sleeping laptop) cuts no client off for it."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from gateway.access.api_keys import ApiKeyStore
from gateway.config.settings import Settings
from gateway.server import Server, bind
from testing import images
from testing.backend import FakeBackend
from testing.raw_http import LIMIT_S, connected, post_headers, read_response
from testing.requests import PHOTO
from testing.server import read_worker_pid, serving

IDLE_TIMEOUT_S = 6.0
FROZEN_S = 6.5


def test_frozen_server_finishes_with_its_clients(tmp_path: Path) -> None:
    """One has sent half of its headers, one half of its body, and one reads its result."""
    data = images.encode_png(np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8))
    with serving(tmp_path, SUPERRES_IDLE_TIMEOUT_S=str(IDLE_TIMEOUT_S)) as server:
        key = ApiKeyStore(tmp_path / "keys.json").new("tests")
        worker, reader = read_worker_pid(server), socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)  # so that the server waits for this client
        reader.settimeout(LIMIT_S)
        with closing(reader), connected(server) as headers, connected(server) as body:
            reader.connect(("127.0.0.1", server.port))
            reader.sendall(post_headers(key, f"Content-Length: {len(data)}") + data)
            reader.recv(1, socket.MSG_PEEK)
            headers.sendall(b"GET /healthz HTTP/1.1\r\nHo")
            body.sendall(post_headers(key, f"Content-Length: {len(PHOTO)}") + PHOTO[:100])
            time.sleep(0.2)

            os.kill(server.process.pid, signal.SIGSTOP)
            os.kill(worker, signal.SIGSTOP)
            time.sleep(FROZEN_S)
            os.kill(worker, signal.SIGCONT)
            os.kill(server.process.pid, signal.SIGCONT)
            time.sleep(0.2)
            headers.sendall(b"st: here\r\n\r\n")
            body.sendall(PHOTO[100:])

            status, facts, result = read_response(reader)  # first: the others fit into the socket buffers
            assert (status, len(result)) == (200, int(facts["content-length"]))
            assert read_response(headers)[0] == 200
            assert read_response(body)[0] == 200
        assert read_worker_pid(server) == worker


def test_worker_is_not_judged_by_its_silence(tmp_path: Path) -> None:
    """gunicorn would kill a worker that was frozen for 30 s."""
    server = Server(Settings(state_dir=str(tmp_path)), bind("127.0.0.1", 0), lambda _: FakeBackend(), lambda _: None)

    assert server.cfg.timeout == 0
    os.close(int(server.cfg.bind[0].removeprefix("fd://")))
