"""Maps errors of lower layers (image codec, backend, Werkzeug) to the problems that clients get."""

from __future__ import annotations

from werkzeug.exceptions import HTTPException

from gateway.backend import interface as backend
from gateway.problems import (
    INTERNAL_DETAIL,
    BackendFault,
    BackendHung,
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
    VariantUnavailable,
    retry_later,
)
from preprocessing.errors import ImageError
from swinir.zoo import VARIANTS

_IMAGE_PROBLEMS = {
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

_HUNG_DETAIL = (
    "The backend stopped responding while it worked on this image, and the image could not be sent again in time. "
    "Its size is not the cause. You were not charged for it."
)
_NOT_STARTED_DETAIL = (
    "The backend failed to start. Your image is not the cause; the operator finds the reason in the log."
)
_UNREACHABLE_DETAIL = "The backend cannot be reached; it may be booting."
# The first row that matches counts.
_UNAVAILABLE: tuple[tuple[type[backend.BackendError], type[BackendUnavailable], str], ...] = (
    (backend.BackendHungError, BackendHung, _HUNG_DETAIL),
    (backend.BackendDiedError, BackendUnavailable, _UNREACHABLE_DETAIL),
    (backend.BackendUnavailableError, BackendUnavailable, _UNREACHABLE_DETAIL),
    (backend.BackendNotStartedError, BackendNotStarted, _NOT_STARTED_DETAIL),
)

# Retry-After for a backend whose boot has not been measured yet.
BOOT_RETRY_S = 10.0


def problem_from_image_error(error: ImageError) -> Problem:
    """Return the problem for an image that the codec rejected, with the codec's message."""
    return _IMAGE_PROBLEMS.get(error.kind, UnreadableImage)(str(error))


def problem_from_backend_error(
    error: backend.BackendError,
    *,
    deadline_s: float,
    usual_boot_s: tuple[float, float] | None = None,
    variant: str = "",
    bands: tuple[int, int] = (0, 0),
) -> Problem:
    """Return the problem for a failed call of the backend. Only a rejection keeps the backend's message.

    `usual_boot_s`, median and 90th percentile of past boots, determines Retry-After. `variant` is the one requested.
    `bands` has the number of finished bands and of all bands.
    """
    boot_s = max(1, round(usual_boot_s[1] if usual_boot_s else BOOT_RETRY_S))
    if isinstance(error, backend.BackendRejectedError):
        return RefusedByBackend(str(error))
    if isinstance(error, backend.BackendVariantMissingError):
        return _missing_variant(variant)
    if isinstance(error, backend.BackendTimeoutError):
        is_booting = isinstance(error, backend.BackendStillBootingError)
        detail = _describe_slow_boot(deadline_s, usual_boot_s) if is_booting else _describe_slow_work(deadline_s, bands)
        return DeadlineExceeded(detail)
    for error_type, kind, text in _UNAVAILABLE:
        if isinstance(error, error_type):
            return retry_later(kind, f"{text} Try again in {boot_s} seconds.", boot_s)
    return BackendFault("The backend failed while it upscaled this image. The image is not the cause. Try again once.")


def _describe_slow_boot(deadline_s: float, usual_boot_s: tuple[float, float] | None) -> str:
    usual = f" (a boot usually takes {max(1, round(usual_boot_s[0]))} s)" if usual_boot_s else ""
    return (
        f"The backend was still booting when the deadline of {deadline_s:g} s passed{usual}. "
        "Send the same image again; it is not the cause."
    )


def _describe_slow_work(deadline_s: float, bands: tuple[int, int]) -> str:
    done, count = bands
    if done:
        return (
            f"{done} of {count} bands were finished when the deadline of {deadline_s:g} s passed. "
            "Try again later, choose a faster variant, or send a smaller image."
        )
    return (
        f"The backend returned nothing before the deadline of {deadline_s:g} s: it was busy, or it did not respond. "
        "Try again later, or choose a faster variant."
    )


def _missing_variant(variant: str) -> Problem:
    is_published = variant in VARIANTS and not VARIANTS[variant].is_bundled
    remedy = f" The operator can add them with: superres weights fetch {variant}." if is_published else ""
    return VariantUnavailable(
        f"The backend has no weights for {variant or 'this variant'}. Choose another variant; GET /api/v1/variants "
        f"lists them.{remedy}",
        parameter="variant",
    )


_HTTP_PROBLEMS: dict[int, tuple[type[Problem], str]] = {
    404: (NotFound, "No page exists at this address. Check the address, or start from the first page."),
    405: (MethodNotAllowed, "This page does not support this method. The header Allow lists the methods it supports."),
    408: (SlowBody, "The request did not arrive in time. Try again with a faster connection."),
    413: (TooLarge, "The request is too large. Send a smaller image."),
    416: (RangeNotSatisfiable, "The requested range lies beyond the end of the file. Send the request without Range."),
}


def problem_from_http_error(error: HTTPException) -> Problem:
    """Return the problem for an error that Werkzeug raised. A 4xx without a class of its own becomes BadRequest."""
    status = error.code or 500
    headers = {
        name: value for name, value in error.get_headers() if name.lower() in {"allow", "content-range", "retry-after"}
    }
    if status >= 500:
        return InternalError(INTERNAL_DETAIL)
    kind, detail = _HTTP_PROBLEMS.get(status, (BadRequest, f"{error.name}: the request is invalid."))
    return kind(detail, headers=headers)
