"""A broker with real workers, in processes of their own."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery import Celery

from devstack.servers import Server

ROOT = Path(__file__).parents[2]
QUEUES = ("default", "high_priority", "low_priority", "scheduled", "audio")


def wait_for(reached: Callable[[], object], seconds: float = 30.0) -> None:
    """Until `reached` says yes."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)


@dataclass
class Worker:
    """A `celery worker` process and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self, text: str) -> bool:
        return text in self.log.read_text()

    def ready(self) -> None:
        def is_ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.said(" ready.")

        wait_for(is_ready)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)


@dataclass
class Site:
    """One kind of broker, an application that knows it, and a folder for the marks that tasks leave."""

    kind: str
    server: Server
    environment: dict[str, str]
    app: Celery
    folder: Path
    workers: list[Worker] = field(default_factory=list)

    def start(self, queues: str = "default", *options: str, **environment: str) -> Worker:
        """A worker that may not be ready yet."""
        number = len(self.workers)
        command = [sys.executable, "-m", "celery", "-A", "backend.celery_app", "worker", "-Q", queues, "-l", "info"]
        command += ["--include=tests.brokers.worker.sample_tasks", "--without-mingle", "--without-gossip"]
        command += ["-c", "1", "-n", f"{self.kind}-{number}@%h", *options]
        log = self.folder / f"worker-{number}.log"
        environ = os.environ | self.environment | {"SEEN_FOLDER": str(self.folder)} | environment
        with log.open("w") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environ, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.workers.append(Worker(process, log))
        return self.workers[-1]

    def send(self, name: str, mark: str, **options: Any) -> str:
        """Send a task of `sample_tasks`; its id."""
        queue = options.pop("queue", "default")
        return str(self.app.send_task(name, kwargs={"name": mark}, queue=queue, ignore_result=True, **options).id)

    def marks(self, name: str) -> list[str]:
        """The worker (its main process) behind each mark of this name."""
        path = self.folder / name
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []

    def marked(self, name: str, seconds: float = 30.0) -> list[str]:
        wait_for(lambda: self.marks(name), seconds)
        return self.marks(name)

    def waiting(self, queue: str) -> int:
        """How many messages a worker of `queue` would find."""
        with self.app.connection_for_read() as connection:
            channel: Any = connection.default_channel
            if self.kind == "redis":
                return int(channel.client.llen(queue))
            return int(channel.queue_declare(queue, passive=True).message_count)

    def forget(self) -> None:
        """No workers, no messages."""
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.process.pid, signal.SIGKILL)
        for worker in self.workers:
            worker.process.wait(10)
        with self.app.connection_for_write() as connection:
            channel: Any = connection.default_channel
            if self.kind == "redis":
                channel.client.flushall()
                return
            # What the killed workers held comes back first.
            time.sleep(0.3)
            for queue in QUEUES:
                self.app.amqp.queues[queue](channel).declare()
                channel.queue_purge(queue)
