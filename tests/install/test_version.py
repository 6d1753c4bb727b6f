"""The version stands in pyproject.toml alone; the command, the API and the guides follow it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import yaml
from flask.testing import FlaskClient

from testing.data import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_command_prints_the_version() -> None:
    done = subprocess.run([sys.executable, "-m", "gateway", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == VERSION


def test_api_description_has_the_version(client: FlaskClient) -> None:
    assert yaml.safe_load(client.get("/api/openapi.yaml").data)["info"]["version"] == VERSION


def test_changelog_has_the_version() -> None:
    assert re.search(rf"^## \[?{re.escape(VERSION)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_image_tags_of_the_guides_have_the_version() -> None:
    guides = "".join(path.read_text() for path in (ROOT / "docs").rglob("*.md"))
    tags = re.findall(r"superres-(?:triton|gateway):(\d[\w.]*)", guides)
    assert tags
    assert set(tags) == {VERSION}
