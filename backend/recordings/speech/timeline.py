"""Clips of a recording, put together for sending: which second of the one is which of the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from backend.recordings.speech.samples import SAMPLE_RATE, Samples

# Between two clips, so that the words at their edges do not run into one another.
_GAP = 0.3


@dataclass(frozen=True, slots=True)
class Timeline:
    """`clips` are (start, end) in the recording, by time; `starts` where each begins in what is sent."""

    clips: tuple[tuple[float, float], ...]
    starts: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """The length of what is sent."""
        start, end = self.clips[-1]
        return self.starts[-1] + end - start

    def recorded(self, start: float, end: float) -> tuple[float, float]:
        """The recording's seconds for a stretch of what is sent, held inside the clips that it touches."""
        first, last = self._clip(start, 0.0), self._clip(end, 0.0)
        begin = self._inside(first, start)
        return begin, max(begin, self._inside(last, end))

    def word(self, start: float, end: float) -> tuple[float, float]:
        """The same of a word, which lies in one clip: that of its middle, or the nearest one."""
        clip = self._clip((start + end) / 2, _GAP / 2)
        begin = self._inside(clip, start)
        return begin, max(begin, self._inside(clip, end))

    def _clip(self, at: float, early: float) -> int:
        """The last clip that begins before `at` or within `early` seconds after it."""
        return max((number for number, start in enumerate(self.starts) if start <= at + early), default=0)

    def _inside(self, clip: int, at: float) -> float:
        start, end = self.clips[clip]
        return round(min(end, start + max(0.0, at - self.starts[clip])), 2)

    def pieces(self, samples: Samples) -> Iterator[Samples]:
        """The sound to send, clip by clip."""
        for number, (start, end) in enumerate(self.clips):
            if number:
                yield np.zeros(int(_GAP * SAMPLE_RATE), dtype=np.int16)
            yield samples[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)]


def timeline(clips: Sequence[tuple[float, float]]) -> Timeline:
    """Of one clip at least."""
    starts, at = [], 0.0
    for start, end in clips:
        starts.append(at)
        at += end - start + _GAP
    return Timeline(tuple(clips), tuple(starts))
