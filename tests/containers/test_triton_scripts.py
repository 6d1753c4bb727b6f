"""The scripts in Triton's image: `start` rejects invalid secrets, `alive` tells a dead server from a busy one."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from testing.data import ROOT
from testing.triton import TritonServer

TRITON = ROOT / "docker" / "triton"


def start(tmp_path: Path, model_key: str | None, api_key: str | None = "k" * 32) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"]}
    for name, value in (("MODEL_KEY", model_key), ("API_KEY", api_key)):
        if value is not None:
            path = tmp_path / name.lower()
            path.write_text(value)
            environ[f"{name}_FILE"] = str(path)
    return subprocess.run(["bash", TRITON / "start"], env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("model_key", "words"),
    [
        (None, "cannot be read"),
        ("", "must hold"),
        ("short", "must hold"),
        ("k" * 20 + ":" + "k" * 20, "must hold"),
        ("k" * 300, "must hold"),
    ],
)
def test_start_rejects_a_bad_secret_by_its_file(tmp_path: Path, model_key: str | None, words: str) -> None:
    done = start(tmp_path, model_key)
    assert done.returncode == 78  # EX_CONFIG of sysexits.h
    assert words in done.stderr
    assert not model_key or model_key not in done.stderr


def test_start_accepts_good_secrets(tmp_path: Path) -> None:
    done = start(tmp_path, "k" * 32 + "\n")
    assert "/opt/tritonserver/bin/tritonserver" in done.stderr  # exists only in the image
    assert "must hold" not in done.stderr


def test_start_guards_every_api_but_health() -> None:
    """Triton allows an API without a key if no group of --grpc-restricted-protocol contains it."""
    text = (TRITON / "start").read_text()
    apis = {api for name in ("model_apis", "admin_apis") for api in text.split(f"{name}=")[1].split("\n")[0].split(",")}
    every = {
        "metadata",
        "inference",
        "shared-memory",
        "model-config",
        "model-repository",
        "statistics",
        "trace",
        "logging",
    }
    assert apis == every
    for flag in ("grpc-restricted-protocol", "http-restricted-api"):
        assert text.count(f"--{flag}=") == 2


def load_alive(port: int, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("HTTP_PORT", str(port))
    monkeypatch.setenv("MODEL_KEY_FILE", str(key_file))
    monkeypatch.setenv("PROCESSES", str(key_file.parent))  # not this machine's, because other tests kill stubs
    loader = importlib.machinery.SourceFileLoader("alive", str(TRITON / "alive"))
    spec = importlib.util.spec_from_loader("alive", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    loader.exec_module(module)
    return module


@contextmanager
def serving(status: int, text: str, *, hangs: bool = False, live: int = 200) -> Iterator[int]:
    """A server with a fixed response to inference, and `live` as its health."""
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if hangs:
                done.wait(10)
                return
            self.answer(status, text)

        def do_GET(self) -> None:
            self.answer(live, "")

        def answer(self, code: int, body: str) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            return

    class Server(HTTPServer):
        def process_request(self, request: object, address: object) -> None:
            threading.Thread(target=self.finish, args=(request, address), daemon=True).start()

        def finish(self, request: object, address: object) -> None:
            self.finish_request(request, address)  # type: ignore[arg-type]
            self.shutdown_request(request)  # type: ignore[arg-type]

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        done.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "model_key"
    path.write_text("model-key-of-the-tests\n")
    return path


@pytest.mark.parametrize(
    ("status", "text", "code"),
    [
        (200, "{}", 0),
        (500, "Stub process 'swinir_0_0' is not healthy.", 1),
        (403, "restricted", 1),
        (404, "unknown model", 1),
    ],
)
def test_alive_depends_on_a_real_inference(
    status: int, text: str, code: int, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(status, text) as port:
        assert load_alive(port, key_file, monkeypatch).main() == code


@pytest.mark.parametrize(("live", "code"), [(200, 0), (503, 1)])
def test_busy_server_is_alive_but_a_stuck_one_is_not(
    live: int, code: int, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(200, "", hangs=True, live=live) as port:
        alive = load_alive(port, key_file, monkeypatch)
        monkeypatch.setattr(alive.ask, "__defaults__", ("", 0.3))
        assert alive.main() == code


def test_nothing_listening_is_dead(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert load_alive(port, key_file, monkeypatch).main() == 1


def test_alive_kills_only_for_a_dead_stub_and_on_request(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, text, ended in (
        (["alive", "--end"], "Stub process 'swinir_0_0' is not healthy.", [1]),
        (["alive"], "Stub process 'swinir_0_0' is not healthy.", []),
        (["alive", "--end"], "some other failure", []),
    ):
        with serving(500, text) as port:
            alive = load_alive(port, key_file, monkeypatch)
            calls: list[int] = []
            monkeypatch.setattr(alive, "end_server", lambda calls=calls: calls.append(1))
            monkeypatch.setattr("sys.argv", arguments)
            assert alive.main() == 1
            assert calls == ended


def test_defunct_stub_of_any_model_is_dead(tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive = load_alive(0, key_file, monkeypatch)
    for number, name, state in (
        (1, "start", "S"),
        (7, "tritonserver", "S"),
        (20, "triton_python_b", "S"),
        (21, "sh", "Z"),
    ):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "stat").write_text(f"{number} ({name}) {state} 1 1 0\n")
    assert alive.find_dead_stub() == ""
    (tmp_path / "20" / "stat").write_text("20 (triton_python_b) Z 7 1 0\n")
    assert "20 is not healthy" in alive.find_dead_stub()
    assert alive.main() == 1


def test_alive_works_with_a_real_triton(triton_server: TritonServer, tmp_path: Path, key_file: Path) -> None:
    port = triton_server.http_address.rpartition(":")[2]
    wrong = tmp_path / "wrong_key"
    wrong.write_text("wrong")
    for path, code in ((key_file, 0), (wrong, 1)):
        environ = {
            "PATH": os.environ["PATH"],
            "HTTP_PORT": port,
            "MODEL_KEY_FILE": str(path),
            "PROCESSES": str(tmp_path),
        }
        assert subprocess.run([TRITON / "alive"], env=environ, capture_output=True, check=False).returncode == code
