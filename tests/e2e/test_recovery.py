"""Triton dies under load: the client still gets the image, and no process or file is left at the end."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gateway.backend.triton_stubs import SHARED_MEMORY, find_stubs
from testing.images import draw_photo, encode_png
from testing.stack import count_tiles, start_stack, stop_stack, wait_for


def swinir_stub(server: int) -> int:
    """Return the process id of the stub of the model `swinir`."""
    return next(stub.pid for stub in find_stubs(server) if stub.model == "swinir")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_running_images_survive_the_death_of_the_server_and_of_a_stub(tmp_path: Path) -> None:
    running = start_stack(tmp_path, SUPERRES_CACHE_MAX_BYTES="0")  # otherwise the second upscale comes from the cache
    images = [encode_png(draw_photo(520, 600, seed=seed)) for seed in (3, 4)]
    expected = [running.post(image).read() for image in images]

    for find_process, number in (
        (swinir_stub, signal.SIGKILL),
        (lambda server: server, signal.SIGKILL),
        (lambda server: server, signal.SIGTERM),
    ):
        server, before = running.triton_pid(), count_tiles(running)
        pid = find_process(server)
        with ThreadPoolExecutor(2) as pool:
            results = [pool.submit(lambda image=image: running.post(image).read()) for image in images]  # type: ignore[misc]
            wait_for(lambda: count_tiles(running) > before, "the first of their tiles")  # noqa: B023 - called here
            os.kill(pid, number)
            assert not all(result.done() for result in results), "all were made before the kill: this proves nothing"
            assert [result.result() for result in results] == expected
        wait_for(lambda old=server: running.triton_pid() != old, "another Triton")  # type: ignore[misc]
        assert not find_stubs(server), "nothing of the old one is left"
    assert stop_stack(running) == 0


def test_shutdown_leaves_no_process(tmp_path: Path) -> None:
    running = start_stack(tmp_path)
    server = running.triton_pid()
    family = {server, *(stub.pid for stub in find_stubs(server))}

    assert stop_stack(running) == 0

    wait_for(lambda: not any(is_alive(pid) for pid in family), "Triton and its stubs to end")
    assert [line for line in running.printed if line.strip() and "ready at" not in line] == []


def test_triton_ends_with_a_killed_gateway(tmp_path: Path) -> None:
    running = start_stack(tmp_path)
    server = running.triton_pid()
    worker = int(Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[1])

    running.process.kill()
    os.kill(worker, signal.SIGKILL)
    running.process.communicate()

    wait_for(lambda: not is_alive(server), "Triton to end with its gateway")


def test_stubs_and_shared_memory_of_killed_servers_are_removed(tmp_path: Path) -> None:
    running = start_stack(tmp_path, SUPERRES_CACHE_MAX_BYTES="0")
    image = encode_png(draw_photo(900, 520, seed=2))
    servers, regions = [], set()
    for _ in range(2):
        servers.append(server := running.triton_pid())
        regions |= {stub.region for stub in find_stubs(server)}
        before = count_tiles(running)
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(lambda: running.post(image).read())
            # A stub can survive its server only while it is working.
            wait_for(lambda before=before: count_tiles(running) > before, "the first of its tiles")  # type: ignore[misc]
            os.kill(server, signal.SIGKILL)
            assert not result.done(), "it was made before the kill: this proves nothing"
            assert result.result()
        wait_for(lambda old=server: running.triton_pid() != old, "another Triton")  # type: ignore[misc]
    worker = int(Path(f"/proc/{running.triton_pid()}/stat").read_text().rpartition(")")[2].split()[1])
    servers.append(running.triton_pid())
    regions |= {stub.region for stub in find_stubs(servers[-1])}
    running.process.kill()
    os.kill(worker, signal.SIGKILL)
    running.process.communicate()
    wait_for(lambda: not is_alive(servers[-1]), "Triton to end with its gateway")

    assert stop_stack(start_stack(tmp_path)) == 0

    assert not [stub for stub in find_stubs() if stub.server_pid in servers]
    assert not [region for region in regions if (SHARED_MEMORY / region).exists()]
    assert len(regions) == 3 * 4
