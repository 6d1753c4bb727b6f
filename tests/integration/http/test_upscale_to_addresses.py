"""`superres upscale --to` as a user runs it: what is not a gateway, TLS, a proxy of the environment, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from gateway.access.api_keys import ApiKeyStore
from gateway.cli import upscale
from testing.certificates import make_certificate
from testing.image_files import draw_file
from testing.scripted_relay import Canned, relaying
from testing.server import Served, serving
from testing.stack import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def key(served: Served) -> str:
    return ApiKeyStore(served.state_dir / "keys.json").new("cli", requests="10000 per minute")


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (Canned(200, b"<html>A shop</html>", {"Content-Type": "text/html"}), "is not a gateway of Serverless SuperRes"),
        (Canned(200, b'{"variants": []}', {"Content-Type": "application/json"}), "is not a gateway"),
        (Canned(200, b"[]", {"Content-Type": "application/json"}), "is not a gateway of Serverless SuperRes."),
        (Canned(301, b"", {"Location": "https://elsewhere.example/"}), "redirects to https://elsewhere.example/"),
        (Canned(404, b"", {}), "responded with 404 Not Found. Check the address"),
        (Canned(503, b"", {}), "does not describe its variants"),
    ],
    ids=["a web site", "no limits", "a list", "a redirect", "nothing there", "down"],
)
def test_what_is_not_a_gateway_gets_no_key_and_no_image(
    served: Served, tmp_path: Path, response: Canned, words: str
) -> None:
    with relaying(served.port) as relay:
        relay.gets.append(response)
        done = run_command(tmp_path, f"http://127.0.0.1:{relay.port}", "ssr_secret", tmp_path / "a.png")

    assert done.returncode == upscale.EXIT_BACKEND, done.stderr
    assert words in done.stderr
    assert relay.requests == ["GET /api/v1/variants"]


def run_command(folder: Path, url: str, key: str, source: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, with the key in the environment."""
    if not source.exists():
        draw_file(source, 14)
    return subprocess.run(
        [sys.executable, "-m", "gateway", "upscale", str(source), str(folder / "out.png"), "--to", url],
        env=make_environ(folder, key, **variables),
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )


def make_environ(folder: Path, key: str, **variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
    return {**kept, "SUPERRES_STATE_DIR": str(folder / "state"), "SUPERRES_CLIENT_KEY": key, **variables}


def test_nothing_listens(served: Served, tmp_path: Path) -> None:
    with relaying(served.port) as relay:
        port = relay.port

    done = run_command(tmp_path, f"http://127.0.0.1:{port}", "k", tmp_path / "a.png")

    assert done.returncode == upscale.EXIT_BACKEND
    assert f"http://127.0.0.1:{port} cannot be reached. The connection to 127.0.0.1:{port} failed" in done.stderr


def test_certificates_are_verified(served: Served, key: str, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    with relaying(served.port, certificate=certificate) as relay:
        url = f"https://127.0.0.1:{relay.port}"
        refused = run_command(tmp_path, url, key, tmp_path / "a.png")
        done = run_command(tmp_path, url, key, tmp_path / "a.png", SSL_CERT_FILE=str(certificate[0]))

    assert refused.returncode == upscale.EXIT_BACKEND
    assert "The certificate of 127.0.0.1 cannot be verified: self-signed certificate." in refused.stderr
    assert "SSL_CERT_FILE" in refused.stderr
    assert done.returncode == 0, done.stderr


def test_https_to_a_port_without_tls(short_timeouts: Served, tmp_path: Path) -> None:
    """The gateway waits for the rest of the headers for as long as its idle timeout."""
    done = run_command(tmp_path, f"https://127.0.0.1:{short_timeouts.port}", "k", tmp_path / "a.png")

    assert done.returncode == upscale.EXIT_BACKEND
    assert "begins with http:// instead" in done.stderr


def test_proxy_of_the_environment_is_used(served: Served, key: str, tmp_path: Path) -> None:
    with relaying(served.port) as relay:
        proxy = f"http://127.0.0.1:{relay.port}"
        done = run_command(tmp_path, "http://superres.invalid/", key, tmp_path / "a.png", http_proxy=proxy)

    assert done.returncode == 0, done.stderr
    assert relay.requests[0] == "GET http://superres.invalid/api/v1/variants"
    assert "The key and the images go to http://superres.invalid unencrypted." in done.stderr


def test_ctrl_c_cancels_the_job_on_the_service(tmp_path: Path) -> None:
    with serving(tmp_path / "served", "slow") as server:
        key = ApiKeyStore(server.state_dir / "keys.json").new("cli")
        draw_file(tmp_path / "in" / "a.png", 15)
        process = subprocess.Popen(
            [
                *("env", "--default-signal=INT"),  # a shell that runs the tests in the background ignores it
                *(sys.executable, "-m", "gateway", "upscale", str(tmp_path / "in"), str(tmp_path / "out")),
                *("--to", f"http://127.0.0.1:{server.port}"),
            ],
            env=make_environ(tmp_path, key),
            text=True,
            stderr=subprocess.PIPE,
        )
        try:
            status = f"http://127.0.0.1:{server.port}/api/v1/status"
            wait_for(lambda: read_running(status) == 1, "the job to run")
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=120)[1]
            wait_for(lambda: read_running(status) == 0, "the job to be cancelled")
        finally:
            process.kill()

    assert process.returncode == 130
    assert "Interrupted. 0 of 1 images upscaled. No partial image is left." in said
    assert f"To go on: superres upscale {tmp_path}/in {tmp_path}/out --to" in said
    assert key not in said
    assert list((tmp_path / "out").iterdir()) == []


def read_running(url: str) -> int:
    with urllib.request.urlopen(url, timeout=120) as response:
        return int(json.load(response)["queue"]["running"])
