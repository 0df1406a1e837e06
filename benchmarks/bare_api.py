"""The least that does the same: `uvicorn benchmarks.bare_api:app` publishes one message, or answers with one query."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from backend.celery_app import app as celery
from backend.celery_app import settings

_NEWEST = """
select id, name, schedule_id, task, queue, trigger, triggered_by, scheduled_for, state, reason, blocked_by,
    replay_of, attempt, error, created_at, started_at, finished_at, cancel_requested_at
from job_runs order by created_at desc, id desc limit 50
"""


class Run(BaseModel):
    """What the table has of what the product answers."""

    id: UUID
    name: str
    schedule_id: int | None
    task: str
    queue: str
    trigger: str
    triggered_by: str
    scheduled_for: datetime
    state: str
    reason: str | None
    blocked_by: UUID | None
    replay_of: UUID | None
    attempt: int
    error: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(settings.database_url, min_size=1, max_size=10) as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=_lifespan)


@app.post("/api/tasks/noop", status_code=202)
async def send_noop() -> dict[str, str]:
    """No row, no key, no caller: a message alone."""
    sent = await run_in_threadpool(celery.send_task, "noop", ignore_result=True)
    return {"id": str(sent.id)}


@app.get("/api/job-runs", response_model=list[Run])
async def list_runs() -> list[Any]:
    """The newest fifty."""
    return [dict(row) for row in await app.state.pool.fetch(_NEWEST)]
