"""Access control: IP blocklist, API keys, rate limits and CSRF. Runs before the body is read, except the CSRF token.

The order of checks: blocked network -> API key -> concurrent requests -> request rate -> (size, type and pixels from
the header: `gateway.jobs.request_body`) -> megapixel rate -> queue -> decoding -> backend.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from gateway.access.admitted_request import AdmittedRequest, ConcurrencyLimit
from gateway.access.api_keys import ApiKey, ApiKeyStore
from gateway.access.client_ip import truncate_network
from gateway.access.csrf import CsrfTokens, Sender, allowed_origins, describe_cross_site, is_cross_site
from gateway.access.ip_blocklist import Blocklist
from gateway.access.rate_limits import RateLimiter
from gateway.config.settings import Settings
from gateway.problems import Blocked, ForeignOrigin, KeyRequired, Problem, StaleForm

# Longer keys are invalid and are not hashed. A key of ours has 47 characters.
_MAX_KEY_LENGTH = 256

_log = logging.getLogger(__name__)


class AccessControl:
    """Admits a request, or raises the Problem that explains why not."""

    def __init__(self, settings: Settings, limiter: RateLimiter, csrf_tokens: CsrfTokens) -> None:
        self.csrf_tokens = csrf_tokens
        self._blocklist = Blocklist(settings.blocklist_path())
        self._api_keys = ApiKeyStore(settings.keys_path())
        self._limiter = limiter
        self._requests = ConcurrencyLimit(limiter, settings.max_concurrent_requests)
        # Page and file requests are counted separately, so that a client with a full queue can still load the page.
        self._page_requests = ConcurrencyLimit(limiter, settings.threads // 2)
        self._allowed_origins = allowed_origins(settings.frame_ancestors)

    def count_running(self) -> int:
        """Return the number of admitted requests, page and file requests excepted, that have not ended."""
        return self._requests.count()

    def reject_blocked(self, address: str, request_id: str) -> None:
        """Raise Blocked for an address in a blocked network. The first check of every request, health excepted."""
        if entry := self._blocklist.find(address):
            network = truncate_network(entry.network)
            _log.info("%s: rejected, network %s is blocked (line %d)", request_id, network, entry.line)
            raise Blocked("Your network is blocked. If this is a mistake, contact the operator of this service.")

    def identify(self, x_api_key: str | None, authorization: str | None) -> ApiKey | None:
        """Return the valid API key that the request presents, or None."""
        presented = x_api_key or _bearer_token(authorization) or ""
        return self._api_keys.identify(presented if len(presented) <= _MAX_KEY_LENGTH else "")

    def authorize_api(
        self, address: str, x_api_key: str | None, authorization: str | None, *, is_poll: bool = False
    ) -> AdmittedRequest:
        """Admit a client with a valid API key. A poll of a job has a rate limit of its own.

        Raises KeyRequired with the same text for a missing and for an invalid key. Such requests count against the
        rate limit of the address, so that guessing keys ends there.
        """
        api_key = self.identify(x_api_key, authorization)
        charge = AdmittedRequest.charge_poll if is_poll and api_key else AdmittedRequest.charge_request
        admitted = self._admit(address, api_key, charge)
        if api_key is None:
            admitted.release()
            raise KeyRequired(
                "Send a valid API key in the header X-API-Key, or as Authorization: Bearer. "
                "The operator creates one with `superres keys new NAME`.",
                headers={"WWW-Authenticate": 'Bearer realm="superres"'},  # RFC 6750 section 3
            )
        return admitted

    def authorize_form(self, address: str, sender: Sender, request_id: str) -> AdmittedRequest:
        """Admit a form without an API key, unless another site sent it."""
        self.reject_cross_site(sender, request_id)
        return self._admit(address, None)

    def authorize_page(self, address: str) -> AdmittedRequest:
        """Admit a request for a page or a file. Slow readers at one address hold at most half of the threads."""
        return self._page_requests.admit(self._limiter.client_for(address))

    def authorize_result(self, address: str) -> AdmittedRequest:
        """Admit a request for an image of a result. Images are large, so it counts as a concurrent request."""
        return self._requests.admit(self._limiter.client_for(address))

    def authorize_wake(
        self,
        address: str,
        sender: Sender,
        request_id: str,
        *,
        x_api_key: str | None,
        authorization: str | None,
        starts_a_boot: bool,
    ) -> AdmittedRequest:
        """Admit a wake call by API key, or without one unless another site sent it.

        Only a call that starts a boot is charged.
        """
        api_key = self.identify(x_api_key, authorization)
        if api_key is None:
            self.reject_cross_site(sender, request_id)
        return self._admit(address, api_key, AdmittedRequest.charge_wake if starts_a_boot else lambda _: None)

    def reject_cross_site(self, sender: Sender, request_id: str) -> None:
        """Raise ForeignOrigin for a request that a page of another site sent. The log has both origins."""
        if is_cross_site(sender, self._allowed_origins):
            reason = describe_cross_site(sender)
            _log.info("%s: rejected, cross-site: %s", request_id, reason)
            raise ForeignOrigin(reason)

    def check_csrf_token(self, token: str) -> None:
        """Raise StaleForm, which carries a new token, unless the form was opened here and not too long ago."""
        if not self.csrf_tokens.is_valid(token):
            raise StaleForm(
                "This form was open for too long, or it was not opened on this site. This new form has your choices. "
                "Please choose the image again: browsers do not keep it.",
                form_token=self.csrf_tokens.create(),
            )

    def _admit(
        self,
        address: str,
        api_key: ApiKey | None,
        charge: Callable[[AdmittedRequest], None] = AdmittedRequest.charge_request,
    ) -> AdmittedRequest:
        admitted = self._requests.admit(self._limiter.client_for(address, api_key))
        try:
            charge(admitted)
        except Problem:
            admitted.release()
            raise
        return admitted


def _bearer_token(authorization: str | None) -> str | None:
    scheme, _, credentials = (authorization or "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else None
