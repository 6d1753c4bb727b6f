"""Finds waits of a few seconds in tests.

A test waits so long that no busy machine needs it, or so short that the wait is meant to end in vain. A wait in between
is as long as a machine stalls now and then: it fails one run of hundreds.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

MEANT_TO_END_S, LONG_S = 1.5, 60.0
WAITS = {
    *("acquire", "communicate", "create_connection", "get", "HTTPConnection", "join", "run", "urlopen", "wait"),
    "wait_for",
}


def find_short_waits(tree: ast.AST) -> Iterator[tuple[int, float]]:
    """Yield line and seconds of each wait of a few seconds: a constant LIMIT_S, or an argument of a call that waits."""
    for node in ast.walk(tree):
        waits: list[ast.expr] = []
        if isinstance(node, ast.Assign) and isinstance(name := node.targets[0], ast.Name):
            waits = [node.value] if name.id.endswith("LIMIT_S") else []
        elif isinstance(node, ast.Call):
            method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            named = [keyword.value for keyword in node.keywords if keyword.arg in ("timeout", "limit_s")]
            waits = named if (method or getattr(node.func, "id", "")) in WAITS else []
            waits = [*waits, *node.args] if method in ("wait", "join") else waits
        for each in waits:
            seconds = each.value if isinstance(each, ast.Constant) else None
            if isinstance(seconds, int | float) and MEANT_TO_END_S < seconds < LONG_S:
                yield each.lineno, float(seconds)
