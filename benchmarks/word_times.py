"""How far spread word times are off: of models that give text alone, as gpt-transcribe does, a word's place is worked out here.

Whisper base hears each recording with its own word times, which serve as the reference; its text is then cut and spread as the
openai back end does it with a service's text. Printed are the differences between the middles of words, in seconds. No service is
asked.

    PYTHONPATH=. .venv/bin/python benchmarks/word_times.py [FILE ...] [--language en]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from backend.config import load
from backend.recordings.sound import decoding as audio
from backend.recordings.speech.base import Part, Word
from backend.recordings.speech.local import LocalSpeechEngine
from backend.recordings.speech.openai import open_engine
from backend.recordings.speech.pauses import spoken
from backend.recordings.speech.samples import Samples
from backend.recordings.speech.voice_activity import Run, VoiceActivity
from backend.recordings.speech.wording import spread

FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures" / "audio"


def nothing(done: float) -> None:
    """Nobody stops it."""


def measured(
    engine: LocalSpeechEngine, samples: Samples, runs: Sequence[Run], isolated: bool, language: str
) -> list[Word]:
    parts = engine.parts([runs], len(samples) / 16_000, isolated=isolated)
    heard = [engine.hear(samples, part, runs, language=language, hints=None, tick=nothing) for part in parts]
    return [word for segment in engine.joined(parts, heard) for word in segment.words]


def differences(samples: Samples, part: Part, words: Sequence[Word], runs: Sequence[Run]) -> Iterator[float]:
    """Of the words that both cut in the same place of the text."""
    inside = [word for word in words if part.start <= (word.start + word.end) / 2 < part.end]
    guessed = spread("".join(word.text for word in inside), spoken(samples, runs, part.clips), 0.5)
    starts = accumulate((len(word.text) for word in guessed), initial=0)
    by_place = dict(zip(starts, guessed, strict=False))
    for place, word in zip(accumulate((len(word.text) for word in inside), initial=0), inside, strict=False):
        if place in by_place:
            yield abs((word.start + word.end) - (by_place[place].start + by_place[place].end)) / 2


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("files", nargs="*", type=Path, default=sorted(FIXTURES.glob("*.[fw][la][av]*")))
    arguments.add_argument("--language", default="en")
    asked = arguments.parse_args()
    local, voice = LocalSpeechEngine(), VoiceActivity()
    service = open_engine(load({"OPENAI_API_KEY": "unused", "OPENAI_TRANSCRIPTION_MODEL": "gpt-transcribe"}))
    print(f"{'file':28} {'words':>6} {'median':>7} {'9 of 10':>8} {'worst':>7}")
    found: list[float] = []
    for file in asked.files:
        with tempfile.TemporaryDirectory() as folder:
            sound = audio.decode(file, Path(folder), max_seconds=14_400, tick=nothing)
            off: list[float] = []
            isolated = len(sound.channels) > 1
            for samples in sound.channels:
                runs = voice.runs(samples, isolated=isolated, tick=nothing)
                words = measured(local, samples, runs, isolated, asked.language)
                parts = service.parts([runs], len(samples) / 16_000, isolated=isolated)
                off += [gap for part in parts for gap in differences(samples, part, words, runs)]
        print(row(file.name, off))
        found += off
    print(row("all", found))


def row(name: str, off: Sequence[float]) -> str:
    if not off:
        return f"{name:28} {0:6}"
    return f"{name:28} {len(off):6} {np.median(off):7.2f} {np.quantile(off, 0.9):8.2f} {max(off):7.2f}"


if __name__ == "__main__":
    main()
