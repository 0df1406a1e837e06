"""The outreach's tasks. They speak HTTP to the API and never touch LiveKit or customers' rows."""

import asyncio
import logging

from backend.core.data_plane import Refused
from backend.core.runtime import Runtime, task

log = logging.getLogger(__name__)

_PAGE = 100
# The API's answers that say: this call was taken care of otherwise. Its row knows why.
_SETTLED = 409


# Tried for an hour: it comes once a day, and an API that is away at ten must not cost the day.
@task(max_retries=60, time_limit=300)
async def call_expiring_policies(runtime: Runtime) -> dict[str, object]:
    """The daily job: plan the calls of policies about to expire, then send each customer who may be called now."""
    planned = await runtime.api.post("/api/scheduler/plan")
    sent = await _send_pending(runtime)
    log.info("planned %s calls, skipped %s, sent %d", planned["planned"], planned["skipped"] or "none", sent)
    return {**planned, "sent": sent}


@task(max_retries=0, time_limit=300)
async def advance_calls(runtime: Runtime) -> dict[str, object]:
    """The sweep of every waiting state: what is overdue, then who is due (retries, callbacks, windows that opened)."""
    swept: dict[str, object] = await runtime.api.post("/api/scheduler/advance")
    return {**swept, "sent": await _send_pending(runtime)}


@task(max_retries=0, time_limit=300)
async def call_next_customers(runtime: Runtime) -> dict[str, object]:
    """A line has become free: send whoever is due. Lost or too many, it does not matter; `advance_calls` does the same."""
    return {"sent": await _send_pending(runtime)}


@task(max_retries=8, time_limit=60)
async def call_customer(
    runtime: Runtime, *, scheduled_call_id: str, customer_id: str, attempt_no: int
) -> dict[str, object]:
    """Initiate one call; the key makes every further delivery harmless."""
    try:
        accepted: dict[str, object] = await runtime.api.post(
            f"/api/calls/initiate/{customer_id}",
            json={"scheduled_call_id": scheduled_call_id},
            key=f"{scheduled_call_id}:{attempt_no}",
        )
    except Refused as refusal:
        if refusal.status != _SETTLED:
            raise
        log.info("scheduled call %s, attempt %d: not called: %s", scheduled_call_id, attempt_no, refusal.code)
        return {"refused": refusal.code}
    return accepted


@task(time_limit=60)
async def extract_call_outcome(runtime: Runtime, *, call_id: str) -> dict[str, object]:
    """Have the API read a first outcome from the call's transcript."""
    answer: dict[str, object] = await runtime.api.post(f"/api/calls/{call_id}/extract-outcome")
    return answer


async def _send_pending(runtime: Runtime) -> int:
    """Claim whoever may be called now, page by page, and send one `call_customer` each."""
    sent = 0
    while True:
        page = await runtime.api.get("/api/scheduler/pending-customers", claim=True, limit=_PAGE)
        for item in page["items"]:
            ids = {name: item[name] for name in ("scheduled_call_id", "customer_id", "attempt_no")}
            await asyncio.to_thread(runtime.send, "call_customer", ids)
        sent += len(page["items"])
        if len(page["items"]) < _PAGE:
            return sent
