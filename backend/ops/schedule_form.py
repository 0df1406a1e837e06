"""The page that makes a schedule: a form, a look ahead, and what is wrong beside each field."""

import json
from typing import Annotated, Any
from zoneinfo import available_timezones

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from backend.config import Config
from backend.core.db import Database, Session
from backend.core.errors import Conflict, Invalid
from backend.core.web import ConfigDep, DatabaseDep
from backend.jobs import service as jobs
from backend.jobs.schemas import PreviewCreate, PreviewRead, ScheduleCreate, ScheduleRead, TemplateCreate
from backend.jobs.states import MisfirePolicy, OverlapPolicy
from backend.ops.access import Operator
from backend.ops.context import render
from backend.ops.forms import Errors, of_refusal, of_validation, typed

router = APIRouter(prefix="/schedules/new")

_TEMPLATES = 200
_TIME_OF = {"cron": "cron_expression", "interval": "interval_seconds", "once": "run_at"}
_TIME_FIELDS = {*_TIME_OF.values(), "timezone", "start_at", "end_at"}
# Fields whose text goes to the schedule as it is; one that is empty takes the schedule's default.
_PLAIN = (
    "name",
    "timezone",
    "start_at",
    "end_at",
    "max_runs",
    "jitter_seconds",
    "misfire_policy",
    "misfire_grace_seconds",
    "max_catchup",
    "overlap_policy",
    "concurrency_key",
    "concurrency_limit",
    "max_attempts",
    "retry_delay_seconds",
    "timeout_seconds",
    "expires_seconds",
    "priority",
)
# Stands for the template that is made on saving, while the rest of the form is checked.
_NO_TEMPLATE_YET = 1
_UNITS = {"1": "seconds", "60": "minutes", "3600": "hours", "86400": "days"}
_ZONES = sorted(available_timezones())

# What the page calls a field of the domain.
_FIELDS = {"template_id": "work", "kind": "work"}

Number = Annotated[int | None, Query(ge=1, le=2**63 - 1)]


@router.get("")
async def show_form(
    request: Request, db: DatabaseDep, config: ConfigDep, _: Operator, template_id: Number = None
) -> Response:
    """An empty form; with `template_id`, for that template."""
    values = {
        "work": f"template:{template_id}" if template_id else "",
        "parameters": "{}",
        "when": "cron",
        "unit": "60",
        "timezone": config.timezone,
        "misfire_policy": MisfirePolicy.COALESCE,
        "overlap_policy": OverlapPolicy.SKIP,
        "alert_grace_seconds": "600",
    }
    return await _page(request, db, values, {}, None)


@router.post("")
async def save_or_preview(request: Request, db: DatabaseDep, config: ConfigDep, actor: Operator) -> Response:
    """`do=save` saves and leads to the schedule; anything else looks ahead. What was typed is kept."""
    values = await typed(request)
    wish, errors = _read(values)
    saving = values.get("do") == "save"
    if not saving:
        errors.pop("work", None)
    elif not errors:
        try:
            async with db.transaction() as session:
                schedule = await _create(session, config, actor.name, values["work"], wish)
        except (Invalid, Conflict) as fault:
            errors = of_refusal(fault, _FIELDS)
        else:
            return RedirectResponse(f"/ops/schedules/{schedule.id}", 303)
    ahead, faults = await _look_ahead(db, config, wish)
    errors = faults | errors
    return await _page(request, db, values, errors, ahead, status=422 if errors else 200)


async def _page(
    request: Request,
    db: Database,
    values: dict[str, str],
    errors: Errors,
    ahead: PreviewRead | None,
    *,
    status: int = 200,
) -> Response:
    async with db.transaction() as session:
        templates = await jobs.list_templates(session, limit=_TEMPLATES)
    context = {
        "values": values,
        "errors": errors,
        # A browser posts the fields in the order of the page.
        "first_fault": next((name for name in values if name in errors), None),
        "ahead": ahead,
        "templates": templates.items,
        "kinds": jobs.list_kinds(),
        "units": _UNITS,
        "zones": _ZONES,
        "misfire_policies": list(MisfirePolicy),
        "overlap_policies": list(OverlapPolicy),
    }
    return render(request, "schedule_form.html", context, status=status)


def _read(values: dict[str, str]) -> tuple[dict[str, Any], Errors]:
    """The fields of a ScheduleCreate without its template, and what is wrong with them."""
    errors: Errors = {}
    texts = {name: text.strip() for name, text in values.items()}
    wish: dict[str, Any] = {name: texts[name] for name in _PLAIN if texts.get(name)}
    wish["alert_grace_seconds"] = texts.get("alert_grace_seconds") or None
    wish["is_active"] = "paused" not in texts
    _read_time(texts, wish, errors)
    try:
        wish["parameters"] = json.loads(texts.get("parameters") or "{}")
    except (ValueError, RecursionError) as fault:
        errors["parameters"] = f"must be JSON such as {{}}: {fault}"
    if not texts.get("work"):
        errors["work"] = "choose what is to be done"
    try:
        ScheduleCreate.model_validate(wish | {"template_id": _NO_TEMPLATE_YET})
    except ValidationError as fault:
        errors = of_validation(fault) | errors
    return wish, errors


def _read_time(texts: dict[str, str], wish: dict[str, Any], errors: Errors) -> None:
    field = _TIME_OF.get(texts.get("when", ""))
    if field is None:
        errors["when"] = "choose one"
    elif not texts.get(field):
        errors[field] = "must not be empty"
    elif field == "interval_seconds":
        wish[field] = _seconds(texts[field], texts.get("unit", "1"))
    else:
        wish[field] = texts[field]


def _seconds(number: str, unit: str) -> float | str:
    """What cannot be understood is left to the schema, which says so."""
    try:
        return float(number) * float(unit)
    except ValueError:
        return number


async def _create(session: Session, config: Config, actor: str, work: str, wish: dict[str, Any]) -> ScheduleRead:
    """Of `template:ID`; or of `kind:NAME`, with a new template of the schedule's name and parameters."""
    sort, _, what = work.partition(":")
    if sort == "template" and what.isascii() and what.isdigit() and len(what) < 19:
        template_id = int(what)
    elif sort == "kind" and "name" in wish:
        new = TemplateCreate(name=wish["name"], kind=what[:100], parameters=wish["parameters"])
        template_id = (await jobs.create_template(session, config=config, wish=new, actor=actor)).id
        wish = wish | {"parameters": {}}
    elif sort == "kind":
        raise Invalid("must not be empty: a new template is made under this name", field="name")
    else:
        raise Invalid("choose what is to be done", field="work")
    schedule = ScheduleCreate.model_validate(wish | {"template_id": template_id})
    return await jobs.create_schedule(session, config=config, wish=schedule, actor=actor)


async def _look_ahead(db: Database, config: Config, wish: dict[str, Any]) -> tuple[PreviewRead | None, Errors]:
    """The next runs, as far as the time is known and right."""
    times = {name: value for name, value in wish.items() if name in _TIME_FIELDS}
    if not times.keys() & set(_TIME_OF.values()):
        return None, {}
    try:
        async with db.transaction() as session:
            return await jobs.preview(session, config=config, wish=PreviewCreate.model_validate(times)), {}
    except ValidationError as fault:
        return None, of_validation(fault)
    except Invalid as fault:
        return None, of_refusal(fault, _FIELDS)
