"""Schedules and templates as people name them on the command line: by id or by their exact name."""

import difflib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from backend.core.db import Session
from backend.core.errors import NotFound
from backend.core.paging import Page
from backend.jobs import service as jobs
from backend.jobs.schemas import ScheduleRead, TemplateRead

_PAGE = 500
_BIGINT = 2**63 - 1


T = TypeVar("T", ScheduleRead, TemplateRead)


async def every_schedule(session: Session, **filters: Any) -> list[ScheduleRead]:
    """All pages of `list_schedules`."""
    return await _all(partial(jobs.list_schedules, session, **filters))


async def every_template(session: Session, **filters: Any) -> list[TemplateRead]:
    """All pages of `list_templates`."""
    return await _all(partial(jobs.list_templates, session, **filters))


async def _all(listed: Callable[..., Awaitable[Page[T]]]) -> list[T]:
    found: list[T] = []
    cursor: str | None = None
    while True:
        page = await listed(cursor=cursor, limit=_PAGE)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found


async def find_schedule(session: Session, reference: str) -> ScheduleRead:
    """By id, else by name. NotFound (404) with names that are near."""
    read, every = partial(jobs.read_schedule, session), partial(every_schedule, session)
    return await _find("schedule", reference, read, every, otherwise="`beatline schedules list --all` names them")


async def find_template(session: Session, reference: str) -> TemplateRead:
    """By id, else by name. NotFound (404) with names that are near."""
    read, every = partial(jobs.read_template, session), partial(every_template, session)
    return await _find("template", reference, read, every, otherwise="--kind makes a new one")


async def _find(
    what: str,
    reference: str,
    read: Callable[[int], Awaitable[T]],
    every: Callable[..., Awaitable[list[T]]],
    *,
    otherwise: str,
) -> T:
    number = _number(reference)
    if number is not None:
        try:
            return await read(number)
        except NotFound:
            pass  # a name may be a number, too
    similar = await every(q=reference)
    for found in similar:
        if found.name == reference:
            return found
    raise _unknown(what, reference, [found.name for found in similar or await every()], otherwise)


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
