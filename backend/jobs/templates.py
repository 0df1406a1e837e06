"""Templates: what is to be done."""

from typing import Any

from backend.config import Config
from backend.core.db import Session
from backend.core.errors import AppError, Conflict, Invalid, NotFound
from backend.core.paging import Page
from backend.jobs import arguments
from backend.jobs.cursors import decode_number, encode_number
from backend.jobs.kinds import KINDS, Kind
from backend.jobs.models import JobTemplate
from backend.jobs.refusals import check_version, given
from backend.jobs.repository.schedules import ScheduleRepository
from backend.jobs.repository.templates import TemplateRepository
from backend.jobs.schemas import KindRead, TemplateCreate, TemplateRead, TemplateUpdate

# Schedules that a refusal names.
_NAMED = 20


def list_kinds() -> list[KindRead]:
    """Every kind of job with the JSON Schema of its parameters."""
    return [_kind(kind) for kind in KINDS.values()]


def _kind(kind: Kind) -> KindRead:
    return KindRead(
        name=kind.name,
        label=kind.label,
        description=kind.description,
        parameters=kind.parameters.model_json_schema(),
        queue=kind.queue,
        priority_can_be_chosen=kind.queue == "default",
        time_limit=kind.time_limit,
        uses_credential=kind.uses_credential,
    )


async def create_template(
    session: Session, *, config: Config, wish: TemplateCreate, actor: str = "api"
) -> TemplateRead:
    """Invalid (422) for an unknown kind or parameters it does not take, Conflict (409) when the name is taken."""
    kind = arguments.kind_named(wish.kind)
    arguments.checked(kind, wish.parameters, config)
    template = JobTemplate(**wish.model_dump(), created_by=actor)
    await _save(session, template)
    return _read(template, 0)


async def _save(session: Session, template: JobTemplate) -> None:
    name = template.name
    if not await TemplateRepository(session).save(template):
        raise Conflict(f"name: there is a template {name!r} already", code="name_taken", field="name")


async def list_templates(
    session: Session, *, kind: str | None = None, q: str | None = None, cursor: str | None = None, limit: int = 50
) -> Page[TemplateRead]:
    """Templates, newest first; `q` is part of the name."""
    templates = TemplateRepository(session)
    rows = await templates.page(kind=kind, q=q, before=decode_number(cursor), limit=limit + 1)
    page = rows[:limit]
    users = await templates.counts([row.id for row in page if row.id is not None])
    more = encode_number(page[-1].id) if len(rows) > limit else None
    return Page(items=[_read(row, users.get(row.id or 0, 0)) for row in page], next_cursor=more)


async def read_template(session: Session, template_id: int) -> TemplateRead:
    """NotFound (404) for an unknown id."""
    templates = TemplateRepository(session)
    template = await templates.find(template_id)
    if template is None:
        raise _missing(template_id)
    return _read(template, (await templates.counts([template_id])).get(template_id, 0))


def _missing(template_id: int) -> NotFound:
    return NotFound(f"job template {template_id} does not exist")


async def update_template(
    session: Session, template_id: int, *, config: Config, wish: TemplateUpdate, version: int | None = None
) -> TemplateRead:
    """Edit a template and, in the same transaction, what its schedules send.

    Invalid (422) when the kind, or a schedule's own parameters, do not go with the new ones; Stale (412) for an old `version`.
    """
    templates = TemplateRepository(session)
    template = await templates.lock(template_id)
    if template is None:
        raise _missing(template_id)
    check_version(f"job template {template_id}", template.version, version or wish.version)
    changes = given(wish)
    users = (await templates.counts([template_id])).get(template_id, 0)
    if not changes:
        return _read(template, users)
    template.sqlmodel_update(changes)
    template.version += 1
    template.updated_at = await ScheduleRepository(session).now()
    arguments.checked(arguments.kind_named(template.kind), template.parameters, config)
    await _save(session, template)
    await _refresh_schedules(session, template, config, changes)
    return _read(template, users)


async def _refresh_schedules(session: Session, template: JobTemplate, config: Config, changes: dict[str, Any]) -> None:
    if "parameters" not in changes or template.id is None:
        return
    schedules = ScheduleRepository(session)
    for schedule in await schedules.lock_of_template(template.id):
        try:
            arguments.apply(schedule, template, config)
        except Invalid as fault:
            raise Invalid(f"schedule {schedule.id} ({schedule.name}): {fault.detail}", **fault.extra) from fault
        schedule.version += 1
        schedule.updated_at = template.updated_at
        await schedules.save(schedule)


async def delete_template(session: Session, template_id: int) -> None:
    """Conflict (409, `in_use`) naming the schedules that use it."""
    templates = TemplateRepository(session)
    template = await templates.lock(template_id)
    if template is None:
        raise _missing(template_id)
    users = await templates.users(template_id, _NAMED + 1)
    if users:
        raise _in_use(template, users)
    await templates.delete(template)


def _in_use(template: JobTemplate, users: list[str]) -> AppError:
    shown = ", ".join(users[:_NAMED]) + (" and more" if len(users) > _NAMED else "")
    return Conflict(
        f"job template {template.id} is used by {shown}; delete or change them first",
        code="in_use",
        schedules=users[:_NAMED],
    )


def _read(template: JobTemplate, schedules: int) -> TemplateRead:
    kind = KINDS.get(template.kind)
    return TemplateRead.model_validate(
        template.model_dump() | {"schedules": schedules, "kind_label": kind.label if kind else template.kind}
    )
