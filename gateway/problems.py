"""Every way in which the gateway refuses or fails: one exception tree, one shape (RFC 9457), one place to look.

Problem                       status  anything that is answered with an error
  BadRequest                     400  not understood as HTTP or as this API
    MalformedForm                400  the multipart body cannot be taken apart
    MissingImage                 400  no field `image`, or more than one
    IncompleteBody               400  the body ended before its announced length
    BadParameter                 400  variant, format or quality is none of those there are
    EmptyUpload                  400  no bytes
  KeyRequired                    401  no key, a wrong key, a revoked key: alike
  Blocked                        403  the address is in a blocked network
  ForeignOrigin                  403  another site sent the form
  StaleForm                      403  the form was opened too long ago, or never
  NotFound                       404  no such page
    ResultGone                   404  the result was never there, or its time is over
  MethodNotAllowed               405  the page exists, but not for this method
  SlowBody                       408  the body did not arrive in time
  TooLarge                       413  the request is larger than is read
    TooManyBytes                 413  the upload
    TooManyPixels                413  its pixels
    SideTooLong                  413  one of its sides
    ResultTooLarge               413  what it would become
    OverAllowance                413  it alone costs more than the visitor's limit
  UnknownFormat                  415  not a JPEG, PNG or WebP
  RangeNotSatisfiable            416  a part of a file was asked for that it does not have
  UnreadableImage                422  truncated or corrupt
  UnsupportedOutput              422  the asked-for format cannot hold the result
  RefusedByBackend               422  the backend found the request wrong, and said why
  LimitReached                   429  the visitor has used up what it may ask for
    Banned                       429  it was refused so often that it gets nothing for a while
    TooManyAtOnce                429  it has as many requests or places as one may have
  HeadTooLong                    431  the request's line or headers are longer than is read
  InternalError                  500  our own bug; its text stays in the log
  BackendFault                   502  the backend failed; the reason stays in the log
  QueueFull                      503  every place in the queue is taken
    UploadsFull                  503  other uploads fill the memory there is for them
  BudgetSpent                    503  this month's GPU seconds are used up
  BackendUnavailable             503  the backend is not there
    BackendNotStarted            503  it was asked to boot and failed; the reason stays in the log
  DeadlineExceeded               504  no answer in time

`type` is /problems/<slug>, which the gateway serves and docs/reference/problems.md explains; slugs never change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

TYPE_PREFIX = "/problems/"


class Problem(Exception):
    """Something that is answered with an error; `detail` is a full sentence with the number and what to do."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = ""
    title: ClassVar[str] = ""

    def __init__(self, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members
        """Further members of the JSON, for programs: the allowed values, the seconds to wait."""

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the members of RFC 9457 section 3.1, the request's id and what is particular to this problem."""
        return {
            "type": TYPE_PREFIX + self.slug,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
            **self.members,
        }


class BadRequest(Problem):
    """The request is not understood as HTTP or as this API."""

    status, slug, title = 400, "bad-request", "The request is not understood"


class MalformedForm(BadRequest):
    """The multipart body cannot be taken apart, or has more parts or longer fields than the form has."""

    slug, title = "malformed-form", "The form cannot be read"


class MissingImage(BadRequest):
    """The form has no field `image` with a file in it, or more than one."""

    slug, title = "missing-image", "There is no image in the request"


class IncompleteBody(BadRequest):
    """The connection ended, or broke its own framing, before the announced length of the body had arrived."""

    slug, title = "incomplete-body", "The upload broke off"


class BadParameter(BadRequest):
    """`variant`, `format` or `quality` has a value that does not exist, or there is a parameter that does not exist."""

    slug, title = "bad-parameter", "A choice does not exist"


class EmptyUpload(BadRequest):
    """The upload holds no bytes."""

    slug, title = "empty-upload", "The upload is empty"


class KeyRequired(Problem):
    """The API asks for a key; none was sent, or one that is unknown or revoked. All three are answered alike."""

    status, slug, title = 401, "key-required", "A valid key is needed"


class Blocked(Problem):
    """Whoever runs this service has blocked the network that the request comes from."""

    status, slug, title = 403, "blocked", "Nothing is served to your network"


class ForeignOrigin(Problem):
    """A form of another site was sent here by a browser. The form works on our own page, wherever that is framed."""

    status, slug, title = 403, "foreign-origin", "The form was sent by another site"


class StaleForm(Problem):
    """The form's token is missing, too old or not ours. A fresh one comes with this answer, as `form_token`."""

    status, slug, title = 403, "stale-form", "The form was open for too long"


class NotFound(Problem):
    """There is nothing at this address."""

    status, slug, title = 404, "not-found", "There is no such page"


class ResultGone(NotFound):
    """A result of the form is kept for a short time and in a bounded memory; then it is gone for good."""

    slug, title = "result-gone", "This picture is no longer kept"


class MethodNotAllowed(Problem):
    """The address exists, but not for this method; the header Allow lists those it has."""

    status, slug, title = 405, "method-not-allowed", "Not with this method"


class SlowBody(Problem):
    """The request's body did not arrive within the time there is for it."""

    status, slug, title = 408, "slow-body", "The upload took too long"


class TooLarge(Problem):
    """The request is larger than is read."""

    status, slug, title = 413, "too-large", "The request is too large"


class TooManyBytes(TooLarge):
    """The upload has more bytes than the limit; where its length is announced, nothing of it is read."""

    slug, title = "too-many-bytes", "The upload has too many bytes"


class TooManyPixels(TooLarge):
    """The image's header announces more pixels than the limit; nothing was decoded."""

    slug, title = "too-many-pixels", "The image has too many pixels"


class SideTooLong(TooLarge):
    """The image's header announces a side over the limit; nothing was decoded."""

    slug, title = "side-too-long", "A side of the image is too long"


class ResultTooLarge(TooLarge):
    """The result would have more pixels than the limit, or than its format may have; nothing was decoded."""

    slug, title = "result-too-large", "The result would be too large"


class OverAllowance(TooLarge):
    """The image alone costs more megapixels than the limit allows in its whole time: waiting would not help."""

    slug, title = "over-allowance", "The image costs more than you may use"


class UnknownFormat(Problem):
    """The first bytes of the upload are those of no format that is read here, whatever its name says."""

    status, slug, title = 415, "unknown-format", "This is not a JPEG, PNG or WebP"


class RangeNotSatisfiable(Problem):
    """A part of a file was asked for (Range) that lies beyond its end."""

    status, slug, title = 416, "range-not-satisfiable", "The file has no such part"


class UnreadableImage(Problem):
    """The image is truncated, corrupt, or contradicts itself."""

    status, slug, title = 422, "unreadable-image", "The image cannot be read"


class UnsupportedOutput(Problem):
    """The asked-for format cannot hold a result of this size."""

    status, slug, title = 422, "unsupported-output", "The format cannot hold the result"


class RefusedByBackend(Problem):
    """The backend found the request wrong, although the gateway did not."""

    status, slug, title = 422, "refused-by-backend", "The backend refuses this image"


class LimitReached(Problem):
    """A limit of requests, megapixels or wake-ups is used up; Retry-After says when this request would pass."""

    status, slug, title = 429, "limit-reached", "You have reached a limit"


class Banned(LimitReached):
    """Limits refused so many requests in a row that nothing is taken for a while; Retry-After says how long."""

    slug, title = "banned", "You were refused too often"


class TooManyAtOnce(LimitReached):
    """One visitor has as many requests open as one may, those in the queue included."""

    slug, title = "too-many-at-once", "You ask for too much at once"


class HeadTooLong(Problem):
    """The request's line, one of its headers, or all of them together are longer than is read."""

    status, slug, title = 431, "head-too-long", "The headers are too long"


class InternalError(Problem):
    """A bug of ours. What happened stands in the log under the request's id."""

    status, slug, title = 500, "internal-error", "Something broke on our side"


class BackendFault(Problem):
    """The backend failed at a sound request, or is set up wrongly. The reason is in the log, for the operator."""

    status, slug, title = 502, "backend-fault", "The backend failed"


class QueueFull(Problem):
    """Every place in the queue is taken; Retry-After says when one may be free."""

    status, slug, title = 503, "queue-full", "Too many pictures are waiting"


class UploadsFull(QueueFull):
    """Other uploads fill the memory there is for them; nothing of this one was read. Retry-After says when to ask."""

    slug, title = "uploads-full", "Too many uploads at once"


class BudgetSpent(Problem):
    """This month's GPU seconds are used up: what is kept is still answered, nothing new is made until the next month.

    Retry-After says when that begins.
    """

    status, slug, title = 503, "budget-spent", "The budget of this month is spent"


class BackendUnavailable(Problem):
    """The backend cannot be reached: it is booting, stopping or being replaced. Retry-After says when to ask again."""

    status, slug, title = 503, "backend-unavailable", "The backend is not there yet"


class BackendNotStarted(BackendUnavailable):
    """The backend was asked to boot and failed, which says nothing about the picture. The reason is in the log.

    The next request tries again; Retry-After says when to send it.
    """

    slug, title = "backend-not-started", "The machine did not start"


class DeadlineExceeded(Problem):
    """The answer would have come later than we promise to answer."""

    status, slug, title = 504, "deadline-exceeded", "It took too long"


def walk(root: type[Problem] = Problem) -> Iterator[type[Problem]]:
    """Yield every class of the tree that has a slug, parents first."""
    if root.slug:
        yield root
    for child in root.__subclasses__():
        yield from walk(child)


def retry_later(kind: type[Problem], detail: str, retry_after_s: float) -> Problem:
    """Return a problem that says when to come back, also in Retry-After (RFC 9110 section 10.2.3)."""
    seconds = max(1, round(retry_after_s))
    return kind(detail, headers={"Retry-After": str(seconds)}, retry_after_s=seconds)


INTERNAL_DETAIL = "Something broke on our side and was logged. Try again; if it stays, tell us the request's id."
