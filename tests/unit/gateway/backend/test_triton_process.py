"""The start of the embedded server: what cannot work is rejected before the start or explained afterwards."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.backend.triton_install import EmbeddedServerError, check_python, locate_in_wheel
from gateway.backend.triton_process import TritonPorts, TritonProcess, find_free_ports
from testing.data import ROOT


def start(tmp_path: Path, model_repository: Path, ports: TritonPorts | None = None) -> TritonProcess:
    return TritonProcess(
        model_repository=model_repository,
        model_key="m",
        api_key="a",
        log_path=tmp_path / "triton.log",
        environ={},
        ports=ports or find_free_ports(),
    )


@pytest.mark.parametrize("version", [(3, 10), (3, 13), (4, 0)])
def test_unsupported_python_version_is_rejected(version: tuple[int, int]) -> None:
    with pytest.raises(EmbeddedServerError, match=rf"3\.11 or 3\.12; this is {version[0]}\.{version[1]}"):
        check_python(version, "1.26.4")


@pytest.mark.parametrize("numpy_version", ["2.0.2", "2.4.6", "3.0.0"])
def test_numpy_2_is_rejected(numpy_version: str) -> None:
    with pytest.raises(EmbeddedServerError, match=f"numpy is {numpy_version}.*numpy>=1.26,<2"):
        check_python((3, 11), numpy_version)


def test_damaged_wheel_names_the_missing_part(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedServerError, match=r"bin/tritonserver is missing.*make setup"):
        locate_in_wheel(tmp_path / "pytriton")


def test_missing_model_repository_names_its_path(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedServerError, match=r"Model repository not found: .*nowhere"):
        start(tmp_path, tmp_path / "nowhere")


def test_model_that_fails_to_load_ends_the_start(tmp_path: Path) -> None:
    model = tmp_path / "models" / "broken"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text('backend: "python"\nmax_batch_size: 0\n')
    (model / "1" / "model.py").write_text("raise RuntimeError('the reason why')\n")
    process = start(tmp_path, tmp_path / "models")
    try:
        with pytest.raises(
            EmbeddedServerError,
            match=r"(?s)status 1 while starting\. failed to load 'broken' .*the reason why\n.*whole log",
        ):
            process.wait_until_ready(time.monotonic() + 120)
    finally:
        process.kill()


@pytest.mark.parametrize("service", ["grpc", "http"])
def test_port_in_use_ends_the_start(tmp_path: Path, service: str) -> None:
    (tmp_path / "models").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start(tmp_path, tmp_path / "models", replace(find_free_ports(), **{service: port}))
        try:
            with pytest.raises(
                EmbeddedServerError, match=rf"{service.upper()} port {port} is in use by another program"
            ):
                process.wait_until_ready(time.monotonic() + 120)
        finally:
            process.kill()


def test_start_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    process = start(tmp_path, ROOT / "model_repository")
    try:
        with pytest.raises(EmbeddedServerError, match="cancelled before it was ready"):
            process.wait_until_ready(time.monotonic() + 120, lambda: True)
    finally:
        process.kill()
