"""The wording of README, docs, docstrings, comments, help texts, errors and the changelog."""

from __future__ import annotations

from pathlib import Path

import pytest

from testing import prose


def test_no_wording_that_the_style_rules_replace() -> None:
    hits = prose.find_hits(prose.tracked_files())
    assert not hits, "\n".join(map(str, hits))


@pytest.mark.parametrize(
    ("name", "text", "phrases"),
    [
        ("page.md", "Whoever asks is told so.", ["Whoever", "is told"]),
        ("page.html", "<picture><p>Your picture</p></picture>", ["picture"]),
        (
            "code.py",
            '"""A door."""\nbeside = 1  # for ever\nx = f"{beside} is no month"\n',
            ["door", "for ever", "is no month"],
        ),
        ("code.py", "door = lane = room = 1\n", []),
    ],
)
def test_phrases_are_found_in_text_but_not_in_code(
    name: str, text: str, phrases: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    (tmp_path / name).write_text(text)
    assert sorted(hit.phrase for hit in prose.find_hits([tmp_path / name])) == sorted(phrases)
