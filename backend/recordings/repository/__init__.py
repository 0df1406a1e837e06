"""The SQL of recordings, by what it is about."""

from backend.recordings.repository.checkpoints import CheckpointRepository
from backend.recordings.repository.recordings import OPEN_STATES, RecordingRepository

__all__ = ["OPEN_STATES", "CheckpointRepository", "RecordingRepository"]
