"""An order that is paid once, however often it is sent."""

import asyncio
import logging

from backend.core.idempotency import idempotent_task
from backend.core.runtime import Runtime, task
from backend.examples.models import ExampleCharge

log = logging.getLogger(__name__)


@task(max_retries=5, time_limit=60)
@idempotent_task(ttl=3600, key="{order_id}")
async def process_payment(runtime: Runtime, *, order_id: str) -> dict[str, object]:
    """Charge the customer of an order. Of all calls for one order within an hour of the first, one charges."""
    charge = await charge_customer(runtime, order_id)
    log.info("order %s charged: charge %d", order_id, charge)
    return {"order_id": order_id, "charge": charge}


async def charge_customer(runtime: Runtime, order_id: str) -> int:
    """Book a charge; its number. Takes whatever it is sent, as a payment provider without idempotency keys does."""
    async with runtime.db.transaction() as session:
        charge = ExampleCharge(order_id=order_id)
        session.add(charge)
        await session.flush()
    if charge.id is None:
        raise RuntimeError("the database gave the charge no number")
    return charge.id


@task(max_retries=5, time_limit=60)
@idempotent_task(ttl=3600, on_duplicate="skip")
async def process_order(runtime: Runtime, *, order_id: str) -> dict[str, object]:
    """Send an order to its payment; a second call for it does nothing."""
    await asyncio.to_thread(runtime.send, "process_payment", {"order_id": order_id})
    return {"order_id": order_id, "sent": "process_payment"}
