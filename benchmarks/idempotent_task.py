"""No-op tasks per second: with `@idempotent_task`, each with its own key, beside a bare Celery task and one of `core.runtime`.

All go through the same Valkey and the same worker command, one after the other, several times in turn: the messages are in the
queue before the worker starts, and the clock runs between two marks of the queue's length, so that neither the producer nor the
start counts. Prints the rates and the ratios (goal: at least 0.7 of the bare task).

    PYTHONPATH=. .venv/bin/python benchmarks/idempotent_task.py [--tasks 4000] [--concurrency 4] [--rounds 3]
"""

from __future__ import annotations

import argparse
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

import redis

from devstack.readiness import free_port
from devstack.servers import embedded_valkey

ROOT = Path(__file__).resolve().parent.parent
GOAL = 0.7
_QUEUE, _UNACKED = "beatline:default", "beatline:unacked"
_SIDES = ("bare_noop", "plain_noop", "idempotent_noop")


def _fill(name: str, tasks: int) -> None:
    from backend.celery_app import app

    with app.connection_for_write() as connection:
        producer = app.amqp.Producer(connection)
        for number in range(tasks):
            arguments = {} if name == "bare_noop" else {"number": number}
            app.send_task(name, kwargs=arguments, queue="default", ignore_result=True, producer=producer)


@contextmanager
def _worker(concurrency: int, log: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "celery", "-A", "backend.celery_app", "worker", "-Q", "default", "-l", "warning"]
    command += ["--include=benchmarks.bare_tasks,benchmarks.idempotent_tasks", "-c", str(concurrency)]
    command += ["--without-mingle", "--without-gossip"]
    with log.open("a") as output:
        worker = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=output, stderr=output
        )
    try:
        yield
    finally:
        worker.terminate()
        worker.wait(30)


def _rate(valkey: redis.Redis, tasks: int, concurrency: int, log: Path) -> float:
    """Tasks per second between the first tenth of the queue and its last twentieth."""
    high, low = int(tasks * 0.9), int(tasks * 0.05)
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


def _completed() -> int:
    """Records of calls that took effect."""
    from backend.celery_app import settings

    with redis.Redis.from_url(settings.redis_url) as client:
        values = [client.get(key) or b"" for key in client.scan_iter("beatline:idem:*", count=1000)]
        client.flushdb()
    return sum(b'"completed"' in value for value in values)


def measure(arguments: argparse.Namespace, valkey: redis.Redis, folder: Path) -> int:
    """All sides in turn; 1 when the goal is missed."""
    rates: dict[str, list[float]] = {name: [] for name in _SIDES}
    for turn in range(arguments.rounds):
        for name in _SIDES:
            _fill(name, arguments.tasks)
            rates[name].append(_rate(valkey, arguments.tasks, arguments.concurrency, folder / "worker.log"))
        done = _completed()
        if done != arguments.tasks:
            print(f"only {done} of {arguments.tasks} idempotent tasks were completed", file=sys.stderr)
            return 1
        print(f"round {turn + 1}: " + ", ".join(f"{name} {values[-1]:.0f}/s" for name, values in rates.items()))
    bare, plain, idempotent = (statistics.median(values) for values in rates.values())
    head = f"{arguments.tasks:,} no-ops, {arguments.concurrency} processes, {arguments.rounds} rounds:"
    print(f"{datetime.now(UTC):%Y-%m-%d}: {head}")
    print(f"  bare Celery task            {bare:7.0f} /s")
    print(f"  core.runtime.task           {plain:7.0f} /s   {plain / bare:.2f} of bare")
    print(
        f"  the same, idempotent        {idempotent:7.0f} /s   {idempotent / bare:.2f} of bare (goal: at least {GOAL})"
    )
    return 0 if idempotent / bare >= GOAL else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=4_000)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port = free_port()
        with embedded_valkey(folder / "valkey", port):
            os.environ.update(
                DATABASE_URL="postgresql://nobody@127.0.0.1:9/none",
                REDIS_HOST="127.0.0.1",
                REDIS_PORT=str(port),
                BEATLINE_SERVICE_KEY="benchmark-service-key-0123456789-0123",
            )
            with redis.Redis(port=port) as valkey:
                return measure(arguments, valkey, folder)


if __name__ == "__main__":
    raise SystemExit(main())
