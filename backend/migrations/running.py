"""Migrations by program: the files travel inside the package, so no alembic.ini is needed."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.script import ScriptDirectory

_PAUSE = 1.0


def alembic_config(database_url: str) -> AlembicConfig:
    """Alembic's configuration for a database."""
    # Alembic expands % in options.
    folder = str(Path(__file__).parent).replace("%", "%%")
    config = AlembicConfig()
    config.set_main_option("script_location", folder)
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = database_url
    return config


def upgrade(database_url: str) -> None:
    """Bring the database to the newest revision. Several at once are safe: one works, the others find it done.

    Blocking; must not be called inside a running event loop (there: `asyncio.to_thread`).
    """
    command.upgrade(alembic_config(database_url), "head")


def newest_revision() -> str | None:
    """The revision that this version of the product needs."""
    return ScriptDirectory.from_config(alembic_config("")).get_current_head()


def current_revision(database_url: str) -> str | None:
    """The database's revision; None when it was never migrated. Raises what asyncpg raises."""
    return asyncio.run(_current_revision(database_url))


async def _current_revision(database_url: str) -> str | None:
    connection = await asyncpg.connect(database_url, timeout=5)
    try:
        if await connection.fetchval("select to_regclass('alembic_version')") is None:
            return None
        revision: str | None = await connection.fetchval("select version_num from alembic_version")
        return revision
    finally:
        await connection.close()


def wait_for_database(database_url: str, seconds: float, on_wait: Callable[[str], None]) -> str | None:
    """The database's revision, once it answers; `on_wait` is told, once, why it does not yet.

    TimeoutError when it does not answer in time. A refused login or an unknown database is raised at once.
    """
    deadline = time.monotonic() + seconds
    told = False
    while True:
        try:
            return current_revision(database_url)
        except (OSError, asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError) as fault:
            reason = str(fault) or type(fault).__name__
        if time.monotonic() + _PAUSE > deadline:
            raise TimeoutError(reason)
        if not told:
            on_wait(reason)
            told = True
        time.sleep(_PAUSE)
