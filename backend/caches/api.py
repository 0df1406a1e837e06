"""HTTP of caches' settings."""

from fastapi import APIRouter

from backend.caches import service as caches
from backend.caches.schemas import CacheScheduleRead, CacheScheduleUpdate
from backend.core.web import AdminDep, SessionDep, Viewer

router = APIRouter(prefix="/api/cache-schedules", tags=["caches"])


@router.get("", dependencies=[Viewer])
async def list_cache_schedules(session: SessionDep) -> list[CacheScheduleRead]:
    """Which caches are refreshed, how often, and when next."""
    return await caches.every_schedule(session)


@router.patch("/{kind}")
async def update_cache_schedule(
    session: SessionDep, principal: AdminDep, kind: str, body: CacheScheduleUpdate
) -> CacheScheduleRead:
    """Another interval, or on and off; it takes effect within a minute, without a restart."""
    return await caches.change(session, kind, body, actor=principal.name)
