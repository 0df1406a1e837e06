"""`beatline dead-letters …` and `beatline queues`."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Protocol
from uuid import UUID
from zoneinfo import ZoneInfo

import typer

from backend.config import Config
from backend.core.changing import Changing
from backend.core.clock import utc_now
from backend.core.console import configuration, fail, in_transaction, say, say_table, warn, with_database
from backend.core.db import Database, Session
from backend.core.dead_letters import Kind
from backend.core.errors import AppError
from backend.queues import service as queues
from backend.queues.schemas import LetterFilter, LetterRead, LetterSummary, Requeue
from backend.queues.states import LetterState

app = typer.Typer(
    help="Dead letters, tasks that have ended for good: list, show, send again, discard.",
    no_args_is_help=True,
    add_completion=False,
)

ACTOR = "cli"
_SHOWN_ERROR = 80

LetterId = Annotated[UUID, typer.Argument(metavar="ID", help="The dead letter's id.")]
LetterIds = Annotated[list[UUID] | None, typer.Argument(metavar="[ID]...", help="Dead letters' ids.")]
OfTask = Annotated[str | None, typer.Option("--task", metavar="NAME", help="Of this task alone.")]
OfQueue = Annotated[str | None, typer.Option("--queue", metavar="NAME", help="Of this queue alone.")]
OfKind = Annotated[Kind | None, typer.Option("--kind", help="Of this kind alone.")]
Since = Annotated[datetime | None, typer.Option("--since", help="Last seen at or after; local to DATETIME_TIMEZONE.")]


def _filter(
    config: Config, task: str | None, queue: str | None, kind: Kind | None, since: datetime | None
) -> LetterFilter:
    local = since.replace(tzinfo=ZoneInfo(config.timezone)) if since is not None else None
    return LetterFilter(task=task, queue=queue, kind=kind, since=local)


@app.command("list")
def list_letters(
    task: OfTask = None,
    queue: OfQueue = None,
    kind: OfKind = None,
    since: Since = None,
    state: Annotated[LetterState | None, typer.Option(help="Default: open.")] = LetterState.OPEN,
    everything: Annotated[bool, typer.Option("--all", help="In any state.")] = False,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=500, help="How many.")] = 20,
) -> None:
    """The latest first; times are local to DATETIME_TIMEZONE."""
    config = configuration("DATABASE_URL")
    wanted = _filter(config, task, queue, kind, since)
    chosen = None if everything else state
    found = in_transaction(config, lambda session: queues.list_letters(session, wanted, state=chosen, limit=limit))
    if not found.items:
        say("no dead letters" if everything else f"no {chosen} dead letters")
        return
    say_table(
        ("last seen", "task", "queue", "kind", "state", "count", "error", "id"),
        [_cells(letter, config) for letter in found.items],
    )
    if found.next_cursor:
        say("there are more: -n shows up to 500")


def _cells(letter: LetterSummary, config: Config) -> tuple[object, ...]:
    error = letter.error.partition("\n")[0]
    return (
        _local(letter.last_seen, config),
        letter.task,
        letter.queue,
        letter.kind,
        letter.state,
        letter.count,
        error if len(error) <= _SHOWN_ERROR else f"{error[: _SHOWN_ERROR - 1]}…",
        letter.id,
    )


def _local(at: datetime | None, config: Config) -> str:
    return f"{at.astimezone(ZoneInfo(config.timezone)):%Y-%m-%d %H:%M:%S}" if at is not None else ""


@app.command("show")
def show_letter(letter_id: LetterId) -> None:
    """One dead letter: every field, its arguments, its traceback."""
    config = configuration("DATABASE_URL")
    try:
        letter = in_transaction(config, lambda session: queues.read_letter(session, letter_id))
    except AppError as fault:
        fail(fault.detail, 2)
    _say_letter(letter, config)


def _say_letter(letter: LetterRead, config: Config) -> None:
    rows = [
        ("id", letter.id),
        ("task", letter.task),
        ("task id", letter.task_id),
        ("queue", letter.queue),
        ("kind", letter.kind),
        ("state", letter.state + (f", by {letter.closed_by}" if letter.closed_by else "")),
        ("ended", f"{letter.count} times, after {letter.retries} retries the last time"),
        ("first seen", _local(letter.first_seen, config)),
        ("last seen", _local(letter.last_seen, config)),
        ("sent again as", letter.requeued_task_id or ""),
        ("arguments", json.dumps(letter.arguments, ensure_ascii=False)),
        ("not whole", letter.incomplete or ""),
        ("error", letter.error),
    ]
    say_table(("", ""), [row for row in rows if row[1] != ""])
    if letter.traceback:
        say("")
        say(letter.traceback.rstrip())


@app.command("requeue", cls=Changing)
def requeue_letters(
    ids: LetterIds = None,
    everything: Annotated[bool, typer.Option("--all", help="Every open one that the filters let through.")] = False,
    task: OfTask = None,
    queue: OfQueue = None,
    kind: OfKind = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="With --all: how many, oldest first.")] = 100,
    rate: Annotated[float, typer.Option(min=0.1, max=1_000, help="With --all: how many a second.")] = 10.0,
) -> None:
    """Send tasks again with the arguments they had. Twice is once, until it has come back."""
    config = configuration("DATABASE_URL")
    if bool(ids) == everything:
        fail("give ids, or --all with filters", 2)
    wanted = _filter(config, task, queue, kind, since)
    if ids:
        if wanted != LetterFilter():
            fail("--task, --queue, --kind and --since go with --all", 2)
        refused = with_database(config, lambda db: _each(db, ids, queues.requeue, _sent_again))
    else:
        wish = Requeue(**wanted.model_dump(), limit=limit, per_second=max(rate, limit / 3_000))
        refused = with_database(config, lambda db: _requeue_all(db, wish))
    if refused:
        raise typer.Exit(2)


class Decide(Protocol):
    """What is done with a letter."""

    async def __call__(self, session: Session, letter_id: UUID, *, actor: str) -> LetterSummary: ...


async def _each(db: Database, ids: list[UUID], decide: Decide, said: Callable[[LetterSummary], str]) -> int:
    """Decide on each letter in a transaction of its own; how many were refused."""
    refused = 0
    for letter_id in ids:
        try:
            async with db.transaction() as session:
                letter = await decide(session, letter_id, actor=ACTOR)
        except AppError as fault:
            warn(f"beatline: {fault.detail}")
            refused += 1
        else:
            say(said(letter))
    return refused


def _sent_again(letter: LetterSummary) -> str:
    return f"{letter.task} is sent again as task {letter.requeued_task_id}"


async def _requeue_all(db: Database, wish: Requeue) -> int:
    sent = refused = 0
    steps = queues.requeue_many(db, wish, limit=wish.limit, per_second=wish.per_second, before=utc_now(), actor=ACTOR)
    try:
        async for _done, _total, why in steps:
            if why is None:
                sent += 1
            else:
                warn(f"beatline: {why}")
                refused += 1
    except AppError as fault:
        warn(f"beatline: {fault.detail}")
        refused += 1
    say(f"{sent} sent again" + (f", {refused} refused" if refused else ""))
    return refused


@app.command("discard", cls=Changing)
def discard_letters(ids: Annotated[list[UUID], typer.Argument(metavar="ID...", help="Dead letters' ids.")]) -> None:
    """Decide that nothing is to be done."""
    config = configuration("DATABASE_URL")

    def said(letter: LetterSummary) -> str:
        return f"{letter.task} {letter.task_id} is discarded"

    if with_database(config, lambda db: _each(db, ids, queues.discard, said)):
        raise typer.Exit(2)


def show_queues() -> None:
    """Each queue: messages that wait and that workers hold, who reads it, and tracked runs that are due."""
    config = configuration("DATABASE_URL")
    found = with_database(config, queues.read_queues)
    now = utc_now()
    say_table(
        ("queue", "ready", "with workers", "consumers", "workers", "runs waiting", "oldest"),
        [
            (
                queue.name,
                _number(queue.ready),
                _number(queue.unacknowledged),
                _number(queue.consumers),
                queue.workers,
                queue.runs_waiting,
                _age(now - queue.oldest_run_at) if queue.oldest_run_at else "",
            )
            for queue in found.queues
        ],
    )
    if found.broker_error:
        fail(f"{found.broker} does not answer: {found.broker_error}", 1)


def _number(count: int | None) -> str:
    return "" if count is None else str(count)


def _age(age: timedelta) -> str:
    return f"{max(0, round(age.total_seconds()))} s"
