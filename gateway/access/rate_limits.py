"""Limits: how often and how much a visitor may ask, by flask-limiter; a charge for each time, which can be given back.

Three things are counted of each visitor: requests, megapixels of uploads, and calls that wake the backend. An amount
that does not fit is not counted at all. Whoever is refused often, wake calls apart, is refused everything for a while.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, cast
from urllib.parse import quote

from flask import Flask
from flask_limiter import Limiter, MetaLimit, RateLimitExceeded, RequestLimit
from limits import RateLimitItem

from gateway.access import rate_limit_storage as counters
from gateway.access.api_keys import Client
from gateway.access.client_ip import rate_limit_key
from gateway.access.rate_limit_storage import FallbackStorage, Hit
from gateway.config.rates import Rates, parse_rates
from gateway.config.settings import Settings
from gateway.problems import Banned, LimitReached, OverAllowance, Problem, retry_later

Resource = Literal["requests", "megapixels", "wakes"]

BANS = "bans"
"""The scope in which refusals are counted."""


@dataclass(frozen=True)
class RateLimitedClient:
    """Whoever asks: a client by its key, or else an address with those that share its allowance."""

    id: str
    allowance: Rates
    client: Client | None = None


@dataclass(frozen=True)
class RateLimitStatus:
    """Where a visitor stands at one of its limits."""

    what: Resource
    amount: int
    window_s: int
    left: int
    reset_s: int
    """Until the oldest of what was used is given back."""


@dataclass
class Charge:
    """An amount that was counted."""

    what: Resource
    taken: list[Hit]
    _limits: list[RequestLimit]
    _counters: FallbackStorage

    def give_back(self) -> None:
        """Count it no more; once is enough, a second time changes nothing."""
        while self.taken:
            self._counters.release(self.taken.pop())

    def standings(self, now: float) -> Iterator[RateLimitStatus]:
        """Yield where the visitor stands at each limit of this charge, as of now."""
        for limit in self._limits:
            item = limit.limit
            oldest, used = self._counters.get_moving_window(limit.key, item.amount, item.get_expiry())
            reset_s = math.ceil(oldest + item.get_expiry() - now) if used else 0
            yield RateLimitStatus(
                self.what, item.amount, item.get_expiry(), max(0, item.amount - used), max(0, reset_s)
            )


@dataclass
class _Asking:
    """What flask-limiter's callbacks, which take no arguments, have to know of the charge being made."""

    visitor_id: str
    amounts: str
    cost: int
    taken: list[Hit] = field(default_factory=list)


_asking: ContextVar[_Asking | None] = ContextVar("asking", default=None)


class RateLimiter:
    """Counts what visitors ask for. Used within a request of the application that it was made for."""

    def __init__(self, app: Flask, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._limiter = Limiter(
            key_func=_visitor_id,
            app=app,
            strategy="moving-window",
            storage_uri=f"{counters.SCHEME}://",
            storage_options=cast("dict[str, str | int]", {"redis_url": settings.redis_url, "clock": clock}),
        )
        self._counters = cast("FallbackStorage", self._limiter.storage)
        bans = [MetaLimit(settings.ban_after, scope=BANS)] if settings.ban_after.strip() else None

        # flask-limiter tells limits apart by the function that they are put on.
        def requests() -> None: ...
        def megapixels() -> None: ...
        def wakes() -> None: ...

        def limited(what: Resource, function: Callable[[], None]) -> Callable[[], None]:
            limit = self._limiter.shared_limit(
                _amounts, what, key_func=_visitor_id, cost=_cost, on_breach=self._undo, meta_limits=bans
            )
            return limit(function)

        self._ask: dict[Resource, Callable[[], None]] = {
            "requests": limited("requests", requests),
            "megapixels": limited("megapixels", megapixels),
            "wakes": limited("wakes", wakes),
        }

    def visitor(self, address: str, client: Client | None = None) -> RateLimitedClient:
        """Return who asks and what it may ask for."""
        settings = self._settings
        if client is None:
            allowance = Rates(settings.anonymous_requests, settings.anonymous_megapixels)
            return RateLimitedClient(f"address:{rate_limit_key(address)}", allowance)
        allowance = Rates(client.requests or settings.client_requests, client.megapixels or settings.client_megapixels)
        return RateLimitedClient(f"client:{quote(client.name, safe='')}", allowance, client)

    def charge(self, visitor: RateLimitedClient, what: Resource, cost: int = 1) -> Charge:
        """Count an amount and return the charge; raise LimitReached, Banned or OverAllowance, nothing being counted."""
        amounts = self._amounts_of(visitor, what)
        for item in parse_rates(amounts):
            if cost > item.amount:
                raise OverAllowance(
                    f"This costs {cost} {what} and the limit is {describe(item)}: send a smaller image.",
                    limit=describe(item),
                )
        asking = _Asking(visitor.id, amounts, cost)
        asked, noted = _asking.set(asking), counters.taken.set(asking.taken)
        try:
            self._ask[what]()
            limits = list(self._limiter.current_limits)
        except RateLimitExceeded as error:
            if what == "wakes":  # a page wakes by itself, unseen: that its calls are refused is no offence
                self._undo()
            raise self._refusal(error, what, cost) from None
        finally:
            _asking.reset(asked)
            counters.taken.reset(noted)
        return Charge(what, asking.taken, limits, self._counters)

    def _amounts_of(self, visitor: RateLimitedClient, what: Resource) -> str:
        if what == "requests":
            return visitor.allowance.requests
        return visitor.allowance.megapixels if what == "megapixels" else self._settings.wake_rate

    def _undo(self, *_: RequestLimit) -> None:
        """Give back what this charge has counted: at other limits before one refused it, and as a refusal."""
        asking = _asking.get()
        assert asking is not None  # noqa: S101 - called while charging only
        while asking.taken:
            self._counters.release(asking.taken.pop())

    def _refusal(self, error: RateLimitExceeded, what: Resource, cost: int) -> Problem:
        item = error.limit.limit
        is_ban = error.limit.scope == BANS
        limit = self._limiter.current_limit
        key = limit.key if limit else ""
        wait_s = self._counters.wait_s(key, item.amount, item.get_expiry(), 1 if is_ban else cost)
        wait_s = math.ceil(wait_s + 0.001)  # at that moment exactly the amount does not fit yet
        if is_ban:
            return retry_later(
                Banned,
                f"Limits refused {describe(item, 'requests')} from here. Nothing more is taken for {wait_s} seconds.",
                wait_s,
            )
        headers = describe_statuses([RateLimitStatus(what, item.amount, item.get_expiry(), 0, wait_s)], self._clock())
        problem = retry_later(
            LimitReached, f"The limit is {describe(item, what)}. Try again in {wait_s} seconds.", wait_s
        )
        problem.headers |= headers
        return problem


def describe(item: RateLimitItem, what: str = "") -> str:
    """Return a limit in words: "60 requests in 1 minute"."""
    seconds = item.get_expiry()
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
        if seconds % size == 0:
            count = seconds // size
            return f"{item.amount:,}{f' {what}' if what else ''} in {count} {unit}{'s' if count > 1 else ''}"
    raise AssertionError("unreachable: every number of seconds is a multiple of one")


def describe_statuses(standings: list[RateLimitStatus], now: float) -> dict[str, str]:
    """Return the headers that tell a visitor where it stands.

    RateLimit and RateLimit-Policy are those of draft-ietf-httpapi-ratelimit-headers-10; X-RateLimit-* tell of the limit
    that is nearest, Reset as seconds since 1970, as most APIs do.
    """
    if not standings:
        return {}
    nearest = min(standings, key=lambda one: one.left / one.amount)
    return {
        "X-RateLimit-Limit": str(nearest.amount),
        "X-RateLimit-Remaining": str(nearest.left),
        "X-RateLimit-Reset": str(math.ceil(now) + nearest.reset_s),
        "RateLimit-Policy": ", ".join(
            f'"{one.what}-{one.window_s}";q={one.amount};w={one.window_s}' for one in standings
        ),
        "RateLimit": ", ".join(f'"{one.what}-{one.window_s}";r={one.left};t={one.reset_s}' for one in standings),
    }


def _visitor_id() -> str:
    asking = _asking.get()
    return asking.visitor_id if asking else ""


def _amounts() -> str:
    asking = _asking.get()
    return asking.amounts if asking else ""


def _cost() -> int:
    asking = _asking.get()
    return asking.cost if asking else 1
