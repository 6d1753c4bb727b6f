"""Logging: JSON lines in a rotated file, one per request and per event. No API keys, file names or whole addresses.

`superres serve` configures it once. Errors also go to standard error as plain text.
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

from gateway.access.client_ip import truncate_address
from gateway.log_file import LogFileHandler, StandardErrorHandler

_FIELDS = "fields"
# Characters of a field of a request's line. The longest by itself is a client's name, which has at most 80.
MAX_FIELD_LENGTH = 120
# Characters of a message and of a traceback. A message may repeat the last lines of Triton's log.
MAX_MESSAGE_LENGTH = 20_000


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: time, level, logger, message or fields, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        fields = getattr(record, _FIELDS, None)
        line |= fields if fields is not None else {"message": _cut(record.getMessage(), MAX_MESSAGE_LENGTH)}
        if record.exc_info:
            line["traceback"] = _cut(self.formatException(record.exc_info), MAX_MESSAGE_LENGTH)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """Formats a record as one line of text for the terminal. Tracebacks go to the file only."""

    def formatException(self, ei: Any) -> str:  # noqa: ARG002, N802 - the name is logging's
        """Return an empty string."""
        return ""


def configure_log(path: Path | None, level: str, max_bytes: int) -> None:
    """Send the log of this process to a file, or to standard error when `path` is None. Raises OSError.

    A file of `max_bytes` is rotated, and one older file is kept; 0: it is not rotated.
    """
    handlers: list[logging.Handler] = []
    if path is None:
        handlers.append(StandardErrorHandler())
    else:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handlers.append(LogFileHandler(path, max_bytes=max_bytes))
    handlers[0].setFormatter(JsonFormatter())
    if path is not None:
        terminal = StandardErrorHandler()
        terminal.setLevel(logging.ERROR)
        terminal.setFormatter(TextFormatter(f"superres: %(message)s (log: {path})"))
        terminal.addFilter(logging.Filter("gateway"))  # records of gunicorn and other libraries go to the file only
        handlers.append(terminal)
    logging.basicConfig(level=level.upper(), handlers=handlers, force=True)


def log_request(
    logger: logging.Logger,
    *,
    request_id: str,
    method: str,
    route: str,
    status: int,
    size: int,
    address: str,
    **more: str | float,
) -> None:
    """Log one request. `route` is the URL rule, not the URL, which may hold the ID of a result.

    docs/reference/logs.md lists the fields, also those of `more`.
    """
    fields = {
        "request_id": request_id,
        "method": method,
        "route": route,
        "status": status,
        "bytes": size,
        "address": truncate_address(address),
        **more,
    }
    fields = {name: _cut(value, MAX_FIELD_LENGTH) for name, value in fields.items()}
    logger.info("request", extra={_FIELDS: fields})


def _cut(value: Any, max_length: int) -> Any:
    """Return a text without its middle if it is longer than the maximum; other values as they are."""
    if not isinstance(value, str) or len(value) <= max_length:
        return value
    half = max_length // 2
    return f"{value[:half]}...{value[-half:]}"
