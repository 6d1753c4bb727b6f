"""Who may come in: blocked networks, keys, limits, origins, form tokens. Asked before a body is read, the token apart.

The order of doors: blocked network -> key -> requests at once -> request limit -> (size, type, pixels from the header:
`gateway.jobs.request_body`) -> megapixel limit -> place in the queue -> decode -> backend.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from gateway.access.admitted_request import AdmittedRequest, ConcurrencyLimit
from gateway.access.api_keys import ApiKeyStore, Client
from gateway.access.csrf import allowed_origins, is_cross_site
from gateway.access.form_tokens import CsrfTokens
from gateway.access.ip_blocklist import Blocklist
from gateway.access.rate_limits import RateLimiter
from gateway.config.settings import Settings
from gateway.logs import truncate_network
from gateway.problems import Blocked, ForeignOrigin, KeyRequired, Problem, StaleForm

MAX_KEY_LENGTH = 256

_log = logging.getLogger(__name__)


class AccessControl:
    """Lets requests in, or raises the problem that keeps them out."""

    def __init__(self, settings: Settings, limits: RateLimiter, tokens: CsrfTokens) -> None:
        self.tokens = tokens
        self._blocks = Blocklist(settings.path_of_blocks())
        self._keys = ApiKeyStore(settings.path_of_keys())
        self._limits = limits
        self._visits = ConcurrencyLimit(limits, settings.max_concurrent_requests)
        self._readings = ConcurrencyLimit(limits, settings.threads // 2)
        """Of pages and files. Apart from the visits: whoever has all its pictures in the making still gets a page."""
        self._origins = allowed_origins(settings.frame_ancestors)

    def count_open(self) -> int:
        """Return how many requests are let in whose answers are not sent yet."""
        return self._visits.count()

    def refuse_blocked(self, address: str, request_id: str) -> None:
        """Raise Blocked for an address in a blocked network: the first door of every page but health."""
        if block := self._blocks.find(address):
            network = truncate_network(block.network)
            _log.info("%s: refused by the block of %s (line %d)", request_id, network, block.line)
            raise Blocked("Your network is blocked here. If that is a mistake, tell whoever runs this service.")

    def admit_to_api(self, address: str, x_api_key: str | None, authorization: str | None) -> AdmittedRequest:
        """Let the client in that a request's headers identify; raise KeyRequired, always in the same words.

        Whoever sends no key or a wrong one is counted by address, so that guessing ends at a limit.
        """
        client = self._identify(x_api_key, authorization)
        visit = self._begin(address, client)
        if client is None:
            visit.end()
            raise KeyRequired(
                "Send a valid key in the header X-API-Key, or as Authorization: Bearer. "
                "Whoever runs this service makes one with `superres keys new NAME`.",
                headers={"WWW-Authenticate": 'Bearer realm="superres"'},  # RFC 6750 section 3
            )
        return visit

    def admit_to_form(self, address: str, *, sec_fetch_site: str, origin: str, host: str) -> AdmittedRequest:
        """Let a visitor without a key in, whose browser was not sent by another site."""
        self.refuse_foreign(sec_fetch_site=sec_fetch_site, origin=origin, host=host)
        return self._begin(address, None)

    def admit_to_read(self, address: str) -> AdmittedRequest:
        """Let anybody have a page or a file, unless a slow reader would hold more than half of the threads."""
        return self._readings.begin(self._limits.visitor(address, None))

    def admit_to_result(self, address: str) -> AdmittedRequest:
        """Let whoever knows a result's id have a picture of it: that is large, so it is one of the requests at once."""
        return self._visits.begin(self._limits.visitor(address, None))

    def admit_to_wake(
        self,
        address: str,
        *,
        x_api_key: str | None,
        authorization: str | None,
        sec_fetch_site: str,
        origin: str,
        host: str,
        starts_a_boot: bool,
    ) -> AdmittedRequest:
        """Let whoever may wake the backend in: a client by its key, or anyone that another site has not sent.

        A call that starts a boot is charged.
        """
        client = self._identify(x_api_key, authorization)
        if client is None:
            self.refuse_foreign(sec_fetch_site=sec_fetch_site, origin=origin, host=host)
        return self._begin(address, client, AdmittedRequest.charge_wake if starts_a_boot else lambda _: None)

    def refuse_foreign(self, *, sec_fetch_site: str, origin: str, host: str) -> None:
        """Raise ForeignOrigin for what a page of another site has sent."""
        if is_cross_site(sec_fetch_site, origin, host, self._origins):
            raise ForeignOrigin("This was sent by a page of another site. Open the form here and send it from there.")

    def check_token(self, token: str) -> None:
        """Raise StaleForm, with a fresh token in it, unless the form was opened here and not long ago."""
        if not self.tokens.is_good(token):
            raise StaleForm(
                "This form was open for too long, or was not opened here. Here is a fresh one with your choices; "
                "choose the picture again, which a browser hands over only once.",
                form_token=self.tokens.make(),
            )

    def _identify(self, x_api_key: str | None, authorization: str | None) -> Client | None:
        presented = x_api_key or _bearer(authorization) or ""
        return self._keys.identify(presented if len(presented) <= MAX_KEY_LENGTH else "")

    def _begin(
        self,
        address: str,
        client: Client | None,
        charge: Callable[[AdmittedRequest], None] = AdmittedRequest.charge_request,
    ) -> AdmittedRequest:
        visit = self._visits.begin(self._limits.visitor(address, client))
        try:
            charge(visit)
        except Problem:
            visit.end()
            raise
        return visit


def _bearer(authorization: str | None) -> str | None:
    scheme, _, credentials = (authorization or "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else None
