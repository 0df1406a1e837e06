"""Stretches of sound -> vectors of whoever speaks in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from backend.recordings.speech.base import Tick
from backend.recordings.speech.diarization.clustering import Vectors
from backend.recordings.speech.diarization.weights import speaker_weights
from backend.recordings.speech.samples import SAMPLE_RATE, Samples
from backend.recordings.speech.voice_activity import one_thread

if TYPE_CHECKING:
    import torch

SECONDS = 1.5
_LENGTH = int(SECONDS * SAMPLE_RATE)
_BATCH = 16
# A telephone line ends at 3.4 kHz. Measured: lines of 8 kHz have 47 dB less above, wide ones at most 25 dB.
_BELOW_HZ, _ABOVE_HZ, _NARROW_DB = (300.0, 3400.0), 4200.0, -36.0


@dataclass(frozen=True, slots=True)
class Voices:
    """A vector (length 1) for each stretch. `narrow`: the sound comes from a telephone line."""

    vectors: Vectors
    narrow: bool


class VoiceModel:
    """CAM++ in memory: about 60 MB. Raises WeightsMissing.

    On one thread: a second halves the time on an idle machine, but on a busy one, where the two wait for each other, it costs six
    times the processor time. Measured at loads of 1 and 9 on two cores.
    """

    name = "CAM++"

    def __init__(self, device: str) -> None:
        import torch

        from backend.recordings.speech.diarization.campplus import SpeakerModel

        self._device = device
        self._model = SpeakerModel()
        self._model.load_state_dict(torch.load(speaker_weights(), weights_only=True))
        self._model.eval().to(device)

    def voices(self, samples: Samples, stretches: Sequence[tuple[float, float]], tick: Tick) -> Voices:
        """Of each stretch (start and end in seconds, at most 1.5 s long); one that is shorter is repeated."""
        import torch

        vectors: list[Vectors] = []
        below = above = 0.0
        with torch.inference_mode(), one_thread():
            for at in range(0, len(stretches), _BATCH):
                tick(at / len(stretches))
                waves = np.stack([_wave(samples, *stretch) for stretch in stretches[at : at + _BATCH]])
                inside, outside = _energies(waves)
                below, above = below + inside, above + outside
                vectors.append(self._vectors(torch.from_numpy(waves)))
        narrow = above < below * 10.0 ** (_NARROW_DB / 10.0)
        return Voices(np.concatenate(vectors), narrow)

    def _vectors(self, waves: torch.Tensor) -> Vectors:
        from backend.recordings.speech.diarization.fbank import fbank

        found: Vectors = self._model(fbank(waves.to(self._device))).cpu().numpy()
        return found


def _wave(samples: Samples, start: float, end: float) -> NDArray[np.float32]:
    first = int(start * SAMPLE_RATE)
    piece = samples[first : min(int(end * SAMPLE_RATE), first + _LENGTH)].astype(np.float32) / 32768.0
    return np.resize(piece, _LENGTH)


def _energies(waves: NDArray[np.float32]) -> tuple[float, float]:
    """Of the band of a telephone and of what lies above it."""
    power = np.square(np.abs(np.fft.rfft(waves, axis=1))).sum(axis=0)
    hertz = np.arange(len(power)) * (SAMPLE_RATE / _LENGTH)
    inside = (hertz > _BELOW_HZ[0]) & (hertz < _BELOW_HZ[1])
    return float(power[inside].sum()), float(power[hertz > _ABOVE_HZ].sum())
