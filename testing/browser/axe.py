"""Checks a page with axe: WCAG 2.2 A and AA, and its best practices."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Frame, Page

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
AXE = Axe()


def check_axe(page: Page | Frame, *, has_own_colours: bool = True) -> None:
    """Fail with the violations that axe finds. With forced colours, it reads colours that are not shown."""
    only = {"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]}
    found = AXE.run(page, options={**only, "rules": {"color-contrast": {"enabled": has_own_colours}}})
    violations = [
        f"{one['id']}: {one['help']}\n  " + "\n  ".join(node["html"][:160] for node in one["nodes"])
        for one in found.response["violations"]
    ]
    assert not violations, "\n".join(violations)
