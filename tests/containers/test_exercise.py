"""The HTTP client of `make containers` retries every failure that a restarting service causes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from docker.exercise.checks import RESPONSE_TIMEOUT_S, Upscales, send, wait_for
from docker.exercise.faults import PROXY_PORT, proxy_configuration
from docker.exercise.podman import ExerciseError, run
from testing.compose import services
from testing.data import ROOT


@contextmanager
def serving(*responses: bytes) -> Iterator[str]:
    """A server that sends each connection the next of these byte strings and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for response in responses:
                connection, _ = server.accept()
                with connection, suppress(OSError):  # the client may have closed it
                    connection.recv(65_536)
                    connection.sendall(response)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(
                        65_536
                    ):  # closing with unread bytes resets the connection: the response is lost
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        thread.join()


def test_response_of_any_status_is_returned() -> None:
    with serving(b"HTTP/1.0 200 OK\r\n\r\nyes", b"HTTP/1.0 503 Later\r\n\r\nno place") as url:
        assert [send(url), send(url)] == [(200, b"yes"), (503, b"no place")]


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"", b"RemoteDisconnected"),
        (b"nonsense\r\n", b"BadStatusLine"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"IncompleteRead"),
        (b"HTTP/1.1 503 Later\r\nContent-Length: 9\r\n\r\nhalf", b"IncompleteRead"),
    ],
)
def test_closed_connection_is_status_0(sent: bytes, words: bytes) -> None:
    with serving(sent) as url:
        status, reason = send(url)
    assert status == 0
    assert words in reason


def test_closed_port_and_a_silent_one_are_status_0() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        assert send(url, timeout_s=0.05)[0] == 0
    assert send(url)[0] == 0


def test_waiting_continues_after_failed_requests() -> None:
    with serving(b"", b"HTTP/1.1 503 Later\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n") as url:
        wait_for(lambda: send(url)[0] == 200, "it is back")


def test_wait_that_ends_in_vain_names_the_last_response() -> None:
    with serving(b"HTTP/1.1 503 Later\r\n\r\nThe backend boots.") as url:
        upscales = Upscales(url.removesuffix("/"), "key")
        with pytest.raises(
            ExerciseError, match=r"^not within 0 s: images are upscaled \(after .* 503: b'The backend boots\."
        ):
            wait_for(upscales, "images are upscaled", 0.0)


def test_command_that_fails_while_a_container_restarts_is_repeated() -> None:
    tries: list[int] = []

    def condition() -> bool:
        tries.append(1)
        return len(tries) == 2 or bool(run("false"))

    wait_for(condition, "it is back")
    assert len(tries) == 2


def test_client_waits_longer_than_the_gateway_does() -> None:
    assert float(services()["gateway"]["environment"]["SUPERRES_DEADLINE_S"]) < RESPONSE_TIMEOUT_S


def test_command_that_hangs_fails_with_a_message() -> None:
    with pytest.raises(ExerciseError, match=r"sleep 60 did not end"):
        run("sleep", "60", limit_s=0.05)


def test_proxy_has_the_example_of_the_guide(tmp_path: Path) -> None:
    text = proxy_configuration(ROOT)
    assert text.count("server {") == 1
    for line in (f"listen {PROXY_PORT};", "proxy_pass http://gateway:8080;", "proxy_set_header Host $http_host;"):
        assert line in text

    for name in ("docs/how-to/proxies.md", "docker/front/nginx.conf"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text().replace(f"listen {PROXY_PORT};", "listen 80;"))
    with pytest.raises(ExerciseError, match="has 0 examples for port"):
        proxy_configuration(tmp_path)
