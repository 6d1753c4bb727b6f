"""Makes certificates with openssl at test time, so that none is stored and none expires."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Return the paths of a certificate for 127.0.0.1, which signs itself, and of its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    names = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    _openssl("req", "-x509", *_NEW_KEY, "-days", "2", *names, "-keyout", key, "-out", certificate)
    return certificate, key


@dataclass(frozen=True)
class Certificate:
    """A certificate and its private key, both in PEM files."""

    cert_file: Path
    key_file: Path


class Authority:
    """An authority of its own that signs certificates for two days."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._own = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
        _openssl("req", "-x509", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", self._own.key_file, "-out", self.file)

    @property
    def file(self) -> Path:
        """The authority's own certificate."""
        return self._own.cert_file

    def sign(self, host: str, *, days: int = 2) -> Certificate:
        """Return a certificate for a host name; with negative `days` it has expired."""
        made = Certificate(self._folder / f"{host}.pem", self._folder / f"{host}.key")
        request = self._folder / f"{host}.csr"
        extension = self._folder / f"{host}.ext"
        extension.write_text(f"subjectAltName=DNS:{host}\n")
        _openssl("req", *_NEW_KEY, "-subj", f"/CN={host}", "-keyout", made.key_file, "-out", request)
        signing = ("-CA", self._own.cert_file, "-CAkey", self._own.key_file, "-CAcreateserial", "-days", str(days))
        _openssl("x509", "-req", "-in", request, *signing, "-extfile", extension, "-out", made.cert_file)
        return made


def _openssl(*arguments: str | Path) -> None:
    command = shutil.which("openssl")
    assert command, "openssl is missing: apt-get install --no-install-recommends openssl"
    done = subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
