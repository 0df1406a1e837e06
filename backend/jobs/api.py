"""HTTP of jobs: kinds, templates, schedules, alerts."""

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Query, Response

from backend.core.paging import Page
from backend.core.web import ConfigDep, Operator, OperatorDep, SessionDep, Viewer
from backend.jobs import service as jobs
from backend.jobs.refusals import invalid
from backend.jobs.run_schemas import AlertRead, RunSummary, Started
from backend.jobs.schemas import (
    Backfill,
    BackfillRead,
    JobsSummary,
    KindRead,
    OccurrenceRead,
    PreviewCreate,
    PreviewRead,
    Resume,
    ScheduleCreate,
    ScheduleRead,
    ScheduleUpdate,
    Search,
    TemplateCreate,
    TemplateRead,
    TemplateUpdate,
)

router = APIRouter(prefix="/api", dependencies=[Viewer])

_BIGINT = 2**63 - 1

Key = Annotated[int, Path(ge=1, le=_BIGINT)]
Number = Annotated[int | None, Query(ge=1, le=_BIGINT)]
Limit = Annotated[int, Query(ge=1, le=500)]
Part = Annotated[Search | None, Query(description="Part of the name")]
IfMatch = Annotated[str | None, Header(description="The ETag that the edit is based on")]
IdempotencyKey = Annotated[str | None, Header(pattern=r"^[A-Za-z0-9_.:-]{1,255}$")]


def _version(if_match: str | None) -> int | None:
    """The version that an If-Match header means; None for none or `*`."""
    if if_match is None or if_match.strip() == "*":
        return None
    text = if_match.strip().removeprefix("W/").strip('"')
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:12]) < 2**31:
        raise invalid("If-Match", 'send the ETag of the answer that you edit, such as "3"')
    return int(text)


def _tag(response: Response, version: int) -> None:
    response.headers["ETag"] = f'"{version}"'


def answer(response: Response, started: Started) -> RunSummary:
    """A run that was started (202), or the one that its Idempotency-Key started before (200)."""
    if started.replayed:
        response.status_code = 200
        response.headers["Idempotent-Replay"] = "true"
    response.headers["Location"] = f"/api/job-runs/{started.run.id}"
    return started.run


@router.get("/job-kinds", tags=["job templates"])
async def list_kinds() -> list[KindRead]:
    """What can be scheduled, with the JSON Schema of its parameters."""
    return jobs.list_kinds()


@router.get("/job-templates", tags=["job templates"])
async def list_templates(
    session: SessionDep, kind: str | None = None, q: Part = None, cursor: str | None = None, limit: Limit = 50
) -> Page[TemplateRead]:
    """Templates, newest first."""
    return await jobs.list_templates(session, kind=kind, q=q, cursor=cursor, limit=limit)


@router.post("/job-templates", tags=["job templates"], status_code=201)
async def create_template(
    session: SessionDep, principal: OperatorDep, config: ConfigDep, body: TemplateCreate, response: Response
) -> TemplateRead:
    """What is to be done: a kind and its parameters."""
    template = await jobs.create_template(session, config=config, wish=body, actor=principal.name)
    response.headers["Location"] = f"/api/job-templates/{template.id}"
    _tag(response, template.version)
    return template


@router.get("/job-templates/{template_id}", tags=["job templates"])
async def read_template(session: SessionDep, template_id: Key, response: Response) -> TemplateRead:
    """One template."""
    template = await jobs.read_template(session, template_id)
    _tag(response, template.version)
    return template


@router.patch("/job-templates/{template_id}", tags=["job templates"], dependencies=[Operator])
async def update_template(
    session: SessionDep,
    config: ConfigDep,
    template_id: Key,
    body: TemplateUpdate,
    response: Response,
    if_match: IfMatch = None,
) -> TemplateRead:
    """Edit a template, and with it what its schedules send from now on."""
    template = await jobs.update_template(session, template_id, config=config, wish=body, version=_version(if_match))
    _tag(response, template.version)
    return template


@router.delete("/job-templates/{template_id}", tags=["job templates"], status_code=204, dependencies=[Operator])
async def delete_template(session: SessionDep, template_id: Key) -> None:
    """Delete a template that no schedule uses."""
    await jobs.delete_template(session, template_id)


@router.post("/job-schedules", tags=["job schedules"], status_code=201)
async def create_schedule(
    session: SessionDep, principal: OperatorDep, config: ConfigDep, body: ScheduleCreate, response: Response
) -> ScheduleRead:
    """When a template is to run: `{"template_id": 42, "cron_expression": "0 2 * * *"}` is enough."""
    schedule = await jobs.create_schedule(session, config=config, wish=body, actor=principal.name)
    response.headers["Location"] = f"/api/job-schedules/{schedule.id}"
    _tag(response, schedule.version)
    return schedule


@router.get("/job-schedules", tags=["job schedules"])
async def list_schedules(
    session: SessionDep,
    kind: str | None = None,
    managed_by: Literal["user", "system"] | None = None,
    is_active: bool | None = None,
    template_id: Number = None,
    q: Part = None,
    cursor: str | None = None,
    limit: Limit = 50,
) -> Page[ScheduleRead]:
    """Schedules, newest first; the system's own among them."""
    return await jobs.list_schedules(
        session,
        kind=kind,
        managed_by=managed_by,
        is_active=is_active,
        template_id=template_id,
        q=q,
        cursor=cursor,
        limit=limit,
    )


@router.post("/job-schedules/preview", tags=["job schedules"])
async def preview_schedule(session: SessionDep, config: ConfigDep, body: PreviewCreate) -> PreviewRead:
    """The next occurrences of a time, before anything is saved; changes of the clock are named."""
    return await jobs.preview(session, config=config, wish=body)


@router.get("/job-schedules/summary", tags=["job schedules"])
async def read_summary(session: SessionDep) -> JobsSummary:
    """Counts of schedules, and of the last day's runs."""
    return await jobs.read_summary(session)


@router.get("/job-schedules/{schedule_id}", tags=["job schedules"])
async def read_schedule(session: SessionDep, schedule_id: Key, response: Response) -> ScheduleRead:
    """One schedule."""
    schedule = await jobs.read_schedule(session, schedule_id)
    _tag(response, schedule.version)
    return schedule


@router.patch("/job-schedules/{schedule_id}", tags=["job schedules"])
async def update_schedule(
    session: SessionDep,
    principal: OperatorDep,
    config: ConfigDep,
    schedule_id: Key,
    body: ScheduleUpdate,
    response: Response,
    if_match: IfMatch = None,
) -> ScheduleRead:
    """Edit a schedule; it takes effect at once. Runs of the old time or work that are not sent yet are withdrawn."""
    schedule = await jobs.update_schedule(
        session, schedule_id, config=config, wish=body, version=_version(if_match), actor=principal.name
    )
    _tag(response, schedule.version)
    return schedule


@router.delete("/job-schedules/{schedule_id}", tags=["job schedules"], status_code=204)
async def delete_schedule(session: SessionDep, principal: OperatorDep, schedule_id: Key) -> None:
    """Delete a schedule; its runs stay."""
    await jobs.delete_schedule(session, schedule_id, actor=principal.name)


@router.post("/job-schedules/{schedule_id}/pause", tags=["job schedules"], dependencies=[Operator])
async def pause_schedule(session: SessionDep, schedule_id: Key, response: Response) -> ScheduleRead:
    """Dispatch nothing until it is resumed."""
    schedule = await jobs.pause_schedule(session, schedule_id)
    _tag(response, schedule.version)
    return schedule


@router.post("/job-schedules/{schedule_id}/resume", tags=["job schedules"], dependencies=[Operator])
async def resume_schedule(
    session: SessionDep, schedule_id: Key, response: Response, body: Resume | None = None
) -> ScheduleRead:
    """Go on from now, or, with `catch_up`, from where it was paused."""
    wish = body or Resume()
    schedule = await jobs.resume_schedule(session, schedule_id, catch_up=wish.catch_up)
    _tag(response, schedule.version)
    return schedule


@router.post(
    "/job-schedules/{schedule_id}/run-now",
    tags=["job schedules"],
    status_code=202,
    response_model=RunSummary,
    responses={200: {"model": RunSummary, "description": "This key's run, as it is now; nothing is started again."}},
)
async def run_schedule_now(
    session: SessionDep,
    principal: OperatorDep,
    schedule_id: Key,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> RunSummary:
    """Run it now, once per Idempotency-Key, as its overlap policy allows; paused schedules, too."""
    return answer(
        response, await jobs.run_now(session, schedule_id, idempotency_key=idempotency_key, actor=principal.name)
    )


@router.post("/job-schedules/{schedule_id}/backfill", tags=["job schedules"], status_code=202)
async def backfill_schedule(
    session: SessionDep, principal: OperatorDep, schedule_id: Key, body: Backfill
) -> BackfillRead:
    """Run the occurrences of a past range that have no run; doing it again adds nothing."""
    return await jobs.backfill(session, schedule_id, wish=body, actor=principal.name)


@router.get("/job-schedules/{schedule_id}/occurrences", tags=["job schedules"])
async def list_occurrences(
    session: SessionDep,
    schedule_id: Key,
    upcoming: Annotated[int, Query(ge=0, le=50)] = 0,
    cursor: str | None = None,
    limit: Limit = 50,
) -> Page[OccurrenceRead]:
    """Every expected occurrence and its fate, newest first."""
    return await jobs.list_occurrences(session, schedule_id, upcoming=upcoming, cursor=cursor, limit=limit)


@router.get("/job-alerts", tags=["job alerts"])
async def list_alerts(
    session: SessionDep,
    is_open: Annotated[bool | None, Query(alias="open")] = None,
    schedule_id: Number = None,
    cursor: str | None = None,
    limit: Limit = 50,
) -> Page[AlertRead]:
    """Incidents of schedules, newest first."""
    return await jobs.list_alerts(session, is_open=is_open, schedule_id=schedule_id, cursor=cursor, limit=limit)


@router.get("/job-alerts/{alert_id}", tags=["job alerts"])
async def read_alert(session: SessionDep, alert_id: Key) -> AlertRead:
    """One incident."""
    return await jobs.read_alert(session, alert_id)
