"""How far the work is as a whole, and how long the rest will take."""

import time
from collections.abc import Callable

from backend.recordings.models import Stage

# Shares of the processor time of a local transcription, measured on the samples. Whoever skips a stage jumps.
_WEIGHTS = {
    Stage.FETCH: 0.01,
    Stage.PROBE: 0.01,
    Stage.DECODE: 0.04,
    Stage.SPEECH: 0.05,
    Stage.WORDS: 0.72,
    Stage.SPEAKERS: 0.13,
    Stage.SUMMARY: 0.03,
    Stage.STORE: 0.01,
}
_START = dict(zip(_WEIGHTS, (sum(list(_WEIGHTS.values())[:at]) for at in range(len(_WEIGHTS))), strict=True))

# A guess from less would jump about.
_SURE_SECONDS, _SURE_SHARE = 2.0, 0.02


class Pace:
    """Of one run, from now on; what an earlier run has done does not count for its speed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._from: tuple[float, float] | None = None
        self._done = 0.0

    def seen(self, stage: Stage, share: float) -> None:
        """The work is at `share` (0 to 1) of a stage. A stage of which nothing is left to do is passed in no time."""
        done = min(1.0, _START[stage] + _WEIGHTS[stage] * min(1.0, max(0.0, share)))
        now = self._clock()
        if self._from is None or (done - self._done > 0.1 and now - self._from[0] < _SURE_SECONDS):
            self._from = (now, done)
        self._done = max(self._done, done)

    @property
    def share(self) -> float:
        """Of the whole, 0 to 1; never goes back."""
        return self._done

    @property
    def percent(self) -> int:
        return int(self._done * 100)

    @property
    def seconds_left(self) -> float | None:
        """None while nobody can tell."""
        if self._from is None:
            return None
        spent, gained = self._clock() - self._from[0], self._done - self._from[1]
        if spent < _SURE_SECONDS or gained < _SURE_SHARE:
            return None
        return spent * (1.0 - self._done) / gained
