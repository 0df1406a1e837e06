"""The pages of runs: the list, one run, and its buttons."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse

from backend.core.web import ConfigDep, SessionDep
from backend.jobs import service as jobs
from backend.jobs.states import ACTIVE, RunState
from backend.ops.access import Operator
from backend.ops.context import render
from backend.ops.schedules import kind_labels

router = APIRouter(prefix="/runs")

_ROWS = 50
_NOT_RUN_AGAIN = {*ACTIVE, RunState.COALESCED}


@router.get("")
async def show_runs(
    request: Request,
    session: SessionDep,
    config: ConfigDep,
    state: Literal[""] | RunState = "",
    schedule_id: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    managed_by: Literal["", "user", "system"] = "",
    cursor: str | None = None,
) -> Response:
    """Runs, newest first, of one state or schedule; refreshes itself while one of the newest is under way."""
    page = await jobs.list_runs(
        session,
        states=[state] if state else None,
        schedule_id=schedule_id,
        managed_by=managed_by or None,
        cursor=cursor,
        limit=_ROWS,
    )
    counts = (await jobs.read_summary(session)).runs
    context = {
        "runs": page.items,
        "next_cursor": page.next_cursor,
        # Those of one schedule are not counted.
        "counts": {each.value: counts.get(each.value, 0) if schedule_id is None else None for each in RunState},
        "state": state,
        "managed_by": managed_by,
        "schedule": await jobs.read_schedule(session, schedule_id) if schedule_id is not None else None,
        "kinds": kind_labels(),
        "zone": config.timezone,
        "refresh": cursor is None and any(run.state in ACTIVE for run in page.items),
    }
    return render(request, "runs.html", context)


@router.get("/{run_id}")
async def show_run(
    request: Request, session: SessionDep, config: ConfigDep, run_id: UUID, still: bool = False
) -> Response:
    """One run: timeline, attempts, log, result; refreshes itself while it is under way, unless `still`."""
    run = await jobs.read_run(session, run_id)
    context = {
        "run": run,
        "kind": kind_labels().get(run.kind or ""),
        "active": run.state in ACTIVE,
        "still": still,
        "can_cancel": run.state in ACTIVE and run.cancel_requested_at is None,
        "can_retry": run.state not in _NOT_RUN_AGAIN,
        "zone": config.timezone,
        "refresh": run.state in ACTIVE and not still,
    }
    return render(request, "run.html", context)


@router.post("/{run_id}/cancel")
async def cancel(session: SessionDep, run_id: UUID, actor: Operator) -> Response:
    await jobs.cancel_run(session, run_id, actor=actor.name)
    return RedirectResponse(f"/ops/runs/{run_id}", 303)


@router.post("/{run_id}/retry")
async def retry(session: SessionDep, run_id: UUID, actor: Operator, key: Annotated[UUID, Form()]) -> Response:
    """`key` is the button's own, so that a double click starts one run."""
    started = await jobs.retry_run(session, run_id, idempotency_key=f"ops-{key}", actor=actor.name)
    return RedirectResponse(f"/ops/runs/{started.run.id}", 303)
