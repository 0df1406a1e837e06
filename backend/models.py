"""Schema manifest: imports every domain's tables, so that every foreign key resolves."""

from backend.calls import models as calls
from backend.examples import models as examples
from backend.jobs import models as jobs
from backend.queues import models as queues
from backend.recordings import models as recordings

__all__ = ["calls", "examples", "jobs", "queues", "recordings"]
