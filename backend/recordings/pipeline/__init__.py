"""From a file to a transcript with speakers and a summary, in stages that need not be done twice. Blocking; knows no database."""

from backend.recordings.pipeline.checkpoints import Checkpoints, FolderCheckpoints
from backend.recordings.pipeline.pace import Pace
from backend.recordings.pipeline.result import Observe, Result
from backend.recordings.pipeline.stages import run
from backend.recordings.pipeline.tools import Tools, open_tools

__all__ = ["Checkpoints", "FolderCheckpoints", "Observe", "Pace", "Result", "Tools", "open_tools", "run"]
