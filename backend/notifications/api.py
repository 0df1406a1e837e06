"""HTTP of notifications: telling somebody, one's own inbox and preferences, templates."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response

from backend.core.errors import NotFound
from backend.core.paging import Page
from backend.core.principal import Role
from backend.core.web import (
    ConfigDep,
    DatabaseDep,
    Operator,
    OperatorDep,
    PersonDep,
    SessionDep,
    SignedInDep,
    Viewer,
    ViewerDep,
)
from backend.notifications import service as notifications
from backend.notifications.schemas import (
    NotificationDetail,
    NotificationRead,
    NotificationWish,
    NotifyAccepted,
    Preferences,
    PreferencesRead,
    Preview,
    PreviewWish,
    Read,
    TemplateRead,
)
from backend.queues.api import IdempotencyKey, answer

router = APIRouter(prefix="/api", tags=["notifications"])

_REPLAY: dict[int | str, dict[str, Any]] = {
    200: {"model": NotifyAccepted, "description": "This key's task; nothing is sent again."}
}


@router.post("/notify", status_code=202, response_model=NotifyAccepted, responses=_REPLAY)
async def notify(
    db: DatabaseDep,
    config: ConfigDep,
    principal: OperatorDep,
    response: Response,
    wish: NotificationWish,
    idempotency_key: IdempotencyKey = None,
) -> NotifyAccepted:
    """Tell a user something, by the channels and at the hours of their preferences. Once per Idempotency-Key.

    The task's state and result stand at `Location`.
    """
    sent = await notifications.ask_notification(db, wish, config, idempotency_key=idempotency_key, actor=principal.name)
    return NotifyAccepted(task_id=answer(sent, response).id)


@router.get("/notifications")
async def list_inbox(
    session: SessionDep,
    principal: PersonDep,
    unread: Annotated[bool, Query(description="Only those not read yet")] = False,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> Page[NotificationRead]:
    """What one was told, newest first."""
    return await notifications.list_inbox(session, _user(principal.user_id), unread=unread, cursor=cursor, limit=limit)


@router.post("/notifications/read")
async def mark_all_read(session: SessionDep, principal: PersonDep) -> Read:
    """All of one's own are read."""
    return await notifications.mark_all_read(session, _user(principal.user_id))


@router.get("/notifications/preferences")
async def read_preferences(session: SessionDep, config: ConfigDep, principal: SignedInDep) -> PreferencesRead:
    """How one wants to be told."""
    return await notifications.read_preferences(session, _user(principal.user_id), config)


@router.put("/notifications/preferences")
async def set_preferences(
    session: SessionDep, config: ConfigDep, principal: SignedInDep, wish: Preferences
) -> PreferencesRead:
    """Replace them all; what is left out has its default. What waits is planned anew."""
    return await notifications.set_preferences(session, _user(principal.user_id), wish, config)


@router.get("/notifications/templates", dependencies=[Viewer])
async def list_templates() -> list[TemplateRead]:
    """The templates there are, and their variables."""
    return [
        TemplateRead(
            name=one.name,
            description=one.description,
            variables=list(one.variables),
            has_html=one.has_html,
            sendable=one.name not in notifications.OWN,
        )
        for one in notifications.every_template()
    ]


@router.post("/notifications/preview", dependencies=[Operator])
async def preview_template(wish: PreviewWish) -> Preview:
    """What a template says with this context; nothing is sent."""
    content = notifications.render(wish.template, wish.context)
    return Preview(subject=content.subject, text=content.text, html=content.html)


@router.get("/notifications/{notification_id}")
async def read_notification(session: SessionDep, principal: ViewerDep, notification_id: UUID) -> NotificationDetail:
    """What was said, and what became of it on each channel: one's own, and for admins any."""
    found = await notifications.read_notification(session, notification_id)
    own = principal.user_id is not None and found.user_id == principal.user_id
    if not own and not principal.role.covers(Role.ADMIN):
        raise NotFound(f"no notification {notification_id}")
    return found


@router.post("/notifications/{notification_id}/read")
async def mark_read(session: SessionDep, principal: PersonDep, notification_id: UUID) -> NotificationRead:
    """One of one's own is read. Asking again changes nothing."""
    return await notifications.mark_read(session, _user(principal.user_id), notification_id)


def _user(user_id: UUID | None) -> UUID:
    if user_id is None:
        raise NotFound("the service key has no account")
    return user_id
