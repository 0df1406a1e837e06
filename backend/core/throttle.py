"""Rate limits of API routes: `dependencies=[limited("5/minute", name="login")]`."""

import logging
from collections.abc import Callable
from typing import Any

from fastapi import Depends, Request, Response

from backend.core.errors import TooMany, Unavailable
from backend.core.principal import Principal
from backend.core.rates import LimiterAway, Rates, Spent, WhenAway, parse_rate

log = logging.getLogger(__name__)

KeyOf = Callable[[Request], str]


def client_address(request: Request) -> str:
    """The caller's address. Behind a proxy it is the proxy's, unless uvicorn is told to trust its headers."""
    return request.client.host if request.client else "unknown"


def caller(request: Request) -> str:
    """Who asks: the user, whatever the session or API key; a process with the service key.

    For routes that know it by then: a route's `dependencies` run before what its function asks for, so `Viewer` stands before
    the limit there.
    """
    principal: Principal = request.state.principal
    return f"{principal.kind if principal.user_id is None else 'user'}:{principal.user_id or principal.name}"


async def spend(request: Request, rate: str, *, name: str, key: str, when_away: WhenAway = "open") -> dict[str, str]:
    """Use `rate` once for `key`; the RateLimit headers of the answer. Raises TooMany, and Unavailable when it is closed.

    For keys that only the route's own code knows, such as the user name of a login.
    """
    rates: Rates = request.app.state.rates
    try:
        spent = await rates.spend(rate, name, key)
    except LimiterAway as fault:
        if when_away == "closed":
            raise Unavailable("Requests cannot be counted right now; try again shortly.", retry_after=2) from fault
        log.warning("%s; the request passes", fault)
        return {}
    headers = _headers(name, spent)
    if not spent.allowed:
        detail = f"Limit of {spent.limit} requests in {spent.window} s reached; try again in {spent.reset} s."
        raise TooMany(detail, code="rate_limited", retry_after=spent.reset, headers=headers)
    return headers


def _headers(name: str, spent: Spent) -> dict[str, str]:
    """draft-ietf-httpapi-ratelimit-headers-10: q and r are requests, w and t seconds."""
    return {
        "RateLimit-Policy": f'"{name}";q={spent.limit};w={spent.window}',
        "RateLimit": f'"{name}";r={spent.remaining};t={spent.reset}',
    }


def limited(rate: str, *, name: str, key: KeyOf = client_address, when_away: WhenAway = "open") -> Any:
    """A dependency that lets `rate` requests per `key` through, such as "5/minute"; `name` is the limit's own.

    The others are answered 429 with Retry-After. While Redis is away every request passes (`open`: the API must not hang on it)
    or is answered 503 (`closed`: guessing passwords must not become free).
    """
    parse_rate(rate)

    async def check(request: Request, response: Response) -> None:
        headers = await spend(request, rate, name=name, key=key(request), when_away=when_away)
        response.headers.update(headers)

    return Depends(check)
