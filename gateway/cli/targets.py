"""Where results go: a file, a folder, standard output, or a named pipe. Checked before the first image is made.

No partial image is ever under the name of a result, and an existing file is replaced only if the caller says so.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self

from gateway.cli.sources import STANDARD_STREAM, Source
from gateway.jobs.output_options import FORMATS

# Names of standard output. What they lead to may be a file, which the shell has just made.
_STANDARD_OUTPUT = (STANDARD_STREAM, "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
_FORMATS_BY_SUFFIX = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".avif": "avif"}
# Collisions that one message names.
_MAX_SHOWN = 5
_COPY_BYTES = 1 << 20


class TargetError(Exception):
    """The results cannot be written where they should go; nothing was made. The message is for the user."""


class WriteError(Exception):
    """One result cannot be written; the message is for the user."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        """`is_final` says that no other result can be written there either."""
        super().__init__(message)
        self.is_final = is_final


@dataclass(frozen=True)
class Target:
    """Where the results go."""

    path: Path
    kind: Literal["file", "folder", "standard output", "pipe"]

    @property
    def is_folder(self) -> bool:
        """Whether each result has a name of its own."""
        return self.kind == "folder"

    @property
    def is_stream(self) -> bool:
        """Whether a result cannot be seen by name and be replaced afterwards: standard output, a pipe, a device."""
        return self.kind in ("standard output", "pipe")

    @property
    def format(self) -> str | None:
        """Format that the name of the file stands for; None for folders and streams. Raises TargetError."""
        if self.kind != "file":
            return None
        try:
            return _FORMATS_BY_SUFFIX[self.path.suffix.lower()]
        except KeyError:
            raise TargetError(
                f"Unknown format {self.path.suffix!r} of {self.path}. The formats are {', '.join(FORMATS)}."
            ) from None

    def __str__(self) -> str:
        return "standard output" if self.kind == "standard output" else str(self.path)


def read_target(path: Path, *, is_for_several: bool) -> Target:
    """Return the target that the last argument names; links are followed. Raises TargetError.

    `is_for_several` says that there may be several results, so that only a folder will do.
    """
    target = _read_target(path, is_for_several=is_for_several)
    if is_for_several and not target.is_folder:
        what = "a file" if target.kind == "file" else f"{target.kind}, which takes one image"
        raise TargetError(f"{path} is {what}. The output of several inputs must be a folder.")
    return target


def _read_target(path: Path, *, is_for_several: bool) -> Target:
    if str(path) in _STANDARD_OUTPUT:
        return Target(path, "standard output")
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        is_folder = not path.is_symlink() and (is_for_several or path.suffix == "")
        return Target(path, "folder" if is_folder else "file")
    except OSError as error:
        raise TargetError(f"{path} cannot be used as output: {error.strerror}.") from error
    if stat.S_ISDIR(mode):
        return Target(path, "folder")
    if stat.S_ISREG(mode):
        return Target(path, "file")
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        return Target(path, "pipe")
    raise TargetError(f"{path} is a device or a socket. Choose a file, a folder, or - for standard output.")


def find_collisions(sources: Iterable[Source], name_of: Callable[[Source], Path], *, ignores_case: bool) -> str:
    """Return a sentence on inputs whose results would have one name; an empty text if all names differ."""
    taken: dict[str, Source] = {}
    collisions = []
    for source in sources:
        path = str(name_of(source))
        key = unicodedata.normalize("NFC", path).casefold() if ignores_case else path
        if key in taken:
            collisions.append(f"{taken[key]} and {source} would both be written to {path}.")
        else:
            taken[key] = source
    if not collisions:
        return ""
    more = len(collisions) - _MAX_SHOWN
    lines = [*collisions[:_MAX_SHOWN], *([f"{more} more collide."] if more > 0 else [])]
    return "\n".join([*lines, "Rename one of them, or use separate folders."])


def ignores_case(folder: Path) -> bool:
    """Return whether a folder, or the nearest one that exists above it, takes photo.png and PHOTO.PNG for one file.

    Compares an existing entry with its name in the other case; writes nothing.
    """
    folder = _nearest_existing(folder).absolute()
    try:
        with os.scandir(folder) as entries:
            inside = next((Path(each.path) for each in entries if each.name.swapcase() != each.name), None)
    except OSError:
        inside = None
    for path in (inside, folder, *folder.parents):
        if path is None or path.name.swapcase() == path.name:
            continue
        try:
            return path.with_name(path.name.swapcase()).samefile(path)
        except OSError:  # there is no such entry: the case matters
            return False
    return False


def check_writable(target: Target, *, makes_folder: bool) -> None:
    """Raise TargetError if no result can be written there. Writes a file and removes it only if `makes_folder`."""
    if target.kind == "standard output":
        if sys.stdout.isatty():
            raise TargetError("Standard output is a terminal. Redirect it to a file, or into another program.")
        return
    if target.kind == "pipe":
        if not os.access(target.path, os.W_OK):
            raise TargetError(f"{target.path} cannot be written: you have no permission.")
        return
    folder = target.path if target.is_folder else Path(os.path.realpath(target.path)).parent
    existing = _nearest_existing(folder)
    if not existing.is_dir():
        raise TargetError(f"{folder} cannot be created: {existing} is a file.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise TargetError(f"{existing} cannot be written: you have no permission, or the file system is read-only.")
    if makes_folder:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise TargetError(f"{folder} cannot be written: {error.strerror}.") from error


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk of a folder, or of the nearest one that exists above it."""
    return shutil.disk_usage(_nearest_existing(folder)).free


def _nearest_existing(path: Path) -> Path:
    path = path.absolute()
    return next((each for each in (path, *path.parents) if os.path.lexists(each)), Path("/"))


class ResultFile:
    """A result that is being written: a hidden file in its folder, until `commit` gives it its name.

    A context manager that removes the file if it was not committed.
    """

    def __init__(self, destination: Path, *, overwrite: bool) -> None:
        """`destination` may be a link: what it leads to is written. Raises WriteError."""
        self._destination = destination
        self._path = Path(os.path.realpath(destination))
        self._overwrite = overwrite
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # The caller closes it: it outlives this method.
            self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115
                dir=self._path.parent, prefix=".superres.", delete=False
            )
        except OSError as error:
            raise _write_error(destination, error) from error
        self._temporary = Path(self._file.name)

    def write(self, data: bytes) -> None:
        """Append bytes. Raises WriteError."""
        try:
            self._file.write(data)
        except OSError as error:
            raise _write_error(self._destination, error) from error

    def commit(self) -> None:
        """Give the file its name and the permissions of a new file. Raises WriteError if the name is taken."""
        try:
            self._file.close()
            umask = os.umask(0)
            os.umask(umask)
            self._temporary.chmod(0o666 & ~umask)
            if self._overwrite:
                self._temporary.replace(self._path)
            else:
                self._take_free_name()
        except FileExistsError as error:
            raise exists_error(self._destination) from error
        except OSError as error:
            raise _write_error(self._destination, error) from error

    def _take_free_name(self) -> None:
        """Give the file its name unless another file has it: `rename` would replace that one."""
        try:
            os.link(self._temporary, self._path)
        except FileExistsError:
            raise
        except OSError:  # FAT and some network file systems have no links
            if self._path.exists():
                raise FileExistsError from None
            self._temporary.rename(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def exists_error(destination: Path) -> WriteError:
    """Return the error for a result whose name is taken."""
    return WriteError(
        f"{destination} already exists. Use --overwrite to replace it, or --skip-existing to leave it out."
    )


def copy_to_stream(file: BinaryIO, target: Target) -> None:
    """Write a whole result to standard output or into a pipe. Raises WriteError."""
    file.seek(0)
    try:
        if target.kind == "standard output":
            shutil.copyfileobj(file, sys.stdout.buffer, _COPY_BYTES)
            sys.stdout.buffer.flush()
        else:
            with target.path.open("wb") as sink:
                shutil.copyfileobj(file, sink, _COPY_BYTES)
    except BrokenPipeError as error:
        if target.kind == "standard output":  # or the interpreter reports at its end that it cannot flush
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise WriteError(f"{target} was closed before the whole image was written.", is_final=True) from error
    except OSError as error:
        raise _write_error(target, error) from error


def _write_error(where: object, error: OSError) -> WriteError:
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    return WriteError(f"{where} cannot be written: {error.strerror}.", is_final=is_full)


def is_whole(path: Path) -> bool:
    """Return whether a file has the beginning and the end of a PNG, JPEG, WebP or AVIF. Reads some bytes of it."""
    with path.open("rb") as file:
        head = file.read(12)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 12))
        tail = file.read(12)
    if head.startswith(b"\x89PNG"):
        return tail[4:8] == b"IEND"
    if head.startswith(b"\xff\xd8"):
        return tail.endswith(b"\xff\xd9")
    if head[:4] == b"RIFF":
        return int.from_bytes(head[4:8], "little") + 8 <= size + 1
    return head[4:8] == b"ftyp" and _has_whole_boxes(path, size)


def _has_whole_boxes(path: Path, size: int) -> bool:
    """Return whether the boxes of an AVIF (ISO/IEC 14496-12) end with the file."""
    at = 0
    with path.open("rb") as file:
        while at < size:
            file.seek(at)
            head = file.read(16)
            length = int.from_bytes(head[:4], "big")
            if length == 1:  # the size follows in 64 bits
                length = int.from_bytes(head[8:], "big")
            if length == 0:  # up to the end of the file
                return True
            if length < 8:
                return False
            at += length
    return at == size
