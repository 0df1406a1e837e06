"""The `beatline` command.

Exit codes: 0 done, 1 the database is away or not ready, 2 usage, configuration or file, 3 some rows were not imported.
"""

import asyncio
import csv
import os
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar
from urllib.parse import urlsplit
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import typer
from alembic.util import CommandError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from sqlalchemy.exc import DBAPIError

from backend import models
from backend.calls import service as calls
from backend.calls.schemas import CallSummary, ImportRead
from backend.celery_app import ZonedCrontab, beat_schedule, create_app
from backend.config import Config, ConfigError, load_or_exit, stop
from backend.core.clock import utc_now
from backend.core.db import Database, is_outage
from backend.core.errors import AppError
from backend.migrations import running

__all__ = ["app", "models"]

T = TypeVar("T")

_WAIT_SECONDS = 60
_SHOWN_ERRORS = 20
_PAGE = 1_000
# SQLSTATE: no such database, unknown user, wrong password; no such table or column; a lock that somebody keeps.
_REFUSED = {"3D000", "28000", "28P01"}
_NO_TABLES = {"42P01", "42703"}
_LOCK_TIMEOUT = "55P03"
_INSTANT = "%a %Y-%m-%d %H:%M:%S"

app = typer.Typer(
    help="Beatline: scheduled calls, imports and the database.", no_args_is_help=True, add_completion=False
)


def _console(*, stderr: bool = False) -> Console:
    found = Console(stderr=stderr, highlight=False)
    # Without a terminal nobody sees where a line would have to wrap.
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=240)


def _say(text: str) -> None:
    _console().print(escape(text), soft_wrap=True)


def _warn(text: str) -> None:
    _console(stderr=True).print(escape(text), soft_wrap=True)


def _fail(text: str, code: int) -> NoReturn:
    _warn(f"beatline: {text}")
    raise typer.Exit(code)


def _config(*required: str) -> Config:
    config = load_or_exit()
    try:
        config.require(*required)
    except ConfigError as fault:
        stop(fault)
    return config


def _table(*headers: str) -> Table:
    table = Table(*headers, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in table.columns:
        column.overflow = "fold"
    return table


def _address(config: Config) -> str:
    parts = urlsplit(config.database_url)
    return f"{parts.hostname}:{parts.port or 5432}{parts.path}"


@contextmanager
def _database_faults(config: Config) -> Iterator[None]:
    """Turn what the database may answer into one line and an exit code."""
    try:
        yield
    except (DBAPIError, asyncpg.PostgresError, OSError) as fault:
        cause = fault.orig if isinstance(fault, DBAPIError) else fault
        state = getattr(cause, "sqlstate", None)
        address = _address(config)
        if state in _REFUSED:
            _fail(f"database {address}: {cause}; check DATABASE_URL", 2)
        if state in _NO_TABLES:
            _fail(f"database {address} has not the tables of this version: run `beatline migrate`", 1)
        if state != _LOCK_TIMEOUT and not is_outage(fault):
            raise
        _fail(f"database {address} does not answer: {str(cause) or type(fault).__name__}", 1)


def _with_database(config: Config, work: Callable[[Database], Coroutine[Any, Any, T]]) -> T:
    async def run() -> T:
        database = Database(config.database_url, pool_size=1)
        try:
            return await work(database)
        finally:
            await database.close()

    with _database_faults(config):
        return asyncio.run(run())


@app.command()
def migrate(
    wait: Annotated[int, typer.Option(min=0, help="Seconds to wait for the database to answer.")] = _WAIT_SECONDS,
) -> None:
    """Bring the database to this version's tables. Safe to start in several places at once."""
    config = _config("DATABASE_URL")
    address = _address(config)
    with _database_faults(config):
        try:
            before = running.wait_for_database(
                config.database_url, wait, lambda why: _warn(f"waiting for the database at {address}: {why}")
            )
        except TimeoutError as fault:
            _fail(f"database {address} did not answer within {wait} seconds: {fault}", 1)
        try:
            running.upgrade(config.database_url)
        except CommandError as fault:
            _fail(f"database {address} is at revision {before}, which this version does not know: {fault}", 1)
    newest = running.newest_revision()
    _say(
        f"database {address}: revision {newest}"
        + (" already" if before == newest else f" (before: {before or 'empty'})")
    )


@app.command()
def import_policies(
    file: Annotated[
        Path, typer.Argument(help="A CSV file with a header line.", exists=True, dir_okay=False, readable=True)
    ],
    maps: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="HEADER=COLUMN", help='Such as "Mobile=phone"; may be repeated.'),
    ] = None,
    errors_to: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Write what was wrong, one line per error.", dir_okay=False)
    ] = None,
) -> None:
    """Import customers and policies. A bad row never stops the good ones; importing twice changes nothing."""
    config = _config("DATABASE_URL")
    mapping = _mapping(maps or [])
    if errors_to is not None:
        _check_writable(errors_to)
    try:
        done = _with_database(config, lambda db: _import(db, config, file, mapping, errors_to))
    except AppError as fault:
        _fail(f"{file}: {fault.detail}", 2)
    _print_import(done)
    if errors_to is not None:
        _say(f"errors: {errors_to}")
    if done.failed:
        raise typer.Exit(3)


def _mapping(pairs: list[str]) -> Mapping[str, str]:
    mapping = {}
    for pair in pairs:
        header, equals, column = pair.rpartition("=")
        if not equals or not header.strip() or not column.strip():
            raise typer.BadParameter(f'{pair!r} is not HEADER=COLUMN, such as "Mobile=phone"', param_hint="--map")
        mapping[header.strip()] = column.strip()
    return mapping


def _check_writable(path: Path) -> None:
    try:
        path.touch()
    except OSError as fault:
        raise typer.BadParameter(f"{path}: {fault.strerror}", param_hint="--errors-to") from fault


async def _import(
    db: Database, config: Config, file: Path, mapping: Mapping[str, str], errors_to: Path | None
) -> ImportRead:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = _console(stderr=True)
    with (
        file.open("rb") as source,
        Progress(*columns, console=bar, transient=True, disable=not bar.is_terminal) as progress,
    ):
        task = progress.add_task(file.name, total=os.fstat(source.fileno()).st_size)
        done = await calls.import_policies(
            db,
            source,
            filename=file.name,
            config=config,
            mapping=mapping,
            progress=lambda position: progress.update(task, completed=position),
        )
    if errors_to is not None:
        await _write_errors(db, done.id, errors_to)
    async with db.transaction() as session:
        errors = await calls.list_errors(session, done.id, 0, _SHOWN_ERRORS)
    return ImportRead.model_validate(done.model_dump() | {"errors": [error.model_dump() for error in errors]})


async def _write_errors(db: Database, import_id: UUID, path: Path) -> None:
    written = 0
    with path.open("w", newline="", encoding="utf-8-sig") as target:
        rows = csv.writer(target)
        rows.writerow(["line", "field", "value", "problem", "fix"])
        while True:
            async with db.transaction() as session:
                page = await calls.list_errors(session, import_id, written, _PAGE)
            if not page:
                return
            rows.writerows([error.line, error.field, error.value, error.problem, error.fix] for error in page)
            written += len(page)


def _print_import(done: ImportRead) -> None:
    table = _table("created", "changed", "unchanged", "failed", "rows")
    counts = (done.created, done.changed, done.unchanged, done.failed)
    table.add_row(*(f"{count:,}" for count in (*counts, sum(counts))))
    _say(f"import {done.id} of {done.filename}")
    _console().print(table)
    if not sum(counts):
        _say("the file has a header and no rows")
    if not done.errors:
        return
    listing = _table("line", "field", "value", "problem", "fix")
    for error in done.errors:
        listing.add_row(
            *(escape(str(part)) for part in (error.line, error.field, error.value, error.problem, error.fix))
        )
    _say("")
    _console().print(listing)
    if len(done.errors) == _SHOWN_ERRORS:
        _say(f"The first {_SHOWN_ERRORS} errors; --errors-to FILE.csv writes the first 10,000.")


@app.command("calls")
def list_calls(limit: Annotated[int, typer.Option(min=1, max=500, help="How many.")] = 20) -> None:
    """The latest calls, newest first; times are local to DATETIME_TIMEZONE."""
    config = _config("DATABASE_URL")
    found = _with_database(config, lambda db: _recent_calls(db, limit))
    if not found:
        _say("no calls yet")
        return
    table = _table("at", "status", "reason", "customer", "policy", "attempt", "talk", "outcome", "id")
    zone = ZoneInfo(config.timezone)
    for call in found:
        cells = (
            f"{call.created_at.astimezone(zone):%Y-%m-%d %H:%M:%S}",
            call.status,
            call.end_reason or "",
            call.customer_name,
            call.policy_number,
            str(call.attempt_no),
            "" if call.talk_seconds is None else f"{call.talk_seconds:.0f} s",
            str((call.outcome or {}).get("intent", "")),
            str(call.id),
        )
        table.add_row(*map(escape, cells))
    _console().print(table)


async def _recent_calls(db: Database, limit: int) -> list[CallSummary]:
    async with db.transaction() as session:
        return (await calls.list_calls(session, limit=limit)).items


@app.command("schedule")
def show_schedule() -> None:
    """The system's schedule: each entry with its queue and its next run."""
    config = _config()
    celery = create_app(config)
    table = _table("entry", "task", "queue", "when", f"next run ({config.timezone})", "next run (UTC)")
    now = utc_now()
    for name, entry in sorted(beat_schedule(config).items()):
        queue = (celery.conf.task_routes.get(entry["task"]) or {}).get("queue", celery.conf.task_default_queue)
        when, by, at = _next_run(entry["schedule"], now)
        local = at.astimezone(ZoneInfo(config.timezone))
        table.add_row(name, entry["task"], queue, when, f"{by}{local:{_INSTANT}}", f"{by}{at:{_INSTANT}}")
    _console().print(table)


def _next_run(schedule: ZonedCrontab | float, now: datetime) -> tuple[str, str, datetime]:
    """In words; whether the instant is the latest; the instant. An interval counts from Beat's own start."""
    if not isinstance(schedule, ZonedCrontab):
        return f"every {schedule:g} s", "by ", now + timedelta(seconds=schedule)
    # Celery asks the clock itself, so its answer is off by the time that it took.
    at = now + schedule.remaining_estimate(now) + timedelta(seconds=0.5)
    fields = repr(schedule).removeprefix("<crontab: ").partition(" (")[0]
    return f"{fields} {schedule.tz}", "", at.replace(microsecond=0)


if __name__ == "__main__":
    app()
