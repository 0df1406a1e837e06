"""Workers, a broker and a database of a test, and what may be done to them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import redis
from celery import Celery

from devstack.environment import ROOT
from devstack.processes import Service, Supervisor, family
from devstack.readiness import when_logged
from devstack.servers import PostgresServer, Server, ValkeyServer
from devstack.stack import CELERY
from tests.chaos.brokers.ledger import EXECUTIONS, Ledger, read_executions
from tests.chaos.brokers.producing import Producers
from tests.chaos.database import fetch

_POLL_SECONDS = 0.05
_INCLUDE = "tests.chaos.brokers.effects,backend.jobs.tasks,backend.queues.tasks"
_QUEUES = "default,low_priority,scheduled"


@dataclass(slots=True)
class Scene:
    """`environment` is that of every process; `app` knows the same broker."""

    supervisor: Supervisor
    environment: dict[str, str]
    app: Celery
    postgres: PostgresServer
    valkey: ValkeyServer
    broker: Server
    url: str
    folder: Path
    producers: list[Producers] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def on_redis(self) -> bool:
        return self.broker is self.valkey

    # ------------------------------------------------------------- processes

    def workers(self, count: int, *options: str) -> list[str]:
        """Start that many workers and wait until they consume; their names."""
        names = [self.start_worker(*options) for _ in range(count)]
        self.supervisor.wait_ready(*names)
        return names

    def start_worker(self, *options: str) -> str:
        """One more worker, without waiting for it."""
        name = f"worker-{next(self._numbers)}"
        argv: tuple[str, ...] = (
            *CELERY,
            "worker",
            f"--include={_INCLUDE}",
            "-Q",
            _QUEUES,
            "-n",
            f"{name}@%h",
            "--loglevel=INFO",
        )
        argv += ("--without-mingle", "--without-gossip", *(options or ("--concurrency=1",)))
        service = Service(name, argv, self.environment, when_logged(" ready."), cwd=ROOT, stage=2, grace_seconds=20)
        self.supervisor.start(service)
        return name

    def alive(self) -> list[str]:
        return [name for name in self.supervisor.running if name.startswith("worker-")]

    def kill(self, name: str) -> None:
        """End a process with its children as a power cut would."""
        for member in family(self.supervisor.running[name].pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        self.supervisor.stop(name)

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.supervisor.logs.glob("*.log*")))

    # --------------------------------------------------------------- sending

    def produce(self, task: str, numbers: Sequence[int], *, threads: int = 2) -> Producers:
        """Start to send a task once per number."""
        made = Producers(self.app, task)
        self.producers.append(made)
        made.start(numbers, threads=threads)
        return made

    def waiting(self) -> int:
        """Messages in the broker: on Redis with those that workers hold; on RabbitMQ those come back when the workers stop."""
        if self.on_redis:
            with redis.Redis(port=self.valkey.port) as client:
                lists = [client.llen(f"beatline:{name}") for name in self.app.amqp.queues]
                return sum(int(length) for length in (*lists, client.hlen("beatline:unacked")))
        with self.app.connection_for_read() as connection:
            channel: Any = connection.default_channel
            return sum(int(channel.queue_declare(name, passive=True).message_count) for name in self.app.amqp.queues)

    def forget(self) -> None:
        """Nothing waits any more."""
        with redis.Redis(port=self.valkey.port) as client:
            client.flushall()
        if not self.on_redis:
            with self.app.connection_for_write() as connection:
                for queue in self.app.amqp.queues.values():
                    bound = queue(connection.default_channel)
                    bound.declare()
                    bound.purge()

    # -------------------------------------------------------------- database

    def rows(self, statement: str, *arguments: object) -> list[dict[str, Any]]:
        return asyncio.run(fetch(self.url, statement, arguments))

    def value(self, statement: str, *arguments: object) -> Any:
        (row,) = self.rows(statement, *arguments)
        return next(iter(row.values()))

    def booked(self) -> int:
        """Effects so far; none while the database is away."""
        with contextlib.suppress(OSError, asyncpg.PostgresError, TimeoutError):
            return int(self.value("select count(*) from book"))
        return 0

    # --------------------------------------------------------------- waiting

    def wait_for(self, what: str, check: Callable[[], object], *, within: float = 30) -> float:
        """Until `check` answers something true; seconds waited. A process that ends by itself fails the test."""
        began = time.monotonic()
        while not check():
            self.supervisor.check()
            waited = time.monotonic() - began
            assert waited < within, f"not within {within:g} s: {what}; {self.booked()} booked; {self.supervisor.logs}"
            time.sleep(_POLL_SECONDS)
        return time.monotonic() - began

    def wait_for_effects(self, count: int, *, within: float) -> None:
        self.wait_for(f"{count} effects", lambda: self.booked() >= count, within=within)

    def wait_for_letter(self, number: int, *, within: float) -> None:
        """Until the message of that number is a dead letter, RabbitMQ's drained."""

        def drained() -> bool:
            self.app.send_task("drain_dead_letters", queue="scheduled", ignore_result=True)
            time.sleep(1)
            return number in self._letters()

        self.wait_for(f"the dead letter of {number}", drained, within=within)

    def wait_for_log(self, text: str, *, more: int) -> None:
        """Until the processes have said that so many times more than now."""
        said = self.logs().count(text)
        self.wait_for(f"{more} times more: {text}", lambda: self.logs().count(text) >= said + more, within=30)

    def executions(self) -> Counter[int]:
        return read_executions(Path(self.environment[EXECUTIONS]))

    def _letters(self) -> set[int]:
        # These workers know no other domain's tasks, such as the audit log's, which the API sends.
        numbered = "select (arguments->'kwargs'->>'number')::int as number from dead_letters where arguments->'kwargs' ? 'number'"
        found = self.rows(numbered)
        return {row["number"] for row in found}

    def check(self) -> Ledger:
        """The ledger once the workers have stopped, checked."""
        self.supervisor.stop(*self.alive())
        ledger = Ledger(
            sent=set().union(*(one.sent for one in self.producers)),
            attempted=set().union(*(one.attempted for one in self.producers)),
            booked=Counter(row["number"] for row in self.rows("select number from book")),
            letters=self._letters(),
            waiting=self.waiting(),
            executions=self.executions(),
        )
        ledger.check()
        return ledger
