"""The pages of the logs."""

import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from backend.audit.models import LoginEntry, OperationEntry
from backend.core.clock import utc_now
from tests.fixtures.product import Product
from tests.ops.conftest import SignIn

AUDIT, LOGINS = "/ops/audit", "/ops/audit/logins"
HOSTILE = '"><script>alert(1)</script>'


async def log_operation(product: Product, **fields: Any) -> None:
    defaults: dict[str, Any] = {
        "id": uuid4(),
        "at": utc_now(),
        "actor_kind": "user",
        "actor": "olga",
        "method": "POST",
        "path": "/api/tasks/noop",
        "status": 202,
        "duration_ms": 12.0,
    }
    async with product.db.transaction() as session:
        session.add(OperationEntry(**(defaults | fields)))


async def log_login(product: Product, **fields: Any) -> None:
    defaults: dict[str, Any] = {"id": uuid4(), "at": utc_now(), "username": "olga", "outcome": "success"}
    async with product.db.transaction() as session:
        session.add(LoginEntry(**(defaults | fields)))


@pytest.fixture
async def admin(sign_in: SignIn) -> httpx.AsyncClient:
    return await sign_in("admin")


async def test_an_empty_log_says_what_will_stand_there(admin: httpx.AsyncClient) -> None:
    assert "Nothing has been logged yet" in (await admin.get(AUDIT)).text
    assert "Nobody has signed in yet" in (await admin.get(LOGINS)).text


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", ["/a", "/b"]),
        ("?who=ada", ["/b"]),
        ("?method=&status=4xx", ["/b"]),
        ("?method=POST&path=/a", ["/a"]),
        ("?address=10.0.0.7", ["/b"]),
        ("?request_id=abc", ["/b"]),
        ("?from=2000-01-01T00:00&to=2099-01-01T00:00", ["/a", "/b"]),
        ("?to=2000-01-01T00:00", []),
    ],
)
async def test_what_was_done_is_narrowed_down(
    product: Product, admin: httpx.AsyncClient, query: str, shown: list[str]
) -> None:
    await log_operation(product, path="/a")
    earlier = utc_now() - timedelta(hours=1)
    await log_operation(
        product, path="/b", at=earlier, actor="ada", method="DELETE", status=404, address="10.0.0.7", request_id="abc"
    )
    page = await admin.get(AUDIT + query)
    assert page.status_code == 200
    assert re.findall(r"<code>\w+ (/\w)</code>", page.text) == shown
    assert ("Nothing in the log is like that" in page.text) == (not shown)


async def test_sign_ins_are_narrowed_down(product: Product, admin: httpx.AsyncClient) -> None:
    await log_login(product, username="ada", address="10.0.0.7")
    await log_login(product, username="vic", outcome="wrong_password", at=utc_now() - timedelta(hours=1))
    for query, shown in (("", ["ada", "vic"]), ("?outcome=wrong_password", ["vic"]), ("?address=10.0.0.7", ["ada"])):
        page = (await admin.get(LOGINS + query)).text
        assert re.findall(r"logins\?who=\w+\">(\w+)<", page) == shown


@pytest.mark.parametrize(
    ("query", "field", "said"),
    [
        ("status=99", "status", "must be a status such as 404, or a class"),
        ("from=tomorrow", "from", "must be a day and time such as"),
        ("method=P+O", "method", "must be one word"),
    ],
)
async def test_a_filter_that_makes_no_sense_is_named_and_shows_nothing(
    product: Product, admin: httpx.AsyncClient, query: str, field: str, said: str
) -> None:
    await log_operation(product)
    page = await admin.get(f"{AUDIT}?{query}")
    assert page.status_code == 422
    assert f'id="{field}-fault">{said}' in page.text
    assert "/api/tasks/noop" not in page.text
    both = await admin.get(f"{LOGINS}?from=2026-01-02T00:00&to=2026-01-01T00:00")
    assert "from must be before to" in both.text


async def test_hostile_text_stays_text_in_the_logs(product: Product, admin: httpx.AsyncClient) -> None:
    fields = {"user_agent": HOSTILE, "address": HOSTILE, "request_id": HOSTILE}
    await log_operation(product, actor=HOSTILE, path=HOSTILE, request={"body": {HOSTILE: HOSTILE}}, **fields)
    await log_login(product, username=HOSTILE, **fields)
    for path in (AUDIT, LOGINS, f"{AUDIT}?who={HOSTILE}", f"{LOGINS}?who={HOSTILE}"):
        page = await admin.get(path)
        assert page.status_code == 200
        assert "<script>" not in page.text
        assert "&lt;script&gt;" in page.text


async def test_the_log_pages_and_keeps_its_filters(product: Product, admin: httpx.AsyncClient) -> None:
    for number in range(51):
        await log_operation(product, at=utc_now() - timedelta(minutes=number))
    await log_operation(product, actor="ada")
    page = (await admin.get(f"{AUDIT}?who=olga")).text
    (older,) = re.findall(r'href="(\?who=olga&amp;cursor=[^"]+)"', page)
    rest = (await admin.get(AUDIT + older.replace("&amp;", "&"))).text
    assert (page.count("<code>POST"), rest.count("<code>POST")) == (50, 1)
    assert (await admin.get(f"{AUDIT}?cursor=nonsense")).status_code == 422
