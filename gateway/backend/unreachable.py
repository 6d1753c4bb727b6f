"""Says in words why a server cannot be reached: refused, unknown name, TLS, timeout, being ended.

gRPC has one status for nearly all of them, UNAVAILABLE; the cause is in its text (grpcio 1.85, each measured).
"""

from __future__ import annotations

import re

from gateway.backend.interface import (
    BackendError,
    BackendMisconfiguredError,
    BackendTimeoutError,
    BackendUnavailableError,
    BackendUnreachableError,
)

_OTHER_NAME = (
    "the server's certificate is for another name than the host in SUPERRES_BACKEND_ADDRESS. "
    "Set SUPERRES_BACKEND_SERVER_NAME to a name in the certificate"
)
# Part of gRPC's text, the cause, and whether only the operator can mend it: then no attempt is repeated.
_CAUSES: tuple[tuple[str, str, bool], ...] = (
    ("Hostname Verification", _OTHER_NAME, True),
    (
        "certificate has expired",
        "the server's certificate has expired. Renew it on the server, and check this machine's clock",
        True,
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "the server's certificate is not trusted. Set SUPERRES_BACKEND_CA_FILE to the certificate of its authority",
        True,
    ),
    (
        "WRONG_VERSION_NUMBER",
        "the server does not use TLS at this port. Remove grpcs:// from SUPERRES_BACKEND_ADDRESS",
        True,
    ),
    (
        "http1.x server",
        "the port does not serve gRPC. Set SUPERRES_BACKEND_ADDRESS to Triton's gRPC port, 8001 by default",
        True,
    ),
    ("Connection refused", "connection refused: nothing listens at this address", False),
    ("Domain name not found", "the host name was not found", False),
    ("error resolving", "the host name could not be looked up", False),
    ("errors resolving", "the host name could not be looked up", False),
    ("DNS", "the host name could not be looked up", False),
    ("before receiving SETTINGS frame", "timeout: the server accepted the connection and sent nothing", False),
    ("handshake failed", "the TLS handshake failed", False),
    ("timed out", "timeout while connecting", False),
    ("unreachable", "no route to the host", False),
    ("No route to host", "no route to the host", False),
)
_CLOSED_AT_START = (
    "the server closed the connection before it responded. Check the port, whether it uses TLS (grpcs:// in "
    "SUPERRES_BACKEND_ADDRESS or not), and the client certificate (SUPERRES_BACKEND_CERT_FILE)"
)
# In errors of a server that is being ended (SIGTERM): it rejects new calls, and those of its own models to each other,
# so that images in progress fail (2.51, measured). The text for a model that was missing from the start is another one.
_BEING_ENDED = re.compile(r"Server not ready|has no available versions|running inference: Request for unknown model")
# A proxy's timeout, which gRPC reports as UNAVAILABLE: "Received http2 header with status: 504".
_PROXY_TIMEOUT = "status: 504"
# How gRPC's own texts begin. Triton's messages can have the status UNAVAILABLE, too, and begin otherwise.
_CONNECTING = ("failed to connect to all addresses", "errors resolving", "DNS resolution failed")
_SILENT = ("ping timeout", "keepalive watchdog timeout")


def is_being_ended(text: str) -> bool:
    """Return whether the error text is that of a server that is being ended, which has several statuses of gRPC."""
    return bool(_BEING_ENDED.search(text))


def explain_unavailable(text: str) -> BackendError:
    """Return the backend error for UNAVAILABLE with gRPC's text: cause and remedy first, then the text."""
    if is_being_ended(text):
        return BackendUnavailableError(f"the server is being ended ({text})")
    if _PROXY_TIMEOUT in text:
        return BackendTimeoutError(
            f"a proxy in front of the server gave up. On Knative, raise timeoutSeconds of the backend ({text})"
        )
    if any(part in text for part in _SILENT):
        return BackendUnavailableError(f"timeout: the connection is open, but the server does not respond ({text})")
    if text.startswith(_CONNECTING):
        for part, cause, is_misconfigured in _CAUSES:
            if part in text:
                kind = BackendMisconfiguredError if is_misconfigured else BackendUnreachableError
                return kind(f"{cause} ({text})")
        if "Socket closed" in text or "Connection reset" in text:
            return BackendUnreachableError(f"{_CLOSED_AT_START} ({text})")
    return BackendUnavailableError(f"UNAVAILABLE: {text}")
