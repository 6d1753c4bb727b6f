"""The log: one JSON line a request and one for whatever else is worth a line. No keys, no file names, no whole address.

Configured once by whoever serves; bounded on disk (two files of MAX_LOG_BYTES). Errors are also said on standard error.
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

MAX_LOG_BYTES = 5_000_000
_FIELDS = "fields"


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON: time, level, where, message or fields, traceback."""

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
    """Writes a record as a line for the person at the terminal; tracebacks are for the file."""

    def formatException(self, ei: Any) -> str:  # noqa: ARG002, N802 - the name is logging's
        """Return nothing."""
        return ""


def configure_log(path: Path | None, level: str) -> None:
    """Send the log of this process to a file, or to standard error when there is no path. Raises OSError."""
    handlers: list[logging.Handler] = []
    if path is None:
        handlers.append(logging.StreamHandler(sys.stderr))
    else:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handlers.append(RotatingFileHandler(path, maxBytes=MAX_LOG_BYTES, backupCount=1))
    handlers[0].setFormatter(JsonFormatter())
    if path is not None:
        spoken = logging.StreamHandler(sys.stderr)
        spoken.setLevel(logging.ERROR)
        spoken.setFormatter(TextFormatter(f"superres: %(message)s (log: {path})"))
        spoken.addFilter(logging.Filter("gateway"))  # what gunicorn says besides is for the file
        handlers.append(spoken)
    logging.basicConfig(level=level.upper(), handlers=handlers, force=True)


def log_request(
    logger: logging.Logger, *, request_id: str, method: str, route: str, status: int, ms: float, size: int, address: str
) -> None:
    """Write the line of a request. `route` is the rule, never the address: that may hold a result's id."""
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
