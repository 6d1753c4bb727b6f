"""Access checks of views: hands the request's address, key and origin to `gateway.access.control`.

The admitted request is remembered in `flask.g` until the response has been sent.
"""

from __future__ import annotations

from flask import Response, g, request

from gateway.access.admitted_request import AdmittedRequest
from gateway.access.csrf import Sender
from gateway.access.trusted_proxies import OWN_HOSTS_KEY
from gateway.jobs.runner import ANONYMOUS
from gateway.services import services
from gateway.wsgi.timeouts import CLOSE_WITHOUT_READING


def authorize_api() -> AdmittedRequest:
    """Admit a client of the API; raise a Problem if its key or its rate limit does not allow it."""
    return _remember(services().access_control.authorize_api(_address(), *_keys()))


def authorize_poll() -> AdmittedRequest:
    """Admit a request for the state or the result of a job; raise a Problem as `authorize_api` does."""
    return _remember(services().access_control.authorize_api(_address(), *_keys(), is_poll=True))


def authorize_form() -> AdmittedRequest:
    """Admit an upload of the form; raise a Problem if another site sent it or the rate limit is used up."""
    return _remember(services().access_control.authorize_form(_address(), _sender(), g.request_id))


def authorize_page() -> None:
    """Admit a request for a page or a file; raise a Problem if the client has too many of them open."""
    g.page_request = services().access_control.authorize_page(_address())


def authorize_result() -> None:
    """Admit a request for an image of a stored result; raise a Problem if the client has too many requests open."""
    _remember(services().access_control.authorize_result(_address()))


def authorize_wake(*, starts_a_boot: bool) -> AdmittedRequest:
    """Admit a request that wakes the backend, or raise a Problem. It is charged only if it starts a boot."""
    x_api_key, authorization = _keys()
    admitted = services().access_control.authorize_wake(
        _address(),
        _sender(),
        g.request_id,
        x_api_key=x_api_key,
        authorization=authorization,
        starts_a_boot=starts_a_boot,
    )
    return _remember(admitted)


def reject_blocked(request_id: str) -> None:
    """Raise Blocked for a request from a blocked network. The rest of its body is not read."""
    try:
        services().access_control.reject_blocked(_address(), request_id)
    except Exception:
        request.environ[CLOSE_WITHOUT_READING] = True
        raise


def admitted_request() -> AdmittedRequest | None:
    """Return the admitted request that is being served; None if it was not admitted."""
    admitted: AdmittedRequest | None = g.get("admitted_request")
    return admitted


def client_name() -> str:
    """Return the name of the client's API key, also of a request that was not admitted; `(anonymous)` without one."""
    if admitted := admitted_request():
        api_key = admitted.client.api_key
    else:
        api_key = services().access_control.identify(*_keys())
    return api_key.name if api_key else ANONYMOUS


def end_when_sent(response: Response) -> None:
    """End the admitted request once its response has been sent."""
    for admitted in (g.get("admitted_request"), g.get("page_request")):
        if admitted:
            response.call_on_close(admitted.release)


def _remember(admitted: AdmittedRequest) -> AdmittedRequest:
    g.admitted_request = admitted
    return admitted


def _address() -> str:
    return request.remote_addr or ""


def _keys() -> tuple[str | None, str | None]:
    return request.headers.get("X-API-Key"), request.headers.get("Authorization")


def _sender() -> Sender:
    headers = request.headers
    return Sender(
        sec_fetch_site=headers.get("Sec-Fetch-Site", ""),
        origin=headers.get("Origin", ""),
        own_origin=request.host_url.rstrip("/"),
        own_hosts=request.environ.get(OWN_HOSTS_KEY) or (request.host,),
    )
