"""The pages of today's outreach, and of each call."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from backend.calls import service as calls
from backend.calls.schemas import CallRead
from backend.calls.states import ScheduledCallStatus
from backend.core.web import ConfigDep, SessionDep
from backend.ops.context import render
from backend.recordings import service as recordings

router = APIRouter(prefix="/calls")

_WAITING = {ScheduledCallStatus.PENDING, ScheduledCallStatus.CLAIMED, ScheduledCallStatus.IN_PROGRESS}


@router.get("")
async def show_calls(
    request: Request,
    session: SessionDep,
    config: ConfigDep,
    status: Annotated[ScheduledCallStatus | None, Query()] = None,
    cursor: str | None = None,
) -> Response:
    """The outreach: counts, then every planned call with its latest attempt; refreshes itself while calls are open."""
    counts = (await calls.summary(session)).scheduled_calls
    context = {
        "page": await calls.list_scheduled(session, status=status, cursor=cursor, limit=50),
        "counts": {each.value: counts.get(each.value, 0) for each in ScheduledCallStatus},
        "status": status,
        "zone": config.timezone,
        "refresh": cursor is None and any(counts.get(each.value) for each in _WAITING),
    }
    return render(request, "calls.html", context)


@router.get("/{call_id}")
async def show_call(request: Request, session: SessionDep, config: ConfigDep, call_id: UUID) -> Response:
    """One call: what happened when, what was said, what came of it."""
    call = await calls.read_call(session, call_id)
    recording = await recordings.find(session, kind="call", subject_id=call_id)
    context = {
        "call": call,
        "recording_id": recording.id if recording is not None else None,
        "timeline": _timeline(call),
        "zone": config.timezone,
    }
    return render(request, "call.html", context)


def _timeline(call: CallRead) -> list[tuple[datetime, str, str]]:
    """What happened when, and who says so, oldest first."""
    known = (("accepted", call.created_at), ("dialing", call.dialing_at), ("answered", call.answered_at))
    steps = [(at, what, "") for what, at in known if at is not None]
    return sorted(steps + [(event.at, event.type, event.source) for event in call.events])
