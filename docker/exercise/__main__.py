"""`make containers` builds the images and tests the compose file with real containers. Needs Debian 12 and root.

The base images are stand-ins (stand_ins.py), so no image registry is needed. Dockerfiles, docker-compose.yml, secrets
and health checks are the real ones. Removes everything at the end except two tars of Debian in build/containers.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import socket
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from docker.exercise import checks, faults
from docker.exercise.checks import expect, wait_for
from docker.exercise.podman import ExerciseError, Podman, install_packages, run
from docker.exercise.stand_ins import NGINX, PYTHON, REDIS, UBUNTU, make_stand_ins, pip_mounts

PROJECT = "superres-exercise"
# The image must stay under 300 MB. The stand-in is larger than the real base, so only the size of our layers is
# checked. It was 165.5 MB on 2026-11-29: zlib-ng, which makes PNG results 13 % smaller, has 0.4 MB of it; pi-heif, for
# the photos of phones, 4.1 MB. The limit lets our own code grow by 1.5 MB and admits no other library.
GATEWAY_ADDS_BYTES = 167_000_000
# Packages for webhooks and traces (PACKAGES=gateway-all), in addition to those: 10 MB on 2026-11-30.
EXTRAS_ADD_BYTES = 15_000_000
# What Triton's image adds to Ubuntu with the CPU build of torch: 1,035 MB on 2026-11-30. A second backend exceeds it.
TRITON_ADDS_BYTES = 1_060_000_000
# Of each service, when a step fails.
LOG_LINES = 25
LINE_LENGTH = 400
ADDRESSES = "{{.Name}} {{range $name, $net := .NetworkSettings.Networks}}{{$name}} {{$net.IPAddress}} {{end}}"
HEALTH = "{{.Name}} restarts {{.RestartCount}} started {{.State.StartedAt}} health {{json .State.Health.Log}}"
USE_EXTRAS = """
import pathlib, gateway.server, opentelemetry.exporter.otlp.proto.http, opentelemetry.sdk.trace
from gateway.webhooks.keys import WebhookKeys
print(WebhookKeys("", pathlib.Path("/tmp/key"), needs_setting=False).sign("id", 1, b"{}"))
"""
CONNECT = """
import socket, time
for name, port in (("redis", 6379), ("triton", 8001)):
    began, found = time.monotonic(), "no address"
    try:
        found = socket.getaddrinfo(name, port)[0][4][0]
        socket.create_connection((found, port), timeout=10).close()
        result = "connected"
    except OSError as error:
        result = f"{error!r}"
    print(f"{name} at {found}: {result} after {time.monotonic() - began:.2f} s")
"""


def main() -> int:
    """Run every step and print how long it took."""
    if os.geteuid() != 0:
        print(
            "make containers needs root to mount file systems and create networks. Run it with sudo or in CI.",
            file=sys.stderr,
        )
        return 2
    begun = time.monotonic()
    step("packages", install_packages)
    folder = Path(tempfile.mkdtemp(prefix="superres-", dir="/var/tmp"))
    podman = Podman(folder)
    try:
        step("stand-ins of the base images", lambda: make_stand_ins(podman, checks.ROOT / "build" / "containers"))
        step("gateway image", lambda: build_gateway(podman))
        step("gateway image with extras", lambda: build_gateway_with_extras(podman))
        step("Triton image", lambda: build_triton(podman))
        with podman.serve():
            exercise(podman)
    except ExerciseError as error:
        print(f"\nmake containers failed: {error}", file=sys.stderr)
        return 1
    finally:
        podman.remove()
    print(f"make containers: all steps passed in {time.monotonic() - begun:.0f} s; everything is removed")
    return 0


def step(name: str, action: object) -> None:
    """Run one step and print how long it took."""
    print(f"{name} ...", flush=True)
    begun = time.monotonic()
    action()  # type: ignore[operator]
    print(f"  {time.monotonic() - begun:.1f} s", flush=True)


def build(podman: Podman, name: str, *arguments: str, tag: str = "dev") -> str:
    """Build one of the project's Dockerfiles with this machine's pip configuration."""
    recipe = checks.ROOT / "docker" / f"{name}.Dockerfile"
    flags = ["--pull=never", "--format", "docker", "--network", "host", *pip_mounts(podman.folder), *arguments]
    return podman("build", *flags, "-t", f"localhost/superres-{name}:{tag}", "-f", recipe, checks.ROOT)


def build_gateway(podman: Podman) -> None:
    """Build the gateway's image and check its size."""
    build(podman, "gateway", "--build-arg", f"PYTHON_IMAGE={PYTHON}")
    added = count_added_bytes(podman, "localhost/superres-gateway:dev", PYTHON)
    expect(added < GATEWAY_ADDS_BYTES, f"the gateway adds {added / 1e6:.0f} MB to its base")
    program = "import importlib.util as u, gateway.server; print(u.find_spec('torch'))"
    output = run_python(podman, "localhost/superres-gateway:dev", program)
    expect(output.strip() == "None", "the gateway runs without torch")


def build_gateway_with_extras(podman: Podman) -> None:
    """Build the gateway's image with all extras, sign a webhook in it and check its size."""
    image = "localhost/superres-gateway:all"
    build(podman, "gateway", "--build-arg", f"PYTHON_IMAGE={PYTHON}", "--build-arg", "PACKAGES=gateway-all", tag="all")
    added = count_added_bytes(podman, image, "localhost/superres-gateway:dev")
    expect(added < EXTRAS_ADD_BYTES, f"the extras add {added / 1e6:.0f} MB to the gateway")
    output = run_python(podman, image, USE_EXTRAS)
    expect(output.startswith("v1a,"), "the gateway with extras signs webhooks and can export traces")


def run_python(podman: Podman, image: str, program: str) -> str:
    """Run a Python program in an image, without a network; return its output."""
    return podman("run", "--rm", "--network=none", "--entrypoint=python3", image, "-c", program)


def count_added_bytes(podman: Podman, image: str, base: str) -> int:
    """Return by how many bytes an image is larger than its base."""
    sizes = [int(podman("image", "inspect", "-f", "{{.Size}}", name)) for name in (image, base)]
    return sizes[0] - sizes[1]


def build_triton(podman: Podman) -> None:
    """Build Triton's image. Without a digest the build must fail."""
    try:
        build(podman, "triton")
        raise AssertionError("built")
    except ExerciseError as error:
        expect("TRITON_DIGEST is empty" in str(error), "without a digest the build fails with an explanation")
    arguments = ("ALLOW_UNPINNED=yes", "TORCH=cpu", f"UBUNTU_IMAGE={UBUNTU}")
    output = build(podman, "triton", *(word for each in arguments for word in ("--build-arg", each)))
    print("\n".join(line for line in output.splitlines() if re.match(r" *[\d.]+ MB  ", line)))
    added = count_added_bytes(podman, "localhost/superres-triton:dev", UBUNTU)
    expect(added < TRITON_ADDS_BYTES, f"Triton's image adds {added / 1e6:.0f} MB to its base")
    listed = podman(
        "run",
        "--rm",
        "--network=none",
        "--entrypoint=ls",
        "localhost/superres-triton:dev",
        "/opt/tritonserver/backends",
    )
    expect(listed.split() == ["python"], "only the Python backend is left")


def exercise(podman: Podman) -> None:
    """Start the compose file, upscale an image, kill Redis and stubs, and take everything down."""
    ports = free_ports(3)
    url, front_url = (f"http://127.0.0.1:{port}" for port in ports[:2])
    secrets = podman.folder / "project"
    copy_project(secrets)
    environ = {
        **podman.environ,
        "GATEWAY_PORT": str(ports[0]),
        "FRONT_PORT": str(ports[1]),
        "REDIS_IMAGE": REDIS,
        "FRONT_IMAGE": NGINX,
        "TRITON_TAG": "localhost/superres-triton:dev",
        "GATEWAY_TAG": "localhost/superres-gateway:dev",
    }

    def compose(*arguments: str) -> str:
        binary = Path(sysconfig.get_path("scripts")) / "docker-compose"
        return run(binary, "--project-directory", secrets, "-p", PROJECT, *arguments, environ=environ, limit_s=600)

    try:
        start(compose, podman)
        key = compose("exec", "-T", "gateway", "superres", "keys", "new", "exercise").strip()
        step("upscale an image", lambda: checks.check_upscaling(url, key))
        step("the decoder process", lambda: checks.check_decoder_process(url, key))
        step("the engine", lambda: checks.check_engine(compose))
        step("access", lambda: checks.check_access(url, front_url, compose))
        step("containers", lambda: checks.check_containers(compose, lambda name: podman("inspect", name)))

        upscales = checks.Upscales(url, key)

        def redis_down_and_up() -> None:
            counted = compose("exec", "-T", "redis", "redis-cli", "dbsize").split()[-1]
            expect(int(counted) > 0, "the gateway counts in Redis")
            compose("kill", "redis")
            expect(upscales(checks.RESPONSE_TIMEOUT_S), f"without Redis images are still upscaled{upscales.reason}")
            compose("up", "-d", "--no-build", "--wait", "--wait-timeout", "300", "redis")
            expect(upscales(checks.RESPONSE_TIMEOUT_S), f"images are upscaled when Redis is back{upscales.reason}")

        def triton_started() -> str:
            return faults.triton_started(podman, compose)

        def stub_dies() -> None:
            started = triton_started()
            compose(
                "exec",
                "-T",
                "triton",
                "sh",
                "-c",
                "kill -9 $(grep -lx triton_python_b /proc/[0-9]*/comm | cut -d/ -f3)",
            )
            wait_for(upscales, "with dead stubs an image waits and is upscaled")
            expect(triton_started() != started, "the health check restarted Triton")

        def one_stub_dies() -> None:
            started = triton_started()
            stub = faults.find_processes(compose, "triton", "upscale_stream").strip()
            compose("exec", "-T", "triton", "sh", "-c", f"kill -9 {stub}")
            wait_for(
                lambda: triton_started() != started,
                "Triton is restarted after the death of a stub that no health check calls",
            )
            wait_for(upscales, "images are upscaled again")

        step("Redis killed and back", redis_down_and_up)
        step(
            "Triton stopped in the middle of an image",
            lambda: faults.triton_stopped_while_it_works(compose, lambda png: checks.upscale(url, key, png)[0]),
        )
        step("Triton's stubs killed", stub_dies)
        step("one stub killed", one_stub_dies)
        step(
            "Triton hung, gateway paused",
            lambda: faults.hung_triton_and_paused_gateway(podman, compose, upscales),
        )
        step(
            "form through a proxy",
            lambda: faults.form_through_a_proxy(podman, f"{PROJECT}_outside", ports[2]),
        )
    except Exception:  # the logs are removed with the containers
        print_logs(compose, podman)
        raise
    finally:
        step("docker compose down", lambda: compose("down", "--volumes", "--timeout", "20"))


def start(compose: checks.Compose, podman: Podman) -> None:
    """Start the containers, and wait until the gateway's can connect to Redis and Triton, without the gateway's code.

    Where they cannot, podman's networks are at fault, not the product. Then everything is started once more.
    """

    def connections() -> str:
        return compose("exec", "-T", "gateway", "python3", "-c", CONNECT)

    for is_last in (False, True):
        step("docker compose up --wait", lambda: compose("up", "-d", "--no-build", "--wait", "--wait-timeout", "300"))
        try:
            wait_for(
                lambda: connections().count(": connected") == 2, "the gateway's container reaches Redis and Triton"
            )
        except ExerciseError:
            if is_last:
                raise
            print_logs(compose, podman)
            compose("down", "--volumes", "--timeout", "20")
        else:
            return


def print_logs(compose: checks.Compose, podman: Podman) -> None:
    """Print what tells why a step failed: states and addresses of the containers, logs, and connections at the end.

    CI shows only the end of a long output, so what tells most stands there.
    """
    shown: tuple[tuple[str, Callable[[], str]], ...] = (
        ("health checks", lambda: podman("inspect", "-f", HEALTH, *podman("ps", "-aq").split())),
        *((service, partial(read_log, compose, service)) for service in ("redis", "front", "triton", "gateway")),
        ("containers", lambda: podman("ps", "-a", "--format", "{{.Names}} {{.Status}}")),
        ("addresses", lambda: podman("inspect", "-f", ADDRESSES, *podman("ps", "-aq").split())),
        ("connections of the gateway's container", lambda: compose("exec", "-T", "gateway", "python3", "-c", CONNECT)),
    )
    for name, show in shown:
        print(f"--- {name}", file=sys.stderr)
        try:
            print("\n".join(line[:LINE_LENGTH] for line in show().splitlines()), file=sys.stderr)
        except ExerciseError as error:  # the others may tell the cause
            print(error, file=sys.stderr)


def read_log(compose: checks.Compose, service: str) -> str:
    """Return the end of a service's log, without lines of health checks, which hide the others."""
    lines = compose("logs", "--no-color", "--tail", "1000", service).splitlines()
    return "\n".join([line for line in lines if "/healthz" not in line and "GET / HTTP" not in line][-LOG_LINES:])


def copy_project(folder: Path) -> None:
    """Copy what compose reads and create new secrets, so that a run never touches those of the checkout."""
    (folder / "docker").mkdir(parents=True)
    for name in ("docker-compose.yml", ".env"):
        shutil.copy2(checks.ROOT / name, folder / name)
    shutil.copytree(checks.ROOT / "front", folder / "front")
    shutil.copytree(checks.ROOT / "docker" / "front", folder / "docker" / "front")
    shutil.copy2(checks.ROOT / "docker" / "make-secrets", folder / "docker")
    run(folder / "docker" / "make-secrets")


def free_ports(count: int) -> list[int]:
    """Return free loopback ports, below those that outgoing connections could take before they are used."""
    ports: list[int] = []
    for port in random.sample(range(16_000, 32_000), 1_000):
        if len(ports) < count:
            with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
                ports.append(port)
    return ports


if __name__ == "__main__":
    sys.exit(main())
