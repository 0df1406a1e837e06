"""A browser that is signed in and shows our own pages."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.fixtures.product import Product


@pytest.fixture
async def browser(product: Product) -> AsyncIterator[httpx.AsyncClient]:
    """Follows no redirect, so that a test sees where a button leads."""
    config = product.config
    headers = {"Origin": config.api_url, "Sec-Fetch-Site": "same-origin"}
    auth = ("operator", config.service_key)
    async with httpx.AsyncClient(base_url=config.api_url, auth=auth, headers=headers, timeout=20) as client:
        yield client
