"""`make containers` builds both images and tests the compose file with real containers. Needs Debian 12 and root.

The base images are stand-ins (stand_ins.py), so no image registry is needed. Dockerfiles, docker-compose.yml, secrets
and health checks are the real ones. Removes everything at the end except a tar of Debian in build/containers.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from docker.exercise import checks
from docker.exercise.checks import expect, wait_for
from docker.exercise.podman import ExerciseError, Podman, install_packages, run
from docker.exercise.stand_ins import NGINX, PYTHON, REDIS, make_stand_ins, pip_mounts

PROJECT = "superres-exercise"
# The image must stay under 300 MB. The stand-in is larger than the real base, so only the size of our layers is
# checked.
GATEWAY_ADDS_BYTES = 160_000_000


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


def build(podman: Podman, name: str, *arguments: str) -> str:
    """Build one of the project's Dockerfiles with this machine's pip configuration."""
    recipe = checks.ROOT / "docker" / f"{name}.Dockerfile"
    flags = ["--pull=never", "--format", "docker", "--network", "host", *pip_mounts(podman.folder), *arguments]
    return podman("build", *flags, "-t", f"localhost/superres-{name}:dev", "-f", recipe, checks.ROOT)


def build_gateway(podman: Podman) -> None:
    """Build the gateway's image and check its size."""
    build(podman, "gateway", "--build-arg", f"PYTHON_IMAGE={PYTHON}")
    sizes = [
        int(podman("image", "inspect", "-f", "{{.Size}}", name)) for name in ("localhost/superres-gateway:dev", PYTHON)
    ]
    added = sizes[0] - sizes[1]
    expect(added < GATEWAY_ADDS_BYTES, f"the gateway adds {added / 1e6:.0f} MB to its base")
    torch = podman(
        "run",
        "--rm",
        "--network=none",
        "--entrypoint=python3",
        "localhost/superres-gateway:dev",
        "-c",
        "import importlib.util as u, gateway.server; print(u.find_spec('torch'))",
    )
    expect(torch.strip() == "None", "the gateway runs without torch")


def build_triton(podman: Podman) -> None:
    """Build Triton's image. Without a digest the build must fail."""
    try:
        build(podman, "triton")
        raise AssertionError("built")
    except ExerciseError as error:
        expect("TRITON_DIGEST is empty" in str(error), "without a digest the build fails with an explanation")
    build(podman, "triton", "--build-arg", "ALLOW_UNPINNED=yes", "--build-arg", "TORCH=cpu")
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
    ports = free_ports(2)
    url, front_url = (f"http://127.0.0.1:{port}" for port in ports)
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
        return run(binary, "--project-directory", secrets, "-p", PROJECT, *arguments, environ=environ, limit_s=300)

    try:
        step("docker compose up --wait", lambda: compose("up", "-d", "--no-build", "--wait", "--wait-timeout", "180"))
        key = compose("exec", "-T", "gateway", "superres", "keys", "new", "exercise").strip()
        step("upscale an image", lambda: checks.check_upscaling(url, key))
        step("the engine", lambda: checks.check_engine(compose))
        step("access", lambda: checks.check_access(url, front_url, compose))
        step("containers", lambda: checks.check_containers(compose, lambda name: podman("inspect", name)))

        def upscales() -> bool:
            # Repeated while Triton restarts: one request that hangs must not use up the time for all of them.
            return checks.is_upscaled(url, key, timeout_s=30)

        def redis_down_and_up() -> None:
            counted = compose("exec", "-T", "redis", "redis-cli", "dbsize").split()[-1]
            expect(int(counted) > 0, "the gateway counts in Redis")
            compose("kill", "redis")
            expect(upscales(), "without Redis images are still upscaled")
            compose("up", "-d", "--no-build", "--wait", "--wait-timeout", "60", "redis")
            expect(upscales(), "images are upscaled when Redis is back")

        def triton_started() -> str:
            # With -a, because a container that restarts is not running for a moment.
            return podman("inspect", "-f", "{{.State.StartedAt}}", compose("ps", "-aq", "triton").strip())

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
            wait_for(upscales, 120, "with dead stubs an image waits and is upscaled")
            expect(triton_started() != started, "the health check restarted Triton")

        def one_stub_dies() -> None:
            started = triton_started()
            find = "grep -l '[u]pscale_stream' /proc/[0-9]*/cmdline | cut -d/ -f3"  # [u] excludes this command itself
            compose("exec", "-T", "triton", "sh", "-c", f"kill -9 $({find})")
            wait_for(
                lambda: triton_started() != started,
                60,
                "Triton is restarted after the death of a stub that no health check calls",
            )
            wait_for(upscales, 120, "images are upscaled again")

        step("Redis killed and back", redis_down_and_up)
        step("Triton's stubs killed", stub_dies)
        step("one stub killed", one_stub_dies)
    except Exception:  # the logs are removed with the containers
        with contextlib.suppress(ExerciseError):
            print(compose("logs", "--no-color", "--tail", "30"), file=sys.stderr)
        raise
    finally:
        step("docker compose down", lambda: compose("down", "--volumes", "--timeout", "20"))


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
    """Return free loopback ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


if __name__ == "__main__":
    sys.exit(main())
