"""A Triton elsewhere that wants TLS and a client certificate: Triton's own TLS, with certificates made here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.backend.interface import BackendError, BackendMisconfiguredError, BackendStillBootingError
from gateway.backend.remote import make_remote_backend
from gateway.cancellation import CancelToken
from gateway.config.settings import Settings
from testing.certificates import Authority, Certificate
from testing.images import draw_photo
from testing.triton import TritonServer, run_server

NAME = "triton.test"
# Tried in turn: on a slow machine, no connection has failed within the first one.
LIMITS_S = (1.5, 10.0, 60.0)


@dataclass(frozen=True)
class TlsServer:
    """A running Triton that accepts clients of one authority only."""

    triton: TritonServer
    authority: Authority
    client: Certificate


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder, "authority")
    own, client = authority.sign(NAME), authority.sign("gateway.test")
    options = [
        "--grpc-use-ssl-mutual=true",
        f"--grpc-server-cert={own.cert_file}",
        f"--grpc-server-key={own.key_file}",
        f"--grpc-root-cert={authority.file}",
    ]
    with run_server(folder, environ={}, options=options) as triton:
        yield TlsServer(triton, authority, client)


def ask(server: TlsServer, tmp_path: Path, *, address: str = "", limit_s: float = 60.0, **changes: Any) -> int:
    """Upscale a small image through TLS; return the rows of the result."""
    usual = {
        "backend_address": address or f"grpcs://{server.triton.grpc_address}",
        "backend_ca_file": str(server.authority.file),
        "backend_cert_file": str(server.client.cert_file),
        "backend_key_file": str(server.client.key_file),
        "backend_server_name": NAME,
        "model_key": server.triton.model_key,
        "state_dir": str(tmp_path),
    }
    backend = make_remote_backend(Settings(**{**usual, **changes}))
    try:
        bands = backend.upscale_bands(
            draw_photo(8, 8),
            "compact_x4",
            deadline=time.monotonic() + limit_s,
            request_id="id",
            cancel_token=CancelToken(),
        )
        return sum(len(band.pixels) for band in bands)
    finally:
        backend.close()


def test_image_is_upscaled_through_mutual_tls(server: TlsServer, tmp_path: Path) -> None:
    assert ask(server, tmp_path) == 32


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"backend_ca_file": ""}, BackendMisconfiguredError, "the server's certificate is not trusted"),
        ({"backend_server_name": ""}, BackendMisconfiguredError, "the server's certificate is for another name"),
        ({"backend_server_name": "other.test"}, BackendMisconfiguredError, "certificate is for another name"),
        (
            {"backend_cert_file": "", "backend_key_file": ""},
            BackendStillBootingError,
            "and the client certificate (SUPERRES_BACKEND_CERT_FILE)",
        ),
    ],
)
def test_reason_of_a_failed_tls_connection_is_named(
    server: TlsServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, Any],
    kind: type[BackendError],
    words: str,
) -> None:
    for limit_s in LIMITS_S:  # a cause that stands in the log alone is there once a connection has failed
        with pytest.raises(kind) as caught:
            ask(server, tmp_path, limit_s=limit_s, **changes)
        if words in (said := f"{caught.value}{caplog.text}"):
            break
    assert words in said


def test_mixed_up_ports_and_schemes_are_named(
    server: TlsServer, triton_server: TritonServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = ("backend_ca_file", "backend_cert_file", "backend_key_file", "backend_server_name")
    none: dict[str, Any] = dict.fromkeys(files, "")
    with pytest.raises(BackendMisconfiguredError, match="the server does not use TLS at this port"):
        ask(server, tmp_path, address=f"grpcs://{triton_server.grpc_address}")
    for address in (server.triton.grpc_address, server.triton.http_address):
        caplog.clear()
        for limit_s in LIMITS_S:
            with pytest.raises(BackendStillBootingError):
                ask(server, tmp_path, address=address, limit_s=limit_s, **none)
            if caplog.text:
                break
        assert "Check the port, whether it uses TLS" in caplog.text
