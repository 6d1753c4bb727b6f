"""`superres weights fetch` for people: short names, what is here already, progress, and no internet access."""

from __future__ import annotations

import io
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from gateway.cli.main import cli
from swinir.variant_names import resolve_name
from swinir.weights import download
from swinir.zoo import VARIANTS
from testing.file_server import Behaviour, serve
from testing.networks import install_small, reference_tensors
from testing.weights_files import write_weights_file

Fetch = Callable[..., Result]
LIGHT = "lightweight_x3"
"""A published variant whose hash nobody pins, so that a file with other weights is accepted."""


def checkpoint(name: str = LIGHT) -> bytes:
    """Return the bytes of a checkpoint of the published architecture, with other weights."""
    buffer = io.BytesIO()
    torch.save({"params": reference_tensors(dict(VARIANTS[name].config))}, buffer)
    return buffer.getvalue()


@pytest.fixture
def fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fetch:
    """Run `superres weights fetch` on the folder `tmp_path/weights` and check the exit status."""
    monkeypatch.setenv("SUPERRES_STATE_DIR", str(tmp_path))

    def fetch(*arguments: str, status: int = 0) -> Result:
        result = CliRunner().invoke(cli, ["weights", "fetch", *arguments])
        assert result.exit_code == status, result.output
        return result

    return fetch


def test_what_is_here_is_not_downloaded_again(fetch: Fetch, tmp_path: Path) -> None:
    install_small(tmp_path / "weights", "mine_x2")
    behaviour = Behaviour(data=checkpoint())
    with serve(behaviour) as base_url:
        fetch(LIGHT, "--from", base_url)
        printed = fetch(LIGHT, "compact_x4,mine_x2", "--from", base_url).stdout.splitlines()
        assert len(behaviour.range_headers) == 1
        fetch(LIGHT, "--again", "--from", base_url)
    assert len(behaviour.range_headers) == 2
    assert printed == [
        f"{LIGHT}: already in {tmp_path}/weights/{LIGHT}.safetensors",
        "compact_x4: bundled, nothing to fetch",
        "mine_x2: imported, nothing to fetch",
    ]


def test_settings_may_name_the_variant_that_is_fetched(fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERRES_DEFAULT_VARIANT", LIGHT)
    monkeypatch.setenv("SUPERRES_VARIANTS", f"{LIGHT},mine_x2")
    with serve(Behaviour(data=checkpoint())) as base_url:
        fetch(LIGHT, "--from", base_url)


@pytest.mark.parametrize("harm", ["cut", "changed"])
def test_harmed_file_is_fetched_again(fetch: Fetch, tmp_path: Path, harm: str) -> None:
    path = tmp_path / "weights" / f"{LIGHT}.safetensors"
    behaviour = Behaviour(data=checkpoint())
    with serve(behaviour) as base_url:
        fetch(LIGHT, "--from", base_url)
        good = path.read_bytes()
        path.write_bytes(good[:-8] if harm == "cut" else good[:-8] + bytes(8))
        printed = fetch(LIGHT, "--from", base_url).stdout
    assert path.read_bytes() == good
    assert ("was changed since it was fetched" in printed) == (harm == "changed")


def test_progress_and_the_place_of_the_file_are_printed(fetch: Fetch, tmp_path: Path) -> None:
    data = checkpoint()
    with serve(Behaviour(data=data, break_after=[len(data) // 3])) as base_url:
        result = fetch(LIGHT, "--from", base_url)
    megabytes = f"{len(data) / 1e6:.1f}"
    lines = [line for line in result.stderr.splitlines() if line.startswith(f"{LIGHT}: ")]
    assert len(lines) == 4
    assert lines[-1] == f"{LIGHT}: {megabytes} of {megabytes} MB"
    assert f"{LIGHT}: downloading from http://127.0.0.1:" in result.stdout
    assert f"saved to {tmp_path}/weights/{LIGHT}.safetensors. A server that uses this folder offers it" in result.stdout


def test_wrong_name_is_found_before_anything_is_downloaded(fetch: Fetch) -> None:
    behaviour = Behaviour(data=checkpoint())
    with serve(behaviour) as base_url:
        result = fetch(LIGHT, "rael_x4", "--optional", "--from", base_url, status=1)
    assert "Unknown variant 'rael_x4'. Did you mean real_x4?" in result.stderr
    assert behaviour.range_headers == []


@pytest.mark.parametrize("is_optional", [False, True])
def test_one_failure_does_not_stop_the_others(fetch: Fetch, tmp_path: Path, *, is_optional: bool) -> None:
    options = ["--optional"] if is_optional else []
    with serve(Behaviour(data=checkpoint())) as base_url:
        result = fetch("classical_x4", LIGHT, *options, "--from", base_url, status=0 if is_optional else 1)
    assert "the zoo requires 4e78e33f" in result.stderr
    assert "Not fetched: classical_x4. The bundled variants need no download and work anyway." in result.stderr
    assert {path.name for path in (tmp_path / "weights").glob("*.safetensors")} == {f"{LIGHT}.safetensors"}


NO_NETWORK: dict[str, Any] = {
    "unknown name": socket.gaierror(-3, "Temporary failure in name resolution"),
    "no route": OSError(101, "Network is unreachable"),
    "silence": TimeoutError("timed out"),
}


def fail_to_connect(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[int]:
    """Make every connection fail with an error; return a list that gets an entry for each attempt."""
    attempts: list[int] = []

    def create_connection(*_: object, **__: object) -> None:
        attempts.append(1)
        raise error

    monkeypatch.setattr(socket, "create_connection", create_connection)
    monkeypatch.setattr(download.time, "sleep", lambda _: None)  # type: ignore[attr-defined]
    return attempts


@pytest.mark.parametrize("kind", NO_NETWORK)
def test_without_internet_it_says_what_works_and_what_to_do(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    attempts = fail_to_connect(monkeypatch, NO_NETWORK[kind])

    result = fetch("real_x4", "lightweight_x4", "--optional")

    assert len(attempts) == 1, "neither a retry nor the next file would succeed"
    assert result.stderr.startswith("superres: github.com cannot be reached: ")
    assert "Not fetched: real_x4, lightweight_x4. The bundled variants need no download and work any" in result.stderr
    assert "has internet access, run: superres weights fetch real_x4 lightweight_x4\n" in result.stderr
    assert "HTTPS_PROXY" in result.stderr
    fetch("real_x4", status=1)


def test_certificate_of_a_proxy_is_named(fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    error = ssl.SSLCertVerificationError()
    error.verify_message = "self-signed certificate in certificate chain"
    attempts = fail_to_connect(monkeypatch, error)
    result = fetch("real_x4", status=1)
    assert len(attempts) == 1
    assert "The certificate of github.com cannot be verified: self-signed" in result.stderr
    assert "SSL_CERT_FILE" in result.stderr


def test_network_that_comes_back_continues_the_download(fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first byte a missing network is an interruption like any other."""
    data, connect = checkpoint(), socket.create_connection
    failures = [None, NO_NETWORK["unknown name"], NO_NETWORK["no route"]]

    def create_connection(*arguments: Any, **options: Any) -> Any:
        if failures and (error := failures.pop(0)):
            raise error
        return connect(*arguments, **options)

    monkeypatch.setattr(socket, "create_connection", create_connection)
    monkeypatch.setattr(download.time, "sleep", lambda _: None)  # type: ignore[attr-defined]
    behaviour = Behaviour(data=data, break_after=[5000])
    with serve(behaviour) as base_url:
        fetch(LIGHT, "--from", base_url)
    assert behaviour.range_headers == ["", "bytes=5000-"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("real_x4", "real_x4"),
        ("real", "real_x4"),
        ("Real-X4", "real_x4"),
        ("lightweight", "lightweight_x4"),
        ("real_large", "real_large_x4"),
        ("swinir_classical_x2", "classical_x2"),
        ("grey-denoise-25", "gray_denoise_25"),
        ("denoise_50", "color_denoise_50"),
        ("jpeg_40", "color_jpeg_40"),
        ("003_realSR_BSRGAN_DFO_s64w8_SwinIR-M_x4_GAN.pth", "real_x4"),
        ("002_lightweightSR_DIV2K_s64w8_SwinIR-S_x4", "lightweight_x4"),
        ("mine_x2", "mine_x2"),
        ("../real_x4", "../real_x4"),
    ],
)
def test_short_and_published_names_are_understood(text: str, name: str) -> None:
    assert resolve_name(text) == name


def test_every_variant_is_understood_by_its_names() -> None:
    for name, row in VARIANTS.items():
        assert resolve_name(name) == name
        assert not row.file or resolve_name(row.file) == name


def test_file_that_came_without_the_lock_file_is_left_alone(fetch: Fetch, tmp_path: Path) -> None:
    path = write_weights_file(tmp_path / "weights", "real_x4")
    before = path.read_bytes()
    assert "real_x4: already in" in fetch("real_x4").stdout
    assert path.read_bytes() == before
