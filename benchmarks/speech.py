"""How well and how fast recordings are transcribed, beside bare faster-whisper with the same weights in the same run.

Each side hears every file in a process of its own: `bare` is Whisper base, int8, beam 5, without conditioning on earlier
text, on the recording mixed to one channel; `beatline` is the whole pipeline without a summary, which also finds the times of
words. Counted are word error rate, diarization error rate (overlap scored, 0.25 s each side of a change left out), words given to
the right speaker, key phrases and coverage per channel, processor seconds per second of sound, real-time factor (both with the
models loaded before) and peak memory. Without folders it takes benchmarks/audio.

A folder holds recordings and, under the same name, any of: NAME.txt (what is said), NAME.rttm (who speaks when), NAME.json
with `turns` (speaker, text) or with `channels` (channel, must_contain).

    PYTHONPATH=. .venv/bin/python benchmarks/speech.py [FOLDER ...] [--language en] [--only NAME] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rapidfuzz import fuzz

from backend.recordings.speech.base import Segment
from benchmarks.speech_scores import (
    SpeakerWords,
    Spoken,
    TurnErrors,
    WordErrors,
    speaker_words,
    turn_errors,
    word_errors,
)

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = (
    *("recording", "s", "WER %", "bare WER %", "DER %", "speakers", "right speaker %"),
    *("cpu/s", "bare cpu/s", "RTF", "peak MB", "bare MB"),
)
SOUNDS = {".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus", ".webm", ".amr", ".mp4"}


@dataclass(frozen=True, slots=True)
class Sample:
    """A recording and what is known of it; None where nothing is."""

    path: Path
    text: str | None
    turns: list[tuple[str, str]] | None
    spoken: list[Spoken] | None
    phrases: dict[int, tuple[str, list[str]]] | None

    @property
    def name(self) -> str:
        return self.path.stem


@dataclass(frozen=True, slots=True)
class Said:
    """`middles` are the middles of its words."""

    start: float
    end: float
    speaker: str
    channel: int | None
    text: str
    middles: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Heard:
    """What one side made of a file. `cpu`, `wall` in seconds; `peak_mb` is the process's so far."""

    segments: list[Said]
    turns: list[Spoken]
    seconds: float
    cpu: float
    wall: float
    peak_mb: float

    @property
    def text(self) -> str:
        return " ".join(piece.text for piece in self.segments)


@dataclass
class Scores:
    """Of one file; None where there is no reference for it."""

    name: str
    seconds: float
    cpu: float
    wall: float
    peak_mb: float
    bare_cpu: float
    bare_peak_mb: float
    words: WordErrors | None = None
    bare_words: WordErrors | None = None
    turns: TurnErrors | None = None
    speakers_found: int = 0
    speakers_true: int = 0
    right_speaker: SpeakerWords | None = None
    phrases: list[float] = field(default_factory=list)
    wrong_channel: int | None = None
    covered: list[float] = field(default_factory=list)


def samples_in(folder: Path) -> Iterator[Sample]:
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SOUNDS:
            yield _sample(path)


def _sample(path: Path) -> Sample:
    text, known, rttm = (path.with_suffix(suffix) for suffix in (".txt", ".json", ".rttm"))
    more: dict[str, Any] = json.loads(known.read_text()) if known.exists() else {}
    turns = [(turn["speaker"], turn["text"]) for turn in more["turns"]] if "turns" in more else None
    said = text.read_text() if text.exists() else None
    if turns is not None and said is None:
        said = " ".join(words for _, words in turns)
    phrases = (
        {each["channel"]: (each["speaker"], each["must_contain"]) for each in more["channels"]}
        if "channels" in more
        else None
    )
    return Sample(path, said, turns, _rttm(rttm) if rttm.exists() else None, phrases)


def _rttm(path: Path) -> list[Spoken]:
    rows = [line.split() for line in path.read_text().splitlines() if line.startswith("SPEAKER")]
    return [Spoken(float(row[3]), float(row[3]) + float(row[4]), row[7]) for row in rows]


def hear_bare(paths: Sequence[Path], language: str | None) -> list[Heard]:
    from faster_whisper import WhisperModel, decode_audio

    from backend.recordings.speech.threads import thread_count
    from backend.recordings.speech.weights import model_folder

    os.environ["HF_HUB_OFFLINE"] = "1"
    whisper = WhisperModel(str(model_folder()), device="cpu", compute_type="int8", cpu_threads=thread_count())

    def hear(path: Path) -> tuple[list[Said], list[Spoken], float]:
        found, about = whisper.transcribe(
            decode_audio(str(path)), language=language, beam_size=5, condition_on_previous_text=False
        )
        return [Said(each.start, each.end, "", None, each.text) for each in found], [], about.duration

    return [_measured(hear, path) for path in paths]


def hear_beatline(paths: Sequence[Path], language: str | None) -> list[Heard]:
    from backend.config import load
    from backend.recordings.models import Stage
    from backend.recordings.options import TranscribeOptions
    from backend.recordings.pipeline import FolderCheckpoints, open_tools, run

    tools = open_tools(load(os.environ))
    _ = tools.engine(), tools.voice(), tools.diarizer()
    options = TranscribeOptions(language=language, summary=False)

    def hear(path: Path) -> tuple[list[Said], list[Spoken], float]:
        with tempfile.TemporaryDirectory() as folder:
            kept = FolderCheckpoints(Path(folder) / "kept")
            work = Path(folder) / "work"
            work.mkdir()
            result = run(path, tools, options=options, work=work, checkpoints=kept, observe=lambda *_: None)
            told = kept.load(Stage.SPEAKERS, 0)
        said = [_said(piece) for piece in result.transcript.segments]
        turns = [Spoken(start, end, str(speaker)) for start, end, speaker in told["value"]["turns"]] if told else []
        return said, turns, result.transcript.duration_seconds

    return [_measured(hear, path) for path in paths]


def _said(piece: Segment) -> Said:
    middles = tuple(round((word.start + word.end) / 2, 3) for word in piece.words)
    return Said(piece.start, piece.end, piece.speaker or "", piece.channel, piece.text, middles)


def _measured(hear: Callable[[Path], tuple[list[Said], list[Spoken], float]], path: Path) -> Heard:
    cpu, wall = time.process_time(), time.monotonic()
    segments, turns, seconds = hear(path)
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    return Heard(segments, turns, seconds, cpu, wall, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def scored(sample: Sample, heard: Heard, bare: Heard) -> Scores:
    scores = Scores(sample.name, heard.seconds, heard.cpu, heard.wall, heard.peak_mb, bare.cpu, bare.peak_mb)
    if sample.text is not None:
        scores.words, scores.bare_words = word_errors(sample.text, heard.text), word_errors(sample.text, bare.text)
    if sample.turns is not None:
        said = [(piece.speaker, piece.text) for piece in heard.segments]
        scores.right_speaker = speaker_words(sample.turns, said)
    if sample.phrases is not None and sample.spoken is not None:
        _score_channels(sample.phrases, sample.spoken, heard.segments, scores)
    elif sample.spoken is not None:
        scores.turns = turn_errors(sample.spoken, heard.turns)
        scores.speakers_found = len({turn.speaker for turn in heard.turns})
        scores.speakers_true = len({turn.speaker for turn in sample.spoken})
    return scores


def _score_channels(
    phrases: dict[int, tuple[str, list[str]]], spoken: Sequence[Spoken], said: Sequence[Said], scores: Scores
) -> None:
    scores.wrong_channel = 0
    for channel, (speaker, wanted) in phrases.items():
        own = [piece for piece in said if piece.channel == channel]
        text = " ".join(piece.text for piece in own).lower()
        scores.phrases.append(sum(fuzz.partial_ratio(phrase, text) >= 80 for phrase in wanted) / len(wanted))
        speech = [turn for turn in spoken if turn.speaker == speaker]
        total = sum(turn.end - turn.start for turn in speech)
        covered = sum(
            max(0.0, min(turn.end, piece.end) - max(turn.start, piece.start)) for turn in speech for piece in own
        )
        scores.covered.append(covered / total)
        scores.wrong_channel += sum(
            not any(turn.start - 0.5 < at < turn.end + 0.5 for turn in speech) for piece in own for at in piece.middles
        )


@dataclass(frozen=True, slots=True)
class Goal:
    """Met where `value` is on the right side of `must`; `aim` is what one hopes for."""

    name: str
    value: float
    must: float
    aim: float
    unit: str
    least: bool = False

    def line(self) -> str:
        good = [self.value >= bound if self.least else self.value <= bound for bound in (self.must, self.aim)]
        word = "MISSED" if not good[0] else "met, aim too" if good[1] else "met"
        sign = ">=" if self.least else "<="
        return f"| {self.name} | {self.value:.3g} {self.unit} | {sign} {self.must:g} | {sign} {self.aim:g} | {word} |"


def goals(scores: Sequence[Scores]) -> Iterator[Goal]:
    ours, bare = _pooled([each.words for each in scores]), _pooled([each.bare_words for each in scores])
    if bare:
        yield Goal("word errors, share of bare", ours / bare, 1.15, 1.0, "x")
    for each in scores:
        if each.phrases:
            yield Goal(f"{each.name}: key phrases, worse channel", 100 * min(each.phrases), 80, 90, "%", least=True)
            yield Goal(f"{each.name}: words on the wrong channel", each.wrong_channel or 0, 0, 0, "")
            yield Goal(f"{each.name}: speech covered, worse channel", 100 * min(each.covered), 85, 93, "%", least=True)
        if each.turns is not None:
            must, aim = (30, 20) if "meeting" in each.name else (12, 5) if "synth" in each.name else (10, 3)
            yield Goal(f"{each.name}: DER", 100 * each.turns.rate, must, aim, "%")
        if each.right_speaker is not None:
            yield Goal(
                f"{each.name}: words with the right speaker", 100 * each.right_speaker.rate, 88, 95, "%", least=True
            )
    yield Goal(
        "processor time, share of bare", sum(s.cpu for s in scores) / sum(s.bare_cpu for s in scores), 2.0, 1.5, "x"
    )
    short = [each.peak_mb for each in scores if each.seconds <= 45]
    if short:
        yield Goal("peak memory up to 45 s of sound", max(short) / 1000, 1.3, 1.0, "GB")


def _pooled(errors: Sequence[WordErrors | None]) -> float:
    known = [each for each in errors if each is not None]
    return sum(each.wrong for each in known) / max(1, sum(each.words for each in known))


def _percent(value: WordErrors | TurnErrors | SpeakerWords | None) -> str:
    return "" if value is None else f"{100 * value.rate:.1f}"


def report(scores: Sequence[Scores]) -> Iterator[str]:
    yield f"| {' | '.join(COLUMNS)} |"
    yield "| --- " * len(COLUMNS) + "|"
    for each in scores:
        count = f"{each.speakers_found} of {each.speakers_true}" if each.turns else ""
        figures = [
            each.name,
            f"{each.seconds:.0f}",
            _percent(each.words),
            _percent(each.bare_words),
            _percent(each.turns),
            count,
        ]
        figures += [
            _percent(each.right_speaker),
            f"{each.cpu / each.seconds:.3f}",
            f"{each.bare_cpu / each.seconds:.3f}",
        ]
        figures += [f"{each.wall / each.seconds:.2f}", f"{each.peak_mb:.0f}", f"{each.bare_peak_mb:.0f}"]
        yield "| " + " | ".join(figures) + " |"
    words = [each for each in scores if each.words is not None]
    if words:
        pooled = _pooled([each.words for each in words]), _pooled([each.bare_words for each in words])
        yield f"\nPooled WER {100 * pooled[0]:.2f} %, bare {100 * pooled[1]:.2f} %."
    yield "\n| goal | found | must | aim | |\n| --- | --- | --- | --- | --- |"
    yield from (goal.line() for goal in goals(scores))


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy and speed of transcription beside bare faster-whisper.")
    parser.add_argument("folders", nargs="*", type=Path, default=[ROOT / "benchmarks" / "audio"])
    parser.add_argument("--language", default="en", help="what is spoken; empty to detect it")
    parser.add_argument("--only", default="", help="recordings whose name contains this")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    samples = [each for folder in options.folders for each in samples_in(folder) if options.only in each.name]
    # The short ones first: a process's peak only ever grows.
    samples.sort(key=lambda each: each.path.stat().st_size)
    paths = [each.path for each in samples]
    heard = []
    for side in (hear_beatline, hear_bare):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            heard.append(process.submit(side, paths, options.language or None).result())
    scores = [scored(*each) for each in zip(samples, *heard, strict=True)]
    print(f"load {os.getloadavg()[0]:.1f}, {len(samples)} recordings, {sum(each.seconds for each in scores):.0f} s\n")
    print("\n".join(report(scores)))
    if options.json:
        texts = {
            sample.name: [asdict(piece) for piece in each.segments]
            for sample, each in zip(samples, heard[0], strict=True)
        }
        options.json.write_text(json.dumps({"scores": [asdict(each) for each in scores], "texts": texts}, indent=1))


if __name__ == "__main__":
    main()
