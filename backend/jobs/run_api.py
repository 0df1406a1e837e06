"""HTTP of runs."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response

from backend.core.paging import Page
from backend.core.web import OperatorDep, SessionDep, Viewer
from backend.jobs import service as jobs
from backend.jobs.api import IdempotencyKey, Limit, Number, answer
from backend.jobs.refusals import invalid
from backend.jobs.run_schemas import RunRead, RunSummary
from backend.jobs.schemas import Moment
from backend.jobs.states import RunState, RunTrigger

router = APIRouter(prefix="/api", tags=["job runs"], dependencies=[Viewer])


@router.get("/job-runs")
async def list_runs(
    session: SessionDep,
    state: Annotated[list[RunState] | None, Query()] = None,
    schedule_id: Number = None,
    template_id: Number = None,
    managed_by: Literal["user", "system"] | None = None,
    trigger: RunTrigger | None = None,
    since: Annotated[Moment | None, Query()] = None,
    until: Annotated[Moment | None, Query()] = None,
    cursor: str | None = None,
    limit: Limit = 50,
) -> Page[RunSummary]:
    """Runs by when they were made, newest first; `state` may be given several times."""
    for name, at in (("since", since), ("until", until)):
        if at is not None and at.tzinfo is None:
            raise invalid(name, "give an offset, such as 2026-11-21T10:00:00Z")
    return await jobs.list_runs(
        session,
        states=state,
        schedule_id=schedule_id,
        template_id=template_id,
        managed_by=managed_by,
        trigger=trigger,
        since=since,
        until=until,
        cursor=cursor,
        limit=limit,
    )


@router.get("/job-runs/{run_id}")
async def read_run(session: SessionDep, run_id: UUID) -> RunRead:
    """One run: timeline, attempts, log lines, result, error."""
    return await jobs.read_run(session, run_id)


@router.post(
    "/job-runs/{run_id}/cancel",
    response_model=RunSummary,
    responses={202: {"model": RunSummary, "description": "It is under way; its worker stops it within seconds."}},
)
async def cancel_run(session: SessionDep, principal: OperatorDep, run_id: UUID, response: Response) -> RunSummary:
    """Cancel a run: at once (200), or by asking the worker that is at it (202)."""
    cancelled = await jobs.cancel_run(session, run_id, actor=principal.name)
    if cancelled.stopping:
        response.status_code = 202
    return cancelled.run


@router.post(
    "/job-runs/{run_id}/retry",
    status_code=202,
    response_model=RunSummary,
    responses={200: {"model": RunSummary, "description": "This key's run, as it is now; nothing is started again."}},
)
async def retry_run(
    session: SessionDep,
    principal: OperatorDep,
    run_id: UUID,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> RunSummary:
    """A new run of a finished one's work, with the same arguments, once per Idempotency-Key."""
    return answer(
        response, await jobs.retry_run(session, run_id, idempotency_key=idempotency_key, actor=principal.name)
    )
