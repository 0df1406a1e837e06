"""The tasks of the kinds of job, and the notifications of alerts."""

import asyncio
import logging
from functools import partial
from typing import Any, Literal

from pydantic import ValidationError

from backend.config import Config
from backend.core.addresses import resolve
from backend.core.errors import NotFound, PermanentError, TransientError
from backend.core.runtime import Runtime, task
from backend.jobs import http_calls
from backend.jobs import service as jobs
from backend.jobs.kinds import HttpRequestParameters, NoopParameters, Parameters, SleepParameters
from backend.jobs.run_schemas import AlertRead
from backend.notifications import service as notifications

log = logging.getLogger(__name__)

_NAME_CHARACTERS = 150


def _read(model: type[Parameters], arguments: dict[str, Any]) -> Any:
    """Arguments of a run that was stored before its kind changed may not fit any more."""
    try:
        return model.model_validate(arguments)
    except ValidationError as fault:
        problems = "; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in fault.errors())
        raise PermanentError(f"the run's arguments do not fit its kind: {problems}") from fault


@task(max_retries=3, time_limit=300)
async def http_request(runtime: Runtime, **arguments: Any) -> dict[str, object]:
    """Call a URL and check the answer."""
    wish: HttpRequestParameters = _read(HttpRequestParameters, arguments)
    allowed = partial(resolve, allow_private=runtime.config.jobs_http_allow_private)
    answer = await http_calls.call(wish, resolve=allowed)
    log.info("%s %s: status %s in %s ms", wish.method, answer["url"], answer["status"], answer["elapsed_ms"])
    return answer


@task(max_retries=3, time_limit=300)
async def noop(runtime: Runtime, **arguments: Any) -> dict[str, object]:  # noqa: ARG001 - every handler is given the runtime
    """Nothing, successfully."""
    wish: NoopParameters = _read(NoopParameters, arguments)
    return {} if wish.note is None else {"note": wish.note}


@task(max_retries=3, time_limit=3600)
async def sleep(runtime: Runtime, **arguments: Any) -> dict[str, object]:  # noqa: ARG001 - every handler is given the runtime
    """Wait, then end as told."""
    wish: SleepParameters = _read(SleepParameters, arguments)
    log.info("sleeping for %g s", wish.seconds)
    await asyncio.sleep(wish.seconds)
    if wish.fail == "transient":
        raise TransientError(f"failed as told after {wish.seconds:g} s; the next attempt will, too")
    if wish.fail == "permanent":
        raise PermanentError(f"failed as told after {wish.seconds:g} s")
    return {"slept_seconds": wish.seconds}


@task(max_retries=5, time_limit=60)
async def send_job_alert(runtime: Runtime, *, alert_id: int, event: Literal["opened", "resolved"]) -> dict[str, object]:
    """Tell of an incident, or of its end: a line in the log, and a notification to BEATLINE_ALERT_WEBHOOK_URL and NOTIFY_ALERTS.

    A second delivery notifies nobody twice. A schedule that has been deleted takes its alerts with it: nothing is told.
    """
    targets = _targets(runtime.config)
    try:
        async with runtime.db.transaction() as session:
            alert = await jobs.read_alert(session, alert_id)
            text = _line(alert, event)
            if targets:
                await notifications.notify(
                    session,
                    to=targets,
                    template="job_alert",
                    context={
                        "event": event,
                        "kind": alert.kind,
                        "schedule": _one_line(alert.schedule_name),
                        "text": text,
                    },
                    payload={"event": event, "text": text, "alert": alert.model_dump(mode="json")},
                    dedup_key=f"job-alert:{alert_id}:{event}",
                    actor="beat",
                )
    except NotFound:
        return {"told": False}
    log.log(logging.WARNING if event == "opened" else logging.INFO, "%s", text)
    return {"told": True, "text": text, "channels": sorted({str(target.channel) for target in targets})}


def _targets(config: Config) -> list[notifications.Target]:
    own = [notifications.Target(notifications.Channel(channel), address) for channel, address in config.notify.alerts]
    hook = notifications.Target(notifications.Channel.WEBHOOK, notifications.ALERTS)
    return [hook, *own] if config.alert_webhook_url else own


def _one_line(name: str) -> str:
    """A schedule's name as a part of a subject."""
    return "".join(letter if letter.isprintable() else " " for letter in name)[:_NAME_CHARACTERS]


def _line(alert: AlertRead, event: str) -> str:
    schedule = f"schedule {alert.schedule_id} ({alert.schedule_name})"
    expected = f"expected at {alert.expected_local} {alert.timezone}"
    if event == "resolved":
        return f"ALERT resolved: {schedule} has succeeded again; it was {alert.kind}, {expected}"
    return f"ALERT {alert.kind}: {schedule}, {expected}: {alert.message}"
