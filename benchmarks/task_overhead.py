"""What `core.runtime.task`, and `@idempotent_task` on it, cost beside a plain Celery task: no-ops per second, time to the result.

On Valkey and on RabbitMQ, the same worker command, in turn, several times; results are kept in Valkey. For the rate the messages
are in the queue before the worker starts, and the clock runs from its first tenth to its last twentieth; for the latency one task
at a time is sent and its result waited for. Prints the medians and the median ratio of neighbouring rounds (goals: at least 0.9
of plain Celery's rate, 0.7 with a record). RabbitMQ is the system's (`apt-get install rabbitmq-server`); without it, that half is
left out.

    PYTHONPATH=. .venv/bin/python benchmarks/task_overhead.py [--tasks 1000] [--concurrency 2] [--rounds 7] [--latency 300]
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
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from devstack.rabbitmq import RabbitMissing, rabbitmq
from devstack.readiness import free_port
from devstack.servers import embedded_valkey

ROOT = Path(__file__).resolve().parent.parent
GOALS = {"runtime_nothing": 0.9, "idempotent_nothing": 0.7}
TASKS = "benchmarks.overhead_tasks"
NAMES = ("plain_nothing", *GOALS)


class Side:
    """One broker: an application that knows it, and workers on it."""

    def __init__(self, environment: dict[str, str], log: Path, concurrency: int) -> None:
        from backend.celery_app import create_app
        from backend.config import load

        self.environment, self._log, self._concurrency = environment, log, concurrency
        self.app = create_app(load(os.environ | environment))
        self._sent = 0

    @contextmanager
    def worker(self) -> Iterator[None]:
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "backend.celery_app",
            "worker",
            "-Q",
            "default",
            "-l",
            "warning",
        ]
        command += [f"--include={TASKS}", "-c", str(self._concurrency)]
        command += ["--without-mingle", "--without-gossip"]
        with self._log.open("a") as output:
            environment = os.environ | self.environment | {"PYTHONPATH": str(ROOT)}
            worker = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        try:
            yield
        finally:
            worker.terminate()
            worker.wait(60)

    def fill(self, name: str, count: int) -> None:
        with self.app.connection_for_write() as connection:
            producer = self.app.amqp.Producer(connection)
            for _ in range(count):
                self._send(name, ignore_result=True, producer=producer)

    def _send(self, name: str, **options: Any) -> Any:
        self._sent += 1
        return self.app.send_task(name, kwargs={"number": self._sent}, queue="default", **options)

    def _waiting(self, channel: Any) -> int:
        queue = self.app.amqp.queues["default"]
        # Not passively: kombu's Redis transport knows no empty queue.
        declared = channel.queue_declare(
            "default", durable=True, auto_delete=False, arguments=queue.queue_arguments or None
        )
        return int(declared.message_count)

    def rate(self, name: str, count: int) -> float:
        """Tasks per second, the start of the pool and the end of the queue left out."""
        self.fill(name, count)
        high, low = int(count * 0.9), int(count * 0.05)
        marks: dict[int, float] = {}
        with self.worker(), self.app.connection_for_read() as connection:
            channel: Any = connection.default_channel
            while low not in marks:
                waiting = self._waiting(channel)
                now = time.perf_counter()
                for mark in (high, low):
                    if waiting <= mark:
                        marks.setdefault(mark, now)
                time.sleep(0.01)
            while self._waiting(channel):
                time.sleep(0.05)
            # The last tasks: a worker that is told to stop right now may wait 30 s for its own children.
            time.sleep(1)
        return (high - low) / (marks[low] - marks[high])

    def latencies(self, count: int) -> dict[str, float]:
        """Median milliseconds from the call to the result, of each task, in turn with the others."""
        took: dict[str, list[float]] = {name: [] for name in NAMES}
        with self.worker():
            for name in NAMES:
                self._send(name).get(timeout=60)
            for _ in range(count):
                for name in NAMES:
                    start = time.perf_counter()
                    self._send(name).get(timeout=60)
                    took[name].append((time.perf_counter() - start) * 1000)
        return {name: statistics.median(values) for name, values in took.items()}


def measure(broker: str, side: Side, arguments: argparse.Namespace) -> bool:
    """Prints one broker's table; whether its goals are met."""
    rates: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(arguments.rounds):
        for name in NAMES:
            rates[name].append(side.rate(name, arguments.tasks))
    latency = side.latencies(arguments.latency)
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {broker}: {arguments.tasks:,} no-ops, {arguments.concurrency} processes, "
        f"{arguments.rounds} rounds:"
    )
    met = True
    for name in NAMES:
        rate = statistics.median(rates[name])
        goal = GOALS.get(name)
        # Of neighbours in time: what else the machine does moves both.
        share = statistics.median(mine / plain for mine, plain in zip(rates[name], rates["plain_nothing"], strict=True))
        said = "" if goal is None else f"   {share:.2f} of plain (goal: at least {goal})"
        print(f"  {name:18} {rate:6.0f} /s   {latency[name]:5.1f} ms to the result{said}")
        met = met and (goal is None or share >= goal)
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000)
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--latency", type=int, default=300)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as servers:
        folder = Path(name)
        folder.chmod(0o755)
        valkey = servers.enter_context(embedded_valkey(folder / "valkey", free_port()))
        redis = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(valkey.port)}
        met = measure("Valkey", Side(redis, folder / "worker.log", arguments.concurrency), arguments)
        try:
            node = servers.enter_context(rabbitmq(folder / "rabbitmq"))
        except RabbitMissing as fault:
            print(fault, file=sys.stderr)
            return 0 if met else 1
        environment = redis | {"CELERY_BROKER": "rabbitmq", "CELERY_RABBITMQ_PORT": str(node.port)}
        met &= measure("RabbitMQ", Side(environment, folder / "worker.log", arguments.concurrency), arguments)
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
