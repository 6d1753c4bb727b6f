"""`superres upscale`: upscales image files. Starts the embedded Triton unless backend_address is set.

A file that fails does not stop the others. The exit code says whether an input or the backend was the cause.
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
from gateway.error_mapping import problem_from_image_error
from gateway.jobs.choice import choose_variant, describe_choice
from gateway.jobs.options import FORMATS, UpscaleOptions, UpscaleRequest, make_request, parse_options, safe_stem
from gateway.jobs.queue import Capacity, JobQueue
from gateway.jobs.runner import JobRunner
from gateway.problems import Problem
from preprocessing.codec import decode
from preprocessing.errors import ImageError

EXIT_OK = 0
# At least one input was rejected, or could not be read or written. The others were upscaled.
EXIT_REJECTED = 3
# The backend did not start, or failed or was too slow for at least one input.
EXIT_BACKEND = 4
_FORMATS_BY_SUFFIX = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


class InputFileError(Exception):
    """A file cannot be read or written; the message is for the user."""


def run(settings: Settings, paths: list[Path], parameters: dict[str, str], *, overwrite: bool) -> int:
    """Upscale all paths but the last into the last one, and return the exit code. Raises click.UsageError."""
    sources, target, is_folder = _read_paths(paths)
    if "format" not in parameters and not is_folder:
        parameters = {**parameters, "format": _output_format(target)}
    try:
        options = parse_options(parameters, settings)
    except Problem as problem:
        raise click.UsageError(problem.detail) from problem
    if not is_folder and _output_format(target) != options.format:
        raise click.UsageError(f"{target} ends in {target.suffix}, but the requested format is {options.format}.")

    destinations = _choose_destinations(sources, target, options) if is_folder else [target]

    exit_code = EXIT_OK
    pairs = list(zip(sources, destinations, strict=True))
    with _BackendSession(settings) as session, click.progressbar(pairs, label="Upscaling", file=sys.stderr) as bar:
        for source, destination in bar:
            try:
                request = _read_request(source, options, settings)
                if options.must_choose:
                    request = _choose_variant(request)
                    destination = destination.with_name(request.filename) if is_folder else destination  # noqa: PLW2901
                _check_destination(destination, overwrite=overwrite)
                result = session.runner().run(request, uuid.uuid4().hex[:16])
                _write(destination, result.data)
            except (BackendError, EmbeddedServerError) as error:  # it does not start, so the other files would fail too
                click.echo(f"\nsuperres: {error}", err=True)
                session.keep_log()
                return EXIT_BACKEND
            except (Problem, InputFileError) as problem:
                if is_backend_fault := isinstance(problem, Problem) and problem.status >= 500:
                    session.keep_log()
                exit_code = max(exit_code, EXIT_BACKEND if is_backend_fault else EXIT_REJECTED)
                click.echo(f"\n{source}: {problem}", err=True)
            else:
                size = f"{result.width}x{result.height}"
                click.echo(f"\n{source} -> {destination}  {size}  {result.seconds:.1f} s", err=True)
                if choice := describe_choice(request.options):
                    click.echo(f"  {choice.sentence}", err=True)
                for note in result.notes:
                    click.echo(f"  {note}", err=True)
    return exit_code


class _BackendSession:
    """The backend: started for the first valid file, closed after the last."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._backend: Backend | None = None
        # A running `superres serve` may use the same folder, and must keep its own log.
        self._log_path = Path(settings.state_dir) / f"triton-{secrets.token_hex(4)}.log"
        self._keeps_log = False

    def __enter__(self) -> _BackendSession:
        return self

    def __exit__(self, *_: object) -> None:
        if self._backend is not None:
            self._backend.close()
        if not self._keeps_log:
            for path in (self._log_path, self._log_path.with_suffix(".previous.log")):
                path.unlink(missing_ok=True)

    def keep_log(self) -> None:
        """Keep the server's log at the end: it says why something failed."""
        self._keeps_log = True

    def runner(self) -> JobRunner:
        if self._backend is None:
            self._backend = embedded.make_backend(self._settings, self._log_path.name)
            if isinstance(self._backend, embedded.EmbeddedBackend):
                click.echo("\nStarting the embedded Triton ...", err=True)
                self._backend.wait_until_ready(time.monotonic() + embedded.READY_LIMIT_S)
        return JobRunner(self._backend, JobQueue(Capacity(running=1, waiting=0)), deadline_s=self._settings.deadline_s)


def _read_paths(paths: list[Path]) -> tuple[list[Path], Path, bool]:
    """Return (inputs, target, whether the target is a folder)."""
    *sources, target = paths
    if not sources:
        raise click.UsageError("Missing argument: give at least one input file, then the output file or folder.")
    is_folder = target.is_dir() or len(sources) > 1 or target.suffix == ""
    if is_folder and target.exists() and not target.is_dir():
        raise click.UsageError(f"{target} is a file. The output of several inputs must be a folder.")
    return sources, target, is_folder


def _choose_destinations(sources: list[Path], folder: Path, options: UpscaleOptions) -> list[Path]:
    """Return the output path of each input. Rejects two inputs with the same output path before any work starts."""
    sources_by_destination: dict[Path, Path] = {}
    for source in sources:
        destination = folder / options.result_filename(safe_stem(source.name))
        if destination in sources_by_destination:
            earlier = sources_by_destination[destination]
            raise click.UsageError(
                f"{earlier} and {source} would both be written to {destination}. "
                "Rename one of them, or use separate folders."
            )
        sources_by_destination[destination] = source
    return list(sources_by_destination)


def _output_format(target: Path) -> str:
    try:
        return _FORMATS_BY_SUFFIX[target.suffix.lower()]
    except KeyError:
        raise click.UsageError(
            f"Unknown format {target.suffix!r} of {target}. The formats are {', '.join(FORMATS)}."
        ) from None


def _read_request(source: Path, options: UpscaleOptions, settings: Settings) -> UpscaleRequest:
    try:
        size = source.stat().st_size
        if size > settings.max_upload_bytes:
            raise InputFileError(
                f"The file has {size:,} bytes; the limit is {settings.max_upload_bytes:,} (max_upload_bytes)."
            )
        data = source.read_bytes()
    except OSError as error:
        raise InputFileError(f"The file cannot be read: {error.strerror}.") from error
    return make_request(data, source.name, options, settings)


def _choose_variant(request: UpscaleRequest) -> UpscaleRequest:
    """Return the request with the variant that fits the image, which names the output; raises a Problem."""
    try:
        return choose_variant(request, decode(request.upload))
    except ImageError as error:
        raise problem_from_image_error(error) from error


def _check_destination(target: Path, *, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise InputFileError(f"{target} already exists. Use --overwrite to replace it.")


def _write(target: Path, data: bytes) -> None:
    """Write the whole file or nothing: no partial image is ever left under this name."""
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
