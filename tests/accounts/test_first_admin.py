"""The first admin comes from the environment, once, whichever process is first."""

import asyncio
from pathlib import Path

import httpx
import pytest

from backend.accounts import service as accounts
from backend.accounts.first_admin import first_admin, wanted
from backend.config import load
from backend.core.db import Base, Database
from backend.environment import ConfigError
from devstack.servers import embedded_postgres
from tests.accounts.conftest import change, rows
from tests.fixtures.people import PASSWORD, add_user
from tests.fixtures.product import Start, eventually

SETTINGS = {"BEATLINE_ADMIN_USERNAME": "root", "BEATLINE_ADMIN_PASSWORD": PASSWORD}


async def admins(db: Database) -> list[str]:
    return [row[0] for row in await rows(db, "select username from users where role = 'admin'")]


async def test_the_api_makes_the_first_admin_who_can_sign_in(start: Start) -> None:
    product = await start(**SETTINGS)

    async def signed_in() -> bool:
        async with httpx.AsyncClient(base_url=product.config.api_url, verify=False) as client:
            body = {"username": "root", "password": PASSWORD}
            return (await client.post("/api/auth/login", json=body)).status_code == 200

    await eventually(signed_in)
    assert await rows(product.db, "select role, created_by from users") == [("admin", "environment")]


async def test_several_processes_at_once_and_later_starts_make_one(db: Database) -> None:
    wish = wanted(load(SETTINGS))
    assert wish is not None
    made = await asyncio.gather(*(accounts.create_first_admin(db, wish) for _ in range(5)))
    assert [user.username for user in made if user is not None] == ["root"]
    other = wanted(load(SETTINGS | {"BEATLINE_ADMIN_USERNAME": "root2"}))
    assert other is not None
    assert await accounts.create_first_admin(db, other) is None
    assert await admins(db) == ["root"]


async def test_a_password_that_was_changed_is_not_set_back(db: Database) -> None:
    wish = wanted(load(SETTINGS))
    assert wish is not None
    await accounts.create_first_admin(db, wish)
    await change(db, "update users set password_hash = 'changed'")
    assert await accounts.create_first_admin(db, wish) is None
    assert await rows(db, "select password_hash from users") == [("changed",)]


async def test_where_there_is_any_user_none_is_made(db: Database) -> None:
    await add_user(db, "vera")
    wish = wanted(load(SETTINGS))
    async with first_admin(db, wish):
        await asyncio.sleep(0.3)
    assert await admins(db) == []


async def test_it_waits_for_a_database_that_is_away_and_for_its_tables(tmp_path: Path) -> None:
    with embedded_postgres(tmp_path / "data", fast=True) as server:
        database = Database(server.url)

        async def made() -> bool:
            return await admins(database) == ["root"]

        await asyncio.to_thread(server.stop)
        async with first_admin(database, wanted(load(SETTINGS))):
            await asyncio.sleep(0.2)
            await asyncio.to_thread(server.start)
            # Meanwhile it finds a database without tables.
            await asyncio.sleep(2.2)
            async with database.engine.begin() as connection:
                await connection.run_sync(Base.metadata.create_all)
            await eventually(made)
        await database.close()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"BEATLINE_ADMIN_USERNAME": "root"}, "must be set together"),
        ({"BEATLINE_ADMIN_PASSWORD": PASSWORD}, "must be set together"),
        ({"BEATLINE_ADMIN_USERNAME": "ro ot", "BEATLINE_ADMIN_PASSWORD": PASSWORD}, "BEATLINE_ADMIN_USERNAME"),
        ({"BEATLINE_ADMIN_USERNAME": "root", "BEATLINE_ADMIN_PASSWORD": "short-secret"[:5]}, "12 to 256"),
        ({"BEATLINE_ADMIN_USERNAME": "root", "BEATLINE_ADMIN_PASSWORD": "password1234"}, "first"),
        ({"BEATLINE_TRUSTED_PROXIES": "proxy.example"}, "BEATLINE_TRUSTED_PROXIES"),
        ({"BEATLINE_TOKEN_KEY": "short"}, "at least 32"),
    ],
)
def test_settings_that_cannot_be_stop_the_start_without_showing_the_password(
    settings: dict[str, str], why: str
) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        wanted(load(settings))
    assert PASSWORD not in str(caught.value)
    assert "short-" not in str(caught.value)


def test_without_the_settings_nobody_is_wanted() -> None:
    assert wanted(load({})) is None
