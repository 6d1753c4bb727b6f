"""A real nginx on free loopback ports, in front of a gateway."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_LIMIT_S = 120.0

_CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
{user}
events {{ worker_connections 128; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{servers}
}}
"""


@contextmanager
def running_nginx(folder: Path, servers: str, ports: list[int]) -> Iterator[None]:
    """Run nginx with these `server` and `upstream` blocks until the block ends; wait until it listens on the ports."""
    command = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert command, "nginx is missing: apt-get install --no-install-recommends nginx-light"
    folder.mkdir(parents=True, exist_ok=True)
    user = "user root;" if os.geteuid() == 0 else ""  # its workers must be able to write into the test's folder
    (folder / "nginx.conf").write_text(_CONFIGURATION.format(folder=folder, servers=servers, user=user))
    arguments = [command, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _wait_until_listening(process, ports)
        yield
    finally:
        process.terminate()
        process.communicate(timeout=START_LIMIT_S)


def _wait_until_listening(process: subprocess.Popen[str], ports: list[int]) -> None:
    end = time.monotonic() + START_LIMIT_S
    for port in ports:
        while True:
            assert process.poll() is None, f"nginx ended: {process.communicate()[1]}"
            assert time.monotonic() < end, f"nginx does not listen on port {port}"
            try:
                socket.create_connection(("127.0.0.1", port), timeout=START_LIMIT_S).close()
                break
            except OSError:
                time.sleep(0.02)
