"""API manifest: `uvicorn backend.main:app`, the data plane."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from backend import models
from backend.calls import api as calls_api
from backend.calls.service import Dialer
from backend.calls.telephony.livekit import LiveKit
from backend.celery_app import settings
from backend.config import Config, stop
from backend.core import web
from backend.core.db import Database
from backend.core.keyspace import open_redis
from backend.core.logging import configure_logging
from backend.core.queue import Sender, send_task
from backend.core.rates import Rates
from backend.environment import ConfigError
from backend.jobs import api as jobs_api
from backend.jobs import run_api as job_runs_api
from backend.jobs.offering import offer_kinds
from backend.ops import routes as ops
from backend.ops.context import FOLDER, Refusal, SignInRequired, ask_to_sign_in, show_refusal
from backend.queues import api as queues_api
from backend.queues import letters_api


def create_app(config: Config, *, send: Sender = send_task) -> FastAPI:
    """The application for `config`. Raises ConfigError when something it needs is not set."""
    config.require("DATABASE_URL", "BEATLINE_SERVICE_KEY", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        db = Database(config.database_url, send=send)
        telephony = LiveKit(config)
        dialer = Dialer(db, telephony, config)
        app.state.db, app.state.telephony, app.state.dialer = db, telephony, dialer
        redis = open_redis(config)
        app.state.rates = Rates(redis)
        try:
            yield
        finally:
            # A phone that rings is waited for: its answer is known to this process alone.
            await dialer.drain(config.calls_ring_seconds + 10)
            await telephony.close()
            await redis.aclose()
            await db.close()

    offer_kinds()
    app = FastAPI(title="Beatline", version="0.1.0", lifespan=lifespan)
    app.state.config = config
    web.install(app)
    app.include_router(calls_api.router)
    app.include_router(calls_api.open_router)
    app.include_router(jobs_api.router)
    app.include_router(job_runs_api.router)
    app.include_router(queues_api.router)
    app.include_router(letters_api.router)
    app.include_router(ops.router)
    app.exception_handler(SignInRequired)(ask_to_sign_in)
    app.exception_handler(Refusal)(show_refusal)
    app.mount("/ops/static", StaticFiles(directory=FOLDER / "static"))
    return app


__all__ = ["app", "create_app", "models"]

configure_logging(settings.log_level)
try:
    app = create_app(settings)
except ConfigError as fault:
    stop(fault)
