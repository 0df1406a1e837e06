"""Beatline: the schedules are rows, every Beat claims those that are due and publishes their runs."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from backend.migrations.running import upgrade
from backend.scheduling import leases
from backend.scheduling.relay import RELAY_SECONDS
from benchmarks.peers.base import Ground
from benchmarks.peers.plan import PERIOD, REST_SECONDS, REST_SPREAD
from devstack.environment import ROOT
from devstack.processes import Service

# A task of the product that does nothing, on a queue that no system entry uses.
TASK, QUEUE = "noop", "low_priority"
LEASE_SECONDS = 60.0

_STORE = """
insert into job_schedules (name, task, queue, schedule_type, interval_seconds, anchor, next_run, parameters, arguments)
select 'entry-' || n, $2, $3, 'interval', $4, at, at, '{}', '{}'
from generate_series(0, $1) as n, to_timestamp($5::float8 + n % $6::int) as at
"""
_ARM = """
update job_schedules set anchor = to_timestamp(v.at), next_run = to_timestamp(v.at), last_run = null, deferred_until = null
from unnest($1::text[], $2::float8[]) as v(name, at) where job_schedules.name = v.name
"""
_FORGET = "truncate job_runs, job_run_events, job_alerts"
_ENTRIES = """
select r.id, s.name from job_runs r join job_schedules s on s.id = r.schedule_id
where r.id = any($1::uuid[]) and s.name like 'entry-%'
"""


@dataclass(slots=True)
class Beatline:
    """`celery -A backend.celery_app beat` over this tree, with what the Beat image installs, system entries and all."""

    ground: Ground
    name: str = "beatline"
    title: str = "Beatline"
    loads_all: bool = False
    shares: bool = True
    queue: str = f"beatline:{QUEUE}"
    # What a killed instance had in hand is left to it for so long.
    late_seconds: float = RELAY_SECONDS
    _armed: int = 0

    def store(self, count: int) -> None:
        upgrade(self.ground.postgres.url)
        self._armed = 0
        asyncio.run(self._store(count))

    async def _store(self, count: int) -> None:
        connection = await asyncpg.connect(self.ground.postgres.url)
        try:
            await connection.execute(_FORGET)
            await connection.execute("truncate job_schedules cascade")
            rest = time.time() + REST_SECONDS
            await connection.execute(_STORE, count, TASK, QUEUE, PERIOD.total_seconds(), rest, REST_SPREAD)
        finally:
            await connection.close()

    def arm(self, instants: Sequence[float]) -> None:
        touched, self._armed = max(self._armed, len(instants)), len(instants)
        rest = time.time() + REST_SECONDS
        due = [*instants, *(rest + index % REST_SPREAD for index in range(len(instants), touched))]
        asyncio.run(self._arm(due))

    async def _arm(self, due: Sequence[float]) -> None:
        connection = await asyncpg.connect(self.ground.postgres.url)
        try:
            await connection.execute(_FORGET)
            await connection.execute(_ARM, [f"entry-{index}" for index in range(len(due))], due)
        finally:
            await connection.close()

    def service(self, number: int) -> Service:
        environment = {
            "PATH": os.defpath,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "DATABASE_URL": self.ground.postgres.url,
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(self.ground.valkey.port),
        }
        command = (str(self.ground.beat_python), "-m", "celery", "-A", "backend.celery_app", "beat", "--pidfile=")
        return Service(f"beatline-{number}", command, environment, lambda _running: True, cwd=ROOT)

    def entries(self, messages: Sequence[bytes]) -> list[int]:
        runs = [_run(message) for message in messages]
        names = asyncio.run(self._names(runs))
        return [names[run] for run in runs]

    async def _names(self, runs: Sequence[UUID]) -> dict[UUID, int]:
        connection = await asyncpg.connect(self.ground.postgres.url)
        try:
            rows = await connection.fetch(_ENTRIES, runs)
        finally:
            await connection.close()
        return {row["id"]: int(row["name"].removeprefix("entry-")) for row in rows}

    def worked(self, messages: Sequence[bytes]) -> list[int]:
        """By the claim that each worker makes before it works."""
        runs = [_run(message) for message in messages]
        taken = asyncio.run(self._claim(runs))
        names = asyncio.run(self._names(runs))
        return [names[run] for run in taken]

    async def _claim(self, runs: Sequence[UUID]) -> list[UUID]:
        connection = await asyncpg.connect(self.ground.postgres.url)
        taken = []
        try:
            for run in runs:
                claim = await leases.claim(
                    connection, run, TASK, owner="bench", lease_seconds=LEASE_SECONDS, lost_attempts=3
                )
                taken += [run] if claim else []
        finally:
            await connection.close()
        return taken


def _run(message: bytes) -> UUID:
    return UUID(json.loads(message)["headers"]["id"])
