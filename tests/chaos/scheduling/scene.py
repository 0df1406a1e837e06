"""Beats and workers of a test, as processes, and what may be done to them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import psutil
from celery import Celery

from backend.celery_app import create_app
from backend.config import load
from backend.scheduling.recurrence import TZDATA_VERSION
from devstack.environment import ROOT
from devstack.processes import Running, Service, Supervisor, family
from devstack.readiness import when_logged
from devstack.servers import PostgresServer, Server
from devstack.stack import CELERY
from tests.chaos.database import fetch
from tests.chaos.scheduling.ledger import ACCOUNTED, EXECUTED, Ledger, Planned, Row, read_effects

_POLL_SECONDS = 0.05
_INCLUDE = "tests.chaos.scheduling.effects,backend.jobs.checking"
# What is said when something happens that the code was not written for. Celery itself shows tracebacks of lost brokers, too.
_SURPRISES = ("claiming failed", "publishing failed", "sweeping failed", "never retrieved", "Unrecoverable error")

_FREEZE = """
with line as (select date_trunc('milliseconds', clock_timestamp()) + interval '300 ms' as at)
update job_schedules s set end_at = line.at, next_run = case when next_run <= line.at then next_run end
from line where managed_by = 'user' and is_active returning line.at
"""


@dataclass(slots=True)
class Scene:
    """A database, a broker, and the processes that work with them."""

    supervisor: Supervisor
    url: str
    postgres: PostgresServer
    valkey: Server
    broker: Server
    environment: dict[str, str]
    effects: Path
    planned: list[Planned] = field(default_factory=list)
    _starting: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    # ------------------------------------------------------------- processes

    def beats(self, count: int, **environment: str) -> list[str]:
        """Start that many Beats; their names. Whatever needs them waits until they tick."""
        return self._start([self._beat(environment) for _ in range(count)])

    def workers(self, count: int, *options: str, **environment: str) -> list[str]:
        """Start that many workers; their names. Whatever needs them waits until they consume."""
        return self._start(
            [self._worker(options or ("--pool=threads", "--concurrency=8"), environment) for _ in range(count)]
        )

    def start(self, kind: str) -> str:
        """One more Beat or worker, without waiting for it."""
        service = self._beat({}) if kind == "beat" else self._worker(("--concurrency=3",), {})
        self.supervisor.start(service)
        return service.name

    def _start(self, services: list[Service]) -> list[str]:
        for service in services:
            self.supervisor.start(service)
        names = [service.name for service in services]
        self._starting += names
        return names

    def ready(self) -> None:
        """Wait until everything that was started works."""
        starting, self._starting = self._starting, []
        self.supervisor.wait_ready(*starting)

    def wait_for_passes(self, beats: int) -> None:
        """Until that many Beats have looked for due schedules: one is said to start seconds before that on a busy machine."""
        # What a claimer that has nothing to do has asked last.
        at_it = """
            select count(*) from pg_stat_activity
            where application_name = 'beatline-claimer' and query like '%from job_schedules%'"""
        self.wait_for(f"a pass of {beats} Beats", lambda: self.value(at_it) >= beats)

    def _beat(self, environment: dict[str, str]) -> Service:
        return self._service("beat", ("beat", "--loglevel=INFO"), "beat: Starting...", environment)

    def _worker(self, options: tuple[str, ...], environment: dict[str, str]) -> Service:
        fixed = ("worker", f"--include={_INCLUDE}", "--loglevel=INFO", "-Q", "default,scheduled", "--without-mingle")
        return self._service("worker", (*fixed, *options), " ready.", environment)

    def _service(self, kind: str, argv: tuple[str, ...], ready: str, environment: dict[str, str]) -> Service:
        # A name of its own for each, so that every log is kept.
        name = f"{kind}-{next(self._numbers)}"
        # … and for remote control: RabbitMQ lends a node's queue to one process.
        argv = (*CELERY, *argv, "-n", f"{name}@%h")
        return Service(name, argv, self.environment | environment, when_logged(ready), cwd=ROOT, stage=2)

    def alive(self, kind: str) -> list[str]:
        return [name for name in self.supervisor.running if name.startswith(kind)]

    def kill(self, *names: str) -> None:
        """End processes with their children as a power cut would."""
        for name in names:
            _each(self.supervisor.running[name], psutil.Process.kill)
        self.supervisor.stop(*names)

    def freeze(self, name: str) -> None:
        """Stop the process and its children where they are; their connections stay open."""
        _each(self.supervisor.running[name], psutil.Process.suspend)

    def thaw(self, name: str) -> None:
        _each(self.supervisor.running[name], psutil.Process.resume)

    def name_of(self, pid: int) -> str:
        """The process that `pid` belongs to."""
        return next(
            name for name, one in self.supervisor.running.items() if pid in {member.pid for member in family(one.pid)}
        )

    def log_of(self, name: str) -> str:
        return (self.supervisor.logs / f"{name}.log").read_text(errors="replace")

    def said(self, name: str, text: str) -> bool:
        return text in self.log_of(name)

    # ---------------------------------------------------------------- broker

    def app(self) -> Celery:
        """An application that knows the scene's broker."""
        return create_app(load(self.environment))

    def lose_messages(self) -> int:
        """The broker forgets what waits in its queues; how many messages."""
        app = self.app()
        with app.connection_for_write() as connection:
            channel = connection.default_channel
            bound = [queue(channel) for queue in app.amqp.queues.values()]
            for queue in bound:
                queue.declare()
            return sum(queue.purge() or 0 for queue in bound)

    # -------------------------------------------------------------- database

    def rows(self, statement: str, *arguments: object) -> list[Row]:
        return asyncio.run(fetch(self.url, statement, arguments))

    def value(self, statement: str, *arguments: object) -> Any:
        (row,) = self.rows(statement, *arguments)
        return next(iter(row.values()))

    def now(self) -> datetime:
        at: datetime = self.value("select clock_timestamp()")
        return at

    def schedule(
        self, name: str, *, every: float | None = 1.0, after: float = 1.0, task: str = "leave_a_mark", **columns: object
    ) -> Planned:
        """A schedule whose first occurrence is the first whole second in `after` seconds; every None: cron, each minute.

        Overlapping runs are allowed and everything is made up for, unless `columns` say otherwise.
        """
        (planned,) = self.schedules([name], every=every, after=after, task=task, **columns)
        return planned

    def schedules(
        self,
        names: list[str],
        *,
        every: float | None = 1.0,
        after: float = 1.0,
        task: str = "leave_a_mark",
        **columns: object,
    ) -> list[Planned]:
        """As above, several alike."""
        self.ready()
        first = self.now().replace(microsecond=0) + timedelta(seconds=1 + after)
        settings: dict[str, object] = {
            "task": task,
            "queue": "default",
            "schedule_type": "interval" if every is not None else "cron",
            "cron_expression": None if every is not None else "* * * * *",
            "interval_seconds": every,
            "anchor": first,
            "next_run": first if every is not None else (first + timedelta(minutes=1)).replace(second=0),
            "overlap_policy": "allow",
            "misfire_policy": "run_all",
            # Of this zone database: a Beat that starts would compute the others' next run again.
            "tzdata_version": TZDATA_VERSION,
        } | columns
        marks = ", ".join(f"${number}" for number in range(2, len(settings) + 2))
        statement = (
            f"insert into job_schedules (name, {', '.join(settings)})"
            f" select unnest($1::text[]), {marks} returning id, name"
        )
        made = self.rows(statement, names, *settings.values())
        starts = settings["next_run"]
        assert isinstance(starts, datetime)
        planned = [
            Planned(row["id"], row["name"], starts, every, settings["overlap_policy"] != "allow") for row in made
        ]
        self.planned += planned
        return planned

    def runs_of(self, planned: Planned) -> list[Row]:
        return self.rows("select * from job_runs where schedule_id = $1 order by scheduled_for", planned.id)

    def worst_delay(self, planned: Planned, since: datetime) -> float:
        """Seconds between an occurrence after `since` and its row, at worst."""
        worst = self.value(
            "select coalesce(max(extract(epoch from created_at - scheduled_for)), 1e9)::float8 from job_runs"
            " where schedule_id = $1 and scheduled_for > $2",
            planned.id,
            since,
        )
        return float(worst)

    # --------------------------------------------------------------- waiting

    def wait_for(self, what: str, check: Callable[[], object], *, within: float = 30) -> float:
        """Until `check` answers something true; seconds waited. A process that ends by itself fails the test."""
        self.ready()
        began = time.monotonic()
        while not check():
            self.supervisor.check()
            waited = time.monotonic() - began
            assert waited < within, f"not within {within:g} s: {what}; {self._state()}"
            time.sleep(_POLL_SECONDS)
        return time.monotonic() - began

    def wait_for_run(self, planned: Planned, *, state: str = "running", within: float = 20) -> Row:
        """The first run of a schedule in that state."""
        found: list[Row] = []

        def look() -> bool:
            found[:] = [row for row in self.runs_of(planned) if row["state"] == state]
            return bool(found)

        self.wait_for(f"a run of {planned.name} {state}", look, within=within)
        return found[0]

    def at_rest(self) -> None:
        """Until half a second after a full second: schedules that fire on the second are in nobody's hands."""
        time.sleep((0.5 - time.time()) % 1)

    def settle(self, *, within: float = 45, meanwhile: Callable[[], object] = lambda: None) -> Ledger:
        """End every schedule in a moment, wait until nothing is under way; the ledger, not checked yet."""
        self.rows("update job_schedules set is_active = false where managed_by = 'system'")
        ends = self.rows(_FREEZE)
        until = ends[0]["at"] if ends else self.now()
        waiting = "select 1 from job_schedules where managed_by = 'user' and is_active and next_run is not null limit 1"
        active = f"select 1 from job_runs where state not in {_sql(EXECUTED | ACCOUNTED)} limit 1"
        left = f"({waiting}) union all ({active})"
        self.wait_for("nothing left to do", lambda: (meanwhile(), not self.rows(left))[1], within=within)
        # What comes late must change nothing.
        time.sleep(0.5)
        runs = self.rows("select * from job_runs order by scheduled_for")
        events = self.rows("select * from job_run_events where kind <> 'log' order by id")
        self._listen_for_surprises()
        return Ledger(self.planned, until, runs, read_effects(self.effects), events)

    def settle_and_check(
        self,
        *,
        within: float = 45,
        disturbed: bool = False,
        ended: set[str] | None = None,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> Ledger:
        ledger = self.settle(within=within, meanwhile=meanwhile)
        ledger.check(disturbed=disturbed, ended=ended)
        return ledger

    def _listen_for_surprises(self) -> None:
        heard = {
            f"{log.name}: {phrase}"
            for log in self.supervisor.logs.glob("*-*.log")
            for phrase in _SURPRISES
            if phrase in log.read_text(errors="replace")
        }
        assert not heard, f"{sorted(heard)}; logs in {self.supervisor.logs}"

    def _state(self) -> str:
        with contextlib.suppress(OSError, asyncpg.PostgresError, TimeoutError):
            counts = self.rows("select state, reason, count(*) from job_runs group by 1, 2 order by 1, 2")
            return f"runs: {[tuple(row.values()) for row in counts]}; logs in {self.supervisor.logs}"
        return f"the database is away; logs in {self.supervisor.logs}"


def _each(running: Running, act: Callable[[psutil.Process], None]) -> None:
    for member in family(running.pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            act(member)


def _sql(words: Iterable[str]) -> str:
    return "(" + ", ".join(f"'{word}'" for word in sorted(words)) + ")"
