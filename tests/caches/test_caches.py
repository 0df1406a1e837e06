"""Caches: due once per interval, settings that count at the next minute, and who may change them."""

import asyncio
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from backend.caches import kinds
from backend.caches import service as caches
from backend.caches.kinds import CacheKind
from backend.caches.schemas import CacheScheduleUpdate
from backend.caches.tasks import load_cache_schedules
from backend.core.db import Database
from tests.fixtures.product import Product
from tests.fixtures.sent import Sent


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Two caches and no others."""
    before = kinds.every_kind()
    for name in before:
        kinds._KINDS.pop(name)
    caches.register(CacheKind("devices", "Devices of the inventory", "noop", 600))
    caches.register(CacheKind("locations", "Locations of the inventory", "sleep", 3600))
    yield
    kinds._KINDS.clear()
    kinds._KINDS.update(before)


async def start(db: Database) -> list[str]:
    async with db.transaction() as session:
        return await caches.start_due(session)


async def pass_time(db: Database, seconds: int) -> None:
    """Everything noted so far was that long ago."""
    async with db.engine.begin() as connection:
        moved = "next_at - make_interval(secs => :s), started_at = started_at - make_interval(secs => :s)"
        await connection.execute(text(f"update cache_schedules set next_at = {moved}"), {"s": seconds})


async def test_a_new_cache_is_refreshed_at_once_and_then_once_per_interval(db: Database, sent: Sent) -> None:
    assert await start(db) == ["devices", "locations"]
    assert sent == [("noop", {}), ("sleep", {})]
    assert await start(db) == []
    await pass_time(db, 590)
    assert await start(db) == []
    await pass_time(db, 20)
    assert await start(db) == ["devices"]
    assert await start(db) == []


async def test_a_late_minute_does_not_delay_those_that_follow(db: Database) -> None:
    await start(db)
    await pass_time(db, 655)
    assert await start(db) == ["devices"]
    await pass_time(db, 560)
    assert await start(db) == ["devices"]


async def test_what_was_left_out_is_not_made_up_for(db: Database) -> None:
    await start(db)
    await pass_time(db, 86_400 + 30)
    assert await start(db) == ["devices", "locations"]
    assert await start(db) == []


async def test_ten_deliveries_at_once_send_each_refresh_once(db: Database, sent: Sent) -> None:
    await asyncio.gather(*(start(db) for _ in range(10)))
    assert sorted(sent) == [("noop", {}), ("sleep", {})]


async def test_the_task_reads_the_settings_anew_each_time(product: Product) -> None:
    assert await load_cache_schedules(product.runtime) == {"started": ["devices", "locations"]}
    async with product.db.engine.begin() as connection:
        await connection.execute(text("update cache_schedules set enabled = false where kind = 'devices'"))
    await pass_time(product.db, 7200)
    assert await load_cache_schedules(product.runtime) == {"started": ["locations"]}


async def test_an_interval_out_of_range_is_not_registered() -> None:
    with pytest.raises(ValueError, match="from 60 to 604800 seconds"):
        caches.register(CacheKind("quick", "Too quick", "noop", 59))


async def test_the_api_shows_every_registered_cache(product: Product) -> None:
    answer = (await product.client.get("/api/cache-schedules")).json()
    assert [(one["kind"], one["enabled"], one["interval_seconds"]) for one in answer] == [
        ("devices", True, 600),
        ("locations", True, 3600),
    ]
    assert answer[0]["started_at"] is None


async def test_an_admin_sets_interval_and_switch_and_the_next_minute_heeds_them(db: Database) -> None:
    await start(db)
    await pass_time(db, 120)
    async with db.transaction() as session:
        wish = CacheScheduleUpdate(interval_seconds=60)
        assert (await caches.change(session, "devices", wish, actor="ada")).updated_by == "ada"
    assert await start(db) == ["devices"]
    async with db.transaction() as session:
        await caches.change(session, "devices", CacheScheduleUpdate(enabled=False), actor="ada")
    await pass_time(db, 3600)
    assert await start(db) == ["locations"]


async def test_nobody_below_an_admin_changes_them(product: Product) -> None:
    refused = await product.client.patch("/api/cache-schedules/devices", json={"enabled": False})
    assert refused.status_code == 403
