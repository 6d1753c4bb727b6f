"""The scripts in Triton's image: `start` rejects invalid secrets, `alive` tells a dead server from a busy one."""

from __future__ import annotations

import itertools
import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from gateway.config.settings import Settings
from testing.alive import ALIVE, load_alive
from testing.compose import services
from testing.data import ROOT
from testing.k8s.manifests import find_service, revision
from testing.triton import TritonServer

TRITON = ROOT / "docker" / "triton"
START = ("bash", "-c", 'rm() { :; }; source "$1"', "bash", str(TRITON / "start"))  # no rm: other servers run here
SLOWEST_STEP_S = 74
"""One 256x256 tile of real_large_x4 on two cores shared with training runs (measured)."""


def start(tmp_path: Path, model_key: str | None, api_key: str | None = "k" * 32) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"]}
    for name, value in (("MODEL_KEY", model_key), ("API_KEY", api_key)):
        if value is not None:
            path = tmp_path / name.lower()
            path.write_text(value)
            environ[f"{name}_FILE"] = str(path)
    return subprocess.run(START, env=environ, capture_output=True, text=True, check=False)


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


def list_options(tmp_path: Path, **variables: str) -> list[str]:
    """Return the options that `start` gives to Triton."""
    (tmp_path / "key").write_text("k" * 32)
    keys = {"MODEL_KEY_FILE": str(tmp_path / "key"), "API_KEY_FILE": str(tmp_path / "key")}
    script = make_script(tmp_path / "tritonserver", 'printf "%s\\n" "$@"')
    environ = {"PATH": os.environ["PATH"], "TRITONSERVER": str(script), **keys, **variables}
    done = subprocess.run(START, env=environ, capture_output=True, text=True, check=False)
    return done.stdout.splitlines() if done.returncode == 0 else [f"{done.returncode} {done.stderr.strip()}"]


def make_script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)
    return path


def test_start_serves_tls_if_it_has_a_certificate(tmp_path: Path) -> None:
    path = str(tmp_path / "key")
    tls = ["--grpc-use-ssl=true", f"--grpc-server-cert={path}", f"--grpc-server-key={path}"]
    mutual = ["--grpc-use-ssl-mutual=true", f"--grpc-root-cert={path}"]

    def read(**variables: str) -> list[str]:
        return [option for option in list_options(tmp_path, **variables) if option in (*tls, *mutual)]

    assert read() == []
    assert read(GRPC_CERT_FILE=path, GRPC_KEY_FILE=path) == tls
    assert read(GRPC_CERT_FILE=path, GRPC_KEY_FILE=path, GRPC_CLIENT_CA_FILE=path) == [*tls, *mutual]
    for missing in ({}, {"GRPC_KEY_FILE": "/nowhere"}, {"GRPC_KEY_FILE": path, "GRPC_CLIENT_CA_FILE": "/nowhere"}):
        [error] = list_options(tmp_path, GRPC_CERT_FILE=path, **missing)
        assert error.startswith("78 start: GRPC_CERT_FILE needs GRPC_KEY_FILE; the file '")


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


@contextmanager
def serving(
    status: int, text: str, *, hangs: bool = False, live: int = 200, tiles: Iterator[int] | None = None
) -> Iterator[int]:
    """A server with a fixed response to inference, `live` as its health, and the next of `tiles` in its metrics."""
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if hangs:
                done.wait(120)
                return
            self.answer(status, text)

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self.answer(200, f'superres_tiles_total{{model="swinir"}} {next(tiles) if tiles else 0}\n')
            else:
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
            with suppress(OSError):  # the check has timed out and closed its connection
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
        assert (
            load_alive(monkeypatch, key_file.parent, key_file, HTTP_PORT=str(port), METRICS_PORT=str(port)).main()
            == code
        )


@pytest.mark.parametrize(
    ("live", "tiles", "text"),
    [
        (200, itertools.count(), ""),
        (503, itertools.count(), "status 503"),
        (200, itertools.repeat(7), "Triton may hang: images wait, and no tile was restored for "),
    ],
    ids=["busy", "not live", "no progress"],
)
def test_busy_server_is_alive_but_a_stuck_one_is_not(
    live: int,
    tiles: Iterator[int],
    text: str,
    key_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serving(200, "", hangs=True, live=live, tiles=tiles) as port:
        alive = load_alive(monkeypatch, key_file.parent, key_file, HTTP_PORT=str(port), METRICS_PORT=str(port))
        monkeypatch.setattr(alive, "BUSY_AFTER_S", 0.3)
        monkeypatch.setattr(alive, "ENDPOINT_TIMEOUT_S", 60)  # the other endpoints of the server respond
        assert alive.main() == bool(text)
    assert capsys.readouterr().err.startswith(text)


def observation(at_s: float, *, tiles: int | None = 5, cpu_s: float = 1.0, server: str = "7") -> dict[str, object]:
    """What `alive.observe` returns."""
    lines = [] if tiles is None else [f"superres_tiles_total{{}} {tiles}"]
    return {"server": [server], "tiles": lines, "cpu_s": cpu_s, "at_s": at_s}


CHECKS: dict[str, tuple[list[tuple[dict[str, object], dict[str, object]]], list[str]]] = {
    "nothing moves": (
        [(observation(at), observation(at + 10)) for at in (0, 12, 24)],
        ["may hang", "may hang", "hangs"],
    ),
    "no counters can be read": (
        [(observation(at, tiles=None), observation(at + 10, tiles=None)) for at in (0, 12, 24)],
        ["may hang", "may hang", "hangs"],
    ),
    "the counters stop responding": (
        [(observation(0), observation(10, tiles=None)), (observation(25, tiles=None), observation(35, tiles=None))],
        ["may hang", "hangs"],
    ),
    "one tile between two checks": (
        [(observation(0), observation(10)), (observation(21, tiles=6), observation(31, tiles=6))],
        ["may hang", "may hang"],
    ),
    "another server": (
        [(observation(0), observation(10)), (observation(40, server="8"), observation(50, server="8"))],
        ["may hang", "may hang"],
    ),
    "a slow tile": (
        [(observation(at, cpu_s=at), observation(at + 10, cpu_s=at + 5)) for at in range(0, 290, 29)],
        [""] * 10,
    ),
    "a tile without end": (
        [(observation(at, cpu_s=at), observation(at + 10, cpu_s=at + 5)) for at in (0, 100, 200, 300)],
        ["", "", "", "hangs"],
    ),
    "slow, then still": (
        [(observation(0, cpu_s=0), observation(10, cpu_s=5)), (observation(30), observation(41))],
        ["", "hangs"],
    ),
}


@pytest.mark.parametrize("name", CHECKS)
def test_hang_is_judged_by_tiles_and_processor_time(name: str, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks, expected = CHECKS[name]
    alive = load_alive(monkeypatch, key_file.parent, key_file)
    found = []
    for before, after in checks:
        monkeypatch.setattr(alive, "observe", lambda after=after: after)
        found.append(alive.find_hang(before).removeprefix("Triton ").partition(":")[0])
    assert found == expected


def test_nothing_listening_is_dead(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert load_alive(monkeypatch, key_file.parent, key_file, HTTP_PORT=str(port), METRICS_PORT=str(port)).main() == 1


@pytest.mark.parametrize(("age_s", "code"), [(119, 0), (121, 1)])
def test_server_that_does_not_listen_yet_is_alive(
    age_s: int, code: int, tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    (tmp_path / "uptime").write_text("5000.00 9000.00\n")
    (tmp_path / "7").mkdir()
    fields = ["S", *["0"] * 18, str((5000 - age_s) * os.sysconf("SC_CLK_TCK")), "0"]
    (tmp_path / "7" / "stat").write_text(f"7 (tritonserver) {' '.join(fields)}\n")
    alive = load_alive(monkeypatch, tmp_path, key_file, HTTP_PORT=str(port), METRICS_PORT=str(port))
    assert alive.main() == code


def test_alive_kills_only_for_a_dead_stub_and_on_request(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, text, ended in (
        (["alive", "--end"], "Stub process 'swinir_0_0' is not healthy.", [1]),
        (["alive"], "Stub process 'swinir_0_0' is not healthy.", []),
        (["alive", "--end"], "some other failure", []),
    ):
        with serving(500, text) as port:
            alive = load_alive(monkeypatch, key_file.parent, key_file, HTTP_PORT=str(port), METRICS_PORT=str(port))
            calls: list[int] = []
            monkeypatch.setattr(alive, "end_server", lambda calls=calls: calls.append(1))
            monkeypatch.setattr("sys.argv", arguments)
            assert alive.main() == 1
            assert calls == ended


def test_defunct_stub_of_any_model_is_dead(tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive = load_alive(monkeypatch, key_file.parent, key_file, HTTP_PORT=str(0), METRICS_PORT=str(0))
    for number, name, state in (
        (1, "start", "S"),
        (7, "tritonserver", "S"),
        (20, "triton_python_b", "S"),
        (21, "sh", "Z"),
    ):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "stat").write_text(f"{number} ({name}) {state} 1 1 0\n")
    assert alive.find_dead_stub() == ""
    (tmp_path / "20" / "stat").write_text("20 (triton_python_b) T 7 1 0\n")
    monkeypatch.setattr(alive, "BUSY_AFTER_S", 0.3)
    assert "20 is not healthy: it has been stopped" in alive.find_dead_stub()
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
        assert subprocess.run([ALIVE], env=environ, capture_output=True, check=False).returncode == code


def test_health_check_ends_before_its_timeout(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe, and the metrics before and after it and the health afterwards, which may all time out."""
    alive = load_alive(monkeypatch, key_file.parent, key_file)
    recipe = re.search(r"HEALTHCHECK .*--timeout=(\d+)s", (ROOT / "docker" / "triton.Dockerfile").read_text())
    assert recipe
    container = revision(find_service("overlays/gpu", "backend"))["containers"][0]
    timeouts_s = {
        int(recipe[1]),
        container["livenessProbe"]["timeoutSeconds"],
        int(services()["triton"]["healthcheck"]["timeout"].removesuffix("s")),
    }
    assert min(timeouts_s) > alive.BUSY_AFTER_S + 3 * alive.ENDPOINT_TIMEOUT_S
    assert Settings().hang_after_s == alive.HANG_AFTER_S
    assert alive.STUCK_AFTER_S >= 2 * SLOWEST_STEP_S
