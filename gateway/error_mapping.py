"""Causes: which problem a failure from elsewhere is to whoever asked: the codec's, the backend's, Werkzeug's."""

from __future__ import annotations

from werkzeug.exceptions import HTTPException

from gateway.backend import interface as upscaler
from gateway.problems import (
    INTERNAL_DETAIL,
    BackendFault,
    BackendNotStarted,
    BackendUnavailable,
    BadRequest,
    DeadlineExceeded,
    EmptyUpload,
    InternalError,
    MethodNotAllowed,
    NotFound,
    Problem,
    RangeNotSatisfiable,
    RefusedByBackend,
    SideTooLong,
    SlowBody,
    TooLarge,
    TooManyBytes,
    TooManyPixels,
    UnknownFormat,
    UnreadableImage,
    UnsupportedOutput,
    retry_later,
)
from preprocessing.errors import ImageError

_OF_IMAGE_KIND = {
    kind.slug: kind
    for kind in (
        EmptyUpload,
        UnknownFormat,
        TooManyBytes,
        TooManyPixels,
        SideTooLong,
        UnreadableImage,
        UnsupportedOutput,
    )
}

BOOT_RETRY_S = 10.0
"""Until a boot was measured: it takes 10-15 s (the original's figure)."""


def problem_from_image_error(error: ImageError) -> Problem:
    """Return the problem of what the codec refused; its sentence is kept."""
    return _OF_IMAGE_KIND.get(error.kind, UnreadableImage)(str(error))


def problem_from_backend_error(
    error: upscaler.BackendError, *, deadline_s: float, usual_boot_s: tuple[float, float] | None = None
) -> Problem:
    """Return the problem of a backend that did not answer; its words are kept only where meant for the visitor.

    `usual_boot_s`, median and 90th percentile, says when it is worth asking again.
    """
    boot_s = max(1, round(usual_boot_s[1] if usual_boot_s else BOOT_RETRY_S))
    if isinstance(error, upscaler.BackendRejectedError):
        return RefusedByBackend(str(error))
    if isinstance(error, upscaler.BackendStillBootingError):
        usual = f" (it usually takes {max(1, round(usual_boot_s[0]))} s)" if usual_boot_s else ""
        return DeadlineExceeded(
            f"The machine was still waking when the deadline of {deadline_s:g} s passed{usual}. "
            "Send the picture again: nothing is wrong with it."
        )
    if isinstance(error, upscaler.BackendTimeoutError):
        return DeadlineExceeded(
            "The picture was not ready before the deadline. Try again later, or send a smaller image."
        )
    if isinstance(error, upscaler.BackendUnavailableError | upscaler.BackendDiedError):
        return retry_later(
            BackendUnavailable,
            f"The backend cannot be reached just now: it may be booting. Try again in {boot_s} seconds.",
            boot_s,
        )
    if isinstance(error, upscaler.BackendNotStartedError):
        return retry_later(
            BackendNotStarted,
            "The machine did not start, which says nothing about the picture; whoever runs this finds why in its log. "
            f"Try again in {boot_s} seconds.",
            boot_s,
        )
    return BackendFault("The backend failed at this picture, which says nothing about the picture. Try again once.")


_OF_STATUS: dict[int, tuple[type[Problem], str]] = {
    404: (NotFound, "There is nothing at this address. Check it, or begin at the first page."),
    405: (MethodNotAllowed, "This address does not take this method; the header Allow lists those it takes."),
    408: (SlowBody, "The request took too long to arrive. Try again on a faster connection."),
    413: (TooLarge, "The request is larger than is read here. Send a smaller image."),
    416: (RangeNotSatisfiable, "The file ends before the part that Range asks for. Ask without Range for all of it."),
}


def problem_from_http_error(error: HTTPException) -> Problem:
    """Return the problem of an error that Werkzeug raised; 4xx without a class of their own become BadRequest."""
    status = error.code or 500
    headers = {
        name: value for name, value in error.get_headers() if name.lower() in {"allow", "content-range", "retry-after"}
    }
    if status >= 500:
        return InternalError(INTERNAL_DETAIL)
    kind, detail = _OF_STATUS.get(status, (BadRequest, f"{error.name}: the request cannot be understood."))
    return kind(detail, headers=headers)
