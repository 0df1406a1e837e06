"""Kaldi's log mel filter banks: what the speaker model was trained on.

80 bands from 20 Hz to 8 kHz, 25 ms every 10 ms, Povey window, pre-emphasis 0.97, each frame's mean removed, no dither.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

from backend.recordings.speech.samples import SAMPLE_RATE

if TYPE_CHECKING:
    import torch

BANDS = 80
FRAME, STEP = SAMPLE_RATE * 25 // 1000, SAMPLE_RATE // 100
_FFT = 512
_PRE_EMPHASIS = 0.97
_LOWEST_HZ = 20.0


def fbank(waves: torch.Tensor) -> torch.Tensor:
    """Waves (batch, samples) from -1 to 1 -> features (batch, frames, 80), each band's mean over the frames removed."""
    import torch

    frames = waves.unfold(1, FRAME, STEP)
    frames = frames - frames.mean(dim=2, keepdim=True)
    before = torch.cat([frames[:, :, :1], frames[:, :, :-1]], dim=2)
    window, bands = _window().to(waves.device), _mel_bands().to(waves.device)
    spectrum = torch.fft.rfft((frames - _PRE_EMPHASIS * before) * window, n=_FFT).abs().square()
    energies = (spectrum @ bands).clamp_min(torch.finfo(torch.float32).eps).log()
    features: torch.Tensor = energies - energies.mean(dim=1, keepdim=True)
    return features


@cache
def _window() -> torch.Tensor:
    import torch

    return torch.hann_window(FRAME, periodic=False).pow(0.85)


@cache
def _mel_bands() -> torch.Tensor:
    """Triangles on the mel scale, (bins, bands)."""
    import torch

    hertz = torch.arange(_FFT // 2 + 1, dtype=torch.float64) * SAMPLE_RATE / _FFT
    mels = 1127.0 * (1.0 + hertz / 700.0).log()
    lowest, highest = _mel(_LOWEST_HZ), _mel(SAMPLE_RATE / 2)
    width = (highest - lowest) / (BANDS + 1)
    left = lowest + torch.arange(BANDS, dtype=torch.float64) * width
    up, down = (mels[:, None] - left) / width, (left + 2 * width - mels[:, None]) / width
    bands = torch.minimum(up, down).clamp_min(0.0)
    # Kaldi leaves out the bin of the highest frequency.
    bands[-1] = 0.0
    return bands.float()


def _mel(hertz: float) -> float:
    return 1127.0 * math.log(1.0 + hertz / 700.0)
