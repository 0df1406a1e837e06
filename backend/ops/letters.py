"""The pages of dead letters: the list and its filters, one letter, sending again and discarding."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from pydantic import Field, TypeAdapter, ValidationError

from backend.celery_app import QUEUE_LIMITS
from backend.config import Config
from backend.core.clock import utc_now
from backend.core.db import Database, Session
from backend.core.dead_letters import Kind
from backend.core.errors import AppError, Invalid, Unavailable
from backend.core.instants import Instant
from backend.core.web import ConfigDep, DatabaseDep, SessionDep
from backend.ops.access import Operator
from backend.ops.context import Back, render
from backend.ops.flash import lead
from backend.ops.forms import instant, of_validation
from backend.queues import service as queues
from backend.queues.schemas import LetterFilter, LetterSummary, Requeue, Word
from backend.queues.states import LetterState, TaskState

router = APIRouter(prefix="/dead-letters")

_HERE = "/ops/dead-letters"
_ROWS = 50
_COUNTED = 1_000
_AT_MOST, _PER_SECOND = 1_000, "10"
# At the slowest pace it ends within the hour that such a task may take.
_SLOWEST = 0.34
_PACE: TypeAdapter[float] = TypeAdapter(Annotated[float, Field(ge=_SLOWEST, le=1_000, allow_inf_nan=False)])

# What people call each kind.
KINDS = {
    Kind.PERMANENT: "no retry can help",
    Kind.EXHAUSTED: "out of retries",
    Kind.ERROR: "fault in the code",
    Kind.TIMED_OUT: "timed out",
    Kind.REJECTED: "refused",
    Kind.MALFORMED: "no task message",
}

Act = Literal["requeue", "discard"]
IdsOfForm = Annotated[list[UUID], Form(alias="id", max_length=_ROWS)]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The filters of a page: for the service, and as they stand in its address."""

    letters: LetterFilter
    state: LetterState | None
    query: dict[str, str]

    @property
    def page(self) -> str:
        return f"{_HERE}?{urlencode(self.query)}" if self.query else _HERE


async def _wanted(
    config: ConfigDep,
    task: Annotated[Word, Query()] = "",
    queue: Annotated[Word, Query()] = "",
    kind: Literal[""] | Kind = "",
    since: Annotated[str, Query(max_length=40)] = "",
    state: Literal["all"] | LetterState = LetterState.OPEN,
) -> Wanted:
    """`since` is a time of the installation's zone. Without a state, the open ones."""
    given = {"task": task.strip(), "queue": queue, "kind": str(kind), "since": since.strip()}
    query = {name: value for name, value in given.items() if value}
    fields = query | ({"since": instant(query["since"], "since", config)} if "since" in query else {})
    if state != LetterState.OPEN:
        query["state"] = str(state)
    try:
        letters = LetterFilter.model_validate(fields)
    except ValidationError as fault:
        raise Invalid("; ".join(f"{name}: {wrong}" for name, wrong in of_validation(fault).items())) from fault
    return Wanted(letters, None if state == "all" else state, query)


Filters = Annotated[Wanted, Depends(_wanted)]


@router.get("")
async def show_letters(
    request: Request, session: SessionDep, config: ConfigDep, wanted: Filters, cursor: str | None = None
) -> Response:
    """Tasks that have ended for good, the latest first."""
    page = await queues.list_letters(session, wanted.letters, state=wanted.state, cursor=cursor, limit=_ROWS)
    context = {
        "letters": page.items,
        "next_cursor": page.next_cursor,
        "wanted": wanted,
        "filtered": bool(wanted.query.keys() - {"state"}),
        "counts": {each: await _count(session, wanted.letters, each) for each in LetterState},
        "sendable": await queues.count_letters(
            session, wanted.letters, state=LetterState.OPEN, sendable=True, at_most=1
        ),
        "kinds": KINDS,
        "queues": list(QUEUE_LIMITS),
        "zone": config.timezone,
    }
    return render(request, "letters.html", context)


async def _count(session: Session, letters: LetterFilter, state: LetterState) -> str:
    count = await queues.count_letters(session, letters, state=state, at_most=_COUNTED)
    return str(count) if count < _COUNTED else f"{_COUNTED - 1}+"


@router.get("/confirm")
async def confirm(
    request: Request,
    session: SessionDep,
    config: ConfigDep,
    _: Operator,
    do: Act,
    ids: Annotated[list[UUID], Query(alias="id", max_length=_ROWS, default_factory=list)],
    back: Annotated[str, Query(pattern="^/ops/[!-~]*$", max_length=2000)] = _HERE,
) -> Response:
    """What is about to be done, and to which letters; nothing is changed yet."""
    if not ids:
        return lead(back, "No letter is selected. Tick the letters first.", good=False)
    context = {
        "do": do,
        "letters": [await queues.read_letter(session, each) for each in dict.fromkeys(ids)],
        "kinds": KINDS,
        "back": back,
        "now": utc_now().isoformat(),
        "zone": config.timezone,
    }
    return render(request, "letters_confirm.html", context)


@router.get("/confirm-all")
async def confirm_all(
    request: Request, session: SessionDep, config: ConfigDep, _: Operator, wanted: Filters
) -> Response:
    """How many the filters let through, and at what pace they are to be sent."""
    return await _confirm_all(request, session, config, wanted)


async def _confirm_all(
    request: Request, session: Session, config: Config, wanted: Wanted, pace: str = _PER_SECOND, fault: str = ""
) -> Response:
    count = await queues.count_letters(
        session, wanted.letters, state=LetterState.OPEN, sendable=True, at_most=_AT_MOST + 1
    )
    if not count:
        return lead(wanted.page, "None of these letters can be sent again.", good=False)
    context = {
        "count": count,
        "at_most": _AT_MOST,
        "values": {"per_second": pace},
        "errors": {"per_second": fault} if fault else {},
        "first_fault": "per_second" if fault else None,
        "wanted": wanted,
        "since": wanted.letters.since,
        "kinds": KINDS,
        "now": utc_now().isoformat(),
        "zone": config.timezone,
    }
    return render(request, "letters_confirm_all.html", context, status=422 if fault else 200)


@router.post("/requeue")
async def requeue(
    db: DatabaseDep,
    actor: Operator,
    ids: IdsOfForm,
    before: Annotated[Instant, Form()],
    back: Back = _HERE,
) -> Response:
    """Each once: what has ended again since `before`, when the page was made, is left alone by a second click."""

    async def send_again(session: Session, letter_id: UUID) -> LetterSummary:
        return await queues.requeue(session, letter_id, actor=actor.name, before=before)

    return await _each(db, ids, send_again, LetterState.REQUEUED, "sent again", back)


@router.post("/discard")
async def discard(
    db: DatabaseDep,
    actor: Operator,
    ids: IdsOfForm,
    back: Back = _HERE,
) -> Response:
    async def throw_away(session: Session, letter_id: UUID) -> LetterSummary:
        return await queues.discard(session, letter_id, actor=actor.name)

    return await _each(db, ids, throw_away, LetterState.DISCARDED, "discarded", back)


async def _each(
    db: Database,
    ids: list[UUID],
    act: Callable[[Session, UUID], Awaitable[LetterSummary]],
    wish: LetterState,
    done: str,
    back: str,
) -> Response:
    """One transaction for each; a broker that is away ends it, and the rest stays as it is."""
    reached, refused = 0, []
    for letter_id in dict.fromkeys(ids):
        try:
            async with db.transaction() as session:
                letter = await act(session, letter_id)
        except AppError as fault:
            refused.append(fault.detail)
            if isinstance(fault, Unavailable):
                break
        else:
            if letter.state == wish:
                reached += 1
            else:
                refused.append(f"{letter.task} has ended again meanwhile")
    told = f"{reached} {'task is' if reached == 1 else 'tasks are'} {done}."
    return lead(back, " ".join([told, *sorted({f"{each.rstrip('.')}." for each in refused})]), good=not refused)


@router.post("/requeue-all")
async def requeue_all(
    request: Request,
    db: DatabaseDep,
    config: ConfigDep,
    wanted: Filters,
    actor: Operator,
    key: Annotated[UUID, Form()],
    before: Annotated[Instant, Form()],
    per_second: Annotated[str, Form(max_length=20)] = _PER_SECOND,
) -> Response:
    """A task sends them, oldest first, at that pace; `key` and `before` are the page's own, so that a double click starts one."""
    try:
        pace = _PACE.validate_python(per_second.strip())
    except ValidationError:
        fault = f"must be a number from {_SLOWEST} to 1000"
        async with db.transaction() as session:
            return await _confirm_all(request, session, config, wanted, per_second, fault)
    wish = Requeue(**wanted.letters.model_dump(), limit=_AT_MOST, per_second=pace)
    asked = wish.model_dump(mode="json", exclude_none=True)
    sent = await queues.send(
        db,
        "requeue_dead_letters",
        {"wanted": asked, "before": before.isoformat(), "actor": actor.name},
        expires=config.result_expires,
        idempotency_key=f"ops-{key}",
        actor=actor.name,
    )
    return lead(f"{_HERE}/requeues/{sent.task.id}", "A worker sends them again now.")


@router.get("/requeues/{task_id}")
async def show_requeue(request: Request, db: DatabaseDep, config: ConfigDep, task_id: UUID) -> Response:
    """How far a requeue of many is; refreshes itself until it has ended."""
    task = await queues.read(db, task_id)
    ended = task.state in {TaskState.SUCCESS, TaskState.FAILURE, TaskState.REVOKED, TaskState.EXPIRED}
    return render(request, "letters_requeue.html", {"task": task, "refresh": not ended, "zone": config.timezone})


@router.get("/{letter_id}")
async def show_letter(request: Request, session: SessionDep, config: ConfigDep, letter_id: UUID) -> Response:
    """One letter: what was asked, how it ended, what was decided."""
    letter = await queues.read_letter(session, letter_id)
    return render(request, "letter.html", {"letter": letter, "kinds": KINDS, "zone": config.timezone})
