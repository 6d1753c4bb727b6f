"""docs/how-to/install.md and troubleshoot.md: the messages, targets and options that they quote exist."""

from __future__ import annotations

import re
import subprocess
import sysconfig
from pathlib import Path

from testing.data import ROOT

GUIDES = {name: (ROOT / "docs" / "how-to" / f"{name}.md").read_text() for name in ("install", "troubleshoot")}
# Messages of pip, the kernel and the dynamic linker.
OTHERS = {"THESE PACKAGES DO NOT MATCH THE HASHES", "No space left on device", "GLIBC_2.35 not found"}


def test_quoted_messages_are_those_of_the_code() -> None:
    paths = [path for folder in ("gateway", "scripts", "swinir") for path in (ROOT / folder).rglob("*")]
    code = "".join(path.read_text() for path in paths if path.suffix in {".py", ".sh"})
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # a message over several lines
    quoted = re.findall(r"^\| `([^`]+)`", GUIDES["troubleshoot"], re.MULTILINE)
    assert len(quoted) > 12
    fixed_parts = {message: re.split(r"\.\.\.|3\.1[123]( or 3\.12)?$", message) for message in set(quoted) - OTHERS}
    assert not [
        message
        for message, parts in fixed_parts.items()
        if not all(part.strip() in code for part in filter(None, parts))
    ]


def test_guides_name_existing_targets_and_files() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    text = "".join(GUIDES.values())
    named = re.findall(r"(?:^|`)(?:[A-Z]+=\S+ )?make ([a-z]+)", text, re.MULTILINE)
    assert "run" in named
    assert set(named) <= set(phony[1].split())
    assert all((ROOT / path).exists() for path in re.findall(r"python3? (scripts/\w+\.py)", text))


def test_options_of_uv_in_the_guide_exist() -> None:
    uv = Path(sysconfig.get_path("scripts")) / "uv"
    for command in re.findall(r"^uv (tool install|python install)(.*)$", GUIDES["install"], re.MULTILINE):
        usage = subprocess.run([uv, *command[0].split(), "--help"], capture_output=True, text=True, check=True).stdout
        assert all(option in usage for option in re.findall(r"--[a-z-]+", command[1]))
