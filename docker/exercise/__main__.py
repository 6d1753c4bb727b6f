"""`make containers`: both images built and the compose file lived through, for real, on a Debian 12 machine as root.

Base images are stand-ins (stand_ins.py), so no image registry is needed; all else is the project's own: Dockerfiles,
docker-compose.yml, secrets, health checks. Leaves nothing behind but a tar of Debian in build/containers.
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
# The image is to stay under 300 MB. The stand-in's base is larger than the slim one, so what we add is weighed.
GATEWAY_ADDS_BYTES = 160_000_000


def main() -> int:
    """Run every step; tell what each took."""
    if os.geteuid() != 0:
        print("make containers needs root: it mounts and makes networks. Run it with sudo, or in CI.", file=sys.stderr)
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
            live(podman)
    except ExerciseError as error:
        print(f"\nmake containers failed: {error}", file=sys.stderr)
        return 1
    finally:
        podman.remove()
    print(f"containers: all of it ran in {time.monotonic() - begun:.0f} s; nothing is left running")
    return 0


def step(name: str, action: object) -> None:
    """Run one step and say how long it took."""
    print(f"{name} ...", flush=True)
    begun = time.monotonic()
    action()  # type: ignore[operator]
    print(f"  {time.monotonic() - begun:.1f} s", flush=True)


def build(podman: Podman, name: str, *arguments: str) -> str:
    """Build one of the project's Dockerfiles with this machine's way to Python packages."""
    recipe = checks.ROOT / "docker" / f"{name}.Dockerfile"
    flags = ["--pull=never", "--format", "docker", "--network", "host", *pip_mounts(podman.folder), *arguments]
    return podman("build", *flags, "-t", f"localhost/superres-{name}:dev", "-f", recipe, checks.ROOT)


def build_gateway(podman: Podman) -> None:
    """Build the gateway's image and weigh it."""
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
    expect(torch.strip() == "None", "it serves without torch")


def build_triton(podman: Podman) -> None:
    """Build Triton's image; without a digest it must refuse first."""
    try:
        build(podman, "triton")
        raise AssertionError("built")
    except ExerciseError as error:
        expect("TRITON_DIGEST is empty" in str(error), "without a digest it refuses, in words")
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


def live(podman: Podman) -> None:
    """Bring the compose file up, do the main job, break what may break, take it down."""
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
        step("the main job", lambda: checks.check_main_job(url, key))
        step("the engine", lambda: checks.check_engine(compose))
        step("doors", lambda: checks.check_doors(url, front_url, compose))
        step("containers", lambda: checks.check_containers(compose, lambda name: podman("inspect", name)))

        def answers() -> bool:
            # Asked again and again while Triton restarts: one question that hangs must not use up the wait for all.
            return checks.is_upscaled(url, key, timeout_s=30)

        def redis_down_and_up() -> None:
            counted = compose("exec", "-T", "redis", "redis-cli", "dbsize").split()[-1]
            expect(int(counted) > 0, "the gateway counts in Redis")
            compose("kill", "redis")
            expect(answers(), "without Redis images are still upscaled")
            compose("up", "-d", "--no-build", "--wait", "--wait-timeout", "60", "redis")
            expect(answers(), "and when Redis is back")

        def triton_started() -> str:
            # With -a: between its end and its start a container is none of those that run.
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
            wait_for(answers, 120, "with dead stubs an image waits, and is upscaled")
            expect(triton_started() != started, "the health check saw it, and Triton was restarted")

        def one_stub_dies() -> None:
            started = triton_started()
            find = "grep -l '[u]pscale_stream' /proc/[0-9]*/cmdline | cut -d/ -f3"  # [u]: not this command itself
            compose("exec", "-T", "triton", "sh", "-c", f"kill -9 $({find})")
            wait_for(
                lambda: triton_started() != started,
                60,
                "the stub of a model that no health check calls died, and Triton was restarted",
            )
            wait_for(answers, 120, "and images are upscaled")

        step("Redis killed and back", redis_down_and_up)
        step("Triton's stubs killed", stub_dies)
        step("one stub killed", one_stub_dies)
    except Exception:  # whatever it was, the logs are about to go
        with contextlib.suppress(ExerciseError):
            print(compose("logs", "--no-color", "--tail", "30"), file=sys.stderr)
        raise
    finally:
        step("docker compose down", lambda: compose("down", "--volumes", "--timeout", "20"))


def copy_project(folder: Path) -> None:
    """Lay out what compose reads, with secrets of its own: a run never touches those of the checkout."""
    (folder / "docker").mkdir(parents=True)
    for name in ("docker-compose.yml", ".env"):
        shutil.copy2(checks.ROOT / name, folder / name)
    shutil.copytree(checks.ROOT / "front", folder / "front")
    shutil.copytree(checks.ROOT / "docker" / "front", folder / "docker" / "front")
    shutil.copy2(checks.ROOT / "docker" / "make-secrets", folder / "docker")
    run(folder / "docker" / "make-secrets")


def free_ports(count: int) -> list[int]:
    """Return loopback ports that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


if __name__ == "__main__":
    sys.exit(main())
