"""The receiver of docs/how-to/receive-webhooks.md accepts genuine messages only."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.webhooks.keys import WebhookKeys
from testing.pages import read_code_blocks

NOW = 1_800_000_000
IsGenuine = Callable[..., bool]


PAGE = "docs/how-to/receive-webhooks.md"


def program_in(language: str) -> str:
    (program,) = [text for kind, text in read_code_blocks(PAGE) if kind == language]
    return program


@pytest.fixture(scope="module")
def is_genuine() -> IsGenuine:
    program = program_in("python")
    names: dict[str, IsGenuine] = {}
    exec(program, names)  # noqa: S102 - our own documentation
    return names["is_genuine"]


def test_program_of_the_guide_verifies_messages(tmp_path: Path, is_genuine: IsGenuine) -> None:
    keys, other = (WebhookKeys("", tmp_path / name, needs_setting=False) for name in ("key", "other"))
    own, others = ([key["standard_webhooks"] for key in each.public_keys()] for each in (keys, other))
    signature = keys.sign("job", NOW, b"{}")
    headers = {"webhook-id": "job", "webhook-timestamp": str(NOW), "webhook-signature": signature}

    assert is_genuine(headers, b"{}", own, NOW + 299)
    assert is_genuine(headers, b"{}", [*others, *own], NOW)
    assert is_genuine({**headers, "webhook-signature": f"{other.sign('job', NOW, b'{}')} {signature}"}, b"{}", own, NOW)
    assert not is_genuine(headers, b"{} ", own, NOW)
    assert not is_genuine(headers, b"{}", own, NOW + 301)
    assert not is_genuine(headers, b"{}", others, NOW)
    assert not is_genuine({**headers, "webhook-id": "another"}, b"{}", own, NOW)


def test_javascript_of_the_guide_verifies_messages(tmp_path: Path) -> None:
    keys = WebhookKeys("", tmp_path / "key", needs_setting=False)
    signature = keys.sign("job", NOW, b"{}")
    headers = {"webhook-id": "job", "webhook-timestamp": str(NOW), "webhook-signature": signature}
    call = f"isGenuine({json.dumps(headers)}, Buffer.from(body), {json.dumps(keys.public_keys())}, now)"
    results = f"[['{{}}', {NOW}], ['{{}} ', {NOW}], ['{{}}', {NOW + 301}]].map(([body, now]) => {call})"
    program = f"{program_in('javascript')}\nconsole.log(JSON.stringify({results}));"

    done = subprocess.run(
        ["node", "--input-type=module", "--eval", program], capture_output=True, text=True, check=False
    )

    assert done.stdout.strip() == "[true,false,false]", done.stderr
