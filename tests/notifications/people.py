"""Users for tests of notifications, signed in without a password."""

from datetime import timedelta
from itertools import count
from typing import Any
from uuid import UUID

import httpx

from backend.accounts.models import UserSession
from backend.accounts.tokens import new_seed
from backend.core.clock import utc_now
from backend.core.db import Database
from backend.core.principal import Role
from backend.notifications.models import NotificationPreferences
from tests.fixtures import people
from tests.fixtures.product import Product

_numbers = count(1)


async def add_user(
    db: Database, *, address: str | None = "", role: str = "viewer", active: bool = True, **preferences: Any
) -> UUID:
    """A user with an e-mail address of their own, or this one; `preferences` make a row of them."""
    name = f"user{next(_numbers)}"
    found = f"{name}@example.net" if address == "" else address
    user = await people.add_user(db, name, Role(role), email=found, is_active=active)
    if preferences:
        async with db.transaction() as session:
            session.add(NotificationPreferences(**{"user_id": user.id, "timezone": "UTC", **preferences}))
    return user.id


async def signed_in(product: Product, user_id: UUID) -> httpx.AsyncClient:
    """The user's own client; to be closed by the caller."""
    row = UserSession(user_id=user_id, seed=new_seed(), expires_at=utc_now() + timedelta(days=1))
    async with product.db.transaction() as session:
        session.add(row)
    headers = {"Authorization": f"Bearer {people.access_token(product.config, row)}"}
    return httpx.AsyncClient(base_url=product.config.api_url, headers=headers, timeout=20, verify=False)
