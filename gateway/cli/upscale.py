"""`superres upscale`: upscales image files, here or on a service elsewhere.

A file that fails does not stop the others. The exit code says whether an input or the backend was the cause.
"""

from __future__ import annotations

import math
import shlex
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import click

from gateway.cli import dry_run as dry_run_command
from gateway.cli.batch import AlreadyDone, Batch, InputFileError, read_sides
from gateway.cli.pace import Pace
from gateway.cli.progress import ProgressReport
from gateway.cli.service import Facts, ResultWriter, ServiceError, UpscaleError, UpscaleService
from gateway.cli.sources import STANDARD_STREAM, FoundSources, Source, SourceError, find_sources
from gateway.cli.targets import TargetError, WriteError, read_target
from gateway.config.settings import Settings
from gateway.jobs.options import SMALL_IMAGE_PIXELS, parse_options
from gateway.problems import Problem

EXIT_OK = 0
# At least one input was rejected, or could not be read or written. The others were upscaled.
EXIT_REJECTED = 3
# The backend or the service failed, cannot be reached, or was too slow for at least one input.
EXIT_BACKEND = 4
# Added to the number of the signal that ended the command, as shells do: 130 after Ctrl-C.
EXIT_SIGNAL = 128

# Larger files of small images are upscaled alone, so that several at once take little memory.
_SMALL_FILE_BYTES = 1 << 20

# Errors of one image. The others are still upscaled.
_ONE_IMAGE = (InputFileError, WriteError, UpscaleError, Problem)


@dataclass(frozen=True)
class Flags:
    """What to do besides upscaling."""

    overwrite: bool = False
    """Replace existing files."""
    skip_existing: bool = False
    """Leave out images whose result exists."""
    dry_run: bool = False
    """Show what would be made, and write nothing."""
    quiet: bool = False
    """Print errors only."""


@dataclass
class _Counts:
    """How many images ended in which way."""

    upscaled: int = 0
    existing: int = 0
    failed: int = 0


def run(
    settings: Settings,
    paths: list[Path],
    parameters: dict[str, str],
    *,
    flags: Flags | None = None,
    service: AbstractContextManager[UpscaleService] | None = None,
    arguments: Sequence[str] = (),
) -> int:
    """Upscale all paths but the last into the last one, and return the exit code. Raises click.UsageError.

    `service` is the one elsewhere; without it this machine upscales. `arguments` are those of the command, which an
    interrupted run names to go on.
    """
    flags = flags or Flags()
    with _open_service(settings, service) as opened:
        batch, found = _read_batch(opened, paths, parameters, flags)
        pace = Pace(Path(settings.state_dir) / "pace.json", opened.name)
        try:
            batch.check(makes_folder=not flags.dry_run)
        except TargetError as error:
            raise click.UsageError(str(error)) from error
        if flags.dry_run:
            return EXIT_REJECTED if dry_run_command.describe(batch, found, pace, settings) else EXIT_OK
        return _Run(batch, opened, pace, ProgressReport(is_quiet=flags.quiet), _describe_resume(arguments, batch)).run(
            found
        )


def _open_service(
    settings: Settings, service: AbstractContextManager[UpscaleService] | None
) -> AbstractContextManager[UpscaleService]:
    if service is not None:
        return service
    from gateway.cli.local_service import LocalService  # noqa: PLC0415 - gRPC takes time to import

    return LocalService(settings)


def _read_batch(
    service: UpscaleService, paths: list[Path], parameters: dict[str, str], flags: Flags
) -> tuple[Batch, FoundSources]:
    """Return what to upscale, from the arguments; raises click.UsageError."""
    *inputs, last = paths
    if not inputs:
        raise click.UsageError("Missing argument: give at least one input file, then the output file or folder.")
    if flags.overwrite and flags.skip_existing:
        raise click.UsageError("--overwrite and --skip-existing exclude each other.")
    if inputs.count(Path(STANDARD_STREAM)) > 1:
        raise click.UsageError("Standard input (-) holds one image. Name it once.")
    try:
        target = read_target(last, is_for_several=len(inputs) > 1 or inputs[0].is_dir())
        if "format" not in parameters and (format_ := target.format):
            parameters = {**parameters, "format": format_}
        options = parse_options(parameters, service.settings)
        if not options.output.is_same and target.format not in (None, options.format):
            raise click.UsageError(
                f"{target} ends in {target.path.suffix}, but the requested format is {options.format}."
            )
        found = find_sources(inputs, target.path if target.is_folder else None)
    except (TargetError, SourceError) as error:
        raise click.UsageError(str(error)) from error
    except Problem as problem:
        raise click.UsageError(problem.detail) from problem
    if not found.sources and not found.unreadable:
        raise click.UsageError(f"No images found in {', '.join(map(str, inputs))}. {found.describe_left_out()}")
    return Batch(found.sources, target, options, service.settings, flags.overwrite, flags.skip_existing), found


@dataclass(frozen=True)
class _Made:
    """A result that was written."""

    facts: Facts
    path: str
    pixels: int


class _Run:
    """Upscales the images of a batch and reports them in their order."""

    def __init__(self, batch: Batch, service: UpscaleService, pace: Pace, report: ProgressReport, resume: str) -> None:
        """`resume` is a sentence on how to go on after an interruption."""
        self._batch = batch
        self._service = service
        self._pace = pace
        self._report = report
        self._resume = resume
        self._counts = _Counts()
        self._exit_code = EXIT_OK

    def run(self, found: FoundSources) -> int:
        """Return the exit code."""
        for sentence in found.unreadable:
            self._fail(sentence, EXIT_REJECTED)
        if left_out := found.describe_left_out():
            self._report.say(left_out)
        self._report.begin(len(found.sources), self._batch.pixels())
        received: list[int] = []
        try:
            with _stopping_signals(received):
                self._upscale_all()
        except KeyboardInterrupt:
            self._report.error(f"Interrupted. {self._describe_counts()} No partial image is left.{self._resume}")
            return EXIT_SIGNAL + (received[0] if received else signal.SIGINT)
        except ServiceError as error:
            self._report.error(f"superres: {error}")
            self._report.error(f"Stopped. {self._describe_counts()}{self._resume}")
            return EXIT_BACKEND
        except WriteError as error:
            self._report.error(f"Stopped: {error} {self._describe_counts()}{self._resume}")
            return max(self._exit_code, EXIT_REJECTED)
        finally:
            self._report.close()
            self._pace.save()
        if len(found.sources) > 1:
            self._report.say(self._describe_counts())
        return self._exit_code

    def _upscale_all(self) -> None:
        """Upscale the images. After the first, small ones are sent several at once: they share batches of the backend.

        The first says how fast the backend is, and starts it.
        """
        sources, at_once = self._batch.sources, self._service.max_at_once
        pool = ThreadPoolExecutor(at_once, thread_name_prefix="small-image")
        sent: deque[Future[_Made]] = deque()  # of this source and of those after it
        try:
            for number, source in enumerate(sources):
                while number and at_once > 1 and len(sent) < at_once and _is_small(sources, number + len(sent)):
                    sent.append(pool.submit(self._make, sources[number + len(sent)], ProgressReport(is_quiet=True)))
                self._upscale(source, sent.popleft() if sent else None)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            self._counts.upscaled += sum(_has_result(future) for future in sent)

    def _upscale(self, source: Source, sent: Future[_Made] | None) -> None:
        """Upscale an image, or wait for one that was sent; report it."""
        self._report.begin_image(str(source), math.prod(read_sides(source)))
        was_upscaled = False
        try:
            made = sent.result() if sent else self._make(source, self._report)
            was_upscaled = True
            self._report.show_bands(1, 1)
        except AlreadyDone as done:
            self._counts.existing += 1
            self._report.say(f"{source}: left out, {done}.")
        except _ONE_IMAGE as error:
            is_service_fault = isinstance(error, UpscaleError) and error.is_service_fault
            self._fail(f"{source}: {error}", EXIT_BACKEND if is_service_fault else EXIT_REJECTED)
            if isinstance(error, WriteError) and error.is_final:
                raise
        self._report.end_image(was_upscaled=was_upscaled)
        if was_upscaled:
            self._describe(source, made, is_alone=sent is None)

    def _make(self, source: Source, report: ProgressReport) -> _Made:
        """Upscale an image and write the result. Called from several threads for small images."""
        request = self._batch.prepare(source)
        written: list[str] = []

        def save(facts: Facts) -> AbstractContextManager[ResultWriter]:
            target = self._batch.target
            written.append(str(target if target.is_stream else self._batch.destination(source, facts.filename)))
            return self._batch.open_result(source, facts.filename)

        facts = self._service.upscale(request, save, report)
        return _Made(facts, written[-1], request.pixels)

    def _describe(self, source: Source, made: _Made, *, is_alone: bool) -> None:
        facts = made.facts
        self._counts.upscaled += 1
        if facts.work_s is not None and is_alone:  # next to others an image waits for theirs
            self._pace.note(facts.variant, made.pixels, facts.work_s)
        self._report.say(f"{source} -> {made.path}  {facts.width}x{facts.height}  {facts.seconds:.1f} s")
        for note in facts.notes:
            self._report.say(f"  {note}")

    def _fail(self, text: str, exit_code: int) -> None:
        self._counts.failed += 1
        self._exit_code = max(self._exit_code, exit_code)
        self._report.error(text)

    def _describe_counts(self) -> str:
        counts, total = self._counts, len(self._batch.sources)
        parts = [f"{counts.upscaled} of {total} images upscaled"]
        parts += [f"{counts.existing} there already"] if counts.existing else []
        parts += [f"{counts.failed} failed"] if counts.failed else []
        return ", ".join(parts) + "."


def _is_small(sources: Sequence[Source], number: int) -> bool:
    """Return whether there is such a source, and whether the backend runs it in one batch with others."""
    if number >= len(sources) or sources[number].is_standard_input:
        return False
    try:
        is_small_file = sources[number].path.stat().st_size <= _SMALL_FILE_BYTES
    except OSError:
        return False
    return is_small_file and 0 < math.prod(read_sides(sources[number])) <= SMALL_IMAGE_PIXELS


def _has_result(sent: Future[_Made]) -> bool:
    return sent.done() and not sent.cancelled() and sent.exception() is None


def _describe_resume(arguments: Sequence[str], batch: Batch) -> str:
    """Return a sentence with the command that does the rest; empty if no command can do that."""
    if not arguments or not batch.target.is_folder or any(source.is_standard_input for source in batch.sources):
        return ""
    if batch.overwrite:
        return " The same command upscales all of them again."
    rest = list(arguments) + ([] if batch.skip_existing else ["--skip-existing"])
    return f"\nTo go on: {shlex.join(['superres', *rest])}"


@contextmanager
def _stopping_signals(received: list[int]) -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, and append their number; what is ignored stays ignored."""

    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGTERM, signal.SIGHUP) if is_main else ()
    before = {number: signal.getsignal(number) for number in numbers}
    taken = [number for number in numbers if before[number] == signal.SIG_DFL]
    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])
