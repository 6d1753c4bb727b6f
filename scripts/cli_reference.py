"""Write docs/reference/cli.md from the help of every command: ``python -m scripts.cli_reference``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from gateway.cli.main import cli

PAGE = Path(__file__).resolve().parent.parent / "docs/reference/cli.md"

HEAD = """# Command line

`superres` serves the page and the API, upscales files, and administers a service. This page is generated from the
commands' own help by `python -m scripts.cli_reference`. Exit codes: 0 success, 1 error, 2 invalid usage;
`superres upscale` lists its own.
"""


def describe_commands() -> str:
    """Return the page: a section for each command with its help as the terminal shows it, 80 columns wide."""
    contexts = _walk(click.Context(cli, info_name="superres"))
    sections = (f"## {context.command_path}\n\n```text\n{context.get_help()}\n```\n" for context in contexts)
    return "\n".join([HEAD, *sections])


def _walk(context: click.Context) -> Iterator[click.Context]:
    """Yield the context of a command and of everything below it, in the order of the help."""
    context.terminal_width = context.max_content_width = 80
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            if command is not None and not command.hidden:
                yield from _walk(click.Context(command, info_name=name, parent=context))


if __name__ == "__main__":
    PAGE.write_text(describe_commands(), encoding="utf-8")
