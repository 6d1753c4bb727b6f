"""Every error response of the gateway: one exception tree in one format (RFC 9457).

Problem                       status  an error response
  BadRequest                     400  not valid HTTP, or not a valid request to this API
    MalformedForm                400  the multipart body cannot be parsed
    MissingImage                 400  no field `image`, or more than one
    IncompleteBody               400  the body ended before its announced length
    BadParameter                 400  an unknown parameter, or an invalid value
    EmptyUpload                  400  no bytes
  KeyRequired                    401  a missing, wrong or revoked API key
  Blocked                        403  the client's network is blocked
  ForeignOrigin                  403  another site sent the form
  StaleForm                      403  the form's token is missing or has expired
  NotFound                       404  no page at this address
    ResultGone                   404  the result has expired, or never existed
  MethodNotAllowed               405  the page exists, but not for this method
  SlowBody                       408  the body did not arrive in time
  TooLarge                       413  the request exceeds a limit
    TooManyBytes                 413  the upload
    TooManyPixels                413  the pixels of the image
    SideTooLong                  413  the longer side of the image
    ResultTooLarge               413  the result
    OverAllowance                413  this image alone costs more than the client's rate limit
  UnknownFormat                  415  none of the formats that are read
  RangeNotSatisfiable            416  the requested range lies beyond the end of the file
  UnreadableImage                422  truncated or corrupt
  UnsupportedOutput              422  the output format cannot hold the result
  RefusedByBackend               422  the backend rejected the request, with a reason
    VariantUnavailable           422  the backend has no weights for the variant
  LimitReached                   429  a rate limit is used up
    Banned                       429  too many rejected requests: nothing is accepted for a while
    TooManyAtOnce                429  too many concurrent requests or queued images
  HeadTooLong                    431  the request line or the headers exceed a limit
  InternalError                  500  a bug; the log has the details
  BackendFault                   502  the backend failed; the log has the reason
  QueueFull                      503  every slot of the queue is taken
    UploadsFull                  503  other uploads use all memory for uploads
  BudgetSpent                    503  this month's GPU seconds are used up
  BackendUnavailable             503  the backend cannot be reached
    BackendNotStarted            503  the backend failed to boot; the log has the reason
    BackendHung                503  the backend made no progress and could not be replaced in time
  DeadlineExceeded               504  the result was not ready before the deadline

`type` is /problems/<slug>, after the path prefix of a proxy. docs/reference/problems.md explains each of them. Slugs
never change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

TYPE_PREFIX = "/problems/"


class Problem(Exception):
    """An error response. `detail` is one or two sentences: what is wrong, the number and the limit, what to do."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = ""
    title: ClassVar[str] = ""

    def __init__(self, detail: str, *, headers: Mapping[str, str] | None = None, **extensions: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = dict(headers or {})
        self.extensions = extensions
        """Extension members of the JSON (RFC 9457 section 3.2), for programs: allowed values, seconds to wait."""

    def body(self, request_id: str, base_path: str) -> dict[str, Any]:
        """Return the members of RFC 9457 section 3.1, the request ID and the extension members.

        `base_path` is the path prefix under which a proxy publishes the gateway; empty for none.
        """
        return {
            "type": f"{base_path}{TYPE_PREFIX}{self.slug}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
            **self.extensions,
        }


class BadRequest(Problem):
    """The request is not valid HTTP, or not a valid request to this API."""

    status, slug, title = 400, "bad-request", "Invalid request"


class MalformedForm(BadRequest):
    """The multipart body cannot be parsed, or has too many parts or too long a field."""

    slug, title = "malformed-form", "Malformed form data"


class MissingImage(BadRequest):
    """The form has no field `image` with a file, or more than one."""

    slug, title = "missing-image", "Missing image"


class IncompleteBody(BadRequest):
    """The connection closed, or its framing became invalid, before the whole body had arrived."""

    slug, title = "incomplete-body", "Upload interrupted"


class BadParameter(BadRequest):
    """A parameter is unknown, appears twice, or has an invalid value."""

    slug, title = "bad-parameter", "Invalid parameter"


class EmptyUpload(BadRequest):
    """The upload has 0 bytes."""

    slug, title = "empty-upload", "Empty upload"


class KeyRequired(Problem):
    """The API key is missing, unknown or revoked. The response is the same in all three cases."""

    status, slug, title = 401, "key-required", "API key required"


class Blocked(Problem):
    """The operator has blocked the network that the request comes from."""

    status, slug, title = 403, "blocked", "Your network is blocked"


class ForeignOrigin(Problem):
    """A page of another site sent the form. The form works on its own page, also inside a frame of another site."""

    status, slug, title = 403, "foreign-origin", "Form sent by another site"


class StaleForm(Problem):
    """The form's token is missing, invalid or has expired. The response has a new one in `form_token`."""

    status, slug, title = 403, "stale-form", "Form expired"


class NotFound(Problem):
    """No page exists at this address."""

    status, slug, title = 404, "not-found", "Page not found"


class ResultGone(NotFound):
    """Results are stored for a short time in a limited amount of memory. This one is no longer there."""

    slug, title = "result-gone", "Result expired"


class MethodNotAllowed(Problem):
    """The page exists, but not for this method. The header Allow lists the allowed methods."""

    status, slug, title = 405, "method-not-allowed", "Method not allowed"


class SlowBody(Problem):
    """The request body did not arrive in time."""

    status, slug, title = 408, "slow-body", "Upload too slow"


class TooLarge(Problem):
    """The request exceeds a size limit."""

    status, slug, title = 413, "too-large", "Request too large"


class TooManyBytes(TooLarge):
    """The upload has more bytes than the limit. With Content-Length it is rejected before it is read."""

    slug, title = "too-many-bytes", "Upload too large"


class TooManyPixels(TooLarge):
    """The image has more pixels than the limit, according to its header. It was not decoded."""

    slug, title = "too-many-pixels", "Image has too many pixels"


class SideTooLong(TooLarge):
    """One side of the image is longer than the limit, according to its header. It was not decoded."""

    slug, title = "side-too-long", "Image side too long"


class ResultTooLarge(TooLarge):
    """The result would have more pixels than the limit, or than the limit of its format. The image was not decoded."""

    slug, title = "result-too-large", "Result too large"


class OverAllowance(TooLarge):
    """This image alone has more megapixels than the rate limit allows per period, so waiting does not help."""

    slug, title = "over-allowance", "Image exceeds your rate limit"


class UnknownFormat(Problem):
    """The upload has none of the formats that are read, according to its first bytes. Its name does not matter."""

    status, slug, title = 415, "unknown-format", "Unsupported image format"


class RangeNotSatisfiable(Problem):
    """The requested range lies beyond the end of the file."""

    status, slug, title = 416, "range-not-satisfiable", "Range not satisfiable"


class UnreadableImage(Problem):
    """The image is truncated, corrupt or inconsistent."""

    status, slug, title = 422, "unreadable-image", "Unreadable image"


class UnsupportedOutput(Problem):
    """The output format cannot hold a result of this size."""

    status, slug, title = 422, "unsupported-output", "Result does not fit the format"


class RefusedByBackend(Problem):
    """The backend rejected a request that the gateway had accepted."""

    status, slug, title = 422, "refused-by-backend", "Rejected by the backend"


class VariantUnavailable(RefusedByBackend):
    """The backend has no weights for the variant: they were just deleted, or a remote backend lacks them."""

    slug, title = "variant-unavailable", "Variant not available"


class LimitReached(Problem):
    """A rate limit of requests, megapixels or wake calls is used up. Retry-After says when this request would pass."""

    status, slug, title = 429, "limit-reached", "Rate limit reached"


class Banned(LimitReached):
    """Rate limits rejected so many requests that nothing is accepted for a while. Retry-After says how long."""

    slug, title = "banned", "Temporarily banned"


class TooManyAtOnce(LimitReached):
    """The client has the maximum number of concurrent requests, queued ones included."""

    slug, title = "too-many-at-once", "Too many concurrent requests"


class HeadTooLong(Problem):
    """The request line, one header, or all headers together exceed their limit."""

    status, slug, title = 431, "head-too-long", "Headers too long"


class InternalError(Problem):
    """A bug in the gateway. The log has the details under the request ID."""

    status, slug, title = 500, "internal-error", "Internal error"


class BackendFault(Problem):
    """The backend failed on a valid request, or is misconfigured. The log has the reason, for the operator."""

    status, slug, title = 502, "backend-fault", "Backend failed"


class QueueFull(Problem):
    """Every slot of the queue is taken. Retry-After says when one will probably be free."""

    status, slug, title = 503, "queue-full", "Queue full"


class UploadsFull(QueueFull):
    """Other uploads use all memory for uploads. This one was not read. Retry-After says when to try again."""

    slug, title = "uploads-full", "Too many concurrent uploads"


class BudgetSpent(Problem):
    """This month's GPU seconds are used up. Cached results are still sent; new ones wait for the next month.

    Retry-After ends with the month.
    """

    status, slug, title = 503, "budget-spent", "Monthly GPU budget used up"


class BackendUnavailable(Problem):
    """The backend cannot be reached: it is booting, stopping or being replaced. Retry-After says when to try again."""

    status, slug, title = 503, "backend-unavailable", "Backend unavailable"


class BackendNotStarted(BackendUnavailable):
    """The backend failed to boot. The image is not the cause; the log has the reason, for the operator.

    The next request starts another boot. Retry-After says when to send it.
    """

    slug, title = "backend-not-started", "Backend failed to start"


class BackendHung(BackendUnavailable):
    """The backend made no progress and could not be replaced in time. Retry-After says when to try again."""

    slug, title = "backend-hung", "Backend not responding"


class DeadlineExceeded(Problem):
    """The result was not ready before the deadline."""

    status, slug, title = 504, "deadline-exceeded", "Deadline exceeded"


def all_problems(root: type[Problem] = Problem) -> Iterator[type[Problem]]:
    """Yield every class of the tree that has a slug, parents before children."""
    if root.slug:
        yield root
    for child in root.__subclasses__():
        yield from all_problems(child)


def retry_later(kind: type[Problem], detail: str, retry_after_s: float) -> Problem:
    """Return a problem that says when to try again, also in Retry-After (RFC 9110 section 10.2.3)."""
    seconds = _whole_seconds(retry_after_s)
    return kind(detail, headers={"Retry-After": str(seconds)}, retry_after_s=seconds)


def describe_wait(retry_after_s: float) -> str:
    """Return "1 second", "30 seconds": the number that Retry-After has."""
    seconds = _whole_seconds(retry_after_s)
    return "1 second" if seconds == 1 else f"{seconds:,} seconds"


def _whole_seconds(retry_after_s: float) -> int:
    return max(1, round(retry_after_s))


INTERNAL_DETAIL = "An internal error occurred and was logged. Try again. If it persists, report the request ID."
