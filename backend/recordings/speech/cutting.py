"""Where a channel is cut into pieces for a service that takes only so much at a time: at pauses, with overlap."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from backend.recordings.speech.voice_activity import Run, joined

# Before the first and after the last sound of a clip; runs have 0.1 s of their own.
_PAD = 0.2
# How far back from the limit a pause may lie, as a share of the limit.
_LOOK_BACK = 0.4

Clips = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Cutting:
    """`limit` seconds of sound per piece, `overlap` heard by both neighbours, unless the pause between is `clean` or longer."""

    limit: float
    overlap: float
    clean: float


def speech_clips(runs: Sequence[Run], duration: float, gap: float) -> Clips:
    """What is worth sending: runs with a little around them, pauses shorter than `gap` left in."""
    padded = [Run(max(0.0, run.start - _PAD), min(duration, run.end + _PAD)) for run in runs]
    return tuple((run.start, run.end) for run in joined(padded, gap) if run.end > run.start)


def seconds_of(clips: Clips) -> float:
    return sum(end - start for start, end in clips)


def cut(clips: Clips, runs: Sequence[Run], cutting: Cutting) -> list[Clips]:
    """Pieces by time, none longer than the limit. The same clips and runs give the same pieces."""
    pieces: list[Clips] = []
    rest = clips
    while rest:
        mark = _mark(rest, cutting.limit)
        if mark is None:
            return [*pieces, rest]
        at, pause = _place(rest, runs, mark, cutting)
        overlap = 0.0 if pause >= cutting.clean else cutting.overlap / 2
        # The mark is the limit: nothing behind it may be in this piece.
        pieces.append(between(rest, rest[0][0], min(mark, at + overlap)))
        rest = between(rest, at - overlap, rest[-1][1])
    return pieces


def _mark(clips: Clips, limit: float) -> float | None:
    """The second of the recording at which the limit is reached; None where all of it fits."""
    for start, end in clips:
        if end - start > limit + 1e-6:
            return start + limit
        limit -= end - start
    return None


def _place(clips: Clips, runs: Sequence[Run], mark: float, cutting: Cutting) -> tuple[float, float]:
    """The middle and the length of the longest pause before the mark; without one, near the mark, in the middle of a word."""
    latest = mark - cutting.overlap / 2
    earliest = max(mark - cutting.limit * _LOOK_BACK, clips[0][0] + cutting.overlap)
    pauses = [
        (after.start - before.end, (before.end + after.start) / 2)
        for before, after in pairwise(runs)
        if earliest <= (before.end + after.start) / 2 <= (mark if after.start - before.end >= cutting.clean else latest)
    ]
    if not pauses:
        return latest, 0.0
    length, middle = max(pauses)
    return middle, length


def between(clips: Clips, start: float, end: float) -> Clips:
    """What of the clips lies from `start` to `end`."""
    cropped = ((max(first, start), min(last, end)) for first, last in clips)
    return tuple((first, last) for first, last in cropped if last > first)
