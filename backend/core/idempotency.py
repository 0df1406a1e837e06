"""Tasks that take effect once, however often they are sent: `@idempotent_task`.

The record of a call is `beatline:idem:<task>:<key>` on Redis: absent, then in progress under a short lease that is renewed, then
completed with the result for `ttl` seconds. While the task waits for its own next try the record is held for it.

Redis may forget (a restart without its file, a failover), and a holder that dies after its effect and before its record is run
again: this is at-least-once with the duplicates taken out. What must never happen twice needs a unique key in the same
transaction as the effect.
"""

import asyncio
import functools
import hashlib
import inspect
import json
import logging
import string
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from uuid import uuid4

from kombu.exceptions import EncodeError
from kombu.utils.json import dumps, loads
from redis.asyncio import Redis

from backend.core import delivery
from backend.core.delivery import Delivery, Postponed
from backend.core.errors import TransientError
from backend.core.keyspace import AWAY, PREFIX, Keeper, release, run_script
from backend.core.runtime import Runtime

log = logging.getLogger(__name__)

Handler = TypeVar("Handler", bound=Callable[..., Coroutine[Any, Any, object]])
OnDuplicate = Literal["return", "skip", "wait", "retry"]

_LONGEST_KEY = 200
_LARGEST_RESULT = 65_536
# How soon a duplicate looks again for the end of a call that is in progress.
_LOOK_AGAIN = 5.0
_POLL = 0.1
# How long the end of finished work waits for a Redis that is away.
_INSIST_SECONDS = 60.0

# Nil: ours. Otherwise the record of another call, or of another copy of this message, and its milliseconds left.
_BEGIN = """
local found = redis.call('get', KEYS[1])
if found and found ~= ARGV[1] and found ~= ARGV[2] then return {found, redis.call('pttl', KEYS[1])} end
redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[3])
return nil
"""
# In place of our own record, or of none.
_REPLACE = """
local found = redis.call('get', KEYS[1])
if found and found ~= ARGV[1] and found ~= ARGV[2] then return 0 end
redis.call('set', KEYS[1], ARGV[2], 'px', ARGV[3])
return 1
"""


@dataclass(frozen=True, slots=True)
class _Found:
    """Another call's record."""

    task_id: str
    completed: bool
    result: object
    seconds_left: float


@dataclass(frozen=True, slots=True)
class _Policy:
    task: str
    ttl: float
    lease: float
    wait: float
    on_duplicate: OnDuplicate


class _Call:
    """One call of an idempotent task, and its record."""

    def __init__(self, redis: Redis, policy: _Policy, key: str, message: Delivery | None) -> None:
        self._redis, self._policy, self._message = redis, policy, message
        self.name = f"{policy.task}:{key}"
        self.key = f"{PREFIX}idem:{self.name}"
        self.task_id = message.task_id if message else uuid4().hex
        self._in_progress = _record(self.task_id, "processing", owner=uuid4().hex)
        self._held = _record(self.task_id, "retrying")

    async def run(self, work: Callable[[], Coroutine[Any, Any, object]]) -> object:
        loop = asyncio.get_running_loop()
        patience = loop.time() + (self._policy.wait if self._policy.on_duplicate == "wait" else 0)
        while True:
            asked = loop.time()
            found = await self._begin()
            if found is None:
                break
            if found.completed or found.task_id == self.task_id or loop.time() > patience:
                return self._answer(found)
            await asyncio.sleep(_POLL)
        if self._message and self._message.redelivered:
            log.warning("%s: task %s continues after a worker was lost", self.name, self.task_id)
        try:
            async with Keeper(
                self._redis, self.key, self._in_progress, seconds=self._policy.lease, since=asked, restore=True
            ):
                result = await work()
        except BaseException as fault:
            await self._give_back(fault)
            raise
        await self._complete(result)
        return result

    async def _begin(self) -> _Found | None:
        try:
            answer = await run_script(
                self._redis, _BEGIN, [self.key], self._in_progress, self._held, round(self._policy.lease * 1000)
            )
        except AWAY as fault:
            raise Postponed(
                f"{self.name}: Redis is away, not run unprotected: {fault or type(fault).__name__}"
            ) from fault
        if answer is None:
            return None
        text, milliseconds = answer
        record = loads(text)
        done = record["status"] == "completed"
        return _Found(record["task_id"], done, record["result"], max(0.0, milliseconds / 1000))

    def _answer(self, found: _Found) -> object:
        """What becomes of a duplicate. A copy of the same message is none: its first holder may be dead."""
        mode, same = self._policy.on_duplicate, found.task_id == self.task_id
        if found.completed:
            log.info("%s: task %s is a duplicate of task %s, completed", self.name, self.task_id, found.task_id)
            return found.result if same or mode != "skip" else None
        if mode == "skip" and not same:
            log.warning("%s: task %s skipped, task %s is in progress", self.name, self.task_id, found.task_id)
            return None
        text = f"{self.name}: task {found.task_id} is in progress"
        log.info("%s; task %s comes again", text, self.task_id)
        if mode == "retry" and not same:
            raise TransientError(text)
        raise Postponed(text, after=min(_LOOK_AGAIN, found.seconds_left + 0.05))

    async def _give_back(self, fault: BaseException) -> None:
        """Hold the record for the task's own next try, or free it when there is none."""
        again = self._message.retry_within(fault) if self._message else None
        try:
            if again is None:
                await release(self._redis, self.key, self._in_progress)
            else:
                await self._replace(self._held, again + self._policy.lease)
        except AWAY as away:
            log.warning("%s: Redis is away, the lease runs out by itself: %s", self.name, away)

    async def _complete(self, result: object) -> None:
        record = self._completed(result)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _INSIST_SECONDS
        while True:
            try:
                if not await self._replace(record, self._policy.ttl):
                    log.error("%s: done by task %s and by another call as well", self.name, self.task_id)
            except AWAY as fault:
                if loop.time() > deadline:
                    log.exception(
                        "%s: done by task %s, but Redis is away: a duplicate would run", self.name, self.task_id
                    )
                    return
                log.warning("%s: done, the record waits for Redis: %s", self.name, fault or type(fault).__name__)
                await asyncio.sleep(0.5)
            else:
                return

    def _completed(self, result: object) -> str:
        try:
            record = _record(self.task_id, "completed", result=result)
        except (EncodeError, TypeError) as fault:
            log.warning("%s: the result is not kept for duplicates: %s", self.name, fault)
            return _record(self.task_id, "completed")
        if len(record) <= _LARGEST_RESULT:
            return record
        log.warning("%s: a result of %d characters is not kept for duplicates", self.name, len(record))
        return _record(self.task_id, "completed")

    async def _replace(self, record: str, seconds: float) -> bool:
        return bool(
            await run_script(self._redis, _REPLACE, [self.key], self._in_progress, record, round(seconds * 1000))
        )


def _record(task_id: str, status: str, *, result: object = None, **more: str) -> str:
    record = {"task_id": task_id, "status": status, "result": result, **more}
    # Kombu's knows more types, and takes three times as long.
    return json.dumps(record) if result is None else str(dumps(record))


def _namer(handler: Callable[..., Any], key: str | Callable[..., str] | None) -> Callable[[dict[str, Any]], str]:
    """How the arguments become a key. Without `key`: the value of a single argument, else all of them as name=value."""
    if callable(key):
        make = key
        return lambda ids: _short(make(**ids))
    if key is None:
        return lambda ids: _short(
            str(next(iter(ids.values())))
            if len(ids) == 1
            else "&".join(f"{name}={ids[name]!r}" for name in sorted(ids))
        )
    template = key
    wanted = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
    known = set(list(inspect.signature(handler).parameters)[1:])
    if not wanted or not wanted <= known:
        raise ValueError(f"{handler.__name__}: key {template!r} must name arguments among {sorted(known)}")
    return lambda ids: _short(template.format(**ids))


def _short(key: str) -> str:
    return key if len(key) <= _LONGEST_KEY else "sha256-" + hashlib.sha256(key.encode()).hexdigest()


def idempotent_task(
    *,
    ttl: float = 3600,
    key: str | Callable[..., str] | None = None,
    on_duplicate: OnDuplicate = "return",
    lease: float = 30.0,
    wait: float = 30.0,
) -> Callable[[Handler], Handler]:
    """Under `@task(...)`: of all calls with the same key only one takes effect within `ttl` seconds of its success.

    `key` is a template such as "order-{order_id}" or a function of the arguments; without it they are the key. A call that fails
    for good frees its key, one that is retried keeps it. A holder that was killed blocks nobody longer than `lease` seconds.

    A duplicate of a completed call answers with that call's result. While that call is in progress, `on_duplicate` decides:
    `return` comes again until it is over, `wait` waits for it in the worker, at most `wait` seconds, then comes again, `retry`
    fails as one of the task's own tries, `skip` answers None (and does so for a completed call, too).
    """
    if ttl <= 0 or lease < 1:
        raise ValueError("ttl must be above 0 and lease at least 1 s")

    def wrap(handler: Handler) -> Handler:
        policy = _Policy(handler.__name__, ttl, lease, wait, on_duplicate)
        name = _namer(handler, key)
        signature = inspect.signature(handler)

        @functools.wraps(handler)
        async def once(runtime: Runtime, /, *args: Any, **kwargs: Any) -> object:
            # However a caller puts them, the same arguments make the same key.
            bound = signature.bind(runtime, *args, **kwargs)
            bound.apply_defaults()
            ids = dict(list(bound.arguments.items())[1:])
            call = _Call(runtime.redis, policy, name(ids), delivery.current.get())
            return await call.run(lambda: handler(runtime, *args, **kwargs))

        return once  # type: ignore[return-value]  # the same parameters; the type of a wrapper cannot say so

    return wrap
