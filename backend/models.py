"""Schema manifest: imports every domain's tables, so that every foreign key resolves."""

from backend.accounts import models as accounts
from backend.audit import models as audit
from backend.caches import models as caches
from backend.calls import models as calls
from backend.examples import models as examples
from backend.jobs import models as jobs
from backend.notifications import models as notifications
from backend.queues import models as queues
from backend.quotas import models as quotas
from backend.recordings import models as recordings

__all__ = [
    "accounts",
    "audit",
    "caches",
    "calls",
    "examples",
    "jobs",
    "notifications",
    "queues",
    "quotas",
    "recordings",
]
