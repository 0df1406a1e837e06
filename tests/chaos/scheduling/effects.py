"""Tasks for workers that are disturbed: `celery -A backend.celery_app worker --include=tests.chaos.scheduling.effects`.

Every beginning and end of an execution is a line of the file that EFFECTS names, appended by one write, so that the ledger can
count what really happened, whatever the database says of it.
"""

import asyncio
import json
import os
import time
from pathlib import Path

from backend.core import runs
from backend.core.errors import TransientError
from backend.core.runtime import Runtime, task
from tests.chaos.scheduling.ledger import VARIABLE


def _tell(what: str) -> dict[str, object]:
    live = runs._live.get()
    assert live is not None
    line = {
        "run": str(live.claim.id),
        "attempt": live.claim.attempt,
        "what": what,
        "pid": os.getpid(),
        "at": time.time(),
    }
    file = os.open(Path(os.environ[VARIABLE]), os.O_APPEND | os.O_WRONLY | os.O_CREAT)
    try:
        os.write(file, f"{json.dumps(line)}\n".encode())
    finally:
        os.close(file)
    return line


@task()
async def leave_a_mark(_runtime: Runtime, *, seconds: float = 0) -> dict[str, object]:
    """Begin, take that long, end; a stop is told, too."""
    _tell("started")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        _tell("stopped")
        raise
    return _tell("finished")


@task()
async def block_the_process(_runtime: Runtime, *, seconds: float) -> dict[str, object]:
    """As above, in a way that nothing can stop: the heartbeat does not come through either."""
    _tell("started")
    time.sleep(seconds)  # noqa: ASYNC251 - on purpose
    return _tell("finished")


@task()
async def fail_at_first(_runtime: Runtime) -> dict[str, object]:
    """Fails at once; the second attempt succeeds."""
    if _tell("started")["attempt"] == 1:
        _tell("failed")
        raise TransientError("not yet", after=0)
    return _tell("finished")


@task()
async def send_job_alert(_runtime: Runtime, *, alert_id: int, event: str) -> dict[str, object]:
    """Instead of the product's: no e-mail leaves a test."""
    _tell("started")
    return _tell("finished") | {"alert_id": alert_id, "event": event}
