"""The pages of schedules: the list, one schedule, and its buttons."""

from dataclasses import dataclass
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Form, Path, Request, Response
from fastapi.responses import RedirectResponse

from backend.core.db import Session
from backend.core.durations import span
from backend.core.paging import Page
from backend.core.web import SessionDep
from backend.jobs import service as jobs
from backend.jobs.run_schemas import AlertRead, RunSummary
from backend.jobs.schemas import ScheduleRead, Search
from backend.ops.access import Operator
from backend.ops.context import Back, local, render

router = APIRouter(prefix="/schedules")

_ROWS, _RESULTS, _UPCOMING, _OCCURRENCES, _ALERTS = 25, 5, 10, 25, 10

State = Literal["", "active", "paused", "alert"]
Owner = Literal["", "user", "system"]
Key = Annotated[int, Path(ge=1, le=2**63 - 1)]


@dataclass(frozen=True, slots=True)
class Row:
    """A schedule of the list: its open alert and its newest runs, oldest of them first."""

    schedule: ScheduleRead
    alert: AlertRead | None
    runs: list[RunSummary]

    @property
    def state(self) -> str:
        return state_of(self.schedule)

    @property
    def when(self) -> str:
        return when(self.schedule)


def when(schedule: ScheduleRead) -> str:
    """The time in words, without the zone."""
    if schedule.interval_seconds is not None:
        return f"Every {span(schedule.interval_seconds)}"
    if schedule.run_at is not None:
        return f"Once, at {local(schedule.run_at, schedule.timezone)}"
    return (schedule.explanation or "Cannot be understood").removesuffix(f" ({schedule.timezone})").rstrip(".")


def state_of(schedule: ScheduleRead) -> str:
    """`over`: active, but no occurrence is left. `deferred`: put off, for `last_error`."""
    if not schedule.is_active:
        return "paused"
    if schedule.last_error is not None:
        return "deferred"
    return "active" if schedule.next_run is not None else "over"


def kind_labels() -> dict[str, str]:
    """What people call each kind."""
    return {kind.name: kind.label for kind in jobs.list_kinds()}


@router.get("")
async def show_schedules(
    request: Request,
    session: SessionDep,
    q: Literal[""] | Search = "",
    state: State = "",
    owner: Owner = "",
    cursor: str | None = None,
) -> Response:
    """Schedules with their next run, newest results and buttons; part of the name, the state and the owner narrow them down."""
    found = await _alerting(session, cursor) if state == "alert" else await _listed(session, q, state, owner, cursor)
    alerts = await jobs.list_alerts(session, is_open=True, limit=100)
    context = {
        "rows": [await _row(session, schedule) for schedule in found.items],
        "next_cursor": found.next_cursor,
        "summary": await jobs.read_summary(session),
        "alerts": f"{len(alerts.items)}{'+' if alerts.next_cursor else ''}",
        "kinds": kind_labels(),
        "q": q,
        "state": state,
        "owner": owner,
        "filtered": bool(q or state or owner),
    }
    return render(request, "schedules.html", context)


async def _listed(session: Session, q: str, state: str, owner: str, cursor: str | None) -> Page[ScheduleRead]:
    return await jobs.list_schedules(
        session,
        q=q or None,
        managed_by=owner or None,
        is_active=state == "active" if state else None,
        cursor=cursor,
        limit=_ROWS,
    )


async def _alerting(session: Session, cursor: str | None) -> Page[ScheduleRead]:
    """The schedules of open alerts, of which a schedule has one at most; newest alert first."""
    alerts = await jobs.list_alerts(session, is_open=True, cursor=cursor, limit=_ROWS)
    schedules = [await jobs.read_schedule(session, alert.schedule_id) for alert in alerts.items]
    return Page(items=schedules, next_cursor=alerts.next_cursor)


async def _row(session: Session, schedule: ScheduleRead) -> Row:
    runs = await jobs.list_runs(session, schedule_id=schedule.id, limit=_RESULTS)
    return Row(schedule, await _open_alert(session, schedule.id), runs.items[::-1])


async def _open_alert(session: Session, schedule_id: int) -> AlertRead | None:
    alerts = await jobs.list_alerts(session, is_open=True, schedule_id=schedule_id, limit=1)
    return next(iter(alerts.items), None)


@router.get("/{schedule_id}")
async def show_schedule(request: Request, session: SessionDep, schedule_id: Key, cursor: str | None = None) -> Response:
    """One schedule: settings, next runs, every occurrence and its fate, alerts."""
    schedule = await jobs.read_schedule(session, schedule_id)
    found = await jobs.list_occurrences(session, schedule_id, upcoming=_UPCOMING, cursor=cursor, limit=_OCCURRENCES)
    context = {
        "row": Row(schedule, await _open_alert(session, schedule_id), []),
        "schedule": schedule,
        "kind": kind_labels().get(schedule.kind or ""),
        "upcoming": [each for each in found.items if each.fate == "upcoming"][::-1],
        "occurrences": [each for each in found.items if each.fate != "upcoming"],
        "next_cursor": found.next_cursor,
        "older": cursor is not None,
        "alerts": (await jobs.list_alerts(session, schedule_id=schedule_id, limit=_ALERTS)).items,
        "zone": schedule.timezone,
    }
    return render(request, "schedule.html", context)


@router.post("/{schedule_id}/pause")
async def pause(session: SessionDep, schedule_id: Key, _: Operator, back: Back) -> Response:
    await jobs.pause_schedule(session, schedule_id)
    return RedirectResponse(back, 303)


@router.post("/{schedule_id}/resume")
async def resume(
    session: SessionDep, schedule_id: Key, _: Operator, back: Back, catch_up: Annotated[bool, Form()] = False
) -> Response:
    await jobs.resume_schedule(session, schedule_id, catch_up=catch_up)
    return RedirectResponse(back, 303)


@router.post("/{schedule_id}/run-now")
async def run_now(session: SessionDep, schedule_id: Key, actor: Operator, key: Annotated[UUID, Form()]) -> Response:
    """`key` is the button's own, so that a double click starts one run."""
    started = await jobs.run_now(session, schedule_id, idempotency_key=f"ops-{key}", actor=actor.name)
    return RedirectResponse(f"/ops/runs/{started.run.id}", 303)
