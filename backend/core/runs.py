"""Tracked runs: a task message that stands for a row of `job_runs`.

The worker claims the row, works under a lease that it renews, and finishes fenced by the claim's epoch. Cancelling, a timeout, a
retry and the lines that the handler logs all live in the row; nothing depends on the broker.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import re
import socket
import time
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg

from backend.core.db import is_outage
from backend.core.delivery import Postponed
from backend.core.errors import PermanentError, TransientError
from backend.scheduling import leases
from backend.scheduling.keeper import LOST_ATTEMPTS
from backend.scheduling.leases import Claim

log = logging.getLogger(__name__)

# How soon a running handler learns that it is to stop.
WATCH_SECONDS = 2.0
_RETRY_CAP = 3600.0
_RESULT_BYTES = 65_536
_ESCAPE = re.compile(r"\\(?:u0000|.)")
_LOG_LINES = 1_000
# What a lost connection looks like to asyncpg.
AWAY = (
    OSError,
    asyncpg.InterfaceError,
    # A connection that the server has just cut, used before asyncpg knows.
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    TimeoutError,
)

_CANCELLED = "cancelled"

Work = Callable[..., Coroutine[Any, Any, object]]


class DatabaseAway(Exception):
    """The run could not be claimed; its message must go back to the broker."""


@dataclass(slots=True)
class _Live:
    """A run that this process works on."""

    claim: Claim
    work: asyncio.Task[object]
    renewed_at: float
    stop: str | None = None
    lines: list[tuple[UUID, int, str, str, datetime]] = field(default_factory=list)
    logged: int = 0


_live: ContextVar[_Live | None] = ContextVar("live_run", default=None)


class _Lines(logging.Handler):
    """Keeps what a handler logs for its run's page, at most _LOG_LINES lines."""

    def emit(self, record: logging.LogRecord) -> None:
        run = _live.get()
        if run is None or run.logged > _LOG_LINES:
            return
        run.logged += 1
        text = (
            record.getMessage()
            if run.logged <= _LOG_LINES
            else f"more than {_LOG_LINES} lines: the rest is in the worker's log"
        )
        at = datetime.fromtimestamp(record.created, UTC)
        run.lines.append((run.claim.id, run.claim.attempt, record.levelname, _storable(text)[:4000], at))


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a task, where its schedule names none: tries, and seconds for one."""

    attempts: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why an attempt failed; whether another may help, and not before `after` seconds."""

    error: str
    reason: str
    again: bool = True
    after: float | None = None
    # Whether it was a try of the work.
    counts: bool = True


def _failure(fault: Exception, seconds: float, *, explicit: bool) -> _Failure:
    """`explicit`: the schedule asks for several attempts, so that a fault of the code is tried again, too."""
    if isinstance(fault, PermanentError):
        return _Failure(_words(fault), "permanent", again=False)
    if isinstance(fault, TransientError):
        return _Failure(_words(fault), "transient", after=fault.after, counts=not isinstance(fault, Postponed))
    if isinstance(fault, TimeoutError):
        return _Failure(str(fault) or f"not done within {seconds:g} s", "timed_out")
    return _Failure(_words(fault), "error", again=explicit or is_outage(fault))


async def _leave_as_is(_connection: object) -> None:
    """Instead of the pool's reset, a round trip for state that this module never sets."""


class Tracker:
    """The tracked runs of one worker process; belongs to one event loop."""

    def __init__(self, database_url: str, lease_seconds: float) -> None:
        self._url = database_url
        self._lease = lease_seconds
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._pool: asyncpg.Pool[Any] | None = None
        self._opening = asyncio.Lock()
        self._runs: dict[UUID, _Live] = {}
        self._watcher: asyncio.Task[None] | None = None

    async def execute(self, run: UUID, task: str, work: Work, limits: Limits) -> dict[str, object]:
        """Claim and work; what became of the run, for the worker's log. Raises DatabaseAway when it could not be claimed."""
        claim = await self._claim(run, task)
        if isinstance(claim, str):
            log.info("run %s of %s: not ours to run: %s", run, task, claim)
            return {"run": str(run), "state": "not_run", "why": claim}
        arguments = json.loads(claim.arguments)
        seconds = min(limits.seconds, claim.timeout_seconds or limits.seconds)
        current: asyncio.Future[_Live] = asyncio.get_running_loop().create_future()
        live = _Live(claim, asyncio.create_task(_within(current, work, arguments, seconds)), time.monotonic())
        current.set_result(live)
        self._runs[run] = live
        self._watch()
        try:
            state, ending = await self._outcome(live, limits, seconds)
            return {"run": str(run), "state": state, "attempt": claim.attempt, **ending}
        finally:
            del self._runs[run]

    async def _outcome(self, live: _Live, limits: Limits, seconds: float) -> tuple[str, dict[str, object]]:
        try:
            result = await live.work
        except asyncio.CancelledError:
            return await self._stopped(live, limits, seconds)
        except Exception as fault:
            failure = _failure(fault, seconds, explicit=live.claim.max_attempts is not None)
            if failure.reason == "error":
                log.exception("run %s failed", live.claim.id)
            return await self._failed(live, limits, failure)
        state, ending = await self._finished(live, "succeeded", result=_json(result))
        return state, ending if result is None else {**ending, "result": result}

    async def _stopped(self, live: _Live, limits: Limits, seconds: float) -> tuple[str, dict[str, object]]:
        if live.stop is None:
            # Celery's own time limit.
            return await self._failed(live, limits, _Failure(f"not done within {seconds:g} s", "timed_out"))
        if live.stop == _CANCELLED:
            return await self._finished(live, "cancelled", reason="cancelled")
        log.warning("run %s: abandoned: %s", live.claim.id, live.stop)
        return "fenced", {}

    async def _failed(self, live: _Live, limits: Limits, failure: _Failure) -> tuple[str, dict[str, object]]:
        claim, error = live.claim, _storable(failure.error)
        attempts = claim.max_attempts or limits.attempts
        if not failure.again:
            return await self._finished(live, "failed", reason=failure.reason, error=error)
        if failure.counts and claim.attempt >= attempts:
            return await self._finished(live, "dead", reason="attempts_used_up", error=error)
        delay = _delay(claim)
        if failure.after is not None:
            delay = max(failure.after, delay) if failure.counts else failure.after
        detail = json.dumps({"worker": self._owner, "reason": failure.reason, "again_in_seconds": round(delay, 1)})
        await self._flush([live])
        if await self._insist(lambda c: leases.retry_later(c, claim, delay, error, detail)):
            log.warning(
                "run %s: attempt %d of %d failed, again in %.0f s: %s", claim.id, claim.attempt, attempts, delay, error
            )
            return "retry", {"error": error}
        # Asked to stop in between, or fenced.
        return await self._finished(live, "cancelled", reason="cancelled", error=error)

    async def _finished(
        self, live: _Live, state: str, *, reason: str | None = None, result: str | None = None, error: str | None = None
    ) -> tuple[str, dict[str, object]]:
        await self._flush([live])
        claim = live.claim
        done = await self._insist(
            lambda c: leases.finish(c, claim, state, reason=reason, result=result, error=error),
        )
        if not done:
            return self._fenced(claim)
        if error is not None:
            log.error("run %s: %s after attempt %d: %s", claim.id, state, claim.attempt, error)
        return state, {} if error is None else {"error": error}

    @staticmethod
    def _fenced(claim: Claim) -> tuple[str, dict[str, object]]:
        log.warning(
            "run %s: claimed by somebody else since (epoch %d is over); nothing recorded", claim.id, claim.epoch
        )
        return "fenced", {}

    async def _claim(self, run: UUID, task: str) -> Claim | str:
        deadline = time.monotonic() + self._lease
        while True:
            try:
                async with (await self._connections()).acquire() as connection:
                    claim = await leases.claim(
                        connection, run, task, owner=self._owner, lease_seconds=self._lease, lost_attempts=LOST_ATTEMPTS
                    )
                    return claim or await leases.why_not(connection, run)
            except AWAY as fault:
                if time.monotonic() > deadline:
                    raise DatabaseAway(str(fault)) from fault
                log.warning("database away, run %s waits: %s", run, fault or type(fault).__name__)
                await asyncio.sleep(1)

    async def _insist(self, write: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
        """What was done must be recorded: through an outage of the database too, as long as it takes."""
        while True:
            try:
                async with (await self._connections()).acquire() as connection:
                    return await write(connection)
            except AWAY as fault:
                log.warning("database away, the end of a run waits: %s", fault or type(fault).__name__)
                await asyncio.sleep(1)

    async def _connections(self) -> asyncpg.Pool[Any]:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._url,
                    min_size=1,
                    max_size=4,
                    timeout=5,
                    command_timeout=10,
                    reset=_leave_as_is,
                    server_settings={"application_name": "beatline-runs"},
                )
            return self._pool

    def _watch(self) -> None:
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._keep_watch())

    async def _keep_watch(self) -> None:
        """While runs are under way: renew their leases each quarter of a lease, stop those that are to stop."""
        while self._runs:
            await asyncio.sleep(min(WATCH_SECONDS, self._lease / 4))
            runs = [live for live in self._runs.values() if not live.work.done()]
            if not runs:
                continue
            try:
                await self._look_after(runs)
            except AWAY as fault:
                log.warning("database away, leases not renewed: %s", fault or type(fault).__name__)
            for live in runs:
                if time.monotonic() - live.renewed_at > self._lease:
                    self._stop(live, "its lease could not be renewed in time")

    async def _look_after(self, runs: list[_Live]) -> None:
        async with (await self._connections()).acquire() as connection:
            asked = time.monotonic()
            renewing = any(asked - live.renewed_at >= self._lease / 4 for live in runs)
            claims = [live.claim for live in runs]
            ours = await (
                leases.renew(connection, claims, self._lease) if renewing else leases.check(connection, claims)
            )
        for live in runs:
            if live.claim.id not in ours:
                self._stop(live, "somebody else has claimed it since")
            elif ours[live.claim.id]:
                self._stop(live, _CANCELLED)
            elif renewing:
                live.renewed_at = asked
        await self._flush(runs)

    @staticmethod
    def _stop(live: _Live, why: str) -> None:
        if not live.work.done():
            live.stop = live.stop or why
            live.work.cancel()

    async def _flush(self, runs: list[_Live]) -> None:
        lines = [line for live in runs for line in live.lines]
        for live in runs:
            live.lines.clear()
        if lines:
            await self._insist(lambda c: leases.record_log(c, lines))

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        if self._pool is not None:
            self._pool.terminate()


async def _within(current: asyncio.Future[_Live], work: Work, arguments: dict[str, Any], seconds: float) -> object:
    # This task's own context: what the handler starts, and threads it asks, log for the same run.
    _live.set(await current)
    async with asyncio.timeout(seconds):
        return await work(**arguments)


def retry_within(fault: BaseException, limits: Limits) -> float | None:
    """Seconds until the next attempt of the run in hand after `fault`, at most; None when there will be none."""
    run = _live.get()
    if run is None or not isinstance(fault, Exception):
        return None
    failure = _failure(fault, limits.seconds, explicit=run.claim.max_attempts is not None)
    if not failure.again or (failure.counts and run.claim.attempt >= (run.claim.max_attempts or limits.attempts)):
        return None
    return max(failure.after or 0.0, _longest_delay(run.claim))


def _longest_delay(claim: Claim) -> float:
    base = claim.retry_delay_seconds if claim.retry_delay_seconds is not None else 1.0
    cap = _RETRY_CAP if claim.retry_delay_seconds is not None else 60.0
    return float(min(cap, base * 2.0 ** (claim.attempt - 1)))


def _delay(claim: Claim) -> float:
    return _longest_delay(claim) * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load


def _words(fault: BaseException) -> str:
    return f"{type(fault).__name__}: {fault}" if str(fault) else type(fault).__name__


def _storable(text: str) -> str:
    """Without what PostgreSQL refuses in a text: NUL, and half of a surrogate pair."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _json(result: object) -> str | None:
    """JSON that PostgreSQL takes: a run that has done its work must not end for what it says of it."""
    if result is None:
        return None
    try:
        text = json.dumps(result, default=str, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        # A key that is no text, a circle.
        text = json.dumps(repr(result), ensure_ascii=False)
    if "NaN" in text or "Infinity" in text:
        text = json.dumps(json.loads(text, parse_constant=str), ensure_ascii=False)
    text = _ESCAPE.sub(lambda escape: "\\ufffd" if escape[0] == "\\u0000" else escape[0], _storable(text))
    size = len(text.encode())
    if size > _RESULT_BYTES:
        return json.dumps({"truncated": True, "bytes": size, "beginning": text[:2000]})
    return text


def install_log_lines() -> None:
    """Have what handlers log shown with their runs."""
    root = logging.getLogger()
    if not any(isinstance(handler, _Lines) for handler in root.handlers):
        root.addHandler(_Lines())
