"""API manifest: `uvicorn backend.main:app`, the data plane."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from backend import models
from backend.accounts import api as accounts_api
from backend.accounts import users_api
from backend.accounts.first_admin import first_admin, wanted
from backend.accounts.service import authenticator
from backend.audit import api as audit_api
from backend.audit.middleware import Audit
from backend.audit.service import Recorder
from backend.caches import api as caches_api
from backend.calls import api as calls_api
from backend.calls.service import Dialer
from backend.calls.telephony.livekit import LiveKit
from backend.celery_app import settings
from backend.config import Config, stop
from backend.core import web
from backend.core.db import Database
from backend.core.describing import DescribedApi
from backend.core.keyspace import open_redis
from backend.core.logging import configure_logging
from backend.core.object_storage import open_storage
from backend.core.queue import Sender, send_task
from backend.core.rates import Rates
from backend.environment import ConfigError
from backend.jobs import api as jobs_api
from backend.jobs import run_api as job_runs_api
from backend.jobs.offering import offer_kinds
from backend.notifications import api as notifications_api
from backend.notifications import outbox_api
from backend.notifications.offering import offer_notifications
from backend.ops import metrics
from backend.ops import routes as ops
from backend.ops.access import SignInRequired, ask_to_sign_in
from backend.ops.context import FOLDER, Refusal, show_refusal
from backend.ops.shared import LinkRefusal
from backend.ops.shared import show_refusal as show_link_refusal
from backend.queues import api as queues_api
from backend.queues import letters_api
from backend.quotas import api as quotas_api
from backend.recordings.api import audio as recordings_audio_api
from backend.recordings.api import recordings as recordings_api
from backend.recordings.api import sharing as recordings_sharing_api
from backend.recordings.api import tus as tus_api
from backend.recordings.api import uploads as uploads_api

ROUTERS = (
    accounts_api.router,
    accounts_api.open_router,
    users_api.router,
    calls_api.router,
    calls_api.open_router,
    jobs_api.router,
    job_runs_api.router,
    queues_api.router,
    letters_api.router,
    # Before the inbox, one of whose paths takes any name.
    outbox_api.router,
    notifications_api.router,
    audit_api.router,
    caches_api.router,
    quotas_api.router,
    # Before the recordings, one of whose paths takes any name.
    tus_api.router,
    uploads_api.router,
    recordings_api.router,
    recordings_audio_api.router,
    recordings_sharing_api.router,
    recordings_sharing_api.open_router,
    metrics.router,
)


def create_app(config: Config, *, send: Sender = send_task) -> FastAPI:
    """The application for `config`. Raises ConfigError when something it needs is not set."""
    config.require("DATABASE_URL", "BEATLINE_SERVICE_KEY", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET")
    admin = wanted(config)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        db = Database(config.database_url, send=send)
        telephony = LiveKit(config)
        dialer = Dialer(db, telephony, config)
        app.state.db, app.state.telephony, app.state.dialer = db, telephony, dialer
        recorder = Recorder(db, send)
        recorder.start()
        app.state.recorder = recorder
        redis = open_redis(config)
        app.state.rates = Rates(redis)
        try:
            async with first_admin(db, admin):
                yield
        finally:
            # A phone that rings is waited for: its answer is known to this process alone.
            await dialer.drain(config.calls_ring_seconds + 10)
            await telephony.close()
            await recorder.close()
            await redis.aclose()
            await db.close()

    offer_kinds()
    offer_notifications()
    app = DescribedApi(title="Beatline", version="0.1.0", lifespan=lifespan, redirect_slashes=False)
    app.state.config = config
    app.state.storage = open_storage(config)
    # Inside of what gives requests their ids.
    app.add_middleware(Audit)
    web.install(app)
    app.state.authenticate = authenticator(config)
    if config.accounts.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(config.accounts.trusted_proxies))
    for router in ROUTERS:
        app.include_router(router)
    # Before the pages, whose last route takes every path that is none of theirs.
    app.mount("/ops/static", StaticFiles(directory=FOLDER / "static"))
    app.include_router(ops.router)
    app.exception_handler(SignInRequired)(ask_to_sign_in)
    app.exception_handler(Refusal)(show_refusal)
    app.exception_handler(LinkRefusal)(show_link_refusal)
    return app


__all__ = ["app", "create_app", "models"]

configure_logging(settings.log_level)
try:
    app = create_app(settings)
except ConfigError as fault:
    stop(fault)
