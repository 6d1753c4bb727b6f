"""The settings that name files and folders: made absolute when they are read, and checked for their kind."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from gateway.config.fields import SettingsError, quote

FOLDERS = ("state_dir", "weights_dir", "model_repository")
FILES = ("keys_file", "blocks_file", "log_file", "backend_ca_file", "backend_cert_file", "backend_key_file")
# Value of log_file.
STANDARD_ERROR = "-"


def make_absolute(name: str, text: str) -> str:
    """Return the absolute path of a setting, because Triton runs in another working folder. Raises SettingsError."""
    if name not in (*FOLDERS, *FILES) or text == STANDARD_ERROR:
        return text
    if text.startswith("~"):
        raise SettingsError(
            f"Invalid {name} {quote(text)}: only a shell replaces ~. Write the whole path, beginning with /."
        )
    return os.path.abspath(text)  # noqa: PTH100 - Path.absolute() keeps ".."


def find_path_errors(values: Mapping[str, str]) -> list[str]:
    """Return one message for each folder that is a file, and for each file that is a folder."""
    errors = []
    for names, is_wrong, kinds in (
        (FOLDERS, _is_file, "is a file; it must be a folder"),
        (FILES, Path.is_dir, "is a folder; it must be a file"),
    ):
        for name in names:
            path = values.get(name, "")
            if path and path != STANDARD_ERROR and _holds(is_wrong, path):
                errors.append(f"Invalid {name} {quote(path)}: it {kinds}.")
    return errors


def _is_file(path: Path) -> bool:
    return path.exists() and not path.is_dir()


def _holds(is_wrong: Callable[[Path], bool], path: str) -> bool:
    try:
        return is_wrong(Path(path))
    except OSError:  # a part of the path may not be searched, or is too long, which opening it will report
        return False


def default_state_dir(environ: Mapping[str, str]) -> str:
    """Return superres/ in $XDG_STATE_HOME, or in ~/.local/state. Raises SettingsError without a home folder."""
    # XDG Base Directory Specification: a relative path is ignored.
    base = environ.get("XDG_STATE_HOME", "")
    if Path(base).is_absolute():
        return str(Path(base) / "superres")
    home = environ.get("HOME", "")
    try:
        return str((Path(home) if Path(home).is_absolute() else Path.home()) / ".local" / "state" / "superres")
    except RuntimeError as error:
        raise SettingsError(
            f"No default for state_dir: the user {os.getuid()} has no home folder. Set SUPERRES_STATE_DIR to a folder "
            "that this user can write."
        ) from error
