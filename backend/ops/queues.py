"""The page of queues: what waits where, which workers are up, what the last health check found."""

from collections.abc import Iterable
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Form, Request, Response

from backend.core.web import ConfigDep, DatabaseDep
from backend.ops.access import Operator
from backend.ops.context import render
from backend.ops.flash import lead
from backend.queues import service as queues
from backend.queues.schemas import QueueRead, QueuesRead

router = APIRouter(prefix="/queues")

_CHECKS = ("worker_health_check", "health_check")


@router.get("")
async def show_queues(request: Request, db: DatabaseDep, config: ConfigDep, still: bool = False) -> Response:
    """Queues, workers and health; refreshes itself, unless `still`."""
    found = await queues.read_queues(db)
    async with db.transaction() as session:
        workers, health = await queues.list_workers(session), await queues.read_health(session)
    context = {
        "broker": {"redis": "Redis", "rabbitmq": "RabbitMQ"}[found.broker],
        "fault": found.broker_error,
        "queues": found.queues,
        "shown": _columns(found),
        "unread": {queue.name for queue in found.queues if _is_unread(queue)},
        "waiting": _sum(queue.ready for queue in found.queues),
        "under_way": _sum(queue.unacknowledged for queue in found.queues),
        "workers": workers,
        "up": sum(worker.alive for worker in workers),
        "health": health,
        "zone": config.timezone,
        "still": still,
        "refresh": not still,
    }
    return render(request, "queues.html", context)


def _columns(found: QueuesRead) -> set[str]:
    """Those that the broker tells of at all."""
    return {
        name
        for name in ("unacknowledged", "consumers")
        if any(getattr(each, name) is not None for each in found.queues)
    }


def _is_unread(queue: QueueRead) -> bool:
    """Something waits, and nobody who could take it has answered."""
    return bool(queue.ready or queue.runs_waiting) and not queue.workers and not queue.consumers


def _sum(numbers: Iterable[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


@router.post("/check")
async def check(db: DatabaseDep, config: ConfigDep, actor: Operator, key: Annotated[UUID, Form()]) -> Response:
    """Ask workers and servers now; `key` is the button's own, so that a double click asks once."""
    for name in _CHECKS:
        expires = config.result_expires
        await queues.send(db, name, {}, expires=expires, idempotency_key=f"ops-{name}-{key}", actor=actor.name)
    return lead("/ops/queues", "The checks are under way; what they find stands here within seconds.")
