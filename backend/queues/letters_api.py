"""HTTP of dead letters."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from backend.core.clock import utc_now
from backend.core.dead_letters import Kind
from backend.core.instants import Instant
from backend.core.paging import Page
from backend.core.web import ConfigDep, DatabaseDep, OperatorDep, SessionDep, Viewer
from backend.queues import service as queues
from backend.queues.api import IdempotencyKey, answer
from backend.queues.schemas import LetterFilter, LetterRead, LetterSummary, Requeue, TaskSent, Word
from backend.queues.states import LetterState

router = APIRouter(prefix="/api/dead-letters", tags=["dead letters"], dependencies=[Viewer])


@router.get("")
async def list_dead_letters(
    session: SessionDep,
    task: Annotated[Word | None, Query()] = None,
    queue: Annotated[Word | None, Query()] = None,
    kind: Kind | None = None,
    state: LetterState | None = None,
    since: Annotated[Instant | None, Query(description="Last seen at or after")] = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> Page[LetterSummary]:
    """Tasks that have ended for good, the latest first."""
    wanted = LetterFilter(task=task, queue=queue, kind=kind, since=since)
    return await queues.list_letters(session, wanted, state=state, cursor=cursor, limit=limit)


@router.post(
    "/requeue",
    status_code=202,
    response_model=TaskSent,
    responses={200: {"model": TaskSent, "description": "This key's task; nothing is sent again."}},
)
async def requeue_dead_letters(
    db: DatabaseDep,
    config: ConfigDep,
    principal: OperatorDep,
    response: Response,
    wish: Requeue,
    idempotency_key: IdempotencyKey = None,
) -> TaskSent:
    """Send many open letters again, at a pace: a task does it, whose progress and result stand at `Location`."""
    wanted = wish.model_dump(mode="json", exclude_none=True)
    sent = await queues.send(
        db,
        "requeue_dead_letters",
        {"wanted": wanted, "before": utc_now().isoformat(), "actor": principal.name},
        expires=config.result_expires,
        idempotency_key=idempotency_key,
        wish=wanted,
        actor=principal.name,
    )
    return answer(sent, response)


@router.get("/{letter_id}")
async def read_dead_letter(session: SessionDep, letter_id: UUID) -> LetterRead:
    """One letter: arguments, error, traceback, what was decided."""
    return await queues.read_letter(session, letter_id)


@router.post("/{letter_id}/requeue")
async def requeue_dead_letter(session: SessionDep, principal: OperatorDep, letter_id: UUID) -> LetterSummary:
    """Send it again under a task id of its own. Asking again changes nothing, until it has come back."""
    return await queues.requeue(session, letter_id, actor=principal.name)


@router.post("/{letter_id}/discard")
async def discard_dead_letter(session: SessionDep, principal: OperatorDep, letter_id: UUID) -> LetterSummary:
    """Decide that nothing is to be done. Asking again changes nothing."""
    return await queues.discard(session, letter_id, actor=principal.name)
