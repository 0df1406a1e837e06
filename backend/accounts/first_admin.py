"""The first admin, from the environment: made by whichever API process comes first, where there is no user yet."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from pydantic import SecretStr, ValidationError
from sqlalchemy.exc import DBAPIError

from backend.accounts import service as accounts
from backend.accounts.schemas import UserCreate
from backend.config import Config
from backend.core.db import Database, is_outage
from backend.core.errors import Invalid
from backend.core.principal import Role
from backend.environment import ConfigError

log = logging.getLogger(__name__)

_PAUSE = 2.0
# SQLSTATE: no such table. `beatline migrate` may be under way.
_NO_TABLE = "42P01"


def wanted(config: Config) -> UserCreate | None:
    """The admin whom the environment names. Raises ConfigError for a name or password that would not be accepted."""
    name, password = config.accounts.admin_username, config.accounts.admin_password
    if not name:
        return None
    try:
        wish = UserCreate(username=name, role=Role.ADMIN, password=SecretStr(password))
        accounts.check_password(password, name)
    except ValidationError as fault:
        faults = (f"BEATLINE_ADMIN_{str(error['loc'][0]).upper()}: {error['msg']}" for error in fault.errors())
        raise ConfigError("; ".join(faults)) from None
    except Invalid as fault:
        raise ConfigError(f"BEATLINE_ADMIN_PASSWORD {fault.detail.removeprefix('password: ')}") from None
    return wish


@contextlib.asynccontextmanager
async def first_admin(db: Database, wish: UserCreate | None) -> AsyncIterator[None]:
    """See to it beside the body; the API starts while the database is away, too."""
    making = asyncio.create_task(_make(db, wish)) if wish is not None else None
    try:
        yield
    finally:
        if making is not None:
            making.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await making


async def _make(db: Database, wish: UserCreate) -> None:
    told = False
    while True:
        try:
            made = await accounts.create_first_admin(db, wish)
        except (DBAPIError, OSError) as fault:
            if not (is_outage(fault) or _is_unmigrated(fault)):
                log.exception("the first admin could not be made")
                return
            if not told:
                log.warning("the first admin waits for the database: %s", type(fault).__name__)
            told = True
            await asyncio.sleep(_PAUSE)
        else:
            if made is not None:
                log.info("%s is the first admin", made.username)
            return


def _is_unmigrated(fault: BaseException) -> bool:
    return isinstance(fault, DBAPIError) and getattr(fault.orig, "sqlstate", None) == _NO_TABLE
