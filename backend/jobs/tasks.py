"""The tasks of the kinds of job, and the notification of an alert."""

import asyncio
import logging
from functools import partial
from typing import Any, Literal

import httpx
from pydantic import ValidationError

from backend.core.errors import NotFound, PermanentError, TransientError
from backend.core.runtime import Runtime, task
from backend.jobs import http_calls
from backend.jobs import service as jobs
from backend.jobs.addresses import resolve
from backend.jobs.kinds import HttpRequestParameters, NoopParameters, Parameters, SleepParameters
from backend.jobs.run_schemas import AlertRead

log = logging.getLogger(__name__)

_WEBHOOK_SECONDS = 20.0
_TRY_AGAIN = 429


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
    """Tell of an incident, or of its end: a line in the log and, where BEATLINE_ALERT_WEBHOOK_URL is set, a POST.

    A second delivery tells it again. A schedule that has been deleted takes its alerts with it: nothing is told.
    """
    try:
        async with runtime.db.transaction() as session:
            alert = await jobs.read_alert(session, alert_id)
    except NotFound:
        return {"told": False}
    text = _line(alert, event)
    log.log(logging.WARNING if event == "opened" else logging.INFO, "%s", text)
    if runtime.config.alert_webhook_url:
        await _post(
            runtime.config.alert_webhook_url, {"event": event, "text": text, "alert": alert.model_dump(mode="json")}
        )
    return {"told": True, "text": text, "webhook": bool(runtime.config.alert_webhook_url)}


def _line(alert: AlertRead, event: str) -> str:
    schedule = f"schedule {alert.schedule_id} ({alert.schedule_name})"
    expected = f"expected at {alert.expected_local} {alert.timezone}"
    if event == "resolved":
        return f"ALERT resolved: {schedule} has succeeded again; it was {alert.kind}, {expected}"
    return f"ALERT {alert.kind}: {schedule}, {expected}: {alert.message}"


async def _post(url: str, body: dict[str, object]) -> None:
    # The operator's own setting, so that it may lead anywhere; it may hold a secret, so that no error names it.
    try:
        async with httpx.AsyncClient(timeout=_WEBHOOK_SECONDS) as client:
            answer = await client.post(url, json=body)
    except httpx.HTTPError as fault:
        raise TransientError(f"the alert webhook cannot be reached: {type(fault).__name__}") from fault
    if answer.status_code >= 500 or answer.status_code == _TRY_AGAIN:
        raise TransientError(f"the alert webhook answered {answer.status_code}")
    if answer.status_code >= 300:
        raise PermanentError(f"the alert webhook answered {answer.status_code}")
