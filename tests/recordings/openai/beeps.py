"""Speech that a test can hear: each word is two tones, and the service on loopback knows them again in what it was sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from backend.recordings.speech.voice_activity import Run
from tests.recordings.openai.service import Asked, Says
from tests.recordings.sounds import RATE, Sound, silence

_TONE, _STEP, _LOWEST, _PITCHES = 0.15, 60.0, 400.0, 40


@dataclass(frozen=True)
class Beeps:
    """`words` are (number, start): 0.3 s each. `runs` are where they are without a pause of 0.3 s."""

    samples: Sound
    words: tuple[tuple[int, float], ...]
    runs: tuple[Run, ...]

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE


def name(number: int) -> str:
    return f"w{number:04d}"


def beeps(pauses: Sequence[float]) -> Beeps:
    """A word after each pause (seconds), and a second of silence at the end."""
    pieces: list[Sound] = []
    words: list[tuple[int, float]] = []
    runs: list[Run] = []
    at = 0.0
    for number, pause in enumerate(pauses):
        at += pause
        pieces += [silence(pause), _word(number)]
        words.append((number, at))
        if runs and at - runs[-1].end < 0.3:
            runs[-1] = Run(runs[-1].start, at + 2 * _TONE)
        else:
            runs.append(Run(at, at + 2 * _TONE))
        at += 2 * _TONE
    return Beeps(np.concatenate([*pieces, silence(1.0)]), tuple(words), tuple(runs))


def _word(number: int) -> Sound:
    at = np.arange(int(_TONE * RATE)) / RATE
    pitches = (_LOWEST + _STEP * (number // _PITCHES), _LOWEST + _STEP * (number % _PITCHES))
    return np.concatenate([(9000 * np.sin(2 * np.pi * pitch * at)).astype(np.int16) for pitch in pitches])


def decoded(sound: bytes) -> Sound:
    """What was uploaded, as 16 kHz mono."""
    with av.open(BytesIO(sound), "r") as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        frames = [piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
        return np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.int16)


def heard(samples: Sound) -> list[tuple[int, float, float]]:
    """(number, start, end) of each whole word."""
    frame = RATE // 100
    levels = np.abs(samples[: len(samples) // frame * frame].reshape(-1, frame).astype(np.int32)).mean(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], levels > 1000, [False])).astype(np.int8))).reshape(-1, 2)
    found = []
    for start, end in edges.tolist():
        seconds = (end - start) / 100
        if seconds > 1.5 * _TONE:
            at = start * frame
            first = _pitch(samples[at + 400 : at + 2000])
            found.append((first * _PITCHES + _pitch(samples[at + 2800 : at + 4400]), start / 100, end / 100))
    return found


def _pitch(samples: NDArray[np.int16]) -> int:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 16_000))
    return round((float(spectrum.argmax()) - _LOWEST) / _STEP)


def listen(asked: Asked) -> Says:
    """In the form that was asked for."""
    samples = decoded(asked.sound)
    words = heard(samples)
    text = " ".join(name(number) for number, _, _ in words)
    usage = {"type": "duration", "seconds": len(samples) / RATE}
    answer: dict[str, Any] = {"text": text, "usage": usage}
    if asked.first("response_format") == "verbose_json":
        answer |= {
            "task": "transcribe",
            "language": "english",
            "duration": len(samples) / RATE,
            "words": [{"word": name(number), "start": start, "end": end} for number, start, end in words],
            "segments": [],
        }
    return Says(answer)
