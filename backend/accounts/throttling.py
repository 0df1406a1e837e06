"""Nobody guesses passwords for long: attempts to sign in are counted by name and by address, in PostgreSQL.

They are counted before the password is looked at, so that a hundred at once are no better than a hundred in a row. Names that
nobody has are counted as well: the answer does not tell which there are. Redis has no part in it: its being away opens nothing.
"""

import hashlib
import math
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address, ip_network

from backend.accounts.models import LoginThrottle
from backend.accounts.repository.throttles import ThrottleRepository
from backend.accounts.words import Bucket
from backend.config import Config
from backend.core.db import Session

# After so long without an attempt they are forgotten; the first lock, which doubles with each further attempt, and the longest.
QUIET, FIRST_LOCK, LONGEST_LOCK = timedelta(minutes=15), timedelta(seconds=30), timedelta(minutes=15)


async def admit(session: Session, config: Config, *, username: str, address: str) -> int | None:
    """Count an attempt, unless one of its two counters is locked: then the seconds until it is not."""
    throttles = ThrottleRepository(session)
    limits = {
        Bucket.ACCOUNT: config.accounts.login_attempts,
        Bucket.ADDRESS: config.accounts.login_address_attempts,
    }
    rows = [(await throttles.lock(bucket, _key(bucket, username, address)), limits[bucket]) for bucket in Bucket]
    now = await throttles.now()
    waits = [(row.locked_until - now).total_seconds() for row, _ in rows if row.locked_until and row.locked_until > now]
    if waits:
        return max(1, math.ceil(max(waits)))
    for row, limit in rows:
        _count(row, limit, now)
        await throttles.save(row)
    return None


async def forgive(session: Session, *, username: str, address: str) -> None:
    """The attempt was no guess: the name's are forgotten, and of the address's this one."""
    throttles = ThrottleRepository(session)
    await throttles.forget(Bucket.ACCOUNT, _key(Bucket.ACCOUNT, username, address))
    row = await throttles.lock(Bucket.ADDRESS, _key(Bucket.ADDRESS, username, address))
    row.attempts = max(0, row.attempts - 1)
    # The guesses that are left are too few: with this attempt they were just enough.
    row.locked_until = None
    await throttles.save(row)


async def unlock(session: Session, *names: str | None) -> None:
    """Somebody in charge has set a new password."""
    for name in names:
        if name is not None:
            await ThrottleRepository(session).forget(Bucket.ACCOUNT, _key(Bucket.ACCOUNT, name, ""))


def _count(row: LoginThrottle, limit: int, now: datetime) -> None:
    if max(row.last_attempt_at, row.locked_until or row.last_attempt_at) < now - QUIET:
        row.attempts = 0
    row.attempts += 1
    row.last_attempt_at, row.locked_until = now, None
    if row.attempts >= limit:
        # Ten doublings are past the longest.
        row.locked_until = now + min(LONGEST_LOCK, FIRST_LOCK * 2 ** min(10, row.attempts - limit))


def _key(bucket: Bucket, username: str, address: str) -> str:
    if bucket == Bucket.ADDRESS:
        return _network(address)
    # Hashed: people type passwords where the name belongs.
    return hashlib.sha256(username.strip().lower().encode()).hexdigest()


def _network(address: str) -> str:
    """An IPv6 host has all the addresses of its /64."""
    try:
        found = ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or ip_network(f"{found}/64", strict=False))
    return str(found)
