"""Customers and policies for tests."""

from datetime import timedelta
from itertools import count
from typing import Any
from uuid import UUID

from backend.calls.models import Customer, DoNotCall, Policy
from backend.core.clock import utc_now
from backend.core.db import Database

_numbers = count(1)

ANSWERS, BUSY, DECLINES, UNKNOWN_NUMBER = "200", "486", "603", "404"
UNAVAILABLE, CARRIER_ERROR, RINGS_OUT, VOICEMAIL = "480", "503", "000", "777"
HANGS_UP, ASKS_TO_STOP, NO_RESPONSE, HANGS_THE_CALL = "111", "666", "999", "408"


async def add_customer(
    db: Database,
    phone: str = ANSWERS,
    *,
    expires_in_days: int = 7,
    do_not_call: bool = False,
    timezone: str = "Asia/Kolkata",
    policies: int = 1,
    **fields: Any,
) -> UUID:
    """A customer with active policies; `phone` is the ending that tells the simulator how to behave."""
    number = next(_numbers)
    customer = Customer(
        external_ref=f"C-{number}",
        full_name=f"Customer {number}",
        phone_e164=f"+9198{number:05d}{phone}",
        timezone=timezone,
        **fields,
    )
    async with db.transaction() as session:
        session.add(customer)
        await session.flush()
        for index in range(policies):
            session.add(
                Policy(
                    customer_id=customer.id,
                    policy_number=f"P-{number}-{index}",
                    product="Motor",
                    expiry_date=(utc_now() + timedelta(days=expires_in_days)).date(),
                )
            )
        if do_not_call:
            session.add(DoNotCall(phone_e164=customer.phone_e164, source="test"))
    return customer.id
