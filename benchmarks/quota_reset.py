"""The daily reset of quotas over 1,000,000 users, while uploads go on, beside two other ways to keep such counters.

`beatline`: a counter per user and day; the reset is one statement that closes the days before today (`reset_daily_quotas`).
`one row each`: a counter per user, set to nothing by one UPDATE at midnight.
`a loop`: the same table, an UPDATE per user, a thousand per transaction; over `--looped` users, the time for all in proportion.

Four clients reserve for users at random, one reservation after the other, while each way resets; `longest` is the longest that one
of them waited, `refused` how many were told that nothing is left although the new day has begun. PostgreSQL has its usual
durability. Exit code 1 when a second delivery or four at once close the day again, or a counter of the new day is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg

from backend import models
from backend.core.db import Base, Database
from backend.quotas import service as quotas
from devstack.servers import embedded_postgres
from devstack.unprivileged import discard_home

__all__ = ["models"]

_CLIENTS = 4
_LIMIT_MINUTES = 600

_USERS = """
insert into users (id, username, role, password_hash)
select gen_random_uuid(), 'user' || n, 'viewer', 'none' from generate_series(1, $1) n
"""
_YESTERDAY = """
insert into quota_counters (user_id, day, used_ms, used_files)
select id, (now() at time zone 'UTC')::date - 1, $1, 3 from users
"""
_ONE_ROW_EACH = """
create table one_row_each (user_id uuid primary key references users, used_ms bigint not null, used_files int not null)
"""
_SPEND = "update one_row_each set used_ms = used_ms + 60000 where user_id = $1 and used_ms + 60000 <= $2"
_ZERO = "update one_row_each set used_ms = 0, used_files = 0"


@dataclass
class Uploads:
    """Clients that reserve one after the other, and how long each waited, seconds."""

    spend: Callable[[UUID], Awaitable[bool]]
    users: list[UUID]
    waits: list[float] = field(default_factory=list)
    refused: int = 0
    _over: bool = False

    async def _client(self) -> None:
        while not self._over:
            began = time.perf_counter()
            done = await self.spend(random.choice(self.users))
            self.waits.append(time.perf_counter() - began)
            self.refused += not done
            await asyncio.sleep(0.002)

    async def during(self, work: Awaitable[object]) -> float:
        """How long the work took while the clients were at it."""
        clients = [asyncio.create_task(self._client()) for _ in range(_CLIENTS)]
        await asyncio.sleep(0.5)
        self.waits.clear()
        self.refused = 0
        began = time.perf_counter()
        await work
        took = time.perf_counter() - began
        self._over = True
        await asyncio.gather(*clients)
        return took


def _row(name: str, took: float, uploads: Uploads, note: str = "") -> str:
    waits = sorted(uploads.waits)
    middle, longest = waits[len(waits) // 2], waits[-1]
    return f"{name:<14} {took:>9.1f} {middle * 1000:>11.1f} {longest * 1000:>12.0f} {len(waits):>9,} {uploads.refused:>9,}  {note}"


async def _beatline(db: Database, pool: asyncpg.Pool, users: list[UUID]) -> tuple[str, list[str]]:
    """Its row, and what went wrong."""

    async def spend(user: UUID) -> bool:
        async with db.transaction() as session:
            try:
                await quotas.reserve(session, user_id=user, key=uuid4(), seconds=60)
            except quotas.QuotaExceeded:
                return False
        return True

    uploads = Uploads(spend, users)
    took = await uploads.during(quotas.reset(db))
    began = time.perf_counter()
    again = await quotas.reset(db)
    second = time.perf_counter() - began
    left = await pool.fetchval("select count(*) from quota_counters where day < (now() at time zone 'UTC')::date")
    kept = await pool.fetchval("select sum(reserved_files) from quota_counters")
    reserved = await pool.fetchval("select count(*) from quota_reservations where state = 'open'")
    faults = [
        fault
        for wrong, fault in (
            (again.reset, "a second delivery closed the day again"),
            (again.users != len(users), f"{again.users} of {len(users)} users were closed"),
            (left, f"{left} counters of the day before are left"),
            (kept != reserved, f"{reserved} reservations were made, {kept} are counted"),
        )
        if wrong
    ]
    return _row("beatline", took, uploads, f"a second delivery: {second * 1000:.1f} ms"), faults


async def _at_once(db: Database, pool: asyncpg.Pool) -> tuple[str, list[str]]:
    await pool.execute("delete from quota_resets")
    await pool.execute(_YESTERDAY, 60_000, timeout=600)
    began = time.perf_counter()
    done = await asyncio.gather(*(quotas.reset(db) for _ in range(4)))
    times = sum(each.reset for each in done)
    line = f"four deliveries at once: {time.perf_counter() - began:.1f} s, closed {times} time(s)"
    return line, [] if times == 1 else ["four at once did not close the day once"]


async def _one_row_each(pool: asyncpg.Pool, users: list[UUID], looped: int) -> list[str]:
    await pool.execute(_ONE_ROW_EACH)
    full = _LIMIT_MINUTES * 60_000
    await pool.execute("insert into one_row_each select id, $1, 3 from users", full, timeout=600)
    await pool.execute("vacuum analyze one_row_each", timeout=600)

    async def spend(user: UUID) -> bool:
        return str(await pool.execute(_SPEND, user, full, timeout=600)) == "UPDATE 1"

    whole = Uploads(spend, users)
    rows = [_row("one row each", await whole.during(pool.execute(_ZERO, timeout=600)), whole)]
    await pool.execute("update one_row_each set used_ms = $1", full, timeout=600)
    await pool.execute("vacuum analyze one_row_each", timeout=600)

    async def loop() -> None:
        async with pool.acquire() as connection:
            for start in range(0, looped, 1_000):
                async with connection.transaction():
                    for user in users[start : min(start + 1_000, looped)]:
                        await connection.execute(f"{_ZERO} where user_id = $1", user)

    each = Uploads(spend, users)
    took = await each.during(loop())
    rows.append(_row("a loop", took * len(users) / looped, each, f"{looped:,} users took {took:.1f} s"))
    return rows


async def measure(url: str, number: int, looped: int) -> list[str]:
    """Prints the figures; what went wrong."""
    db, pool = Database(url, send=lambda *_: None), await asyncpg.create_pool(url, min_size=1, max_size=_CLIENTS + 2)
    try:
        async with db.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        await pool.execute(_USERS, number, timeout=600)
        await pool.execute(_YESTERDAY, _LIMIT_MINUTES * 60_000, timeout=600)
        for table in ("users", "quota_counters"):
            await pool.execute(f"vacuum analyze {table}", timeout=600)
        users = [row["id"] for row in await pool.fetch("select id from users")]
        print(f"{number:,} users whose day before is used up; load {os.getloadavg()[0]:.1f}\n")
        print(f"{'':<14} {'reset, s':>9} {'upload, ms':>11} {'longest, ms':>12} {'uploads':>9} {'refused':>9}")
        line, faults = await _beatline(db, pool, users)
        print(line, flush=True)
        for line in await _one_row_each(pool, users, min(looped, number)):
            print(line, flush=True)
        line, more = await _at_once(db, pool)
        print(f"\n{line}")
        return [*faults, *more]
    finally:
        await pool.close()
        await db.close()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--looped", type=int, default=50_000, help="users of the loop")
    parser.add_argument("--quick", action="store_true", help="a smoke run: 10,000 users, 1,000 in the loop")
    wish = parser.parse_args(argv)
    number, looped = (10_000, 1_000) if wish.quick else (wish.users, wish.looped)
    state = Path(tempfile.mkdtemp(prefix="beatline-quotas-"))
    try:
        with embedded_postgres(state / "postgres") as postgres:
            faults = asyncio.run(measure(postgres.url, number, looped))
    finally:
        discard_home(state / "postgres")
        shutil.rmtree(state, ignore_errors=True)
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
