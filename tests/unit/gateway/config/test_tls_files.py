"""The certificate files of a TLS backend are checked at start."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gateway.config.fields import SettingsError
from gateway.config.settings import Settings
from testing.certificates import Authority, Certificate

ADDRESS = "grpcs://triton.test:8001"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "authority")


@pytest.fixture(scope="module")
def client(authority: Authority) -> Certificate:
    return authority.sign("gateway.test")


def read_error(**changes: object) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings(**{"backend_address": ADDRESS, **{name: str(value) for name, value in changes.items()}})  # type: ignore[arg-type]
    return str(caught.value)


def test_right_files_are_accepted(authority: Authority, client: Certificate) -> None:
    Settings(
        backend_address=ADDRESS,
        backend_ca_file=str(authority.file),
        backend_cert_file=str(client.cert_file),
        backend_key_file=str(client.key_file),
        backend_server_name="triton.test",
    )


def test_missing_files_are_all_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    lines = read_error(backend_ca_file=missing, backend_cert_file=missing, backend_key_file=missing).splitlines()

    assert lines == [
        f"Invalid backend_ca_file '{missing}': the file cannot be read: No such file or directory.",
        f"Invalid backend_cert_file '{missing}': the file cannot be read: No such file or directory.",
        f"Invalid backend_key_file '{missing}': the file cannot be read: No such file or directory.",
    ]


@pytest.mark.parametrize("content", [b"", b"no certificate", b"\xff" * 100])
def test_file_without_a_certificate_is_named(tmp_path: Path, client: Certificate, content: bytes) -> None:
    (tmp_path / "bad.pem").write_bytes(content)

    assert "it holds no certificate in PEM format" in read_error(backend_ca_file=tmp_path / "bad.pem")
    assert "both must be in PEM format" in read_error(
        backend_cert_file=tmp_path / "bad.pem", backend_key_file=client.key_file
    )


def test_key_of_another_certificate_is_named(authority: Authority, client: Certificate) -> None:
    other = authority.sign("other.test")

    assert "the key does not belong to the certificate" in read_error(
        backend_cert_file=client.cert_file, backend_key_file=other.key_file
    )


def test_key_with_a_passphrase_is_rejected_without_a_question(tmp_path: Path, client: Certificate) -> None:
    encrypted = tmp_path / "encrypted.key"
    command = f"openssl pkey -in {client.key_file} -aes256 -passout pass:hunter2 -out {encrypted}"
    subprocess.run(command.split(), check=True, capture_output=True)

    assert "the key without a passphrase" in read_error(backend_cert_file=client.cert_file, backend_key_file=encrypted)


def test_half_a_pair_and_unused_files_are_rejected(authority: Authority, client: Certificate) -> None:
    assert "backend_key_file is missing. Set both" in read_error(backend_cert_file=client.cert_file)
    assert "backend_cert_file is missing. Set both" in read_error(backend_key_file=client.key_file)
    for name in ("backend_ca_file", "backend_cert_file", "backend_key_file"):
        error = read_error(backend_address="triton:8001", **{name: authority.file})
        assert error == f"{name} is set, but backend_address does not use TLS. Write it as grpcs://host:port."
    assert "must be a host name or an IP address" in read_error(backend_server_name="https://triton.test")
