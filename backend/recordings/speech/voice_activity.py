"""Where somebody speaks: the silero model, and on a line of its own also the level."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from backend.recordings.speech.base import Tick
from backend.recordings.speech.channels import FRAME, frame_levels
from backend.recordings.speech.samples import SAMPLE_RATE, Samples

_WINDOW = 512
_CHUNK = _WINDOW * 2000

# Measured in audio of real calls: upsampled to 16 kHz, this finds 90 to 99 % of a telephone speaker.
_THRESHOLD, _PAD_MS, _MIN_SILENCE_MS = 0.5, 100, 300

# A line is clean when its pauses are this quiet; then whatever is louder than the gate is the party speaking.
_GATE_DB, _CLEAN_DB = -42.0, -60.0
_GATE_JOIN, _GATE_MIN, _GATE_PAD = 0.3, 0.4, 0.1


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of speech in seconds. `by_level_only`: the model did not hear a voice in it."""

    start: float
    end: float
    by_level_only: bool = False


class VoiceActivity:
    """The loaded silero model; keeps state while it listens, so one thread at a time."""

    def __init__(self) -> None:
        self._model = _load_silero()

    def runs(self, samples: Samples, *, isolated: bool, tick: Tick) -> list[Run]:
        """Runs of speech by time, without overlap. `isolated`: the channel holds one party and nothing else."""
        heard = self._by_model(samples, tick)
        return union(heard, level_runs(samples)) if isolated else heard

    def _by_model(self, samples: Samples, tick: Tick) -> list[Run]:
        from silero_vad.utils_vad import get_speech_timestamps_from_probs

        found = get_speech_timestamps_from_probs(
            self._probabilities(samples, tick),
            sampling_rate=SAMPLE_RATE,
            threshold=_THRESHOLD,
            min_silence_duration_ms=_MIN_SILENCE_MS,
            speech_pad_ms=_PAD_MS,
            audio_length_samples=len(samples),
        )
        return [Run(piece["start"] / SAMPLE_RATE, piece["end"] / SAMPLE_RATE) for piece in found]

    def _probabilities(self, samples: Samples, tick: Tick) -> list[float]:
        """One per window of 512 samples, without ever holding the whole recording as floats."""
        import torch

        probabilities: list[float] = []
        self._model.reset_states()
        with one_thread(), torch.inference_mode():
            for start in range(0, len(samples), _CHUNK):
                tick(start / len(samples))
                chunk = torch.from_numpy(samples[start : start + _CHUNK].astype(np.float32) / 32768.0)
                for window in torch.split(chunk, _WINDOW):
                    whole = torch.nn.functional.pad(window, (0, _WINDOW - len(window)))
                    probabilities.append(self._model(whole, SAMPLE_RATE).item())
        return probabilities


def _load_silero() -> Any:
    # Importing silero_vad sets torch to one thread for the whole process.
    with one_thread(), warnings.catch_warnings():
        # torch.jit.load is deprecated; the packaged model has no other form that does without onnxruntime.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        from silero_vad import load_silero_vad

        return load_silero_vad()


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread inside the block, as before after it.

    The voice model is so small that a second thread costs five times the processor time and gains none.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def level_runs(samples: Samples) -> list[Run]:
    """Runs louder than the gate on a clean line; none where the pauses are not quiet."""
    levels = frame_levels(samples)
    loud = levels > _GATE_DB
    quiet = levels[~loud]
    if not loud.any() or not quiet.size or float(np.median(quiet)) > _CLEAN_DB:
        return []
    edges = np.flatnonzero(np.diff(np.concatenate(([False], loud, [False])).astype(np.int8)))
    seconds = FRAME / SAMPLE_RATE
    found = [Run(start * seconds, end * seconds, by_level_only=True) for start, end in edges.reshape(-1, 2).tolist()]
    length = len(samples) / SAMPLE_RATE
    return [
        replace(run, start=max(0.0, run.start - _GATE_PAD), end=min(length, run.end + _GATE_PAD))
        for run in joined(found, _GATE_JOIN)
        if run.end - run.start >= _GATE_MIN
    ]


def joined(runs: Sequence[Run], gap: float) -> list[Run]:
    """Runs by start time, those less than `gap` seconds apart made one."""
    result: list[Run] = []
    for run in runs:
        if result and run.start - result[-1].end < gap:
            last = result[-1]
            result[-1] = Run(last.start, max(last.end, run.end), last.by_level_only and run.by_level_only)
        else:
            result.append(run)
    return result


def union(first: Sequence[Run], second: Sequence[Run]) -> list[Run]:
    """All of both, overlapping ones made one."""
    return joined(sorted([*first, *second], key=lambda run: run.start), 1e-9)
