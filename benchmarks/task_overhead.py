"""What `core.runtime.task`, and `@idempotent_task` on it, cost beside a plain Celery task: no-ops per second, time to the result.

On Valkey and on RabbitMQ, all three by the same worker, in turn, several times. For the rate the worker stands still (SIGSTOP)
while the queue is filled, and the clock runs from its first tenth to its last twentieth; CPU is that of the worker and its
children meanwhile. For the latency one task at a time is sent and its result waited for. Prints medians, and the median ratio of
neighbouring rounds (goals: at least 0.9 of plain Celery's rate, 0.7 with a record). RabbitMQ is the system's
(`apt-get install rabbitmq-server`); without it, that half is left out.

    PYTHONPATH=. .venv/bin/python benchmarks/task_overhead.py [--tasks 800] [--concurrency 2] [--rounds 9] [--latency 200]
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from celery import Celery
from celery.result import AsyncResult

from devstack.rabbitmq import RabbitMissing, rabbitmq
from devstack.readiness import free_port
from devstack.servers import embedded_valkey

ROOT = Path(__file__).resolve().parent.parent
PLAIN = "plain_nothing"
GOALS = {"runtime_nothing": 0.9, "idempotent_nothing": 0.7}
NAMES = (PLAIN, *GOALS)
_TASKS = "benchmarks.overhead_tasks"


@dataclass(frozen=True, slots=True)
class Round:
    """Tasks per second, and milliseconds of CPU for each."""

    rate: float
    cpu: float


class Side:
    """One broker: an application that knows it, and a worker on it."""

    def __init__(self, environment: dict[str, str], log: Path, concurrency: int) -> None:
        # Not at the top: they read the environment, which `main` sets.
        from backend.celery_app import create_app
        from backend.config import load

        self.environment, self.log, self._concurrency = environment, log, concurrency
        self.app: Celery = create_app(load(os.environ | environment))
        self._sent = 0

    @contextmanager
    def worker(self) -> Iterator[list[psutil.Process]]:
        """The processes of a worker that has served every kind of task."""
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
        command += [f"--include={_TASKS}", "-c", str(self._concurrency), "--without-mingle", "--without-gossip"]
        with self.log.open("a") as output:
            environment = os.environ | self.environment | {"PYTHONPATH": str(ROOT)}
            worker = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        try:
            warm = [self._send(name) for name in NAMES * self._concurrency * 2]
            for result in warm:
                result.get(timeout=60)
            leader = psutil.Process(worker.pid)
            yield [leader, *leader.children()]
        finally:
            worker.terminate()
            worker.wait(60)

    def _send(self, name: str, **options: Any) -> AsyncResult[Any]:
        self._sent += 1
        return self.app.send_task(name, kwargs={"number": self._sent}, queue="default", **options)

    def round(self, name: str, count: int, processes: Sequence[psutil.Process]) -> Round:
        """One round of `count` tasks."""
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        with self.app.connection_for_write() as connection:
            producer = self.app.amqp.Producer(connection)
            for _ in range(count):
                self._send(name, ignore_result=True, producer=producer)
            for process in processes:
                process.send_signal(signal.SIGCONT)
            return self._watch(connection.default_channel, count, processes)

    def _watch(self, channel: Any, count: int, processes: Sequence[psutil.Process]) -> Round:
        high, low = int(count * 0.9), int(count * 0.05)
        marks: dict[int, tuple[int, float, float]] = {}
        while low not in marks:
            waiting = self._waiting(channel)
            told = waiting, time.perf_counter(), _cpu(processes)
            for mark in (high, low):
                if waiting <= mark:
                    marks.setdefault(mark, told)
            time.sleep(0.01)
        while self._waiting(channel):
            time.sleep(0.01)
        # Those that are still being worked on.
        time.sleep(0.1)
        (more, begin, before), (less, end, after) = marks[high], marks[low]
        return Round((more - less) / (end - begin), (after - before) / (more - less) * 1000)

    def _waiting(self, channel: Any) -> int:
        # Not passively: kombu's Redis transport knows no empty queue.
        declared: Any = self.app.amqp.queues["default"](channel).queue_declare()
        return int(declared[1])

    def latencies(self, count: int) -> dict[str, float]:
        """Median milliseconds from the call to the result, of each task, in turn with the others."""
        took: dict[str, list[float]] = {name: [] for name in NAMES}
        for _ in range(count):
            for name in NAMES:
                start = time.perf_counter()
                self._send(name).get(timeout=60)
                took[name].append((time.perf_counter() - start) * 1000)
        return {name: statistics.median(values) for name, values in took.items()}


def _cpu(processes: Sequence[psutil.Process]) -> float:
    """Seconds used so far."""
    return sum(used.user + used.system for used in (process.cpu_times() for process in processes))


def measure(broker: str, side: Side, arguments: argparse.Namespace) -> bool:
    """Prints one broker's table; whether its goals are met."""
    rounds: dict[str, list[Round]] = {name: [] for name in NAMES}
    with side.worker() as processes:
        for _ in range(arguments.rounds):
            for name in NAMES:
                rounds[name].append(side.round(name, arguments.tasks, processes))
        latency = side.latencies(arguments.latency)
    failed = side.log.read_text().count("raised unexpected")
    if failed:
        print(f"{failed} tasks failed", file=sys.stderr)
        return False
    load = os.getloadavg()[0]
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {broker}: {arguments.tasks:,} no-ops a round, {arguments.concurrency} processes, "
        f"{arguments.rounds} rounds, load {load:.1f}:"
    )
    met = [_print(name, rounds, latency[name]) for name in NAMES]
    return all(met)


def _print(name: str, rounds: dict[str, list[Round]], latency: float) -> bool:
    """One task's line; whether its goal is met."""
    mine, plain, goal = rounds[name], rounds[PLAIN], GOALS.get(name)
    rate, cpu = statistics.median(one.rate for one in mine), statistics.median(one.cpu for one in mine)
    # Of neighbours in time: what else the machine does moves both.
    share = statistics.median(one.rate / other.rate for one, other in zip(mine, plain, strict=True))
    work = statistics.median(other.cpu / one.cpu for one, other in zip(mine, plain, strict=True))
    said = "" if goal is None else f"   {share:.2f} of plain's rate, {work:.2f} by CPU (goal: at least {goal})"
    print(f"  {name:18} {rate:6.0f} /s   {cpu:5.2f} ms of CPU   {latency:5.1f} ms to the result{said}")
    return goal is None or share >= goal


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=800)
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--latency", type=int, default=200)
    parser.add_argument("--only", choices=("valkey", "rabbitmq"))
    arguments = parser.parse_args()
    # A pool that nobody opens: these tasks do nothing.
    os.environ["DATABASE_URL"] = "postgresql://nobody@127.0.0.1:9/none"
    met = True
    with tempfile.TemporaryDirectory() as name, ExitStack() as servers:
        folder = Path(name)
        folder.chmod(0o755)
        valkey = servers.enter_context(embedded_valkey(folder / "valkey", free_port()))
        redis = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(valkey.port)}
        if arguments.only != "rabbitmq":
            met = measure("Valkey", Side(redis, folder / "worker.log", arguments.concurrency), arguments)
        if arguments.only == "valkey":
            return 0 if met else 1
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
