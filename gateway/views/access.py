"""Admission: what the doors have to know of a request, and the visit that they let in, for the rest of the request."""

from __future__ import annotations

from flask import Response, current_app, g, request

from gateway.access.admitted_request import AdmittedRequest
from gateway.services import services_of
from gateway.wsgi.timeouts import CLOSE_WITHOUT_READING


def admit_to_api() -> AdmittedRequest:
    """Let a client in, or raise a Problem."""
    doors = services_of(current_app).doors
    return _remember(doors.authorize_api(_address(), *_keys()))


def admit_to_form() -> AdmittedRequest:
    """Let a visitor in who sends the form, or raise a Problem."""
    doors = services_of(current_app).doors
    return _remember(doors.authorize_form(_address(), **_whence()))


def admit_to_read() -> None:
    """Let somebody in who reads a page or a file, or raise a Problem."""
    g.reading = services_of(current_app).doors.authorize_read(_address())


def admit_to_result() -> None:
    """Let somebody in who fetches a picture of a result, or raise a Problem."""
    _remember(services_of(current_app).doors.authorize_result(_address()))


def admit_to_wake(*, starts_a_boot: bool) -> AdmittedRequest:
    """Let somebody in who wakes the backend, or raise a Problem; a call that starts nothing is not counted."""
    doors = services_of(current_app).doors
    x_api_key, authorization = _keys()
    visit = doors.authorize_wake(
        _address(), x_api_key=x_api_key, authorization=authorization, starts_a_boot=starts_a_boot, **_whence()
    )
    return _remember(visit)


def refuse_blocked(request_id: str) -> None:
    """Raise Blocked for a request from a blocked network; of its body not even the rest is waited for."""
    try:
        services_of(current_app).doors.reject_blocked(_address(), request_id)
    except Exception:
        request.environ[CLOSE_WITHOUT_READING] = True
        raise


def current_visit() -> AdmittedRequest | None:
    """Return the visit of this request; None when none was let in."""
    visit: AdmittedRequest | None = g.get("visit")
    return visit


def end_when_sent(response: Response) -> None:
    """Let whoever was let in count as gone once the answer has been sent."""
    for held in (g.get("visit"), g.get("reading")):
        if held:
            response.call_on_close(held.release)


def _remember(visit: AdmittedRequest) -> AdmittedRequest:
    g.visit = visit
    return visit


def _address() -> str:
    return request.remote_addr or ""


def _keys() -> tuple[str | None, str | None]:
    return request.headers.get("X-API-Key"), request.headers.get("Authorization")


def _whence() -> dict[str, str]:
    """Return what a browser says of the page that sent it here; a header that is missing is an empty text."""
    headers = request.headers
    return {
        "sec_fetch_site": headers.get("Sec-Fetch-Site", ""),
        "origin": headers.get("Origin", ""),
        "host": request.host,
    }
