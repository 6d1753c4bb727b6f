"""Maps errors of lower layers (image codec, backend, Werkzeug) to the problems that clients get."""

from __future__ import annotations

from werkzeug.exceptions import HTTPException

from gateway.backend import interface as backend
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
) -> Problem:
    """Return the problem for a failed call of the backend. Only a rejection keeps the backend's message.

    `usual_boot_s`, median and 90th percentile of past boots, determines Retry-After. `variant` is the one requested.
    """
    boot_s = max(1, round(usual_boot_s[1] if usual_boot_s else BOOT_RETRY_S))
    if isinstance(error, backend.BackendRejectedError):
        return RefusedByBackend(str(error))
    if isinstance(error, backend.BackendVariantMissingError):
        return _missing_variant(variant)
    if isinstance(error, backend.BackendTimeoutError):
        detail = f"The image was not ready before the deadline of {deadline_s:g} s. Try later, or send a smaller image."
        if isinstance(error, backend.BackendStillBootingError):
            usual = f" (a boot usually takes {max(1, round(usual_boot_s[0]))} s)" if usual_boot_s else ""
            detail = (
                f"The backend was still booting when the deadline of {deadline_s:g} s passed{usual}. "
                "Send the same image again; it is not the cause."
            )
        return DeadlineExceeded(detail)
    if isinstance(error, backend.BackendUnavailableError | backend.BackendDiedError):
        return retry_later(
            BackendUnavailable,
            f"The backend cannot be reached; it may be booting. Try again in {boot_s} seconds.",
            boot_s,
        )
    if isinstance(error, backend.BackendNotStartedError):
        return retry_later(
            BackendNotStarted,
            "The backend failed to start. Your image is not the cause; the operator finds the reason in the log. "
            f"Try again in {boot_s} seconds.",
            boot_s,
        )
    return BackendFault("The backend failed while it upscaled this image. The image is not the cause. Try again once.")


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
