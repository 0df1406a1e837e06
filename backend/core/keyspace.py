"""Redis as the common ground of all processes: what idempotency records, locks and rate limits share.

Redis ends a key at an instant of its own clock; whoever holds it stops earlier, by the monotonic clock of its process.
"""

import asyncio
import contextlib
import functools
import hashlib
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self, cast

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from backend.config import Config
from backend.core.errors import TransientError

PREFIX = "beatline:"

# A server that is away, starts, is a replica by now, or is full: nothing can be relied on until it is back.
AWAY = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.MasterDownError,
    exceptions.OutOfMemoryError,
    OSError,
)

_RENEW = """
local found = redis.call('get', KEYS[1])
if found == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end
if found or ARGV[3] == '0' then return 0 end
redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2])
return 1
"""
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"
_PAUSE = 0.2


class LeaseLost(TransientError):
    """A key that was ours is somebody else's, or could not be renewed in time; what was under way has been cancelled."""


def open_redis(config: Config) -> Redis:
    """A client; it connects at its first command, in the event loop of whoever sends it.

    A command waits 2 s for an answer and is tried twice, so that a server that was started anew is found. Every script here
    may therefore arrive twice.
    """
    tls = config.redis_tls
    options: dict[str, Any] = (
        {}
        if tls is None
        else {
            "ssl_cert_reqs": "required" if tls.verify else "none",
            "ssl_check_hostname": tls.verify,
            "ssl_ca_certs": tls.ca,
            "ssl_certfile": tls.certificate,
            "ssl_keyfile": tls.key,
        }
    )
    return Redis.from_url(
        config.redis_url,
        **options,
        socket_timeout=2,
        socket_connect_timeout=2,
        socket_keepalive=True,
        health_check_interval=25,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), 1),
        client_name="beatline",
    )


async def run_script(redis: Redis, script: str, keys: list[str], *values: str | int) -> Any:
    """Run a Lua script by its digest, sending its text when the server does not know it yet."""
    try:
        return await redis.evalsha(_digest(script), len(keys), *keys, *values)
    except exceptions.NoScriptError:
        return await redis.eval(script, len(keys), *keys, *values)


@functools.cache
def _digest(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


async def release(redis: Redis, key: str, value: str) -> bool:
    """Delete `key` if it still holds `value`."""
    return bool(await run_script(redis, _RELEASE, [key], value))


class Keeper:
    """Keeps `key`, which holds `value` since the loop time `since`, from running out while the body of `async with` works.

    It is renewed each third of its `seconds`. When it is somebody else's, or no renewal has succeeded for so long that it may
    be, the body is cancelled and `lost` raised in its place. A key that is gone (Redis has lost its data) counts as somebody
    else's, unless `restore` is set: then it is written again.
    """

    def __init__(
        self,
        redis: Redis,
        key: str,
        value: str,
        *,
        seconds: float,
        since: float,
        restore: bool = False,
        lost: type[LeaseLost] = LeaseLost,
    ) -> None:
        self._redis, self._key = redis, key
        self._seconds, self._since, self._lost = seconds, since, lost
        self._order = (value, round(seconds * 1000), int(restore))
        self._why: str | None = None
        self._renewing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._body = cast("asyncio.Task[Any]", asyncio.current_task())
        self._cancelling = self._body.cancelling()
        # A timer rather than a task: most bodies are over before it is due.
        self._timer = asyncio.get_running_loop().call_at(self._since + self._seconds / 3, self._start)
        return self

    def _start(self) -> None:
        self._renewing = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        since = self._since
        try:
            while True:
                async with asyncio.timeout_at(since + self._seconds):
                    renewed = await self._renewed()
                if renewed is None:
                    self._lose("is somebody else's by now")
                    return
                since = renewed
                await asyncio.sleep(self._seconds / 3)
        except TimeoutError:
            self._lose("could not be renewed in time")

    async def _renewed(self) -> float | None:
        """The loop time from which the lease counts anew; None when the key is not ours."""
        loop = asyncio.get_running_loop()
        while True:
            asked = loop.time()
            with contextlib.suppress(*AWAY):
                return asked if await run_script(self._redis, _RENEW, [self._key], *self._order) else None
            await asyncio.sleep(min(_PAUSE, self._seconds / 10))

    def _lose(self, why: str) -> None:
        self._why = f"{self._key.removeprefix(PREFIX)} {why}"
        self._body.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._renewing is not None:
            self._renewing.cancel()
        if self._why is None:
            return
        # As asyncio.timeout does: a cancellation that others have asked for, too, stays one.
        if self._body.uncancel() <= self._cancelling and kind in {None, asyncio.CancelledError}:
            raise self._lost(self._why) from fault


@contextlib.asynccontextmanager
async def opened_redis(config: Config) -> AsyncIterator[Redis]:
    """`open_redis`, closed at the end."""
    redis = open_redis(config)
    try:
        yield redis
    finally:
        await redis.aclose()
