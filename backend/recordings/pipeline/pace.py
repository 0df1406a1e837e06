"""How far the work is as a whole, and how long the rest will take."""

import time
from collections.abc import Callable

from backend.recordings.models import Stage
from backend.recordings.progress import START, WEIGHTS

# A guess from less would jump about, and what comes before the words is too fast to tell anything of them.
_SURE_SECONDS, _SURE_SHARE = 5.0, 0.02


class Pace:
    """Of one run, from now on; what an earlier run has done does not count for its speed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._from: tuple[float, float] | None = None
        self._done = 0.0

    def seen(self, stage: Stage, share: float) -> None:
        """The work is at `share` (0 to 1) of a stage. A stage of which nothing is left to do is passed in no time."""
        done = min(1.0, START[stage] + WEIGHTS[stage] * min(1.0, max(0.0, share)))
        now = self._clock()
        jumped = self._from is not None and done - self._done > 0.1 and now - self._from[0] < _SURE_SECONDS
        if START[stage] >= START[Stage.WORDS] and (self._from is None or jumped):
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
        """By the speed of the words and what follows them; None while nobody can tell."""
        if self._from is None:
            return None
        spent, gained = self._clock() - self._from[0], self._done - self._from[1]
        if spent < _SURE_SECONDS or gained < _SURE_SHARE:
            return None
        return spent * (1.0 - self._done) / gained
