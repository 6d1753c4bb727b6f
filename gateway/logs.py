"""Logging: JSON lines in a rotated file, one per request and per event. No API keys, file names or whole addresses.

`superres serve` configures it once. Errors also go to standard error as plain text.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from gateway.access.client_ip import truncate_address

# Size at which the file is rotated; one older file is kept.
MAX_LOG_BYTES = 5_000_000
_FIELDS = "fields"


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
        line |= fields if fields is not None else {"message": record.getMessage()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """Formats a record as one line of text for the terminal. Tracebacks go to the file only."""

    def formatException(self, ei: Any) -> str:  # noqa: ARG002, N802 - the name is logging's
        """Return an empty string."""
        return ""


def configure_log(path: Path | None, level: str) -> None:
    """Send the log of this process to a file, or to standard error when `path` is None. Raises OSError."""
    handlers: list[logging.Handler] = []
    if path is None:
        handlers.append(logging.StreamHandler(sys.stderr))
    else:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handlers.append(RotatingFileHandler(path, maxBytes=MAX_LOG_BYTES, backupCount=1))
    handlers[0].setFormatter(JsonFormatter())
    if path is not None:
        terminal = logging.StreamHandler(sys.stderr)
        terminal.setLevel(logging.ERROR)
        terminal.setFormatter(TextFormatter(f"superres: %(message)s (log: {path})"))
        terminal.addFilter(logging.Filter("gateway"))  # records of gunicorn and other libraries go to the file only
        handlers.append(terminal)
    logging.basicConfig(level=level.upper(), handlers=handlers, force=True)


def log_request(
    logger: logging.Logger, *, request_id: str, method: str, route: str, status: int, ms: float, size: int, address: str
) -> None:
    """Log one request. `route` is the URL rule, not the URL, which may hold the ID of a result."""
    fields = {
        "request_id": request_id,
        "method": method,
        "route": route,
        "status": status,
        "ms": round(ms, 1),
        "bytes": size,
        "address": truncate_address(address),
    }
    logger.info("request", extra={_FIELDS: fields})
