"""The `beatline` command.

Exit codes: 0 done, 1 the database is away or not ready, 2 usage, configuration or file, 3 some rows or files were left out.
"""

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from uuid import UUID
from zoneinfo import ZoneInfo

import typer
from alembic.util import CommandError
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from backend import models
from backend.accounts import commands as users
from backend.audit import commands as audit
from backend.calls import service as calls
from backend.calls.schemas import CallSummary, ImportRead
from backend.config import Config
from backend.core.changing import Changing
from backend.core.console import (
    address,
    configuration,
    console,
    database_faults,
    fail,
    in_transaction,
    say,
    say_table,
    warn,
    with_database,
)
from backend.core.db import Database
from backend.core.errors import AppError
from backend.jobs import commands as schedules
from backend.jobs import run_commands as runs
from backend.migrations import running
from backend.queues import commands as dead_letters
from backend.quotas import commands as quotas
from backend.recordings.terminal import commands as transcribing
from backend.recordings.terminal import recordings

__all__ = ["app", "models"]

_WAIT_SECONDS = 60
_SHOWN_ERRORS = 20
_PAGE = 1_000

app = typer.Typer(
    help="Beatline: schedules and their runs, calls, recordings, imports and the database.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"obj": audit.keep},
)
app.add_typer(schedules.app, name="schedules")
app.add_typer(runs.app, name="runs")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(audit.app, name="audit")
app.add_typer(users.app, name="users")
app.add_typer(quotas.app, name="quotas")
app.command("queues")(dead_letters.show_queues)
app.add_typer(recordings.app, name="recordings")
app.command("transcribe")(transcribing.transcribe)


@app.command()
def migrate(
    wait: Annotated[int, typer.Option(min=0, help="Seconds to wait for the database to answer.")] = _WAIT_SECONDS,
) -> None:
    """Bring the database to this version's tables. Safe to start in several places at once."""
    config = configuration("DATABASE_URL")
    where = address(config)
    with database_faults(config):
        try:
            before = running.wait_for_database(
                config.database_url, wait, lambda why: warn(f"waiting for the database at {where}: {why}")
            )
        except TimeoutError as fault:
            fail(f"database {where} did not answer within {wait} seconds: {fault}", 1)
        try:
            running.upgrade(config.database_url)
        except CommandError as fault:
            fail(f"database {where} is at revision {before}, which this version does not know: {fault}", 1)
    newest = running.newest_revision()
    say(
        f"database {where}: revision {newest}" + (" already" if before == newest else f" (before: {before or 'empty'})")
    )


@app.command(cls=Changing)
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
    config = configuration("DATABASE_URL")
    mapping = _mapping(maps or [])
    if errors_to is not None:
        _check_writable(errors_to)
    try:
        done = with_database(config, lambda db: _import(db, config, file, mapping, errors_to))
    except AppError as fault:
        fail(f"{file}: {fault.detail}", 2)
    _print_import(done)
    if errors_to is not None:
        say(f"errors: {errors_to}")
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
    bar = console(stderr=True)
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
    counts = (done.created, done.changed, done.unchanged, done.failed)
    say(f"import {done.id} of {done.filename}")
    say_table(
        ("created", "changed", "unchanged", "failed", "rows"), [[f"{count:,}" for count in (*counts, sum(counts))]]
    )
    if not sum(counts):
        say("the file has a header and no rows")
    if not done.errors:
        return
    say("")
    say_table(
        ("line", "field", "value", "problem", "fix"),
        [(error.line, error.field, error.value, error.problem, error.fix) for error in done.errors],
    )
    if len(done.errors) == _SHOWN_ERRORS:
        say(f"The first {_SHOWN_ERRORS} errors; --errors-to FILE.csv writes the first 10,000.")


@app.command("calls")
def list_calls(limit: Annotated[int, typer.Option(min=1, max=500, help="How many.")] = 20) -> None:
    """The latest calls, newest first; times are local to DATETIME_TIMEZONE."""
    config = configuration("DATABASE_URL")
    found = in_transaction(config, lambda session: calls.list_calls(session, limit=limit)).items
    if not found:
        say("no calls yet")
        return
    zone = ZoneInfo(config.timezone)
    say_table(
        ("at", "status", "reason", "customer", "policy", "attempt", "talk", "outcome", "id"),
        [_call_cells(call, zone) for call in found],
    )


def _call_cells(call: CallSummary, zone: ZoneInfo) -> tuple[object, ...]:
    return (
        f"{call.created_at.astimezone(zone):%Y-%m-%d %H:%M:%S}",
        call.status,
        call.end_reason or "",
        call.customer_name,
        call.policy_number,
        call.attempt_no,
        "" if call.talk_seconds is None else f"{call.talk_seconds:.0f} s",
        (call.outcome or {}).get("intent", ""),
        call.id,
    )


if __name__ == "__main__":
    app()
