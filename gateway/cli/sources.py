"""The images to upscale: files, standard input, and folders, which are searched with all folders in them.

In folders, hidden entries, files of unknown suffixes and links to folders are left out and counted. A file that is
named on the command line is always taken.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from preprocessing.codec import InputFormat

STANDARD_STREAM = "-"
"""The argument that means standard input or standard output."""

# Suffixes of the formats that `preprocessing` decodes. Other files of a folder are not opened.
SUFFIXES_BY_FORMAT: dict[InputFormat, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
}
_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES_BY_FORMAT.values() for suffix in suffixes)

_HIDDEN = "hidden"
# Suffixes that a summary names; the others are counted with them.
_MAX_SHOWN_SUFFIXES = 5


class SourceError(Exception):
    """An input cannot be used at all; the message is for the user."""


@dataclass(frozen=True)
class Source:
    """An image to upscale."""

    path: Path
    folder: Path = Path()
    """Folder of the result, relative to the target: where the source is in the folder that was searched."""

    @property
    def is_standard_input(self) -> bool:
        """Whether the image comes from standard input."""
        return str(self.path) == STANDARD_STREAM

    @property
    def stem(self) -> str:
        """Name without the last suffix, from which the name of the result is made."""
        return "stdin" if self.is_standard_input else self.path.stem

    def __str__(self) -> str:
        return "standard input" if self.is_standard_input else str(self.path)


@dataclass
class FoundSources:
    """The images that were found, and the number of entries that were left out."""

    sources: list[Source] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """Number of entries by reason."""
    suffixes: Counter[str] = field(default_factory=Counter)
    """Number of files of each unknown suffix."""
    unreadable: list[str] = field(default_factory=list)
    """A sentence for each folder that could not be read."""

    def describe_left_out(self) -> str:
        """Return a sentence on what was left out; an empty text if nothing was."""
        parts = [
            f"{count} {reason}{'s' if count > 1 and reason != _HIDDEN else ''}"
            for reason, count in self.left_out.items()
        ]
        if self.suffixes:
            shown = ", ".join(suffix for suffix, _ in self.suffixes.most_common(_MAX_SHOWN_SUFFIXES))
            more = ", ..." if len(self.suffixes) > _MAX_SHOWN_SUFFIXES else ""
            parts.append(f"{self.suffixes.total()} of unknown suffix ({shown}{more})")
        return f"Left out: {'; '.join(parts)}." if parts else ""


def find_sources(paths: list[Path], target: Path | None) -> FoundSources:
    """Return the images that the paths name, folders in the order of their names.

    The results of one folder have its structure; of several inputs, each folder keeps its name below the target.
    `target` is the folder of the results, which is not searched; None if they go elsewhere. Raises SourceError.
    """
    found = FoundSources()
    for path in paths:
        if str(path) == STANDARD_STREAM or not path.is_dir():
            found.sources.append(Source(path))
            continue
        if target is not None and _is_same(path, target):
            raise SourceError(
                f"{path} is both the input and the output. Choose another output folder: "
                "the next run would upscale the results."
            )
        _search(path, Path(path.resolve().name) if len(paths) > 1 else Path(), target, found)
    return found


def _search(top: Path, prefix: Path, target: Path | None, found: FoundSources) -> None:
    def note_error(error: OSError) -> None:
        found.unreadable.append(f"{error.filename}: The folder cannot be read: {error.strerror}.")

    for name, folders, files in os.walk(top, onerror=note_error):
        folder = Path(name)
        kept = []
        for each in sorted(folders):
            if each.startswith("."):
                found.left_out[_HIDDEN] += 1
            elif (folder / each).is_symlink():
                found.left_out["linked folder"] += 1
            elif target is not None and _is_same(folder / each, target):
                found.left_out["output folder"] += 1
            else:
                kept.append(each)
        folders[:] = kept
        for each in sorted(files):
            path = folder / each
            if each.startswith("."):
                found.left_out[_HIDDEN] += 1
            elif (suffix := path.suffix.lower()) not in _SUFFIXES:
                found.suffixes[suffix or "none"] += 1
            elif _is_special(path):
                found.left_out["special file"] += 1
            else:
                found.sources.append(Source(path, prefix / folder.relative_to(top)))


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them does not exist
        return False


def _is_special(path: Path) -> bool:
    """Return whether a path is neither a file nor missing: reading a named pipe could wait without end."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:  # reading it will say why
        return False
