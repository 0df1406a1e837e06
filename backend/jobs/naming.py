"""Schedules and templates as people name them on the command line: by id or by their exact name."""

import difflib
from collections.abc import Sequence
from typing import Any

from backend.core.db import Session
from backend.core.errors import NotFound
from backend.jobs import service as jobs
from backend.jobs.schemas import ScheduleRead, TemplateRead

_PAGE = 500
_BIGINT = 2**63 - 1


async def every_schedule(session: Session, **filters: Any) -> list[ScheduleRead]:
    """All pages of `list_schedules`."""
    found: list[ScheduleRead] = []
    cursor: str | None = None
    while True:
        page = await jobs.list_schedules(session, cursor=cursor, limit=_PAGE, **filters)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found


async def every_template(session: Session, **filters: Any) -> list[TemplateRead]:
    """All pages of `list_templates`."""
    found: list[TemplateRead] = []
    cursor: str | None = None
    while True:
        page = await jobs.list_templates(session, cursor=cursor, limit=_PAGE, **filters)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found


async def find_schedule(session: Session, reference: str) -> ScheduleRead:
    """By id, else by name. NotFound (404) with names that are near."""
    number = _number(reference)
    if number is not None:
        try:
            return await jobs.read_schedule(session, number)
        except NotFound:
            pass  # a name may be a number, too
    similar = await every_schedule(session, q=reference)
    for schedule in similar:
        if schedule.name == reference:
            return schedule
    names = [schedule.name for schedule in similar or await every_schedule(session)]
    raise _unknown("schedule", reference, names, "`beatline schedules list --all` names them")


async def find_template(session: Session, reference: str) -> TemplateRead:
    """By id, else by name. NotFound (404) with names that are near."""
    number = _number(reference)
    if number is not None:
        try:
            return await jobs.read_template(session, number)
        except NotFound:
            pass  # a name may be a number, too
    similar = await every_template(session, q=reference)
    for template in similar:
        if template.name == reference:
            return template
    names = [template.name for template in similar or await every_template(session)]
    raise _unknown("template", reference, names, "--kind makes a new one")


def _number(reference: str) -> int | None:
    if not (reference.isascii() and reference.isdigit()):
        return None
    return int(reference) if len(reference) < 20 and 1 <= int(reference) <= _BIGINT else None


def _unknown(what: str, reference: str, names: Sequence[str], otherwise: str) -> NotFound:
    near = [name for name in names if reference and reference.casefold() in name.casefold()][:3]
    near = near or difflib.get_close_matches(reference, names, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(repr(name) for name in near)}?" if near else otherwise
    return NotFound(f"there is no {what} {reference!r}; {hint}")


async def free_template_name(session: Session, wanted: str) -> str:
    """`wanted`, or the first of `wanted (2)`, `wanted (3)` … that no template has."""
    taken = {template.name for template in await every_template(session, q=wanted)}
    number, name = 1, wanted
    while name in taken:
        number += 1
        name = f"{wanted} ({number})"
    return name
