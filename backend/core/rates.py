"""Rate limits that all processes share: a moving window per key on Redis.

Instants are those of the process that asks: hosts whose clocks differ by a second are off by a second.
"""

import asyncio
import functools
import logging
import math
import time
from dataclasses import dataclass
from typing import Literal

from limits import RateLimitItem, parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from redis.asyncio import Redis

from backend.core.delivery import Postponed
from backend.core.keyspace import AWAY, PREFIX

log = logging.getLogger(__name__)

# What a Redis that does not answer may cost a request.
_PATIENCE = 1.0

WhenAway = Literal["open", "closed"]


class LimiterAway(Exception):
    """Redis is away: nobody can tell how much of a limit is used."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What became of one use. `reset` is seconds until a use is free again; `window` the limit's own seconds."""

    allowed: bool
    limit: int
    window: int
    remaining: int
    reset: int


@functools.lru_cache(maxsize=256)
def parse_rate(rate: str) -> RateLimitItem:
    """A limit such as "5/minute" or "100 per 15 minute". Raises ValueError."""
    return parse(rate)


class Rates:
    """The limits of one process, over a client that others use, too."""

    def __init__(self, redis: Redis) -> None:
        storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix=f"{PREFIX}rate",
            connection_pool=redis.connection_pool,  # type: ignore[arg-type]  # documented; typed as plain options
        )
        self._limiter = MovingWindowRateLimiter(storage)

    async def spend(self, rate: str, *key: str) -> Spent:
        """Use `rate` once for `key` (its first part names what is limited). A refusal uses nothing. Raises LimiterAway."""
        item = parse_rate(rate)
        try:
            async with asyncio.timeout(_PATIENCE):
                allowed = await self._limiter.hit(item, *key)
                stats = await self._limiter.get_window_stats(item, *key)
        except AWAY as fault:
            raise LimiterAway(f"rate limit {key[0]}: Redis is away: {fault or type(fault).__name__}") from fault
        reset = min(item.get_expiry(), max(1, math.ceil(stats.reset_time - time.time())))
        return Spent(allowed, item.amount, item.get_expiry(), stats.remaining, reset)

    async def spend_or_postpone(self, rate: str, *key: str, when_away: WhenAway = "closed") -> None:
        """For tasks: use `rate` once, or come again when a use is free; that counts as none of the task's tries.

        While Redis is away the task comes again, too (`closed`), or goes on without a limit (`open`).
        """
        try:
            spent = await self.spend(rate, *key)
        except LimiterAway as fault:
            if when_away == "closed":
                raise Postponed(str(fault)) from fault
            log.warning("%s; goes on without a limit", fault)
            return
        if not spent.allowed:
            raise Postponed(f"rate limit {key[0]}: {rate} used up", after=spent.reset)
