"""Sends signed webhooks: checks a URL when a client sends it, and delivers one message in one attempt."""

from __future__ import annotations

import importlib.metadata
import ssl
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gateway.storage.dns_lookup import DnsResolver
from gateway.webhooks.destination import (
    HostLookupError,
    WebhookUrlError,
    find_addresses,
    parse_url,
)
from gateway.webhooks.keys import WebhookKeyError, WebhookKeys
from gateway.webhooks.post import ATTEMPT_LIMIT_S, WebhookPostError, post

# The status with which a receiver says that it wants no more of these.
_GONE = 410


@dataclass(frozen=True)
class AttemptOutcome:
    """How an attempt ended."""

    is_delivered: bool
    may_retry: bool
    status: int | None
    """Of the response; None without one."""
    reason: str
    """Why it was not delivered, in words without the URL; empty if it was."""


class WebhookSender:
    """Sends webhooks of one gateway. Safe to use from several threads."""

    def __init__(
        self,
        keys: WebhookKeys,
        trusted_hosts: AbstractSet[str],
        *,
        resolver: DnsResolver | None = None,
        limit_s: float = ATTEMPT_LIMIT_S,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._trusted_hosts = trusted_hosts
        self._limit_s = limit_s
        self._wall_clock = wall_clock
        self._resolver = resolver or DnsResolver()

    @cached_property
    def tls(self) -> ssl.SSLContext:
        """The settings of TLS. The variable SSL_CERT_FILE names another file of authorities than the system's."""
        return ssl.create_default_context()

    def check(self, url: str) -> None:
        """Raise WebhookUrlError for a URL that no webhook may go to, WebhookKeyError if none can be signed."""
        self._keys.load()
        destination = parse_url(url, self._trusted_hosts)
        try:
            find_addresses(destination, self._resolver)
        except (HostLookupError, WebhookUrlError):
            # One message for both: it must not say which names the network of the gateway has.
            raise WebhookUrlError("its host was not found, or has an address that is not public") from None

    def public_keys(self) -> list[dict[str, Any]]:
        """Return the public keys as JSON Web Keys; none if this gateway has no key."""
        try:
            return self._keys.public_keys()
        except WebhookKeyError:
            return []

    def send(self, url: str, message_id: str, body: bytes) -> AttemptOutcome:
        """Send a message once. A receiver may get one message several times, each time with the same id."""
        timestamp = int(self._wall_clock())
        try:
            destination = parse_url(url, self._trusted_hosts)
            addresses = find_addresses(destination, self._resolver)
            headers = {
                "Content-Type": "application/json",
                "User-Agent": f"serverless-superres/{importlib.metadata.version('serverless-superres')}",
                "webhook-id": message_id,
                "webhook-timestamp": str(timestamp),
                "webhook-signature": self._keys.sign(message_id, timestamp, body),
            }
            status = post(destination, addresses, headers, body, tls=self.tls, limit_s=self._limit_s)
        except WebhookUrlError as error:
            return AttemptOutcome(is_delivered=False, may_retry=False, status=None, reason=f"not sent: {error}")
        except (HostLookupError, WebhookKeyError, WebhookPostError) as error:
            return AttemptOutcome(is_delivered=False, may_retry=True, status=None, reason=str(error))
        if 200 <= status < 300:
            return AttemptOutcome(is_delivered=True, may_retry=False, status=status, reason="")
        reason = f"status {status}; redirects are not followed" if 300 <= status < 400 else f"status {status}"
        return AttemptOutcome(is_delivered=False, may_retry=status != _GONE, status=status, reason=reason)
