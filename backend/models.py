"""Schema manifest: imports every domain's tables, so that every foreign key resolves."""

from backend.calls import models as calls
from backend.jobs import models as jobs
from backend.recordings import models as recordings

__all__ = ["calls", "jobs", "recordings"]
