"""The sound inside runs of speech: the short pauses that voice detection leaves in tell where words are."""

from collections.abc import Sequence

import numpy as np

from backend.recordings.speech.channels import FRAME, frame_levels
from backend.recordings.speech.cutting import Clips, between
from backend.recordings.speech.samples import SAMPLE_RATE, Samples
from backend.recordings.speech.voice_activity import Run, joined

# Measured by benchmarks/word_times.py: louder than this below the loud tenth of a run is speech.
_BELOW_LOUD_DB = 25.0
_PAUSE, _SOUND = 0.2, 0.06
_SECONDS = FRAME / SAMPLE_RATE


def spoken(samples: Samples, runs: Sequence[Run], clips: Clips) -> list[tuple[float, float]]:
    """What of the runs lies inside the clips and is loud, by time; pauses shorter than 0.2 s left in."""
    return [
        span for run in runs for start, end in between(clips, run.start, run.end) for span in _loud(samples, start, end)
    ]


def _loud(samples: Samples, start: float, end: float) -> list[tuple[float, float]]:
    levels = frame_levels(samples[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)])
    loud = levels > np.quantile(levels, 0.9) - _BELOW_LOUD_DB
    edges = np.flatnonzero(np.diff(np.concatenate(([False], loud, [False])).astype(np.int8))).reshape(-1, 2)
    found = [Run(start + first * _SECONDS, min(end, start + last * _SECONDS)) for first, last in edges.tolist()]
    kept = [(run.start, run.end) for run in joined(found, _PAUSE) if run.end - run.start >= _SOUND]
    return kept or [(start, end)]
