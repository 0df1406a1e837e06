"""What comes out of the pipeline."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from backend.recordings.models import Stage
from backend.recordings.speech.base import Transcript
from backend.recordings.summaries.base import Summary

# Called at least every few seconds with the stage and how much of it is done, 0 to 1; raises Cancelled to stop the work.
Observe = Callable[[Stage, float], None]


@dataclass(frozen=True, slots=True)
class Result:
    """`speakers`: label and seconds spoken, by first appearance. `samples`: a clip of each voice, by label, in the work folder.

    `cost` is US dollars of transcription alone, None where nothing was paid or no price is set. `diarizer` is None where nobody had
    to tell speakers apart.
    """

    transcript: Transcript
    codec: str
    speakers: tuple[tuple[str, float], ...] = ()
    samples: dict[str, Path] = field(default_factory=dict)
    summary: Summary | None = None
    diarizer: str | None = None
    usage: dict[str, float] = field(default_factory=dict)
    cost: float | None = None
