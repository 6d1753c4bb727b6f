"""Variant names in docs, comments and scripts are names of the zoo."""

from __future__ import annotations

import re
import subprocess

from swinir.zoo import VARIANTS
from testing.data import ROOT

SUFFIXES = (".md", ".py", ".sh", ".yaml", ".yml", ".html", ".js", ".toml", ".Dockerfile", ".pbtxt")
FOLDERS_OF_SCRIPTS = ("docker/", "k8s/")

# Tests and the trial of unknown names may use names that do not exist; the changelog tells of the past.
EXEMPT = ("tests/", "testing/", "CHANGELOG.md")

FAMILIES = r"(?:compact|lightweight|classical|real)"
TASKS = r"(?:denoise|jpeg)"
NAME = re.compile(
    rf"(?<![\w/-])(?:{FAMILIES}(?:_[a-z0-9]+)*_x\d(?:_psnr)?|(?:compact_)?(?:gr[ae]y|colou?r)_{TASKS}_\d+)(?![\w-])"
)


def unknown_names(text: str) -> set[str]:
    """Return the words of a text that look like variants but are not in the zoo."""
    return set(NAME.findall(text)) - set(VARIANTS)


def test_every_variant_that_a_file_names_exists() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    wrong = {}
    for name in listed:
        if name.startswith(EXEMPT) or not (name.endswith(SUFFIXES) or name.startswith(FOLDERS_OF_SCRIPTS)):
            continue
        unknown = unknown_names((ROOT / name).read_text(encoding="utf-8"))
        if unknown:
            wrong[name] = unknown

    assert not wrong, f"these files name variants that are not in swinir/zoo.py: {wrong}"


def test_names_that_do_not_exist_are_found() -> None:
    text = "fetch classical_m_x4, real_m_x4, compact_x5 and gray_denoise_99; compact_x4 and color_jpeg_20 exist"

    assert unknown_names(text) == {"classical_m_x4", "real_m_x4", "compact_x5", "gray_denoise_99"}
    assert all(NAME.fullmatch(name) for name in VARIANTS)
