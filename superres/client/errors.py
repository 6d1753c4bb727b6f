"""The errors of the client. All are ClientError, and each message is a sentence for the user.

ClientError
  InvalidUrlError          the address of the service is invalid
  InvalidKeyError          the API key is not one line of printable ASCII
  ConnectionFailedError    the service cannot be reached, or the connection broke
    DownloadFailedError    the result cannot be downloaded; the image may be sent again
  TlsError                 the certificate cannot be verified, or the service does not speak TLS
  UnexpectedResponseError  the response is not one of a gateway of Serverless SuperRes
  ProblemError             the service responded with a problem (RFC 9457)
  ImageFileError           the image cannot be read
  JobCancelledError        the job was cancelled
  WaitTimeoutError         the job was not finished in time
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


class ClientError(Exception):
    """Anything that the client raises. The message is for the user."""


class InvalidUrlError(ClientError, ValueError):
    """The address of the service is invalid."""


class InvalidKeyError(ClientError, ValueError):
    """The API key is not one line of printable ASCII. The message does not repeat it."""


class ConnectionFailedError(ClientError):
    """The service cannot be reached, or the connection broke. Another attempt may succeed."""


class DownloadFailedError(ConnectionFailedError):
    """The result cannot be downloaded. The image may be sent again."""


class TlsError(ClientError):
    """The certificate of the service cannot be verified, or the service does not speak TLS."""


class ImageFileError(ClientError):
    """The image to send cannot be read, or is larger than any service accepts."""


class JobCancelledError(ClientError):
    """The job was cancelled, so it has no result."""


class WaitTimeoutError(ClientError, TimeoutError):
    """The job was not finished within the time that the caller wanted to wait. It goes on."""


class UnexpectedResponseError(ClientError):
    """The response is not one of a gateway: that of a proxy in front of it, or of another service."""

    def __init__(self, message: str, status: int = 0, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        """Status of the response; 0 if its body is invalid."""
        self.retry_after_s = retry_after_s
        """Seconds after which to try again; 0 if the response does not say."""


class ProblemError(ClientError):
    """The service responded with a problem. The message is its detail, for a fault with the request ID."""

    def __init__(self, members: Mapping[str, Any], status: int, retry_after_s: float = 0.0) -> None:
        """`members` are those of the JSON object."""
        self.members = dict(members)
        """All members, also those of later versions: `parameter`, `allowed`, `limit` and others."""
        self.status = status
        """HTTP status."""
        self.type = str(members.get("type") or "about:blank")[:200]
        """Path that identifies the problem, such as /problems/queue-full."""
        self.title = str(members.get("title") or f"Status {status}")[:200]
        self.detail = str(members.get("detail") or self.title)[:2_000]
        """What is wrong, the number and the limit, and what to do."""
        self.request_id = str(members.get("request_id") or "")[:80]
        """Finds the request in the operator's log; empty if unknown."""
        self.retry_after_s = retry_after_s
        """Seconds after which to send the request again; 0 if the service does not say."""
        is_fault = status >= 500 and status != 503
        super().__init__(f"{self.detail} (request {self.request_id})" if is_fault and self.request_id else self.detail)

    @property
    def slug(self) -> str:
        """Last part of the type, as docs/reference/problems.md lists it: "queue-full"."""
        return self.type.rsplit("/", 1)[-1]


def read_retry_after(text: str) -> float:
    """Return the seconds of a Retry-After; 0 if there are none. Dates (RFC 9110) come from proxies only."""
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0


def problem_from(members: Mapping[str, Any], status: int = 0, retry_after: str = "") -> ProblemError:
    """Return the error for the members of a problem. Status and Retry-After are those of the response, if any."""
    retry_after_s = read_retry_after(str(members.get("retry_after_s") or "")) or read_retry_after(retry_after)
    found = members.get("status")
    return ProblemError(members, status or (found if isinstance(found, int) else 500), retry_after_s)


def error_from_response(
    url: str, status: int, reason: str, headers: Mapping[str, str], body: bytes
) -> ProblemError | UnexpectedResponseError:
    """Return the error for a response that is not a success. `body` is its beginning."""
    retry_after = headers.get("retry-after", "")
    if headers.get("content-type", "").partition(";")[0].strip() == "application/problem+json":
        try:
            members = json.loads(body)
        except ValueError:
            members = None
        if isinstance(members, dict):
            return problem_from(members, status, retry_after)
    if 300 <= status < 400:
        location = headers.get("location", "another address")[:200]
        return UnexpectedResponseError(f"{url} redirects to {location}. Use the address that it redirects to.", status)
    what = f"{url.partition('://')[2].partition('/')[0]} responded with {status} {reason}"
    if status == 413:
        advice = ": a proxy in front of the service does not let so large an upload pass."
    elif status in (408, 429, 502, 503, 504):
        advice = "."
    else:
        advice = ". Check the address: it is that of the page with the form."
    return UnexpectedResponseError(what + advice, status, read_retry_after(retry_after))
