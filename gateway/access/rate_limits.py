"""Rate limits: how many requests, megapixels and wake calls a client may use in which time.

Clients with an API key are limited by name, all others by address. An amount that exceeds a limit is not counted at
all, and a counted amount can be refunded. A client that exceeds limits too often (wake calls and polls of jobs
excepted) is banned for a while.

flask-limiter provides the moving-window strategy over our storage. Its decorators are not used: they cannot refund.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast
from urllib.parse import quote

from flask import Flask
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address
from limits import RateLimitItem

from gateway.access.api_keys import ApiKey
from gateway.access.client_ip import rate_limit_key
from gateway.access.rate_limit_storage import SCHEME, FallbackStorage, Hit
from gateway.config.rates import Rates, describe_period, describe_rate, parse_rates
from gateway.config.settings import Settings
from gateway.problems import Banned, LimitReached, OverAllowance, Problem, retry_later

Resource = Literal["requests", "megapixels", "wakes", "polls"]

# How error messages name a resource.
_NOUNS: dict[Resource, str] = {
    "requests": "requests",
    "megapixels": "megapixels",
    "wakes": "wake calls",
    "polls": "polls of jobs",
}

# The page sends wake calls without the user's knowledge, and a client that polls too often asks for little.
_NEVER_BANNED: tuple[Resource, ...] = ("wakes", "polls")

# Key part under which the exceeded limits of a client are counted.
_BANS = "bans"


SharedHit: TypeAlias = tuple[str, str, int, float]
"""Resource, key, amount and time of something that was counted in Redis."""


@dataclass(frozen=True)
class RateLimitedClient:
    """The client of a request: the owner of an API key, or everyone at one address."""

    id: str
    """Key under which usage is counted, such as "client:phone" or "address:203.0.113.7"."""
    rates: Rates
    api_key: ApiKey | None = None


@dataclass(frozen=True)
class RateLimitStatus:
    """The status of a client at one limit: how much is left, and when it grows again."""

    resource: Resource
    limit: int
    window_s: int
    remaining: int
    reset_s: int
    """Seconds until the oldest counted amount leaves the window."""


@dataclass(frozen=True)
class Charge:
    """An amount that was counted against every limit of one resource."""

    client_id: str
    resource: Resource
    rates: list[RateLimitItem]
    hits: list[Hit]
    """The counted amounts, one per rate. Empty after a refund."""


class RateLimiter:
    """Counts what clients use. Safe for several threads."""

    def __init__(self, app: Flask, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` counts in memory; in Redis its own clock counts."""
        self._settings = settings
        options = {"redis_url": settings.redis_url, "clock": clock}
        limiter = Limiter(
            get_remote_address,
            strategy="moving-window",
            storage_uri=f"{SCHEME}://",
            storage_options=cast("dict[str, str | int]", options),  # passed unchanged to FallbackStorage
        )
        # Registered already, it adds no hooks to the requests: these would look for limits of each view, of which
        # there are none, in 0.2 ms.
        app.extensions.setdefault("limiter", set()).add(limiter)
        limiter.init_app(app)
        self._windows = limiter.limiter
        self._storage = cast("FallbackStorage", limiter.storage)
        self._ban_rates = parse_rates(settings.ban_after)

    def client_for(self, address: str, api_key: ApiKey | None = None) -> RateLimitedClient:
        """Return the client behind an address or API key, with its rates."""
        settings = self._settings
        if api_key is None:
            rates = Rates(settings.anonymous_requests, settings.anonymous_megapixels)
            return RateLimitedClient(f"address:{rate_limit_key(address)}", rates)
        rates = Rates(api_key.requests or settings.client_requests, api_key.megapixels or settings.client_megapixels)
        return RateLimitedClient(f"client:{quote(api_key.name, safe='')}", rates, api_key)

    def charge(self, client: RateLimitedClient, resource: Resource, cost: int = 1) -> Charge:
        """Count an amount. Raises LimitReached, Banned or OverAllowance, and then nothing is counted."""
        rates = sorted(parse_rates(self._rates_text(client, resource)))
        for rate in rates:
            if cost > rate.amount:
                raise OverAllowance(
                    f"This costs {cost} {resource}, and the limit is {describe_rate(rate)}. Send a smaller image.",
                    limit=describe_rate(rate),
                )
        self._reject_banned(client)
        charge = Charge(client.id, resource, rates, [])
        for rate in rates:
            hit = self._storage.acquire(rate.key_for(client.id, resource), rate.amount, rate.get_expiry(), cost)
            if hit is None:
                self.refund(charge)
                if resource not in _NEVER_BANNED:
                    for ban_rate in self._ban_rates:
                        self._windows.hit(ban_rate, client.id, _BANS)
                raise self._limit_reached(client, rate, resource, cost)
            charge.hits.append(hit)
        return charge

    def refund(self, charge: Charge) -> None:
        """Remove what a charge has counted. A second call changes nothing."""
        while charge.hits:
            self._storage.refund(charge.hits.pop())

    def refund_shared(self, hits: Iterable[SharedHit]) -> None:
        """Remove what another gateway has counted in Redis."""
        for _, key, amount, time_of_hit in hits:
            self._storage.refund(Hit(key, amount, time_of_hit, is_shared=True))

    def statuses(self, charge: Charge) -> list[RateLimitStatus]:
        """Return the client's status at each limit of a charge."""
        statuses = []
        for rate in charge.rates:
            window_s = rate.get_expiry()
            usage = self._storage.usage(rate.key_for(charge.client_id, charge.resource), window_s)
            reset_s = max(0, math.ceil(window_s - usage.oldest_s)) if usage.used else 0
            remaining = max(0, rate.amount - usage.used)
            statuses.append(RateLimitStatus(charge.resource, rate.amount, window_s, remaining, reset_s))
        return statuses

    def read(self, client: RateLimitedClient, resource: Resource) -> list[RateLimitStatus]:
        """Return a client's status at each limit of a resource, without counting anything."""
        return self.statuses(Charge(client.id, resource, sorted(parse_rates(self._rates_text(client, resource))), []))

    def headers(self, statuses: list[RateLimitStatus]) -> dict[str, str]:
        """Return the response headers that report these statuses.

        RateLimit and RateLimit-Policy follow draft-ietf-httpapi-ratelimit-headers-10. X-RateLimit-* report the limit
        that is closest to its end; X-RateLimit-Reset is in seconds since 1970, as most APIs send it.
        """
        if not statuses:
            return {}
        closest = min(statuses, key=lambda status: status.remaining / status.limit)
        return {
            "X-RateLimit-Limit": str(closest.limit),
            "X-RateLimit-Remaining": str(closest.remaining),
            "X-RateLimit-Reset": str(math.ceil(time.time()) + closest.reset_s),
            "RateLimit-Policy": ", ".join(
                f'"{status.resource}-{status.window_s}";q={status.limit};w={status.window_s}' for status in statuses
            ),
            "RateLimit": ", ".join(
                f'"{status.resource}-{status.window_s}";r={status.remaining};t={status.reset_s}' for status in statuses
            ),
        }

    def _rates_text(self, client: RateLimitedClient, resource: Resource) -> str:
        if resource == "requests":
            return client.rates.requests
        if resource == "megapixels":
            return client.rates.megapixels
        return self._settings.wake_rate if resource == "wakes" else self._settings.poll_rate

    def _reject_banned(self, client: RateLimitedClient) -> None:
        for rate in self._ban_rates:
            if not self._windows.test(rate, client.id, _BANS):
                wait_s = self._wait_s(rate, client.id, _BANS, 1)
                raise retry_later(
                    Banned,
                    f"You exceeded rate limits {rate.amount:,} times within {describe_period(rate)}. "
                    f"All your requests are rejected for {wait_s} seconds.",
                    wait_s,
                )

    def _limit_reached(self, client: RateLimitedClient, rate: RateLimitItem, resource: Resource, cost: int) -> Problem:
        wait_s = self._wait_s(rate, client.id, resource, cost)
        problem = retry_later(
            LimitReached,
            f"The limit is {describe_rate(rate, _NOUNS[resource])}. Try again in {wait_s} seconds.",
            wait_s,
        )
        problem.headers |= self.headers([RateLimitStatus(resource, rate.amount, rate.get_expiry(), 0, wait_s)])
        return problem

    def _wait_s(self, rate: RateLimitItem, client_id: str, scope: str, cost: int) -> int:
        """Return the whole seconds until an amount fits."""
        wait_s = self._storage.wait_s(rate.key_for(client_id, scope), rate.amount, rate.get_expiry(), cost)
        return math.ceil(wait_s + 0.001)  # at the exact end of the wait, the amount does not fit yet
