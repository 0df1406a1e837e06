"""HTTP of the outbox, and of e-mail to many."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from backend.core.paging import Page
from backend.core.web import Admin, ConfigDep, DatabaseDep, OperatorDep, SessionDep, Viewer
from backend.notifications import service as notifications
from backend.notifications.schemas import BulkAccepted, BulkRead, BulkWish, DeliveryRead
from backend.notifications.states import Channel, DeliveryState
from backend.queues.api import IdempotencyKey, answer

router = APIRouter(prefix="/api/notifications", tags=["notifications"])


@router.post(
    "/bulk",
    status_code=202,
    response_model=BulkAccepted,
    responses={200: {"model": BulkAccepted, "description": "This key's task; nothing is sent again."}},
)
async def send_bulk(
    db: DatabaseDep,
    config: ConfigDep,
    principal: OperatorDep,
    response: Response,
    wish: BulkWish,
    idempotency_key: IdempotencyKey = None,
) -> BulkAccepted:
    """Send one e-mail to many; how far it has come stands at `Location`. Once per Idempotency-Key."""
    accepted, sent = await notifications.ask_bulk(
        db, wish, config, idempotency_key=idempotency_key, actor=principal.name
    )
    answer(sent, response)
    return accepted


@router.get("/bulk/{bulk_id}", dependencies=[Viewer])
async def read_bulk(session: SessionDep, bulk_id: UUID) -> BulkRead:
    """How many recipients have had it, cannot have it, wait for it."""
    return await notifications.read_bulk(session, bulk_id)


@router.get("/deliveries", dependencies=[Admin])
async def list_deliveries(
    session: SessionDep,
    state: DeliveryState | None = None,
    channel: Channel | None = None,
    notification_id: UUID | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> Page[DeliveryRead]:
    """The outbox: each notification on each channel, newest first. `dead` ones wait for a decision."""
    return await notifications.list_deliveries(
        session, state=state, channel=channel, notification_id=notification_id, cursor=cursor, limit=limit
    )


@router.post("/deliveries/{delivery_id}/retry", status_code=202, dependencies=[Admin])
async def retry_delivery(session: SessionDep, delivery_id: UUID) -> DeliveryRead:
    """Begin anew with one that is dead or was skipped."""
    return await notifications.retry(session, delivery_id)
