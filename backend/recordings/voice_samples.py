"""A few seconds of each speaker's voice, by which people know whom they are naming."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backend.recordings.speech.base import Turn
from backend.recordings.speech.samples import SAMPLE_RATE, Samples

MAX_SECONDS = 6.0
# Less than this tells no voice from another.
_MIN_SECONDS = 0.5
# A turn's edges are the other's breath as often as not.
_EDGE, _FADE_MS = 0.1, 80
_HEADROOM_DB, _MOST_GAIN_DB = 3.0, 30.0

_Stretch = tuple[float, float]


def voice_samples(samples: Samples, turns: Sequence[Turn], folder: Path) -> dict[int, Path]:
    """A WAV (16 kHz, mono, at most MAX_SECONDS) per speaker in `folder`, by the speaker's number.

    Of a speaker's turns the longest stretches in which nobody else speaks, or else the longest at all. Who never speaks for
    more than half a second gets none.
    """
    found: dict[int, Path] = {}
    for speaker in sorted({turn.speaker for turn in turns}):
        stretches = _stretches(turns, speaker)
        if stretches:
            found[speaker] = folder / f"voice-{speaker}.wav"
            _write(samples, stretches, found[speaker])
    return found


def _stretches(turns: Sequence[Turn], speaker: int) -> list[_Stretch]:
    """By time, MAX_SECONDS together at most."""
    own = [(turn.start, turn.end) for turn in turns if turn.speaker == speaker]
    others = [(turn.start, turn.end) for turn in turns if turn.speaker != speaker]
    alone = [piece for stretch in own for piece in _without(stretch, others)]
    chosen: list[_Stretch] = []
    left = MAX_SECONDS
    for start, end in sorted(_worth(alone) or _worth(own), key=lambda stretch: stretch[0] - stretch[1]):
        if left < _MIN_SECONDS:
            break
        chosen.append((start, min(end, start + left)))
        left -= chosen[-1][1] - start
    return sorted(chosen)


def _worth(stretches: Sequence[_Stretch]) -> list[_Stretch]:
    return [(start + _EDGE, end - _EDGE) for start, end in stretches if end - start >= _MIN_SECONDS + 2 * _EDGE]


def _without(stretch: _Stretch, others: Sequence[_Stretch]) -> list[_Stretch]:
    pieces = [stretch]
    for first, last in others:
        pieces = [
            piece
            for start, end in pieces
            for piece in ((start, min(end, first)), (max(start, last), end))
            if piece[1] > piece[0]
        ]
    return pieces


def _write(samples: Samples, stretches: Sequence[_Stretch], target: Path) -> None:
    """Each stretch faded in and out; the whole as loud as it can be, but noise is not blown up."""
    audio_segment = _audio_segment()
    clip = audio_segment.empty()
    for start, end in stretches:
        sound = samples[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)].astype("<i2").tobytes()
        piece = audio_segment(data=sound, sample_width=2, frame_rate=SAMPLE_RATE, channels=1)
        clip += piece.fade_in(_FADE_MS).fade_out(_FADE_MS)
    # Digital silence has no level: minus infinity.
    gain = min(_MOST_GAIN_DB, -_HEADROOM_DB - clip.max_dBFS) if clip.max > 0 else 0.0
    with target.open("wb") as file:
        clip.apply_gain(gain).export(file, format="wav")


def _audio_segment() -> Any:
    with warnings.catch_warnings():
        # It looks for ffmpeg, which WAV does not need, and its regular expressions are of old Python's; audioop leaves with 3.13,
        # where audioop-lts has it.
        warnings.simplefilter("ignore")
        from pydub import AudioSegment

        return AudioSegment
