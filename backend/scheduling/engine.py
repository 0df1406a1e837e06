"""The loop that drives everything: claim, relay, keep. The same code runs in every Beat, for ever, and in a worker, once a minute.

Three coroutines with a database connection each, so that a slow broker never delays a claim:

1. the claimer wakes when a schedule is due (or changes: LISTEN) and claims what is due;
2. the relay publishes what was claimed, in a thread, and what others left behind;
3. the keeper sweeps every waiting state.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

from backend.scheduling import keeper, relay
from backend.scheduling.alerts import watch_deadlines
from backend.scheduling.dispatcher import Claimed, claim_due, clock_offset, seconds_until_due
from backend.scheduling.publisher import BrokerAway, Message, Publisher
from backend.scheduling.system import sync_entries
from backend.scheduling.zones import recompute_outdated

log = logging.getLogger(__name__)

CHANNEL = "beatline_schedules"
_UP_SECONDS = "select extract(epoch from clock_timestamp() - pg_postmaster_start_time())::float8"
# How long the claimer sleeps at most: what a lost notification costs.
POLL_SECONDS = 1.0
SWEEP_SECONDS = 2.0
HOUSEKEEPING_SECONDS = 60.0
# Messages in this process's hands, beyond which claimed runs are left to any relay: what is in hand when a process dies waits until
# RELAY_SECONDS are over.
_IN_HAND = 1_000
_CHUNK = 500
_CLOSE_SECONDS = 6.0
_TOLD_ONE_BY_ONE = 20
_CLOCK_TOLERANCE = 1.0

AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    # A connection that the server has just cut, used before asyncpg knows.
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
)
# Tables that are not there yet count as a database that is not ready.
NOT_READY = (*AWAY, asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.InvalidCatalogNameError)
# Two that lock the same rows in another order: one gives way and comes again.
_AGAIN = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Of the engine; seconds and days."""

    database_url: str
    lease_seconds: float = 60.0
    queue_timeout: float = 600.0
    retention_days: int = 90


class Link:
    """One database connection, made again after it was lost."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._connection: asyncpg.Connection[Any] | None = None
        self.since = 0.0

    async def get(
        self, *, on_new: Callable[[asyncpg.Connection[Any]], Awaitable[None]] | None = None
    ) -> asyncpg.Connection[Any]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self._url,
                timeout=5,
                command_timeout=15,
                server_settings={
                    "application_name": f"beatline-{self._name}",
                    # A process that freezes inside a transaction must not keep its rows from the others.
                    "idle_in_transaction_session_timeout": "5000",
                    "lock_timeout": "5000",
                },
            )
            self.since = time.monotonic()
            if on_new is not None:
                await on_new(self._connection)
        return self._connection

    def drop(self) -> None:
        """Without asking the server, which may be frozen."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


class Engine:
    """Belongs to one event loop; `publisher` is used by one thread at a time."""

    def __init__(self, settings: Settings, publisher: Publisher) -> None:
        self._settings = settings
        self._publisher = publisher
        self._claim_link = Link(settings.database_url, "claimer")
        self._relay_link = Link(settings.database_url, "relay")
        self._keep_link = Link(settings.database_url, "keeper")
        self._wake = asyncio.Event()
        self._work = asyncio.Event()
        self._in_hand: deque[Message] = deque()
        self._broker_away = False
        self._closing = False
        self._republish_at = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self._passed = asyncio.Condition()
        self._passes = 0
        self._entries: Mapping[str, Mapping[str, Any]] = {}
        self._routes: Mapping[str, Mapping[str, str]] = {}
        self.away_since: float | None = None

    def start(self, entries: Mapping[str, Mapping[str, Any]], routes: Mapping[str, Mapping[str, str]]) -> None:
        """Begin to work, for ever; `entries` and `routes` are celery_app's, to be kept as rows."""
        self._entries, self._routes = entries, routes
        self._tasks = [
            asyncio.create_task(work()) for work in (self._claim_for_ever, self._relay_for_ever, self._keep_for_ever)
        ]

    async def passed(self) -> None:
        """Return after the claimer's next pass, done or failed; raise what has ended one of the coroutines."""
        before = self._passes
        waiting = asyncio.create_task(self._wait_for_pass(before))
        try:
            await asyncio.wait([waiting, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        for task in self._tasks:
            if not task.done() or self._closing:
                continue
            # A signal ended it in the middle; its SystemExit has left by the loop, and raised again would interrupt `close`.
            if not task.cancelled() and isinstance(task.exception(), SystemExit | KeyboardInterrupt):
                return
            task.result()
            raise RuntimeError("the scheduling engine has ended by itself")

    async def _wait_for_pass(self, before: int) -> None:
        async with self._passed:
            await self._passed.wait_for(lambda: self._passes > before)

    async def close(self) -> None:
        """Stop claiming, let what is being published end, give back the rest."""
        self._closing = True
        self._work.set()
        relaying = self._tasks[1:2]
        for task in self._tasks:
            if task not in relaying:
                task.cancel()
        if relaying:
            # The publisher's thread cannot be stopped; a broker that does not answer costs it a few seconds.
            await asyncio.wait(relaying, timeout=_CLOSE_SECONDS)
            relaying[0].cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._give_back()
        for link in (self._claim_link, self._relay_link, self._keep_link):
            link.drop()
        self._publisher.close()

    async def _give_back(self) -> None:
        left = [message.run_id for message in self._in_hand]
        self._in_hand.clear()
        if not left:
            return
        try:
            async with asyncio.timeout(2):
                await relay.give_back(await self._relay_link.get(), left)
        except NOT_READY as fault:
            log.info("%d runs are left to other relays in %.0f s: %s", len(left), relay.RELAY_SECONDS, fault)

    async def run_once(self) -> dict[str, int]:
        """Claim everything that is due, publish everything that waits, sweep; counts. Raises when the database is away."""
        counts: Counter[str] = Counter()
        connection = await self._claim_link.get()
        while True:
            claimed = await claim_due(connection, relay_seconds=relay.RELAY_SECONDS)
            counts["schedules"] += claimed.schedules
            counts.update(claimed.states)
            self._in_hand.extend(claimed.messages)
            if not claimed.full:
                break
        await self._sweep(connection, await connection.fetchval(_UP_SECONDS))
        while messages := await self._next_messages(connection):
            counts["published"] += await self._publish(connection, messages)
            if self._broker_away:
                break
        return dict(counts)

    # ------------------------------------------------------------------ claiming

    async def _claim_for_ever(self) -> None:
        while True:
            wait = POLL_SECONDS
            try:
                wait = await self._claim_pass()
                self._database_answers()
            except _AGAIN as fault:
                log.info("claim tried again: %s", fault)
                wait = 0.05
            except NOT_READY as fault:
                self._database_is_away(fault)
                self._claim_link.drop()
            except Exception:
                # Not a pass: who watches Beat sees that it no longer ticks.
                log.exception("claiming failed")
                self._claim_link.drop()
                await asyncio.sleep(POLL_SECONDS)
                continue
            async with self._passed:
                self._passes += 1
                self._passed.notify_all()
            await self._sleep(self._wake, wait)

    async def _claim_pass(self) -> float:
        """Claim what is due; seconds until there may be more."""
        connection = await self._claim_link.get(on_new=self._listen)
        wait = await seconds_until_due(connection)
        if wait is None or wait > 0:
            return POLL_SECONDS if wait is None else min(POLL_SECONDS, wait)
        mine = relay.RELAY_SECONDS if len(self._in_hand) < _IN_HAND and not self._broker_away else 0
        claimed = await claim_due(connection, relay_seconds=mine)
        if claimed.messages:
            self._in_hand.extend(claimed.messages)
            self._work.set()
        self._report(claimed)
        # Nothing though something is due: others are at it.
        return 0.0 if claimed.schedules else 0.03

    async def _listen(self, connection: asyncpg.Connection[Any]) -> None:
        def notified(*_: object) -> None:
            self._wake.set()
            self._work.set()

        await connection.add_listener(CHANNEL, notified)
        offset = (await clock_offset(connection)).total_seconds()
        if abs(offset) > _CLOCK_TOLERANCE:
            log.warning("this machine's clock is %+.1f s off the database's, whose clock decides", offset)

    @staticmethod
    def _report(claimed: Claimed) -> None:
        """Celery Beat's own line for each, which operators look for; a burst is summed up."""
        if len(claimed.started) <= _TOLD_ONE_BY_ONE:
            for name, task in claimed.started:
                log.info("Scheduler: Sending due task %s (%s)", name, task)
        others = {state: n for state, n in claimed.states.items() if state not in {"pending", "waiting"}}
        if others or len(claimed.started) > _TOLD_ONE_BY_ONE:
            told = ", ".join(f"{count} {state}" for state, count in sorted(claimed.states.items()))
            log.info("Scheduler: %d schedules due: %s", claimed.schedules, told)

    def _database_is_away(self, fault: BaseException) -> None:
        if self.away_since is None:
            self.away_since = time.monotonic()
            log.error("database away, nothing is dispatched until it answers: %s", fault or type(fault).__name__)

    def _database_answers(self) -> None:
        if self.away_since is not None:
            log.warning("database back after %.0f s", time.monotonic() - self.away_since)
            self.away_since = None

    # ---------------------------------------------------------------- publishing

    async def _relay_for_ever(self) -> None:
        while not self._closing:
            try:
                connection = await self._relay_link.get()
                while messages := await self._next_messages(connection):
                    await self._publish(connection, messages)
                    if self._broker_away or self._closing:
                        break
            except _AGAIN as fault:
                log.info("relay tried again: %s", fault)
            except NOT_READY:
                self._relay_link.drop()
            except Exception:
                log.exception("publishing failed")
                self._relay_link.drop()
            await self._sleep(self._work, POLL_SECONDS)

    async def _next_messages(self, connection: asyncpg.Connection[Any]) -> list[Message]:
        if self._in_hand and not self._broker_away:
            return [self._in_hand.popleft() for _ in range(min(_CHUNK, len(self._in_hand)))]
        # A broker that was away is tried with a single message.
        return await relay.claim_pending(connection, 1 if self._broker_away else _CHUNK)

    async def _publish(self, connection: asyncpg.Connection[Any], messages: list[Message]) -> int:
        try:
            confirmed = await asyncio.to_thread(self._publisher.publish, messages)
        except BrokerAway as fault:
            confirmed = fault.confirmed
            if not self._broker_away:
                log.warning("broker away, runs wait in the database: %s", fault)
            self._broker_away = True
            messages = [*messages, *self._in_hand]
            self._in_hand.clear()
        else:
            if self._broker_away:
                log.warning("broker back")
            self._broker_away = False
        if confirmed:
            await relay.mark_published(connection, confirmed)
        if len(confirmed) < len(messages):
            done = set(confirmed)
            left = [message.run_id for message in messages if message.run_id not in done]
            if self._broker_away:
                await relay.give_back(connection, left)
        return len(confirmed)

    # ------------------------------------------------------------------- keeping

    async def _keep_for_ever(self) -> None:
        housekeeping_at, synced = 0.0, False
        while True:
            try:
                connection = await self._keep_link.get()
                if not synced:
                    await self._begin(connection)
                    synced = True
                await self._sweep(connection, time.monotonic() - self._keep_link.since)
                if time.monotonic() >= housekeeping_at:
                    await keeper.prune_runs(connection, self._settings.retention_days)
                    housekeeping_at = time.monotonic() + HOUSEKEEPING_SECONDS
            except _AGAIN as fault:
                log.info("sweep tried again: %s", fault)
            except NOT_READY:
                self._keep_link.drop()
            except Exception:
                log.exception("sweeping failed")
                self._keep_link.drop()
            # Several engines drift apart.
            await asyncio.sleep(SWEEP_SECONDS * random.uniform(0.4, 0.6))  # noqa: S311

    async def _begin(self, connection: asyncpg.Connection[Any]) -> None:
        async with connection.transaction():
            written = await sync_entries(connection, self._entries, self._routes)
        if written:
            log.info("system schedules written: %s", ", ".join(written))
        moved = await recompute_outdated(connection)
        if moved:
            log.warning("the zone database has changed: %d schedules run at another instant than before", moved)
        self._wake.set()

    async def _sweep(self, connection: asyncpg.Connection[Any], answering_for: float) -> None:
        """`answering_for`: seconds since the database was away, as far as is known."""
        if await keeper.admit_waiting(connection):
            self._work.set()
        # After an outage workers renew first: a lease that ran out while nobody could reach the database is no lost worker.
        rested = answering_for > min(15.0, self._settings.lease_seconds / 2)
        if rested and await keeper.reap_leases(connection, self._settings.lease_seconds):
            self._work.set()
        await keeper.expire_unclaimed(connection)
        if time.monotonic() >= self._republish_at:
            self._republish_at = time.monotonic() + self._settings.queue_timeout / 60
            await keeper.republish_lost(connection, self._settings.queue_timeout)
        await watch_deadlines(connection)

    @staticmethod
    async def _sleep(event: asyncio.Event, seconds: float) -> None:
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await event.wait()
            except TimeoutError:
                pass
        else:
            await asyncio.sleep(0)
        event.clear()
