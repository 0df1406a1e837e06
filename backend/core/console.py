"""What commands share: printing, the configuration, the database, and how they end.

Exit codes: 0 done, 1 the database is away or not ready, 2 usage, configuration or a refusal. Nothing prints a traceback.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import asyncpg
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy.exc import DBAPIError

from backend.config import Config, load_or_exit, stop
from backend.core.db import Database, Session, is_outage
from backend.environment import ConfigError

T = TypeVar("T")

# SQLSTATE: no such database, unknown user, wrong password, no right to a table; no such table or column.
_REFUSED = {"3D000", "28000", "28P01", "42501"}
_NO_TABLES = {"42P01", "42703"}
# Classes of SQLSTATE: connection lost, no room for another, a lock that somebody keeps, starting up or shutting down.
_AWAY = {"08", "53", "55", "57"}
# What the database may answer.
_FAULTS = (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
# What a run's error holds may come from anywhere, and a terminal obeys escape sequences.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def console(*, stderr: bool = False) -> Console:
    found = Console(stderr=stderr, highlight=False, emoji=False)
    # Without a terminal nobody sees where a line would have to wrap.
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, emoji=False, width=240)


def _plain(text: object) -> str:
    return escape(_CONTROLS.sub("\N{REPLACEMENT CHARACTER}", str(text)))


def say(text: str) -> None:
    console().print(_plain(text), soft_wrap=True)


def warn(text: str) -> None:
    console(stderr=True).print(_plain(text), soft_wrap=True)


def fail(text: str, code: int) -> NoReturn:
    warn(f"beatline: {text}")
    raise typer.Exit(code)


def configuration(*required: str) -> Config:
    """The configuration with the variables this command cannot do without; one line and exit code 2 otherwise."""
    config = load_or_exit()
    try:
        config.require(*required)
    except ConfigError as fault:
        stop(fault)
    return config


def say_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows of cells, each shown as text."""
    made = Table(*map(_plain, headers), box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in made.columns:
        column.overflow = "fold"
    for row in rows:
        made.add_row(*map(_plain, row))
    console().print(made)


def address(config: Config) -> str:
    """Of the database, without its password."""
    parts = urlsplit(config.database_url)
    return f"{parts.hostname}:{parts.port or 5432}{parts.path}"


@contextmanager
def database_faults(config: Config) -> Iterator[None]:
    """Turn what the database may answer into one line and an exit code."""
    try:
        yield
    except _FAULTS as fault:
        fail(*_in_words(config, fault))


def _in_words(config: Config, fault: BaseException) -> tuple[str, int]:
    cause = fault.orig if isinstance(fault, DBAPIError) else fault
    state = getattr(cause, "sqlstate", None) or ""
    where = address(config)
    if state in _REFUSED:
        return f"database {where}: {cause}; check DATABASE_URL", 2
    if state in _NO_TABLES:
        return f"database {where} has not the tables of this version: run `beatline migrate`", 1
    # SQLAlchemy puts the class before the message.
    words = re.sub(r"^<class '[^']*'>: ", "", str(cause)).partition("\n")[0] or type(fault).__name__
    if state[:2] in _AWAY or is_outage(fault):
        return f"database {where} does not answer: {words}", 1
    return f"database {where} refused: {words}", 1


def with_database(config: Config, work: Callable[[Database], Coroutine[Any, Any, T]]) -> T:
    with database_faults(config):
        return asyncio.run(_with_database(config, work))


async def _with_database(config: Config, work: Callable[[Database], Coroutine[Any, Any, T]]) -> T:
    database = Database(config.database_url, pool_size=1)
    try:
        return await work(database)
    finally:
        await database.close()


def in_transaction(config: Config, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
    """`with_database` for work that is one transaction."""
    return with_database(config, lambda db: _in_transaction(db, work))


async def _in_transaction(db: Database, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
    async with db.transaction() as session:
        return await work(session)


def attempt(config: Config, work: Callable[[Session], Coroutine[Any, Any, None]]) -> str:
    """The same for work without which a command can end: what the database had against it, or nothing."""
    try:
        asyncio.run(_with_database(config, lambda db: _in_transaction(db, work)))
    except _FAULTS as fault:
        return _in_words(config, fault)[0]
    return ""
