"""`beatline schedules …`: what is scheduled, and what becomes of it.

A schedule is named by its id or its name. A time without an offset is local to the schedule's zone.
"""

from typing import Annotated, Any

import typer

from backend.config import Config
from backend.core.changing import Changing
from backend.core.console import configuration, fail, in_transaction, say, say_table, with_database
from backend.core.db import Session
from backend.jobs import service as jobs
from backend.jobs.naming import every_schedule, find_schedule, find_template, free_template_name
from backend.jobs.restoring import restore_system
from backend.jobs.run_commands import ACTOR, Patience, Wait, follow
from backend.jobs.run_schemas import AlertRead, RunSummary
from backend.jobs.schemas import (
    Backfill,
    BackfillRead,
    OccurrenceRead,
    PreviewCreate,
    ScheduleCreate,
    ScheduleRead,
    ScheduleUpdate,
    TemplateCreate,
    TemplateRead,
)
from backend.jobs.states import MisfirePolicy, OverlapPolicy
from backend.jobs.tables import (
    headline,
    say_alerts,
    say_next,
    say_occurrences,
    say_preview,
    say_schedule,
    say_schedules,
    state,
)
from backend.jobs.wishes import given, parameters, refusals, seconds, settings, wish

app = typer.Typer(
    help="Schedules: list, add, edit, pause, resume, run now, look ahead, back-fill.",
    no_args_is_help=True,
    add_completion=False,
)

_OCCURRENCES = 10

Reference = Annotated[str, typer.Argument(metavar="ID|NAME", help="The schedule's id or name.")]
Cron = Annotated[str | None, typer.Option(metavar="EXPR", help='Five fields or a word such as @daily: "0 2 * * *".')]
Every = Annotated[str | None, typer.Option(metavar="SECONDS|5m|2h", help="An interval.")]
At = Annotated[str | None, typer.Option(metavar="TIME", help='Once, such as "2026-12-01 10:00".')]
Zone = Annotated[
    str | None, typer.Option(metavar="ZONE", help="IANA name such as Europe/Berlin; default: DATETIME_TIMEZONE.")
]
Name = Annotated[str | None, typer.Option(help="Of the schedule; default: made of the template's and the time.")]
Start = Annotated[str | None, typer.Option(metavar="TIME", help="Not before; zero of an interval.")]
End = Annotated[str | None, typer.Option(metavar="TIME", help="Not after.")]
Overlap = Annotated[OverlapPolicy | None, typer.Option(help="While a run is still under way; default: skip.")]
Misfire = Annotated[MisfirePolicy | None, typer.Option(help="Occurrences that came due meanwhile; default: coalesce.")]
Param = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Of the kind; may be repeated.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Any other field of the API, such as max_attempts=3, timeout_seconds=60, jitter_seconds=30, priority=high,"
        " alert_grace_seconds=null; may be repeated.",
    ),
]


@app.command("list")
def list_schedules(
    kind: Annotated[str | None, typer.Option(help="Of this kind alone.")] = None,
    system: Annotated[
        bool | None, typer.Option("--system/--user", help="The system's own, or people's, alone.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Finished ones, too.")] = False,
) -> None:
    """Schedules by their next run; each time in the schedule's own zone and in UTC."""
    config = configuration("DATABASE_URL")
    managed_by = None if system is None else "system" if system else "user"
    with refusals():
        found = in_transaction(config, lambda session: every_schedule(session, kind=kind, managed_by=managed_by))
    shown = [schedule for schedule in found if everything or state(schedule) != "finished"]
    shown.sort(key=lambda one: (one.next_run is None, one.next_run.timestamp() if one.next_run else 0, one.id))
    if shown:
        say_schedules(shown)
    elif kind is None and system is not False and not found:
        say("no schedules; Beat writes the system's own when it starts, and `beatline schedules reset-system` does now")
    else:
        say("no schedules")
    if len(shown) < len(found):
        say(f"{len(found) - len(shown)} finished, which --all shows")


@app.command("show")
def show_schedule(schedule: Reference) -> None:
    """Every field, the latest occurrences with their fate and reason, and the open alert."""
    config = configuration("DATABASE_URL")

    async def work(session: Session) -> tuple[ScheduleRead, list[OccurrenceRead], list[AlertRead]]:
        found = await find_schedule(session, schedule)
        occurrences = (await jobs.list_occurrences(session, found.id, limit=_OCCURRENCES)).items
        return found, occurrences, (await jobs.list_alerts(session, is_open=True, schedule_id=found.id)).items

    with refusals():
        found, occurrences, alerts = in_transaction(config, work)
    say_schedule(found)
    say("")
    say_occurrences(occurrences[:_OCCURRENCES], found.timezone)
    say("")
    say_alerts(alerts)
    say(f"`beatline runs list --schedule {found.id}` lists all its runs, also those that somebody asked for")


def _times(cron: str | None, every: str | None, at: str | None, *, needed: bool) -> dict[str, Any]:
    """The one time that was given; exit code 2 for two, or for none where one is needed."""
    times = given(cron_expression=cron, interval_seconds=None if every is None else seconds(every), run_at=at)
    if len(times) > 1 or (needed and not times):
        fail("give one of --cron, --every and --at" + (", not two" if times else ""), 2)
    return times


@app.command("add", cls=Changing)
def add_schedule(
    template: Annotated[str | None, typer.Option(metavar="ID|NAME", help="What is to be done.")] = None,
    kind: Annotated[str | None, typer.Option(help="Instead: make a template of this kind, with --param.")] = None,
    param: Param = None,
    cron: Cron = None,
    every: Every = None,
    at: At = None,
    timezone: Zone = None,
    name: Name = None,
    start: Start = None,
    end: End = None,
    overlap: Overlap = None,
    misfire: Misfire = None,
    paused: Annotated[bool, typer.Option("--paused", help="Add it paused.")] = False,
    more: Set = None,
) -> None:
    """Schedule a template, or a kind with its parameters."""
    config = configuration("DATABASE_URL")
    if (template is None) == (kind is None):
        fail("give one of --template and --kind" + (", not both" if template else ""), 2)
    fields = _times(cron, every, at, needed=True) | settings(more or []) | ({"is_active": False} if paused else {})
    fields |= given(timezone=timezone, name=name, start_at=start, end_at=end)
    fields |= given(overlap_policy=overlap, misfire_policy=misfire)

    async def work(session: Session) -> tuple[TemplateRead, ScheduleRead]:
        if kind is not None:
            found, own = await _make_template(session, config, kind, name or kind, param or []), {}
        else:
            found = await find_template(session, template or "")
            own = {"parameters": parameters(param, found.kind)} if param else {}
        asked = wish(ScheduleCreate, {"template_id": found.id} | fields | own)
        return found, await jobs.create_schedule(session, config=config, wish=asked, actor=ACTOR)

    with refusals(cron):
        used, made = in_transaction(config, work)
    say(f"schedule {made.id}: {made.name}" + (" (paused)" if paused else ""))
    say(f"template {used.id}: {used.name} ({used.kind})")
    say(made.explanation or "")
    say_next(made)


async def _make_template(session: Session, config: Config, kind: str, name: str, param: list[str]) -> TemplateRead:
    free = await free_template_name(session, name)
    asked = wish(TemplateCreate, {"name": free, "kind": kind, "parameters": parameters(param, kind)})
    return await jobs.create_template(session, config=config, wish=asked, actor=ACTOR)


@app.command("edit", cls=Changing)
def edit_schedule(
    schedule: Reference,
    cron: Cron = None,
    every: Every = None,
    at: At = None,
    timezone: Zone = None,
    name: Name = None,
    start: Start = None,
    end: End = None,
    overlap: Overlap = None,
    misfire: Misfire = None,
    param: Param = None,
    more: Set = None,
) -> None:
    """Change what is given, at once; the rest stays. --param replaces all of the schedule's own parameters."""
    config = configuration("DATABASE_URL")
    fields = _times(cron, every, at, needed=False) | settings(more or [])
    fields |= given(timezone=timezone, name=name, start_at=start, end_at=end)
    fields |= given(overlap_policy=overlap, misfire_policy=misfire)
    if not fields and not param:
        fail("nothing to change was given", 2)

    async def work(session: Session) -> ScheduleRead:
        found = await find_schedule(session, schedule)
        own = {"parameters": parameters(param, found.kind or "")} if param else {}
        asked = wish(ScheduleUpdate, fields | own)
        return await jobs.update_schedule(session, found.id, config=config, wish=asked, actor=ACTOR)

    with refusals(cron):
        edited = in_transaction(config, work)
    say(f"{headline(edited)} is changed: {edited.explanation or ''}")
    say_next(edited)


@app.command("pause", cls=Changing)
def pause_schedule(schedule: Reference) -> None:
    """Dispatch nothing until it is resumed; runs under way go on."""
    config = configuration("DATABASE_URL")

    async def work(session: Session) -> tuple[ScheduleRead, ScheduleRead]:
        found = await find_schedule(session, schedule)
        return found, await jobs.pause_schedule(session, found.id)

    with refusals():
        before, now = in_transaction(config, work)
    say(f"{headline(now)} " + ("is paused" if before.is_active else "was paused already"))


@app.command("resume", cls=Changing)
def resume_schedule(
    schedule: Reference,
    catch_up: Annotated[
        bool, typer.Option("--catch-up", help="Treat what came due meanwhile by its misfire policy; else forget it.")
    ] = False,
) -> None:
    """Go on from now."""
    config = configuration("DATABASE_URL")

    async def work(session: Session) -> tuple[ScheduleRead, ScheduleRead]:
        found = await find_schedule(session, schedule)
        return found, await jobs.resume_schedule(session, found.id, catch_up=catch_up)

    with refusals():
        before, now = in_transaction(config, work)
    say(f"{headline(now)} " + ("was active already" if before.is_active else "is active again"))
    say_next(now)


@app.command("delete", cls=Changing)
def delete_schedule(schedule: Reference) -> None:
    """Delete a schedule; its runs stay, those that no worker has are cancelled."""
    config = configuration("DATABASE_URL")

    async def work(session: Session) -> ScheduleRead:
        found = await find_schedule(session, schedule)
        await jobs.delete_schedule(session, found.id, actor=ACTOR)
        return found

    with refusals():
        say(f"{headline(in_transaction(config, work))} is deleted")


@app.command("run", cls=Changing)
def run_schedule(schedule: Reference, wait: Wait = False, timeout: Patience = None) -> None:
    """Run it now, also while it is paused, as its overlap policy allows; prints the run's id."""
    config = configuration("DATABASE_URL")

    async def work(session: Session) -> tuple[ScheduleRead, RunSummary]:
        found = await find_schedule(session, schedule)
        return found, (await jobs.run_now(session, found.id, actor=ACTOR)).run

    with refusals():
        found, run = in_transaction(config, work)
    say(str(run.id))
    if wait:
        with_database(config, lambda db: follow(db, run.id, timeout, found.timezone))


@app.command("preview")
def preview(
    expression: Annotated[str | None, typer.Argument(metavar="EXPR", help='Cron: "0 2 * * *".')] = None,
    every: Every = None,
    timezone: Zone = None,
    after: Annotated[str | None, typer.Option(metavar="TIME", help="From this time on; default: now.")] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=50, help="How many.")] = 10,
) -> None:
    """The next occurrences of a time in its zone and in UTC; what a change of the clock moves is named."""
    config = configuration("DATABASE_URL")
    if (expression is None) == (every is None):
        fail("give one of EXPR and --every" + (", not both" if every else ""), 2)
    times = _times(expression, every, None, needed=True)
    asked = wish(PreviewCreate, times | given(timezone=timezone, after=after, count=count))
    with refusals(expression, given_as="EXPR"):
        say_preview(in_transaction(config, lambda session: jobs.preview(session, config=config, wish=asked)))


@app.command("backfill", cls=Changing)
def backfill(
    schedule: Reference,
    first: Annotated[str, typer.Option("--from", metavar="TIME", help='Such as "2026-11-01 00:00"; included.')],
    last: Annotated[str, typer.Option("--to", metavar="TIME", help="Included; not ahead of now.")],
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Occurrences at most.")] = 100,
) -> None:
    """Run the occurrences of a past range that have no run; times are local to the schedule's zone."""
    config = configuration("DATABASE_URL")
    asked = wish(Backfill, {"from": first, "to": last, "limit": limit})

    async def work(session: Session) -> tuple[ScheduleRead, BackfillRead]:
        found = await find_schedule(session, schedule)
        return found, await jobs.backfill(session, found.id, wish=asked, actor=ACTOR)

    with refusals():
        found, done = in_transaction(config, work)
    say(f"{headline(found)}, from {first} to {last} ({found.timezone} where no offset is given):")
    say(f"{done.occurrences} occurrences, {done.created} runs made, {done.present} had one")
    if done.next_from is not None:
        say(f"--limit stopped it; go on with --from {done.next_from.isoformat()}")


@app.command("reset-system", cls=Changing)
def reset_system() -> None:
    """The system's schedules as the code has them, active; what it has no more is deleted."""
    config = configuration("DATABASE_URL")
    done = with_database(config, lambda db: restore_system(db, config))
    say_table(("schedule", "done", "had been edited"), [(one.name, one.done, ", ".join(one.fields)) for one in done])
