"""The systemd unit of docs/how-to/systemd.md: valid for systemd, and right about the gateway."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from gateway.config.environment import read_settings
from gateway.server import max_shutdown_s
from testing.pages import read_code_blocks
from testing.raw_http import LIMIT_S
from testing.server import serving

[UNIT] = [text for language, text in read_code_blocks("docs/how-to/systemd.md") if language == "ini"]


def read_directives() -> dict[str, list[str]]:
    """Return the values of each directive of the unit."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, value in re.findall(r"^(\w+)=(.*)$", UNIT, re.MULTILINE):
        found[name].append(value)
    return found


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    command = shutil.which("systemd-analyze")
    assert command, "systemd-analyze is missing: apt-get install --no-install-recommends systemd"
    unit = tmp_path / "superres.service"
    unit.write_text(UNIT.replace("/opt/superres/bin/superres", "/bin/true"))  # the command must exist

    done = subprocess.run([command, "verify", str(unit)], capture_output=True, text=True, check=False)

    assert (done.returncode, "superres.service" in done.stderr) == (0, False), done.stderr


def test_gateway_accepts_the_settings_of_the_unit(tmp_path: Path) -> None:
    (tmp_path / "form_secret").write_text("the secret\n")
    specifiers = {"%d": str(tmp_path), "%S": "/var/lib"}
    directives = read_directives()
    environ = dict(line.split("=", 1) for line in directives["Environment"])
    for name, value in environ.items():
        environ[name] = re.sub("%.", lambda match: specifiers[match[0]], value)

    settings = read_settings(environ).settings

    assert settings.form_secret == "the secret"
    assert settings.state_dir == f"/var/lib/{directives['StateDirectory'][0]}"
    assert settings.log_path() is None
    [stop_limit] = directives["TimeoutStopSec"]
    assert float(stop_limit.removesuffix("s")) > max_shutdown_s(settings.drain_s)


@pytest.mark.slow
def test_gateway_tells_systemd_when_it_accepts_connections(tmp_path: Path) -> None:
    """What Type=notify waits for."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(LIMIT_S)
        with serving(tmp_path / "state", NOTIFY_SOCKET=str(tmp_path / "notify")):
            assert systemd.recv(1_000).startswith(b"READY=1")
