"""Workers of tests as processes."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from celery.result import AsyncResult

from backend.celery_app import app

ROOT = Path(__file__).parents[3]
Run = Callable[..., AsyncResult[Any]]
WORKER = [
    sys.executable,
    "-m",
    "celery",
    "-A",
    "backend.celery_app",
    "worker",
    "--include=tests.core.worker.sample_tasks",
]


@contextmanager
def worker(log: Path, database_url: str, *options: str, **environment: str) -> Iterator[Run]:
    """Sends a task to a worker with these options."""
    app.control.purge()
    command = [*WORKER, *options, "-c", "2", "-Q", "default", "-l", "info", "--without-mingle", "--without-gossip"]
    environ = os.environ | {"DATABASE_URL": database_url} | environment
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=output, stderr=subprocess.STDOUT)

    def send(name: str, **arguments: str) -> AsyncResult[Any]:
        return app.send_task(name, kwargs=arguments, queue="default")

    try:
        yield send
    finally:
        process.terminate()
        process.wait(30)
        with app.connection_or_acquire():
            app.control.purge()
