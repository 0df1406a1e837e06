"""What two channels are to each other: two parties, the same sound twice, a dead line, or stereo to be mixed."""

import math
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.recordings.speech.samples import SAMPLE_RATE, Samples

FRAME = SAMPLE_RATE // 50
_CHUNK = FRAME * 50 * 20

# dBFS: a frame below the first is silence on any line; a channel without a frame above the second is dead.
_ACTIVE_DB, _DEAD_DB = -45.0, -60.0
# Below the loudest frame by more than this is no speech either, however loud the recording is.
_ACTIVE_BELOW_PEAK_DB = 35.0
# Measured on real two-channel calls: correlation 0.001, both active 0.02.
_SPLIT_CORRELATION, _SPLIT_BOTH_ACTIVE = 0.3, 0.5
_IDENTICAL_CORRELATION = 0.98


class ChannelKind(StrEnum):
    """`split`: a party each; `identical`: the same sound twice; `dead`: at most one has sound; `downmix`: the rest."""

    MONO = "mono"
    SPLIT = "split"
    IDENTICAL = "identical"
    DEAD = "dead"
    DOWNMIX = "downmix"


def channel_kind(channels: Sequence[Samples]) -> tuple[ChannelKind, tuple[int | None, ...]]:
    """The kind, and the numbers of the channels to hear; (None,) stands for one made of all."""
    if len(channels) == 1:
        return ChannelKind.MONO, (None,)
    levels = [frame_levels(channel) for channel in channels]
    living = [number for number, level in enumerate(levels) if level.max() > _DEAD_DB]
    if len(living) < 2:
        return ChannelKind.DEAD, (living[0] if living else 0,)
    correlation = _correlation(channels[0], channels[1])
    if correlation > _IDENTICAL_CORRELATION:
        return ChannelKind.IDENTICAL, (None,)
    if abs(correlation) < _SPLIT_CORRELATION and _both_active(levels) < _SPLIT_BOTH_ACTIVE:
        return ChannelKind.SPLIT, (0, 1)
    return ChannelKind.DOWNMIX, (None,)


def frame_levels(samples: Samples) -> NDArray[np.float32]:
    """The level of each whole 20 ms in dB below full scale, digital silence being -120; one entry at least."""
    pieces = [_levels(piece) for (piece,) in _pieces([samples]) if len(piece) >= FRAME]
    return np.concatenate(pieces) if pieces else _levels(np.pad(samples, (0, FRAME - len(samples))))


def mix(channels: Sequence[Samples], target: Path) -> Path:
    """Write the mean of the channels to `target`."""
    with target.open("wb") as file:
        for pieces in _pieces(channels):
            total = np.sum([piece.astype(np.int32) for piece in pieces], axis=0)
            file.write((total // len(pieces)).astype("<i2").tobytes())
    return target


def _pieces(channels: Sequence[Samples]) -> Iterator[list[Samples]]:
    """Pieces of 20 s, so that a mapped file is never copied whole."""
    for start in range(0, len(channels[0]), _CHUNK):
        yield [channel[start : start + _CHUNK] for channel in channels]


def _levels(piece: Samples) -> NDArray[np.float32]:
    frames = piece[: len(piece) // FRAME * FRAME].reshape(-1, FRAME).astype(np.float32) / 32768.0
    power = np.mean(np.square(frames), axis=1)
    return np.asarray(10.0 * np.log10(np.maximum(power, 1e-12)), dtype=np.float32)


def _correlation(left: Samples, right: Samples) -> float:
    """Of the samples at lag 0, both taken to have a mean of 0."""
    both = first = second = 0.0
    for a, b in _pieces([left, right]):
        x, y = a.astype(np.float64), b.astype(np.float64)
        both += float(x @ y)
        first += float(x @ x)
        second += float(y @ y)
    return both / math.sqrt(first * second)


def _both_active(levels: Sequence[NDArray[np.float32]]) -> float:
    """The share of the frames with sound in which both channels have sound."""
    active = [level > max(_DEAD_DB, min(_ACTIVE_DB, level.max() - _ACTIVE_BELOW_PEAK_DB)) for level in levels]
    either = np.count_nonzero(active[0] | active[1])
    return float(np.count_nonzero(active[0] & active[1]) / either) if either else 0.0
