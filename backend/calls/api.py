"""HTTP of the outreach: planning, initiating, reading, importing; LiveKit's webhooks and the agents' reports."""

import hmac
import logging
import re
from pathlib import PurePath
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, File, Form, Header, Query, Request, Response, UploadFile
from pydantic import TypeAdapter, ValidationError

from backend.calls import service as calls
from backend.calls.schemas import (
    AdvanceRead,
    AgentEvent,
    CallAccepted,
    CallInitiate,
    CallRead,
    CallSummary,
    DoNotCallCreate,
    ImportErrorRead,
    ImportRead,
    PendingPage,
    PlanCreate,
    PlanRead,
    ScheduledCallRead,
    SummaryRead,
)
from backend.calls.states import CallStatus, ScheduledCallStatus
from backend.calls.telephony.base import BadSignature, Telephony
from backend.core.errors import Invalid, TooLarge, Unauthorized
from backend.core.instants import Instant
from backend.core.paging import Page
from backend.core.web import ConfigDep, DatabaseDep, Operator, SessionDep, Viewer, bearer

log = logging.getLogger(__name__)

router = APIRouter(prefix="/api", dependencies=[Viewer])
# These two carry credentials of their own.
open_router = APIRouter(prefix="/api")

_Mapping = TypeAdapter(dict[str, str])
_KEY = re.compile(r"^[A-Za-z0-9_:-]{1,255}$")
_WEBHOOK_BYTES = 256 * 1024


async def get_telephony(request: Request) -> Telephony:
    telephony: Telephony = request.app.state.telephony
    return telephony


async def get_dialer(request: Request) -> calls.Dialer:
    dialer: calls.Dialer = request.app.state.dialer
    return dialer


TelephonyDep = Annotated[Telephony, Depends(get_telephony)]
DialerDep = Annotated[calls.Dialer, Depends(get_dialer)]
Limit = Annotated[int, Query(ge=1, le=500)]


@router.post("/scheduler/plan", tags=["scheduler"], dependencies=[Operator])
async def plan_calls(session: SessionDep, config: ConfigDep, body: PlanCreate | None = None) -> PlanRead:
    """Schedule a call for each policy about to expire; a second planning adds nothing."""
    wish = body or PlanCreate()
    return await calls.plan(session, config=config, day=wish.day, horizon_days=wish.horizon_days)


@router.get("/scheduler/pending-customers", tags=["scheduler"], dependencies=[Operator])
async def read_pending(session: SessionDep, config: ConfigDep, limit: Limit = 100, claim: bool = False) -> PendingPage:
    """The customers to call now, every gate passed; `claim` keeps them from everybody else for CALLS_CLAIM_SECONDS."""
    return PendingPage(items=await calls.pending(session, config=config, limit=limit, claim=claim))


@router.post("/scheduler/advance", tags=["scheduler"], dependencies=[Operator])
async def advance_calls(db: DatabaseDep, telephony: TelephonyDep, config: ConfigDep) -> AdvanceRead:
    """Sweep: expired claims, overdue calls, missing recordings and outcomes."""
    return await calls.advance(db, telephony, config=config)


@router.get("/scheduler/summary", tags=["scheduler"])
async def read_summary(session: SessionDep) -> SummaryRead:
    """Counts of scheduled calls and of calls by status."""
    return await calls.summary(session)


@router.get("/scheduler/scheduled-calls", tags=["scheduler"])
async def list_scheduled_calls(
    session: SessionDep, status: ScheduledCallStatus | None = None, cursor: str | None = None, limit: Limit = 50
) -> Page[ScheduledCallRead]:
    """Scheduled calls with their latest attempt, newest first."""
    return await calls.list_scheduled(session, status=status, cursor=cursor, limit=limit)


@router.post(
    "/calls/initiate/{customer_id}",
    tags=["calls"],
    dependencies=[Operator],
    status_code=202,
    response_model=CallAccepted,
    responses={200: {"model": CallAccepted, "description": "This key's call, as it is now; nothing is dialed again."}},
)
async def initiate_call(
    customer_id: UUID,
    body: CallInitiate,
    db: DatabaseDep,
    config: ConfigDep,
    dialer: DialerDep,
    response: Response,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> CallAccepted:
    """Call a customer once per Idempotency-Key `<scheduled_call_id>:<attempt_no>`; the dialing goes on in the background."""
    if idempotency_key is None or not _KEY.match(idempotency_key):
        raise Invalid("Idempotency-Key: send `<scheduled_call_id>:<attempt_no>`", code="idempotency_key")
    accepted = await calls.accept(
        db, config=config, customer_id=customer_id, scheduled_call_id=body.scheduled_call_id, key=idempotency_key
    )
    call = accepted.call
    if accepted.replayed:
        response.status_code = 200
        response.headers["Idempotent-Replay"] = "true"
    else:
        dialer.submit(call.id)
    response.headers["Location"] = f"/api/calls/{call.id}"
    return CallAccepted(call_id=call.id, status=CallStatus(call.status), room_name=call.room_name)


@router.get("/calls", tags=["calls"])
async def list_calls(
    session: SessionDep,
    status: CallStatus | None = None,
    customer_id: UUID | None = None,
    since: Instant | None = None,
    cursor: str | None = None,
    limit: Limit = 50,
) -> Page[CallSummary]:
    """Calls, newest first."""
    return await calls.list_calls(
        session, status=status, customer_id=customer_id, since=since, cursor=cursor, limit=limit
    )


@router.get("/calls/{call_id}", tags=["calls"])
async def read_call(session: SessionDep, call_id: UUID) -> CallRead:
    """One call: facts, timeline, transcript, outcome."""
    return await calls.read_call(session, call_id)


@router.post("/calls/{call_id}/extract-outcome", tags=["calls"], dependencies=[Operator])
async def extract_call_outcome(session: SessionDep, config: ConfigDep, call_id: UUID) -> dict[str, object]:
    """Read a first outcome from the transcript; one that is there stays."""
    call = await calls.extract_outcome(session, call_id, config=config)
    return {"call_id": str(call.id), "outcome": call.outcome}


async def require_agent(request: Request, config: ConfigDep, call_id: UUID) -> None:
    """Only the call's own voice agent may pass."""
    if not hmac.compare_digest(bearer(request).encode(), calls.agent_token(config, call_id).encode()):
        raise Unauthorized("Authorization: send this call's `callback_token` as the bearer token")


@open_router.post(
    "/calls/{call_id}/agent-events", tags=["calls"], status_code=204, dependencies=[Depends(require_agent)]
)
async def take_agent_event(session: SessionDep, config: ConfigDep, call_id: UUID, body: AgentEvent) -> None:
    """A report of the call's voice agent, with the token from its dispatch metadata."""
    await calls.take_agent_event(session, call_id, body, config=config)


@open_router.post("/webhooks/livekit", tags=["webhooks"], status_code=204)
async def take_livekit_webhook(
    request: Request, db: DatabaseDep, telephony: TelephonyDep, dialer: DialerDep, config: ConfigDep
) -> None:
    """A signed LiveKit webhook; 401 for a wrong signature, 503 (so that LiveKit sends it again) while the database is away."""
    body = await request.body()
    if len(body) > _WEBHOOK_BYTES:
        raise TooLarge(f"a webhook has at most {_WEBHOOK_BYTES} bytes")
    try:
        event = telephony.receive(body, request.headers.get("Authorization", ""))
    except BadSignature as fault:
        log.warning("webhook refused: %s", fault)
        raise Unauthorized("Authorization: the webhook is not signed with this LiveKit's key") from fault
    async with db.transaction() as session:
        room = await calls.take_webhook(session, event, config=config)
    if room is not None:
        dialer.close_room(room)


@router.post(
    "/do-not-call",
    tags=["do not call"],
    status_code=201,
    response_model=dict[str, str],
    responses={200: {"model": dict[str, str], "description": "It was on the list already."}},
    dependencies=[Operator],
)
async def stop_calling(session: SessionDep, body: DoNotCallCreate, response: Response) -> dict[str, str]:
    """Never dial a number again, from this answer on; 200 when it was on the list already."""
    if not await calls.stop_calling(session, body.phone, source="operator", reason=body.reason):
        response.status_code = 200
    return {"phone": body.phone}


@router.delete("/do-not-call/{phone}", tags=["do not call"], status_code=204, dependencies=[Operator])
async def allow_calling(session: SessionDep, phone: str) -> None:
    """Take a number off the list; the entry stays as evidence of when it was on it."""
    await calls.allow_calling(session, phone)


@router.post("/imports", tags=["imports"], status_code=201, dependencies=[Operator])
async def import_policies(
    db: DatabaseDep,
    config: ConfigDep,
    file: Annotated[UploadFile, File()],
    mapping: Annotated[str | None, Form(description='JSON, such as {"Mobile": "phone"}: header to column')] = None,
) -> ImportRead:
    """Import customers and policies from a CSV file; a bad row never stops the good ones, importing twice changes nothing."""
    name = PurePath(file.filename or "upload.csv").name
    imported = await calls.import_policies(db, file.file, filename=name, config=config, mapping=_mapping(mapping))
    async with db.transaction() as session:
        return await _import(session, imported.id)


def _mapping(text: str | None) -> dict[str, str] | None:
    if text is None:
        return None
    try:
        return _Mapping.validate_json(text)
    except ValidationError as fault:
        raise Invalid('mapping: send a JSON object such as {"Mobile": "phone"}', code="mapping") from fault


@router.get("/imports/{import_id}", tags=["imports"])
async def read_import(session: SessionDep, import_id: UUID) -> ImportRead:
    """An import's counts and its first errors."""
    return await _import(session, import_id)


@router.get("/imports/{import_id}/errors", tags=["imports"])
async def list_import_errors(
    session: SessionDep, import_id: UUID, after: int = 0, limit: Limit = 100
) -> list[ImportErrorRead]:
    """An import's errors in order; `after` is how many to leave out."""
    return [
        ImportErrorRead.model_validate(e.model_dump())
        for e in await calls.list_errors(session, import_id, after, limit)
    ]


async def _import(session: SessionDep, import_id: UUID) -> ImportRead:
    found = await calls.find_import(session, import_id)
    errors = await calls.list_errors(session, import_id, 0, 20)
    return ImportRead.model_validate(found.model_dump() | {"errors": [error.model_dump() for error in errors]})
