"""Faults of the running system that only containers show: a hung Triton, a paused gateway, and a proxy in front."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from docker.exercise.checks import NEW_SIDE, ROOT, Compose, draw_new, expect, send, wait_for
from docker.exercise.podman import ExerciseError, Podman
from docker.exercise.stand_ins import NGINX

# Longer than gunicorn's default timeout of 30 s, after which its arbiter would kill a worker that was paused.
PAUSE_S = 33.0
# Seconds of work for two cores, so that the container is stopped in the middle.
LARGE_SIDE = 1000
PROXY = "superres-exercise-proxy"
# The port in the example of docs/how-to/proxies.md.
PROXY_PORT = 8082


def triton_started(podman: Podman, compose: Compose) -> str:
    """Return when Triton's container was started last."""
    # With -a, because a container that restarts is not running for a moment.
    return podman("inspect", "-f", "{{.State.StartedAt}}", compose("ps", "-aq", "triton").strip())


def find_processes(compose: Compose, service: str, words: str) -> str:
    """Return the process ids in a service whose command lines have these words, one a line."""
    hidden = f"[{words[0]}]{words[1:]}"  # does not match the command line of this search
    return compose("exec", "-T", service, "sh", "-c", f"grep -la '{hidden}' /proc/[0-9]*/cmdline | cut -d/ -f3")


def triton_stopped_while_it_works(compose: Compose, upscale: Callable[[bytes], int]) -> None:
    """Stop Triton's container in the middle of an image. `upscale` returns the status of the response."""
    with ThreadPoolExecutor(1) as pool:
        response = pool.submit(upscale, draw_new(LARGE_SIDE))
        wait_for(lambda: count_open_streams(compose) > 0, "Triton works on an image")
        compose("stop", "triton")
        expect(response.result() == 200, "an image is finished while its Triton is being stopped")
    expect(not compose("ps", "-q", "triton").strip(), "Triton has ended")
    compose("up", "-d", "--no-build", "--wait", "--wait-timeout", "300", "triton")


def count_open_streams(compose: Compose) -> int:
    """Return how many threads of Triton work on streams."""
    return int(compose("exec", "-T", "triton", "/opt/superres/bin/open-streams"))


def hung_triton_and_paused_gateway(podman: Podman, compose: Compose, upscales: Callable[[], bool]) -> None:
    """Stop a stub of Triton, and pause the gateway meanwhile, for longer than gunicorn's timeout.

    The health check ends Triton, the engine starts another one, and the gateway continues with the same worker.
    """
    started, processes = triton_started(podman, compose), find_processes(compose, "gateway", "serve")
    gateway = compose("ps", "-q", "gateway").strip()
    stub = find_processes(compose, "triton", "/swinir/").split()
    compose("exec", "-T", "triton", "sh", "-c", f"kill -STOP {' '.join(stub)}")
    podman("pause", gateway)
    paused_at = time.monotonic()
    try:
        ended = "the health check ends a Triton with a stopped stub, and another one starts"
        wait_for(lambda: triton_started(podman, compose) != started, ended)
        time.sleep(max(0.0, paused_at + PAUSE_S - time.monotonic()))
    finally:
        podman("unpause", gateway)
    wait_for(upscales, f"images are upscaled after a hang of Triton and {PAUSE_S:.0f} s without processor time")
    expect(find_processes(compose, "gateway", "serve") == processes, "the gateway's worker survived its pause")


def form_through_a_proxy(podman: Podman, network: str, port: int) -> None:
    """Send the form as a browser does, through an nginx with the configuration of docs/how-to/proxies.md."""
    url = f"http://127.0.0.1:{port}"
    with running_proxy(podman, network, port):
        wait_for(lambda: send(f"{url}/healthz")[0] == 200, "the proxy passes requests on")
        page = send(f"{url}/")[1].decode()
        status, page_of_result = send_form(url, page, origin=url)
        if status != 200 or not (link := re.search(r'"([^"]*/results/[^"?]+/after)\?download=1', page_of_result)):
            raise ExerciseError(f"POST / through the proxy responds {status}: {page_of_result[:2000]}")
        path = link[1].removeprefix(url)
        size = Image.open(io.BytesIO(send(f"{url}{path}")[1])).size
        expect(size == (4 * NEW_SIDE, 4 * NEW_SIDE), "the form works through a proxy, and so does its download")
        status, refusal = send_form(url, page, origin="http://other.example")
        expect(
            status == 403 and "other.example" in refusal, "a form of another site is 403, and its page names the site"
        )


def send_form(url: str, page: str, *, origin: str) -> tuple[int, str]:
    """Send the form of a page with a new image, and return the status and the page of the response."""
    token = re.search(r'name="token" value="([^"]+)"', page)
    if token is None:
        raise ExerciseError(f"the page has no form: {page[:300]}")
    head = 'Content-Disposition: form-data; name="{}"'
    parts = [
        f"{head.format('token')}\r\n\r\n{token[1]}".encode(),
        f'{head.format("image")}; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'.encode() + draw_new(),
    ]
    body = b"".join(b"--part\r\n" + part + b"\r\n" for part in parts) + b"--part--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=part", "Origin": origin, "Accept": "text/html"}
    status, response = send(f"{url}/", body=body, headers=headers)
    return status, response.decode(errors="replace")


@contextmanager
def running_proxy(podman: Podman, network: str, port: int) -> Iterator[None]:
    """Run nginx in the gateway's network until the block ends."""
    configuration = podman.folder / "proxy.conf"
    configuration.write_text(proxy_configuration(ROOT))
    flags = ["--read-only", "--tmpfs", "/tmp", "--user", "101:101", "-v", f"{configuration}:/etc/nginx/nginx.conf:ro"]  # noqa: S108 - the container's
    published = ["--network", network, "-p", f"127.0.0.1:{port}:{PROXY_PORT}"]
    podman("run", "-d", "--name", PROXY, *flags, *published, NGINX)
    try:
        yield
    finally:
        podman("rm", "-f", "-t", "2", PROXY)


def proxy_configuration(root: Path) -> str:
    """Return the front's configuration with the server of docs/how-to/proxies.md, which passes on to `gateway`."""
    guide = (root / "docs" / "how-to" / "proxies.md").read_text()
    blocks = [
        block for block in re.findall(r"```nginx\n(.*?)```", guide, re.DOTALL) if f"listen {PROXY_PORT};" in block
    ]
    if len(blocks) != 1:
        raise ExerciseError(f"docs/how-to/proxies.md has {len(blocks)} examples for port {PROXY_PORT}, expected 1")
    server = blocks[0].replace("http://127.0.0.1:8080", "http://gateway:8080")
    front = (root / "docker" / "front" / "nginx.conf").read_text()
    return front[: front.index("    server {")] + server + "}\n"
