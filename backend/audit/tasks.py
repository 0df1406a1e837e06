"""Entries of the outbox go into their logs."""

import logging
from uuid import UUID

from backend.audit import service as audit
from backend.audit.models import Kind
from backend.core.runtime import Runtime, task

log = logging.getLogger(__name__)


@task(max_retries=5, time_limit=120)
async def log_operation(runtime: Runtime, *, batch: str) -> dict[str, int]:
    """Move the operations of a batch into the log. A second delivery finds nothing to move."""
    return {"logged": await audit.move(runtime.db, Kind.OPERATION, UUID(batch))}


@task(max_retries=5, time_limit=120)
async def log_login(runtime: Runtime, *, batch: str) -> dict[str, int]:
    """Move a login into the log. A second delivery finds nothing to move."""
    return {"logged": await audit.move(runtime.db, Kind.LOGIN, UUID(batch))}


@task(max_retries=0, time_limit=120)
async def sweep_audit_outbox(runtime: Runtime) -> dict[str, int]:
    """Move what no message has moved: the broker was away, or a worker was lost."""
    return {"logged": await audit.sweep(runtime.db)}
