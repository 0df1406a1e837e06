"""Browsers that show our own pages: one with the service key, and ones in which somebody has signed in."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import count

import httpx
import pytest

from backend.accounts import service as accounts
from backend.accounts.schemas import UserCreate, UserRead
from backend.core.principal import Role
from tests.fixtures.product import Product

PASSWORD = "quiet-river-42-lamp"

SignIn = Callable[[str], Awaitable[httpx.AsyncClient]]
_numbers = count(1)


def own_pages(product: Product) -> dict[str, str]:
    """What a browser says of a request that one of our pages makes."""
    return {"Origin": product.config.api_url, "Sec-Fetch-Site": "same-origin"}


async def add_user(product: Product, role: str = "viewer", username: str | None = None) -> UserRead:
    """An account with PASSWORD."""
    wish = {"username": username or f"{role}{next(_numbers)}", "role": role, "password": PASSWORD}
    return await accounts.create_user(product.db, UserCreate.model_validate(wish), actor="tests")


@pytest.fixture
async def browser(product: Product) -> AsyncIterator[httpx.AsyncClient]:
    """Sends the service key by itself. Follows no redirect, so that a test sees where a button leads."""
    config = product.config
    auth = ("operator", config.service_key)
    async with httpx.AsyncClient(
        base_url=config.api_url, auth=auth, headers=own_pages(product), timeout=20, verify=False
    ) as client:
        yield client


@pytest.fixture
async def nobody(product: Product) -> AsyncIterator[httpx.AsyncClient]:
    """A browser in which nobody has signed in."""
    async with httpx.AsyncClient(
        base_url=product.config.api_url, headers=own_pages(product), timeout=20, verify=False
    ) as client:
        yield client


@pytest.fixture
async def sign_in(product: Product) -> AsyncIterator[SignIn]:
    """Makes an account of that role, or takes the one of that name, and signs in as a person would."""
    async with AsyncExitStack() as stack:

        async def begin(who: str) -> httpx.AsyncClient:
            name = (await add_user(product, who)).username if who in set(Role) else who
            client = await stack.enter_async_context(
                httpx.AsyncClient(base_url=product.config.api_url, headers=own_pages(product), timeout=20, verify=False)
            )
            answer = await client.post("/ops/sign-in", data={"username": name, "password": PASSWORD})
            assert answer.status_code == 303
            return client

        yield begin
