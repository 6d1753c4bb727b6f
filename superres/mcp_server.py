"""An MCP server with one tool, `upscale_image`: a local file in, a local file out, upscaled by a service.

Needs the extra `mcp`. Speaks the Model Context Protocol on standard input and output.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import Field

from superres.client import AsyncClient, ClientError, ResultFacts, UpscaleProgress
from superres.client.result import ByteSink, FileSink

# Percent of the whole at which a phase begins, and which part of the whole it is.
_PHASES = {"uploading": (0, 5), "queued": (5, 5), "booting": (10, 10), "working": (20, 60), "downloading": (80, 20)}
# Each notification must have a larger number than the one before.
_STEP_PERCENT = 0.001


@dataclass(frozen=True)
class UpscaledFile:
    """What the tool returns."""

    path: str
    width: int
    height: int
    variant: str
    notes: list[str]


class Roots:
    """The folders that the tool may read and write."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """Raises OSError for a folder that does not exist. Relative paths begin at the first one."""
        self._folders = [folder.resolve(strict=True) for folder in folders]

    def find_image(self, path: str) -> Path:
        """Return the path of an image to read, without links. Raises ToolError."""
        found = self._resolve(path)
        if not found.is_file():
            raise ToolError(f"{path} is not a file.")
        return found

    def find_output(self, path: str) -> Path:
        """Return the path of a file to write, without links. Raises ToolError."""
        found = self._resolve(path)
        if found.is_dir():
            raise ToolError(f"{path} is a folder. Give the path of a file.")
        if not found.parent.is_dir():
            raise ToolError(f"The folder of {path} does not exist.")
        return found

    def _resolve(self, path: str) -> Path:
        try:
            found = (self._folders[0] / path).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise ToolError(f"Invalid path {path[:200]!r}: {error}.") from error
        if not any(found.is_relative_to(folder) for folder in self._folders):
            allowed = ", ".join(map(str, self._folders))
            raise ToolError(f"{path} is outside of the folders that this server may use: {allowed}.")
        return found


def make_server(client: AsyncClient, roots: Roots) -> MCPServer:
    """Return the server. The tool uses the client's service, and files in the roots."""
    server = MCPServer(
        "superres",
        version=version("serverless-superres"),
        log_level="WARNING",  # at INFO, httpx logs the URLs of results, which are secret
        instructions="Upscales local image files with SwinIR, by default to four times the width and height.",
    )

    @server.tool(annotations=ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=True))
    async def upscale_image(
        image: Annotated[
            str, Field(description="Path of the image file (JPEG, PNG, WebP, AVIF, HEIC, TIFF, BMP, GIF).")
        ],
        ctx: Context,
        output: Annotated[
            str | None, Field(description="Path of the result. Default: next to the image, named by the service.")
        ] = None,
        variant: Annotated[
            str | None, Field(description="Network to use, such as compact_photo_x4. Default: chosen by the image.")
        ] = None,
        format: Annotated[  # noqa: A002 - the name of the parameter of the API
            Literal["png", "jpeg", "jpg", "webp", "avif", "same"] | None,
            Field(description="Format of the result. Default: that of the ending of `output`, otherwise png."),
        ] = None,
        scale: Annotated[float | None, Field(description="Side of the result / side of the image, 1 to 8.")] = None,
        metadata: Annotated[
            Literal["strip", "keep"], Field(description="keep: EXIF, the location included, stays in the result.")
        ] = "strip",
        overwrite: Annotated[bool, Field(description="Whether an existing file is replaced.")] = False,  # noqa: FBT002
    ) -> UpscaledFile:
        """Upscale an image file and write the result to a file. Takes seconds to minutes."""
        source = roots.find_image(image)
        target = roots.find_output(output) if output else None
        if target and target.exists() and not overwrite:
            raise ToolError(_describe_existing(target))
        written: list[Path] = []

        @contextmanager
        def open_sink(facts: ResultFacts) -> Iterator[ByteSink]:
            path = target or source.parent / facts.filename
            if path.exists() and not overwrite:
                raise ToolError(_describe_existing(path))
            with FileSink(path).open(facts) as file:
                yield file
            written.append(path)

        try:
            facts = await client.upscale_into(
                source,
                open_sink,
                on_progress=_reporter(ctx.report_progress),
                variant=variant,
                format=format or _format_of(target),
                scale=scale,
                metadata=metadata,
            )
        except (ClientError, OSError) as error:
            raise ToolError(str(error)) from error
        notes = [note for note in (facts.choice, *facts.notes) if note]
        return UpscaledFile(str(written[-1]), facts.width, facts.height, facts.variant, notes)

    return server


def _describe_existing(path: Path) -> str:
    return f"{path} exists. Set overwrite to true to replace it, or give another output."


def _format_of(target: Path | None) -> str | None:
    """Return the format that the name of the result asks for; None for a name without an ending."""
    return target.suffix[1:].lower() or None if target else None


def _reporter(
    report: Callable[[float, float | None, str | None], Awaitable[None]],
) -> Callable[[UpscaleProgress], Awaitable[None]]:
    """Return what sends each step as a notification, in percent of the whole."""
    last = 0.0

    async def send(progress: UpscaleProgress) -> None:
        nonlocal last
        begin, part = _PHASES.get(progress.phase, (0, 0))
        last = max(last + _STEP_PERCENT, begin + part * (progress.share or 0))
        await report(last, 100.0, str(progress))

    return send
