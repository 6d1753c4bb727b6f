"""Find wording that the style rules replace: ``python -m testing.prose [PATH...]`` prints file, line and advice.

Reads whole files, but of Python files only the docstrings, comments and string literals: errors, help texts and log
lines are among them.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

SUFFIXES = (".py", ".md", ".html", ".js", ".css", ".yaml", ".yml", ".sh", ".toml", ".c", ".pbtxt")

# This file and the test over it have to name the words; the licence is not ours to word.
EXEMPT = ("testing/prose.py", "tests/docs/test_prose.py", "LICENSE", "tests/data/")

RULES = {
    r"\bpictures?\b(?!>)": "image (photo only for what a camera made)",
    r"\bphotographs?\b": "photo or image",
    r"\bwho(so)?ever\b": "the client, anyone who",
    r"\bwhatever\b": "name the thing",
    r"\banew\b": "again",
    r"\bfor ?ever\b": "without end, permanently",
    r"\bbeside\b": "next to, in addition to, while ... is running",
    r"\bof the same\b": "repeat the noun",
    r"\bas (many|much) as may\b": "the maximum is",
    r"\bwhat it took\b": "the time, the memory",
    r"\b(and|or) the like\b": "list them, or: and similar",
    r"\b(is|are|was|were|be) (told|said)\b": "is reported, is logged, the message says",
    r"\b(is|are|was) no (?!longer\b|more\b|less\b|fewer\b|worse\b|such\b|[a-z]+er\b)[a-z]+\b": "is not a, invalid",
    r"\b(?:most|least) (pixels|bytes|images|tiles|seconds|memory|requests)\b": "maximum, minimum",
    r"\bstrangers?\b": "unknown or abusive client",
    r"\bdoors?\b": "access control, check",
    r"\bcurfew\b": "deadline",
    r"\bshelf\b": "network cache",
    r"\blanes?\b": "queue of large jobs",
    r"\bsoundness\b": "output checks",
    r"\brooms?\b": "package, space, memory",
    r"(?<!/)\bpromises?\b(?!\.|\()": "reservation, guarantee",
    r"\b(its|their|no|a|whose|every|of) places?\b(?! in)": "slot",
    r"\b(its|their|whose) turn\b": "position in the queue, slot",
    r"\b(the|an|no|its|each|every|this|that|late|early|first|whole|one|of) answers?\b": "response, result, message",
    r"\bheads? of (a|the|its) (request|response)\b|\brequest heads?\b": "headers",
    r"\bvisitors? who (leaves?|go(es)?)\b": "client that disconnects",
    r"\b(in|of) the making\b": "being processed",
    r"\bhang(s|ing)? up\b|\bhung up\b": "close the connection",
    r"\bgo(es)? astray\b": "is invalid",
    r"\bsent away\b": "rejected",
    r"\bof every day\b": "default",
    r"\bby then\b": "before that",
    r"\bas it (was|is) (made|given|told)\b": "unchanged",
    r"\bthose (that )?there are\b": "the available ones",
    r"\bat last\b": "finally, last",
    r"\bnought\b|\bthereof\b|\bwhereof\b|\bthereby\b|\btherewith\b|\bwherein\b": "plain English",
    r"\bone a (second|minute|image|tile|picture|month|day)\b": "one per ...",
    r"\ba (second|minute|month|day) at most\b": "at most ... per ...",
}
_PATTERNS = [(re.compile(pattern, re.IGNORECASE), advice) for pattern, advice in RULES.items()]


@dataclass(frozen=True)
class Finding:
    """One phrase to replace."""

    path: str
    line: int
    phrase: str
    advice: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.phrase!r}: say {self.advice}"


def find_hits(paths: list[Path]) -> list[Finding]:
    """Return every phrase in these files that a rule replaces."""
    return [hit for path in paths for line, text in _prose(path) for hit in _hits(path, line, text)]


def tracked_files(*under: str) -> list[Path]:
    """Return the files under git (below ``under`` when given) that hold prose."""
    listed = subprocess.run(["git", "ls-files", *under], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in listed.splitlines() if name.endswith(SUFFIXES) and not name.startswith(EXEMPT)]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def _prose(path: Path) -> Iterator[tuple[int, str]]:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from enumerate(text.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from enumerate(node.value.splitlines(), node.lineno)


def _hits(path: Path, line: int, text: str) -> Iterator[Finding]:
    for pattern, advice in _PATTERNS:
        for match in pattern.finditer(text):
            yield Finding(str(path.relative_to(ROOT)), line, match[0], advice)


if __name__ == "__main__":
    found = find_hits(tracked_files(*sys.argv[1:]))
    print(*found, f"{len(found)} hits", sep="\n")
    sys.exit(bool(found))
