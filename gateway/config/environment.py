"""Reads the settings from the environment. No other module of the gateway reads it.

Each setting has a variable SUPERRES_<NAME>. A secret may be in a file instead, whose path is in SUPERRES_<NAME>_FILE.
Unknown and renamed SUPERRES_ variables, invalid values and contradictions are all reported together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from gateway.config.fields import PREFIX, Setting, SettingsError, Value
from gateway.config.paths import default_state_dir, make_absolute
from gateway.config.settings import SETTINGS, Settings

CLIENT_KEY_VARIABLE = "SUPERRES_CLIENT_KEY"
"""Variable with the API key that `superres upscale --to` sends. No setting: the gateway never reads its value."""

_MAX_SECRET_BYTES = 4_096

# Former names of settings and what they are called now.
_RENAMED = {
    "requests_at_once": "max_concurrent_requests",
    "jobs_in_flight": "max_concurrent_jobs",
    "queue_places": "queue_size",
    "queue_places_each": "queue_size_per_client",
    "work_in_memory_bytes": "max_job_memory_bytes",
    "uploads_in_memory_bytes": "max_upload_memory_bytes",
    "idle_sleep_s": "scale_to_zero_after_s",
    "wake_requests": "wake_rate",
    "month_budget_gpu_s": "monthly_gpu_budget_s",
}


@dataclass(frozen=True)
class SettingsRead:
    """Settings, and the source of each value: "default", the name of a variable, or a command-line option."""

    settings: Settings
    sources: Mapping[str, str]


def read_settings(
    environ: Mapping[str, str] | None = None, options: Mapping[str, Value | None] | None = None
) -> SettingsRead:
    """Read the settings from the environment. A command-line option that is not None takes precedence.

    Raises SettingsError, whose message lists every error.
    """
    environ = os.environ if environ is None else environ
    errors = _check_names(environ)
    values: dict[str, Value] = {}
    sources: dict[str, str] = {}
    for row in SETTINGS:
        option = (options or {}).get(row.name)
        try:
            if option is not None:
                values[row.name], sources[row.name] = option, f"--{row.name.replace('_', '-')}"
            elif found := _find(row, environ):
                sources[row.name] = found[0]
                values[row.name] = _parse(row, *found)
        except SettingsError as error:
            errors.append(str(error))
    try:
        if not values.get("state_dir"):
            values["state_dir"] = default_state_dir(environ)
        settings = Settings(**values)  # type: ignore[arg-type]  # each value has the type of its field
    except SettingsError as error:
        errors.append(str(error))
    if errors:
        raise SettingsError("\n".join(errors))
    return SettingsRead(settings, {row.name: sources.get(row.name, "default") for row in SETTINGS})


def read_client_key_variable(environ: Mapping[str, str] | None = None) -> str:
    """Return the value of CLIENT_KEY_VARIABLE; an empty text without one."""
    return (os.environ if environ is None else environ).get(CLIENT_KEY_VARIABLE, "").strip()


def _parse(row: Setting, variable: str, text: str) -> Value:
    """Return the value of a variable. Raises SettingsError, which names a variable that other programs use, too."""
    try:
        value = row.parse(text)
        return make_absolute(row.name, value) if isinstance(value, str) else value
    except SettingsError as error:
        if variable != row.fallback_variable:
            raise
        raise SettingsError(f"{error} It comes from the variable {variable}.") from error


def _find(row: Setting, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Return (variable, text) if the environment sets a setting. An empty variable counts as unset."""
    if row.is_secret:
        file_variable = row.variable + "_FILE"
        if environ.get(file_variable) and environ.get(row.variable):
            raise SettingsError(f"{row.variable} and {file_variable} are both set. Remove one of them.")
        if environ.get(file_variable):
            return file_variable, _read_secret(file_variable, Path(environ[file_variable]))
    for variable in (row.variable, row.fallback_variable):
        if text := environ.get(variable, "").strip():
            return variable, text
    return None


def _read_secret(variable: str, path: Path) -> str:
    """Return the single line of a file. Raises SettingsError, whose message does not show the content."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{variable}: the file {str(path)!r} cannot be read: {error.strerror}.") from error
    secret = content.decode("utf-8", "replace").strip()
    if not secret or len(content) > _MAX_SECRET_BYTES or not secret.isprintable():
        raise SettingsError(
            f"{variable}: the file {str(path)!r} must contain a single line of 1 to {_MAX_SECRET_BYTES:,} bytes."
        )
    return secret


def _check_names(environ: Mapping[str, str]) -> list[str]:
    """Return an error for each SUPERRES_ variable that does not belong to a setting."""
    known = [row.variable for row in SETTINGS] + [f"{row.variable}_FILE" for row in SETTINGS if row.is_secret]
    renamed = {PREFIX + old.upper(): PREFIX + new.upper() for old, new in _RENAMED.items()}
    errors = []
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in (*known, CLIENT_KEY_VARIABLE):
            continue
        if variable in renamed:
            errors.append(f"{variable} was renamed to {renamed[variable]}.")
        elif variable.removesuffix("_FILE") in known:
            setting = variable.removesuffix("_FILE")
            errors.append(f"Unknown setting {variable}. Only secrets can be read from a file: set {setting} instead.")
        else:
            close = get_close_matches(variable.removeprefix(PREFIX), [name.removeprefix(PREFIX) for name in known], n=1)
            hint = f"Did you mean {PREFIX}{close[0]}?" if close else "`superres settings` lists all settings."
            errors.append(f"Unknown setting {variable}. {hint}")
    return errors
