"""No-op runs per second: tracked (claim, lease, fenced finish in PostgreSQL) beside a bare Celery no-op task.

Both go through the same Valkey and the same worker command, one after the other, several times in turn: the messages are in the
queue before the worker starts, and the clock runs from its first to its last acknowledgement, so that neither the producer nor the
start counts. Prints the rates, the ratio (goal: at least 0.6) and what a tracked run costs the database.

    PYTHONPATH=. .venv/bin/python benchmarks/tracked_run.py [--runs 4000] [--concurrency 4] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import redis

from devstack.readiness import free_port
from devstack.servers import embedded_postgres, embedded_valkey

ROOT = Path(__file__).resolve().parent.parent
GOAL = 0.6
_QUEUE, _UNACKED = "beatline:default", "beatline:unacked"
_INSERT = """
insert into job_runs (id, name, scheduled_for, trigger, task, queue, state, published_at)
select id, 'benchmark', now(), 'manual', 'noop', 'default', 'queued', now() from unnest($1::uuid[]) as v(id)
"""


def _queue_bare(runs: int) -> None:
    from backend.celery_app import app

    with app.connection_for_write() as connection:
        producer = app.amqp.Producer(connection)
        for _ in range(runs):
            app.send_task("bare_noop", queue="default", ignore_result=True, producer=producer)


def _queue_tracked(runs: int, database: str) -> None:
    from backend.celery_app import app
    from backend.scheduling.publisher import Message, Publisher

    ids: list[UUID] = [uuid4() for _ in range(runs)]

    async def insert() -> None:
        connection = await asyncpg.connect(database)
        await connection.execute("truncate job_runs cascade")
        await connection.execute(_INSERT, ids)
        await connection.execute("vacuum analyze job_runs")
        await connection.close()

    asyncio.run(insert())
    publisher = Publisher(app)
    publisher.publish([Message(one, "noop", "default") for one in ids])
    publisher.close()


def _succeeded(database: str) -> int:
    async def count() -> int:
        connection = await asyncpg.connect(database)
        done: int = await connection.fetchval("select count(*) from job_runs where state = 'succeeded' and attempt = 1")
        await connection.close()
        return done

    return asyncio.run(count())


@contextmanager
def _worker(concurrency: int, log: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "celery", "-A", "backend.celery_app", "worker", "-Q", "default", "-l", "warning"]
    command += [
        "--include=backend.tasks,benchmarks.bare_tasks",
        "-c",
        str(concurrency),
        "--without-mingle",
        "--without-gossip",
    ]
    with log.open("a") as output:
        worker = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=output, stderr=output
        )
    try:
        yield
    finally:
        worker.terminate()
        worker.wait(30)


def _rate(valkey: redis.Redis, runs: int, concurrency: int, log: Path) -> float:
    """Runs per second between the first and the last tenth of the queue: neither the start of the pool nor its end counts."""
    high, low = int(runs * 0.9), int(runs * 0.05)
    with _worker(concurrency, log):
        marks: dict[int, float] = {}
        while True:
            waiting = int(valkey.llen(_QUEUE))
            now = time.perf_counter()
            for mark in (high, low):
                if waiting <= mark:
                    marks.setdefault(mark, now)
            if waiting == 0 and valkey.hlen(_UNACKED) == 0:
                break
            time.sleep(0.005)
    return (high - low) / (marks[low] - marks[high])


def measure(arguments: argparse.Namespace, folder: Path) -> int:
    """Both sides in turn; 1 when the goal is missed."""
    database = os.environ["DATABASE_URL"]
    valkey = redis.Redis(port=int(os.environ["REDIS_PORT"]))
    rates: dict[str, list[float]] = {"bare": [], "tracked": []}
    for turn in range(arguments.rounds):
        _queue_bare(arguments.runs)
        rates["bare"].append(_rate(valkey, arguments.runs, arguments.concurrency, folder / "worker.log"))
        _queue_tracked(arguments.runs, database)
        rates["tracked"].append(_rate(valkey, arguments.runs, arguments.concurrency, folder / "worker.log"))
        done = _succeeded(database)
        if done != arguments.runs:
            print(f"only {done} of {arguments.runs} tracked runs succeeded at the first attempt", file=sys.stderr)
            return 1
        print(f"round {turn + 1}: " + ", ".join(f"{name} {values[-1]:.0f}/s" for name, values in rates.items()))
    bare, tracked = (statistics.median(values) for values in rates.values())
    print(
        f"{datetime.now(UTC):%Y-%m-%d}: {arguments.runs:,} no-ops, {arguments.concurrency} processes, {arguments.rounds} rounds:"
    )
    print(f"  bare Celery task  {bare:7.0f} /s")
    print(f"  tracked run       {tracked:7.0f} /s   {tracked / bare:.2f} of bare (goal: at least {GOAL})")
    return 0 if tracked / bare >= GOAL else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=4_000)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        port = free_port()
        with embedded_postgres(folder / "postgres" / "data") as postgres, embedded_valkey(folder / "valkey", port):
            os.environ.update(
                DATABASE_URL=postgres.url,
                REDIS_HOST="127.0.0.1",
                REDIS_PORT=str(port),
                BEATLINE_SERVICE_KEY="benchmark-service-key-0123456789-0123",
            )
            subprocess.run([sys.executable, "-m", "backend.cli", "migrate"], check=True, stdout=subprocess.DEVNULL)
            return measure(arguments, folder)


if __name__ == "__main__":
    raise SystemExit(main())
