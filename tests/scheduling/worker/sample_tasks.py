"""A task for a real worker: `celery -A backend.celery_app worker --include=tests.scheduling.worker.sample_tasks`."""

import json
import os
from pathlib import Path
from typing import Any

from celery import Task

from backend.celery_app import app


@app.task(bind=True, name="tell_what_arrived")
def tell_what_arrived(self: Task[..., None], *args: Any, **kwargs: Any) -> str:
    """Write what a tracked run's task can know into a file named after the task's id."""
    seen = {
        "header": self.request.get("beatline-run"),
        "args": args,
        "kwargs": kwargs,
        "ignore_result": self.request.ignore_result,
        "queue": (self.request.delivery_info or {}).get("routing_key"),
    }
    folder = Path(os.environ["SEEN_FOLDER"])
    (folder / f"{self.request.id}.part").write_text(json.dumps(seen))
    (folder / f"{self.request.id}.part").rename(folder / str(self.request.id))
    return "a result"
