"""HTTP of the queues: tasks, queues, workers, health."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Header, Request, Response

from backend.core.principal import Role
from backend.core.throttle import caller, spend
from backend.core.web import ConfigDep, DatabaseDep, OperatorDep, SessionDep, Viewer, ViewerDep
from backend.queues import service as queues
from backend.queues.schemas import HealthRead, QueuesRead, TaskOffer, TaskRead, TaskSent, WorkerRead

router = APIRouter(prefix="/api", dependencies=[Viewer])

IdempotencyKey = Annotated[str | None, Header(pattern=r"^[A-Za-z0-9_.:-]{1,255}$")]

_REPLAY: dict[int | str, dict[str, Any]] = {
    200: {"model": TaskSent, "description": "This key's task; nothing is sent again."}
}


def answer(sent: queues.Sent, response: Response) -> TaskSent:
    """202 for a task that was sent now, 200 for one that this key has sent before."""
    if sent.replayed:
        response.status_code = 200
        response.headers["Idempotent-Replay"] = "true"
    response.headers["Location"] = f"/api/tasks/{sent.task.id}"
    return sent.task


@router.get("/tasks", tags=["tasks"])
async def list_tasks() -> list[TaskOffer]:
    """The tasks that may be sent by name, and their parameters."""
    return [
        TaskOffer(
            name=one.name,
            description=one.description,
            queue=one.queue,
            parameters=one.parameters.model_json_schema(),
        )
        for one in queues.every_offer()
    ]


async def limit_sending(request: Request, response: Response, config: ConfigDep, _: OperatorDep) -> None:
    """BEATLINE_SEND_RATE per caller; while Redis is away it passes, since the broker has room of its own."""
    response.headers.update(await spend(request, config.send_rate, name="tasks", key=caller(request)))


@router.post(
    "/tasks/{name}",
    tags=["tasks"],
    status_code=202,
    response_model=TaskSent,
    responses=_REPLAY,
    dependencies=[Depends(limit_sending)],
)
async def send_task(
    db: DatabaseDep,
    config: ConfigDep,
    principal: OperatorDep,
    response: Response,
    name: str,
    parameters: Annotated[dict[str, Any] | None, Body()] = None,
    idempotency_key: IdempotencyKey = None,
) -> TaskSent:
    """Send a task and answer at once; its state and result stand at `Location`. Once per Idempotency-Key."""
    wish = queues.offered(name)
    arguments = queues.checked(wish, parameters or {}, config)
    sent = await queues.send(
        db,
        name,
        arguments,
        expires=config.result_expires,
        idempotency_key=idempotency_key,
        actor=principal.name,
    )
    return answer(sent, response)


@router.get("/tasks/{task_id}", tags=["tasks"])
async def read_task(db: DatabaseDep, principal: ViewerDep, task_id: UUID) -> TaskRead:
    """State, progress, result or error of a task that was sent through this API: of one's own, and for operators of any."""
    sender = None if principal.role.covers(Role.OPERATOR) else principal.name
    return await queues.read(db, task_id, sender=sender)


@router.get("/queues", tags=["queues"])
async def read_queues(db: DatabaseDep) -> QueuesRead:
    """Each queue's messages, consumers, workers and waiting runs."""
    return await queues.read_queues(db)


@router.get("/workers", tags=["queues"])
async def list_workers(session: SessionDep) -> list[WorkerRead]:
    """The workers that have answered within the last days, those heard from last first."""
    return await queues.list_workers(session)


@router.get("/health", tags=["health"])
async def read_health(session: SessionDep) -> HealthRead:
    """The newest periodic check of database, broker, result store and Beat."""
    return await queues.read_health(session)
