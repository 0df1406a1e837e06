"""The platform's own tasks: dead letters, workers, health, cleaning up."""

import logging
from datetime import datetime

from pydantic import ValidationError

from backend.celery_app import app
from backend.core.errors import PermanentError, TransientError, Unavailable
from backend.core.runtime import Runtime, task
from backend.queues import service as queues
from backend.queues.schemas import Requeue

log = logging.getLogger(__name__)

# About what a minute suffices for.
_DRAIN = 5_000


@task(max_retries=0, time_limit=300)
async def drain_dead_letters(runtime: Runtime) -> dict[str, int]:
    """Move what RabbitMQ has put aside into the table of dead letters. On Redis there is nothing to move."""
    moved = await queues.drain(runtime.db, app, limit=_DRAIN)
    if moved["stored"]:
        log.warning("%d messages were refused by RabbitMQ's queues and are dead letters now", moved["stored"])
    return moved


@task(max_retries=5, time_limit=3_600)
async def requeue_dead_letters(
    runtime: Runtime, *, wanted: dict[str, str | int | float], before: str, actor: str
) -> dict[str, object]:
    """Send dead letters again at a pace; what ended after `before` (ISO 8601) is left alone.

    A second delivery finds the letters that were sent no longer open, and goes on with the others.
    """
    try:
        wish = Requeue.model_validate(wanted)
    except ValidationError as fault:
        raise PermanentError(f"not a filter of dead letters: {fault}") from fault
    requeued, refused = 0, []
    steps = queues.requeue_many(
        runtime.db,
        wish,
        limit=wish.limit,
        per_second=wish.per_second,
        before=datetime.fromisoformat(before),
        actor=actor,
    )
    try:
        async for done, total, why in steps:
            requeued += why is None
            refused += [why] if why is not None else []
            await runtime.progress(done, total)
    except Unavailable as fault:
        raise TransientError(fault.detail) from fault
    log.info("%d dead letters sent again, %d refused", requeued, len(refused))
    return {"requeued": requeued, "refused": len(refused), "reasons": sorted(set(refused))[:20]}


@task(max_retries=0, time_limit=120)
async def worker_health_check(runtime: Runtime) -> dict[str, list[str]]:
    """Note which workers answer; a warning names those that have stopped to."""
    found = await queues.check_workers(runtime.db)
    if found["missing"]:
        log.warning("workers that answer no more: %s", ", ".join(found["missing"]))
    return found


@task(max_retries=0, time_limit=120)
async def health_check(runtime: Runtime) -> dict[str, object]:
    """Try every server that tasks need, and keep the answers for GET /api/health."""
    parts = await queues.check_health(runtime.db)
    for name, part in parts.items():
        if not part.ok:
            log.warning("health: %s: %s", name, part.detail)
    return {name: part.model_dump() for name, part in parts.items()}


@task(max_retries=3, time_limit=300)
async def cleanup_celery_data(runtime: Runtime) -> dict[str, int]:
    """Delete what has been kept long enough, of every table of the list in backend/queues/retention.py; how many rows of each."""
    deleted = await queues.clean(runtime.db, runtime.config, app)
    if deleted["open_letters"]:
        log.warning("%d dead letters were deleted by age before anybody decided about them", deleted["open_letters"])
    return deleted
