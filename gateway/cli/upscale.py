"""`superres upscale`: files in, files out, no browser. Starts the embedded server when no backend is named.

A file that fails does not stop the others; the exit code says what kind of thing went wrong.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import time
import uuid
from pathlib import Path

import click

from gateway.backend import embedded
from gateway.backend.interface import Backend, BackendError
from gateway.backend.triton_install import EmbeddedServerError
from gateway.config.settings import Settings
from gateway.jobs.options import FORMATS, UpscaleOptions, UpscaleRequest, make_request, parse_options, stem_of
from gateway.jobs.queue import Capacity, JobQueue
from gateway.jobs.runner import JobRunner
from gateway.problems import Problem

EXIT_OK = 0
EXIT_REFUSED = 3
"""At least one input was refused or could not be read or written; the others were made."""
EXIT_BACKEND = 4
"""The backend did not start, failed or was too slow for at least one input."""
_FORMATS_BY_SUFFIX = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


class InputFileError(Exception):
    """A file that cannot be read or written; the text is for the person who named it."""


def run(settings: Settings, paths: list[Path], parameters: dict[str, str], *, overwrite: bool) -> int:
    """Upscale all but the last path into the last; return the exit code. Raises click.UsageError."""
    sources, target, is_folder = _read_paths(paths)
    if "format" not in parameters and not is_folder:
        parameters = {**parameters, "format": _format_of(target)}
    try:
        choices = parse_options(parameters, settings)
    except Problem as problem:
        raise click.UsageError(problem.detail) from problem
    if not is_folder and _format_of(target) != choices.format:
        raise click.UsageError(f"{target} ends in {target.suffix}, but the format asked for is {choices.format}.")

    destinations = _choose_destinations(sources, target, choices) if is_folder else [target]

    exit_code = EXIT_OK
    pairs = list(zip(sources, destinations, strict=True))
    with _Work(settings) as work, click.progressbar(pairs, label="JobRunner", file=sys.stderr) as bar:
        for source, destination in bar:
            try:
                order = _read_order(source, choices, settings)
                _check_place(destination, overwrite=overwrite)
                result = work.upscaling().run(order, uuid.uuid4().hex[:16])
                _write(destination, result.data)
            except (BackendError, EmbeddedServerError) as error:  # it does not start: no other file would fare better
                click.echo(f"\nsuperres: {error}", err=True)
                work.keep_log()
                return EXIT_BACKEND
            except (Problem, InputFileError) as problem:
                if is_ours := isinstance(problem, Problem) and problem.status >= 500:
                    work.keep_log()
                exit_code = max(exit_code, EXIT_BACKEND if is_ours else EXIT_REFUSED)
                click.echo(f"\n{source}: {problem}", err=True)
            else:
                size = f"{result.width}x{result.height}"
                click.echo(f"\n{source} -> {destination}  {size}  {result.seconds:.1f} s", err=True)
                for note in result.notes:
                    click.echo(f"  {note}", err=True)
    return exit_code


class _Work:
    """The backend, started for the first file that is worth it and closed after the last."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._backend: Backend | None = None
        # A `superres serve` may run beside us in the same folder: its log is not ours to move away.
        self._log_path = Path(settings.state_dir) / f"triton-{secrets.token_hex(4)}.log"
        self._keeps_log = False

    def __enter__(self) -> _Work:
        return self

    def __exit__(self, *_: object) -> None:
        if self._backend is not None:
            self._backend.close()
        if not self._keeps_log:
            for path in (self._log_path, self._log_path.with_suffix(".previous.log")):
                path.unlink(missing_ok=True)

    def keep_log(self) -> None:
        """Leave the server's log behind: it says why something failed."""
        self._keeps_log = True

    def upscaling(self) -> JobRunner:
        if self._backend is None:
            self._backend = embedded.make_backend(self._settings, self._log_path.name)
            if isinstance(self._backend, embedded.EmbeddedBackend):
                click.echo("\nStarting the embedded Triton ...", err=True)
                self._backend.wait_until_ready(time.monotonic() + embedded.READY_LIMIT_S)
        return JobRunner(self._backend, JobQueue(Capacity(at_work=1, waiting=0)), deadline_s=self._settings.deadline_s)


def _read_paths(paths: list[Path]) -> tuple[list[Path], Path, bool]:
    """Return (inputs, target, whether the target is a folder)."""
    *sources, target = paths
    if not sources:
        raise click.UsageError("Name at least one input and, last, the output file or folder.")
    is_folder = target.is_dir() or len(sources) > 1 or target.suffix == ""
    if is_folder and target.exists() and not target.is_dir():
        raise click.UsageError(f"{target} is a file; several inputs need a folder.")
    return sources, target, is_folder


def _choose_destinations(sources: list[Path], folder: Path, choices: UpscaleOptions) -> list[Path]:
    """Return where each input's result goes; two that would go to one place are refused before any work is done."""
    taken: dict[Path, Path] = {}
    for source in sources:
        destination = folder / choices.name_result(stem_of(source.name))
        if destination in taken:
            raise click.UsageError(
                f"{taken[destination]} and {source} would both become {destination}. Rename one, or give each a folder."
            )
        taken[destination] = source
    return list(taken)


def _format_of(target: Path) -> str:
    try:
        return _FORMATS_BY_SUFFIX[target.suffix.lower()]
    except KeyError:
        raise click.UsageError(f"{target} ends in {target.suffix!r}; the formats are {', '.join(FORMATS)}.") from None


def _read_order(source: Path, choices: UpscaleOptions, settings: Settings) -> UpscaleRequest:
    try:
        size = source.stat().st_size
        if size > settings.max_upload_bytes:
            raise InputFileError(f"has {size:,} bytes; the limit is {settings.max_upload_bytes:,} (max_upload_bytes).")
        data = source.read_bytes()
    except OSError as error:
        raise InputFileError(f"cannot be read: {error.strerror}.") from error
    return make_request(data, source.name, choices, settings)


def _check_place(target: Path, *, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise InputFileError(f"{target} is there already; --overwrite replaces it.")


def _write(target: Path, data: bytes) -> None:
    """Write all or nothing: a picture half written is never left under its name."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            try:
                file.write(data)
                file.close()
                umask = os.umask(0)
                os.umask(umask)
                Path(file.name).chmod(0o666 & ~umask)
                Path(file.name).replace(target)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise InputFileError(f"{target} cannot be written: {error.strerror}.") from error
