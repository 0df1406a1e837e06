"""Questions to the database, each on a connection of its own: servers come and go in between."""

from collections.abc import Iterable
from typing import Any

import asyncpg


async def fetch(url: str, statement: str, arguments: Iterable[object]) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(url, timeout=5, command_timeout=20)
    try:
        return [dict(row) for row in await connection.fetch(statement, *arguments)]
    finally:
        await connection.close(timeout=5)
