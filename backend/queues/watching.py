"""Queues, workers and the health of the whole, as they are now and as the periodic checks found them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Literal

from celery import Celery

from backend.celery_app import QUEUE_LIMITS
from backend.celery_app import app as celery_app
from backend.core.clock import utc_now
from backend.core.db import Database, Session
from backend.core.errors import TransientError
from backend.queues import brokers
from backend.queues.brokers import Depth
from backend.queues.models import HealthCheck
from backend.queues.repository.workers import WorkerRepository
from backend.queues.schemas import HealthPart, HealthRead, QueueRead, QueuesRead, WorkerRead

# Of worker_health_check and of health_check: a worker, or a check, is missed once it is older than two and a bit.
PERIOD = timedelta(minutes=5)
_MISSED = 2 * PERIOD + timedelta(minutes=1)

_REPLY_SECONDS = 2.0
_STEP_SECONDS = 10.0
# System entries are due every minute at the latest, and a run may take a while to be made.
_TICK_SECONDS = 180.0


async def read_queues(db: Database, *, app: Celery = celery_app) -> QueuesRead:
    """Every queue, in the order of the configuration; a broker that is away leaves its numbers null."""
    on_redis = app.connection_for_read().transport.driver_type == "redis"
    found: dict[str, Depth] = {}
    fault_text = None
    try:
        found = await asyncio.to_thread(brokers.depths, app, list(QUEUE_LIMITS))
    except brokers.FAULTS as fault:
        fault_text = f"{type(fault).__name__}: {fault}"
    async with db.transaction() as session:
        waiting = await WorkerRepository(session).waiting_runs()
        alive = [worker.queues for worker in await list_workers(session) if worker.alive]
    queues = []
    for name in [*QUEUE_LIMITS, *(extra for extra in found if extra not in QUEUE_LIMITS)]:
        depth, runs = found.get(name), waiting.get(name)
        queues.append(
            QueueRead(
                name=name,
                ready=depth.ready if depth else None,
                unacknowledged=depth.unacknowledged if depth else None,
                consumers=depth.consumers if depth else None,
                workers=sum(name in queues_read for queues_read in alive),
                runs_waiting=runs.runs if runs else 0,
                oldest_run_at=runs.oldest if runs else None,
            )
        )
    return QueuesRead(broker="redis" if on_redis else "rabbitmq", broker_error=fault_text, queues=queues)


async def list_workers(session: Session) -> list[WorkerRead]:
    """Those that have ever answered and are not forgotten yet, last heard from first."""
    workers = WorkerRepository(session)
    now = await workers.now()
    return [
        WorkerRead.model_validate(row.model_dump() | {"alive": now - row.last_seen < _MISSED})
        for row in await workers.every()
    ]


async def check_workers(db: Database, *, app: Celery = celery_app) -> dict[str, list[str]]:
    """Ask every worker for its state and note who answered; who answered, and who has stopped to since the last time."""
    try:
        stats, queues = await asyncio.to_thread(_ask, app)
    except brokers.FAULTS as fault:
        raise TransientError(f"broker: {type(fault).__name__}: {fault}") from fault
    async with db.transaction() as session:
        known = {worker.worker for worker in await list_workers(session) if worker.alive}
        await WorkerRepository(session).beat([_row(name, stats[name], queues.get(name, [])) for name in sorted(stats)])
    return {"active": sorted(stats), "missing": sorted(known - set(stats))}


def _ask(app: Celery) -> tuple[dict[str, dict[str, Any]], dict[str, list[str]]]:
    """What each worker says of itself, and the queues that it reads."""
    answers = app.control.broadcast("stats", reply=True, timeout=_REPLY_SECONDS) or []
    readers = app.control.broadcast("active_queues", reply=True, timeout=_REPLY_SECONDS) or []
    stats = {name: dict(said) for answer in answers for name, said in answer.items() if "error" not in said}
    queues = {name: [queue["name"] for queue in said] for answer in readers for name, said in answer.items()}
    return stats, queues


def _row(name: str, said: dict[str, Any], queues: list[str]) -> dict[str, Any]:
    pool = said.get("pool") or {}
    return {
        "worker": name,
        "queues": queues,
        "pool": str(pool.get("implementation") or "").rpartition(":")[2],
        "concurrency": pool.get("max-concurrency"),
        "pid": said.get("pid"),
        "processed": sum((said.get("total") or {}).values()),
        "uptime_seconds": said.get("uptime"),
    }


async def check_health(db: Database, *, app: Celery = celery_app) -> dict[str, HealthPart]:
    """Try the database, the broker, the result store and Beat's last tick, and keep what was found.

    While the database is away nothing can be kept: the readers see that the newest check grows stale.
    """
    parts = {
        "database": await _tried(db.ping),
        "broker": await _tried(lambda: asyncio.to_thread(brokers.ping, app)),
        "results": await _tried(lambda: asyncio.to_thread(_try_results, app)),
        "beat": await _last_tick(db),
    }
    if parts["database"].ok:
        async with db.transaction() as session:
            stored = {name: part.model_dump() for name, part in parts.items()}
            healthy = all(part.ok for part in parts.values())
            await WorkerRepository(session).add_check(HealthCheck(healthy=healthy, parts=stored))
    return parts


async def _tried(step: Callable[[], Awaitable[object]]) -> HealthPart:
    began = time.monotonic()
    try:
        await asyncio.wait_for(step(), _STEP_SECONDS)
    # Drivers have errors of their own; each of them is the answer.
    except Exception as fault:  # noqa: BLE001
        return HealthPart(ok=False, detail=f"{type(fault).__name__}: {fault}"[:500])
    return HealthPart(ok=True, detail="answers", seconds=round(time.monotonic() - began, 4))


def _try_results(app: Celery) -> None:
    """Ask for a task that never was."""
    app.backend.get_task_meta("beatline-health-check", cache=False)


async def _last_tick(db: Database) -> HealthPart:
    try:
        async with db.transaction() as session:
            seconds = await WorkerRepository(session).seconds_since_tick()
    # As above: whichever error, the answer is that nobody knows.
    except Exception as fault:  # noqa: BLE001
        return HealthPart(ok=False, detail=f"not known: {type(fault).__name__}")
    if seconds is None:
        return HealthPart(ok=False, detail="Beat has not made a run yet")
    return HealthPart(ok=seconds <= _TICK_SECONDS, detail=f"made a run {seconds:.0f} s ago", seconds=round(seconds, 1))


async def read_health(session: Session) -> HealthRead:
    """The newest check that is kept."""
    check = await WorkerRepository(session).last_check()
    if check is None:
        return HealthRead(status="unknown", checked_at=None, age_seconds=None, parts={})
    age = utc_now() - check.at
    status: Literal["ok", "degraded", "stale"] = "ok" if check.healthy else "degraded"
    return HealthRead(
        status="stale" if age > _MISSED else status,
        checked_at=check.at,
        age_seconds=round(age.total_seconds(), 1),
        parts={name: HealthPart.model_validate(part) for name, part in check.parts.items()},
    )
