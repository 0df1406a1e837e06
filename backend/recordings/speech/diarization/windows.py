"""Who speaks when, by comparing voices: a window every 0.75 s of speech, grouped by speaker. One voice at a time."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from backend.recordings.speech.base import SpeakerCount, Tick, Turn
from backend.recordings.speech.diarization.clustering import Bounds, Vectors, speakers_of
from backend.recordings.speech.diarization.voices import SECONDS, VoiceModel
from backend.recordings.speech.samples import Samples
from backend.recordings.speech.voice_activity import Run

# Chosen on two real calls, a meeting corpus' sample and dialogues made of read speech (docs/performance.md). A telephone makes
# voices more alike, so fewer may be joined by distance alone.
WIDE = Bounds(cut=0.65, alike=0.6, least=3)
NARROW = Bounds(cut=0.5, alike=0.74, least=5)

_STEP = SECONDS / 2
# What is shorter says too little of a voice to found a group.
_TELLING = 0.6
_FRAME = 0.1
# The share of the work that is spent on listening.
_LISTENING = 0.95


class WindowDiarizer:
    """Blocking; one thread at a time."""

    def __init__(self, voices: VoiceModel) -> None:
        self.model = f"{voices.name}, windows"
        self._voices = voices

    def turns(self, samples: Samples, runs: Sequence[Run], count: SpeakerCount, tick: Tick) -> list[Turn]:
        tick(0.0)
        pieces = [stretches(run) for run in runs]
        flat = [stretch for piece in pieces for stretch in piece]
        if not flat:
            return []
        heard = self._voices.voices(samples, flat, lambda share: tick(_LISTENING * share))
        tick(_LISTENING)
        telling = np.array([end - start >= _TELLING for start, end in flat])
        vectors = heard.vectors[telling] if telling.any() else heard.vectors
        speakers = speakers_of(vectors, NARROW if heard.narrow else WIDE, count)
        tick(1.0)
        return numbered(_turns(runs, pieces, heard.vectors @ speakers.T))


def stretches(run: Run) -> list[tuple[float, float]]:
    """Windows of equal distance, at most 0.75 s, that cover the run; the run itself where it is short."""
    length = run.end - run.start
    if length <= SECONDS:
        return [(run.start, run.end)]
    steps = -int(-(length - SECONDS) // _STEP)
    starts = [run.start + (length - SECONDS) * at / steps for at in range(steps + 1)]
    return [(start, start + SECONDS) for start in starts]


def _turns(runs: Sequence[Run], pieces: Sequence[Sequence[tuple[float, float]]], likeness: Vectors) -> Iterator[Turn]:
    """Of each tenth of a second, the speaker whom the windows around it are most like, the nearer window counting more."""
    at = 0
    for run, windows in zip(runs, pieces, strict=True):
        scores = likeness[at : at + len(windows)]
        at += len(windows)
        count = max(1, round((run.end - run.start) / _FRAME))
        step = (run.end - run.start) / count
        times = run.start + (np.arange(count) + 0.5) * step
        winners = np.argmax(_weights(times, windows) @ scores, axis=1)
        edges = [0, *(np.flatnonzero(np.diff(winners)) + 1).tolist(), count]
        for first, last in pairwise(edges):
            yield Turn(run.start + first * step, run.start + last * step, int(winners[first]))


def _weights(times: NDArray[np.floating], windows: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    middles = np.array([(start + end) / 2 for start, end in windows])
    halves = np.array([max((end - start) / 2, _FRAME) for start, end in windows])
    return np.asarray(np.maximum(1.0 - np.abs(times[:, None] - middles) / halves, 1e-6))


def numbered(turns: Iterator[Turn]) -> list[Turn]:
    """By start time, speakers numbered by first appearance, times in hundredths."""
    order: dict[int, int] = {}
    return [
        Turn(round(turn.start, 2), round(turn.end, 2), order.setdefault(turn.speaker, len(order)))
        for turn in sorted(turns, key=lambda turn: (turn.start, turn.end))
    ]
