"""`beatline runs …`: what has run, is running and waits."""

import asyncio
import time
from typing import Annotated
from uuid import UUID

import typer

from backend.core.changing import Changing
from backend.core.clock import utc_now
from backend.core.console import configuration, fail, in_transaction, say, warn, with_database
from backend.core.db import Database, Session
from backend.core.paging import Page
from backend.jobs import service as jobs
from backend.jobs.naming import find_schedule
from backend.jobs.run_schemas import RunRead, RunSummary
from backend.jobs.states import ACTIVE, RunState
from backend.jobs.tables import in_zone, say_run, say_runs
from backend.jobs.wishes import refusals

app = typer.Typer(help="Runs: list, show, cancel, run again.", no_args_is_help=True, add_completion=False)

ACTOR = "cli"
_POLL_SECONDS = 0.5

RunId = Annotated[UUID, typer.Argument(metavar="RUN", help="The run's id.")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow it until it ends; exit code 1 unless it succeeded.")]
Patience = Annotated[
    float | None, typer.Option("--timeout", min=0, help="With --wait: seconds after which to give up, exit code 1.")
]


@app.command("list")
def list_runs(
    schedule: Annotated[str | None, typer.Option(metavar="ID|NAME", help="Of this schedule alone.")] = None,
    states: Annotated[list[RunState] | None, typer.Option("--state", help="May be repeated.")] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=500, help="How many.")] = 20,
) -> None:
    """The latest runs, newest first; times are local to DATETIME_TIMEZONE."""
    config = configuration("DATABASE_URL")

    async def work(session: Session) -> Page[RunSummary]:
        found = await find_schedule(session, schedule) if schedule is not None else None
        return await jobs.list_runs(session, schedule_id=found.id if found else None, states=states, limit=limit)

    with refusals():
        say_runs(in_transaction(config, work).items, config.timezone)


@app.command("show")
def show_run(run: RunId) -> None:
    """One run: every field, its story, its log lines."""
    config = configuration("DATABASE_URL")
    with refusals():
        say_run(in_transaction(config, lambda session: jobs.read_run(session, run)), config.timezone)


@app.command("cancel", cls=Changing)
def cancel_run(run: RunId) -> None:
    """Cancel a run; one that is under way is stopped by its worker within seconds."""
    config = configuration("DATABASE_URL")
    with refusals():
        done = in_transaction(config, lambda session: jobs.cancel_run(session, run, actor=ACTOR))
    say(f"run {run} " + ("is being stopped by its worker" if done.stopping else "is cancelled"))


@app.command("retry", cls=Changing)
def retry_run(run: RunId, wait: Wait = False, timeout: Patience = None) -> None:
    """A new run of a finished one's work, with the same arguments; prints its id."""
    config = configuration("DATABASE_URL")
    with refusals():
        started = in_transaction(config, lambda session: jobs.retry_run(session, run, actor=ACTOR))
    say(str(started.run.id))
    if wait:
        with_database(config, lambda db: follow(db, started.run.id, timeout, config.timezone))


async def follow(db: Database, run_id: UUID, patience: float | None, zone_name: str) -> None:
    """Tell each change of a run's state on standard error until it ends; exit code 1 unless it succeeded.

    `patience`: seconds after which to give up, which changes nothing about the run.
    """
    began, told = time.monotonic(), ""
    while True:
        async with db.transaction() as session:
            run = await jobs.read_run(session, run_id)
        if (now := _state_in_words(run)) != told:
            told = now
            warn(f"{in_zone(utc_now(), zone_name)} {zone_name} {told}")
        if run.state not in ACTIVE:
            break
        if patience is not None and time.monotonic() - began >= patience:
            fail(f"run {run_id} has not ended within {patience:g} s: it is {run.state}; it goes on", 1)
        await asyncio.sleep(_POLL_SECONDS)
    if run.state != RunState.SUCCEEDED:
        fail(f"run {run_id} did not succeed: it is {run.state}" + (f": {run.error}" if run.error else ""), 1)


def _state_in_words(run: RunRead) -> str:
    attempt = f", attempt {run.attempt}" if run.attempt > 1 else ""
    took = f" after {run.duration_seconds:.1f} s" if run.duration_seconds is not None else ""
    return f"{run.state}{attempt}{took}" + (f": {run.reason}" if run.reason else "")
