"""Distributed locks on Redis: an owner's token, a lease that is renewed, a fencing number."""

import asyncio
import logging
import random
from types import TracebackType
from typing import Self
from uuid import uuid4

from redis.asyncio import Redis

from backend.core.errors import TransientError
from backend.core.keyspace import AWAY, PREFIX, Keeper, LeaseLost, release, run_script

log = logging.getLogger(__name__)

# Positive: the fencing number. Otherwise the milliseconds that the other holder's lease has left, negated.
_ACQUIRE = """
local holder = redis.call('get', KEYS[1])
if holder and holder ~= ARGV[1] then return -math.max(0, redis.call('pttl', KEYS[1])) end
redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2])
return redis.call('incr', KEYS[2])
"""
_FIRST_LOOK, _LAST_LOOK = 0.02, 0.25


class LockTaken(TransientError):
    """Somebody else held the lock for as long as the caller would wait."""


class LockUnavailable(TransientError):
    """Redis is away: nobody can tell whether the lock is free, so that it counts as taken."""


class LockLost(LeaseLost):
    """The lock was held and is no more; the body has been cancelled."""


class Lock:
    """`async with Lock(redis, "name") as lock:` holds the lock while the body works, one holder at a time in all processes.

    A holder that dies blocks nobody for longer than `lease` seconds. `wait` is how many seconds to wait for another holder: 0
    tries once, None waits for ever. Not reentrant. In a task the errors are retried.

    `fence` grows with every holder. A holder that was frozen past its lease does not know it yet: a store that is to be safe
    from it remembers the highest number it has seen and refuses lower ones.

    Raises LockTaken, LockUnavailable; and LockLost in place of the body's cancellation.
    """

    def __init__(self, redis: Redis, name: str, *, lease: float = 30.0, wait: float | None = 10.0) -> None:
        self.name = name
        self.fence = 0
        self._redis = redis
        self._lease, self._wait = lease, wait
        self._key, self._numbers = f"{PREFIX}lock:{name}", f"{PREFIX}fence:{name}"
        self._keeper: Keeper | None = None
        self._token = ""

    async def __aenter__(self) -> Self:
        if self._keeper is not None:
            raise RuntimeError(f"lock {self.name} is held by this object already")
        self._token = uuid4().hex
        try:
            since = await self._acquire()
        except AWAY as fault:
            raise LockUnavailable(f"lock {self.name}: Redis is away: {fault or type(fault).__name__}") from fault
        except asyncio.CancelledError:
            # The order may have arrived already.
            await self._release()
            raise
        keeper = Keeper(self._redis, self._key, self._token, seconds=self._lease, since=since, lost=LockLost)
        self._keeper = await keeper.__aenter__()
        return self

    async def _acquire(self) -> float:
        """Wait until it is ours; the loop time at which the lease began, at the earliest."""
        loop = asyncio.get_running_loop()
        deadline = None if self._wait is None else loop.time() + self._wait
        pause = _FIRST_LOOK
        while True:
            asked = loop.time()
            answer = int(
                await run_script(
                    self._redis, _ACQUIRE, [self._key, self._numbers], self._token, round(self._lease * 1000)
                )
            )
            if answer > 0:
                self.fence = answer
                return asked
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                raise LockTaken(f"lock {self.name} is taken; its lease has {-answer / 1000:.1f} s left")
            await asyncio.sleep(pause if left is None else min(pause, left))
            pause = min(_LAST_LOOK, pause * 2) * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, guards nothing

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            raise RuntimeError(f"lock {self.name} is not held")
        try:
            await keeper.__aexit__(kind, fault, trace)
        finally:
            await self._release()

    async def _release(self) -> None:
        try:
            await release(self._redis, self._key, self._token)
        except AWAY as fault:
            log.warning("lock %s: Redis is away, its lease runs out by itself: %s", self.name, fault)
