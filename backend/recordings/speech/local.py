"""faster-whisper on this machine, from packaged weights or a model's folder; opens no socket.

Without faster-whisper's own voice detection and without batching: both lose speech on telephone lines.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from backend.core.errors import PermanentError
from backend.recordings.speech.base import HeardPart, Part, Segment, Tick, Word, said
from backend.recordings.speech.clips import blocks
from backend.recordings.speech.samples import SAMPLE_RATE, Samples
from backend.recordings.speech.threads import thread_count
from backend.recordings.speech.voice_activity import Run
from backend.recordings.speech.weights import MODEL_NAME, WeightsMissing, model_folder

Device = Literal["auto", "cpu", "cuda"]

# Pauses shorter than this stay inside a clip. One party's line has long ones, in which Whisper would invent text.
_GAP_ISOLATED, _GAP_SHARED = 1.0, 5.0
_PAD_SHARED = 0.5

# A run of speech this long must have words; otherwise it is heard again alone.
_MUST_HAVE_WORDS = 1.5
_LANGUAGE_SECONDS = 30.0


class UnknownLanguage(PermanentError):
    """The model was not trained for it."""

    code = "unknown_language"


class LocalSpeechEngine:
    """Whisper. Loading base takes about 500 MB and a few seconds: once per process, never before a fork. One thread at a time."""

    backend = "faster-whisper"

    def __init__(
        self, *, threads: int = 0, cache: Path | None = None, model_dir: Path | None = None, device: Device = "cpu"
    ) -> None:
        """`threads` 0 takes what the CPU quota grants. `cache` is where the joined weights are kept.

        `model_dir` is a faster-whisper model of another size; its name becomes the transcripts' model. Raises WeightsMissing.
        """
        self.model = model_dir.name if model_dir else MODEL_NAME
        self._whisper = _load_whisper(_folder(model_dir, cache), thread_count(threads), device)

    def parts(self, runs: Sequence[Sequence[Run]], duration: float, *, isolated: bool) -> list[Part]:  # noqa: ARG002 - protocol
        gap = _GAP_ISOLATED if isolated else _GAP_SHARED
        return [
            Part(channel, tuple((clip.start, clip.end) for clip in block.clips), isolated)
            for channel, found in enumerate(runs)
            for block in blocks(found, gap=gap)
        ]

    def language(self, channels: Sequence[Samples], runs: Sequence[Sequence[Run]], tick: Tick) -> str | None:
        """Of the first half minute of speech, shared among the channels."""
        tick(0.0)
        speech: list[NDArray[np.float32]] = []
        share = _LANGUAGE_SECONDS / max(1, sum(1 for found in runs if found))
        for channel, found in zip(channels, runs, strict=True):
            left = share
            for run in found:
                end = min(run.end, run.start + left)
                speech.append(_floats(channel, run.start, end))
                left -= end - run.start
                if left <= 0:
                    break
        if not speech:
            return None
        language, _, _ = self._whisper.detect_language(audio=np.concatenate(speech))
        return str(language)

    def hear(
        self, samples: Samples, part: Part, runs: Sequence[Run], *, language: str | None, hints: str | None, tick: Tick
    ) -> HeardPart:
        if language is not None and language not in self._whisper.supported_languages:
            raise UnknownLanguage(f"{self.model} does not know the language {language}")
        hearing = _Hearing(self._whisper, samples, language, hints)
        clips = [Run(start, end) for start, end in part.clips]
        heard = clips if part.isolated else _padded(clips, len(samples) / SAMPLE_RATE)
        segments = hearing.clips(heard, runs, tick)
        for run in without_words(_within(runs, clips), segments):
            segments += hearing.clips([run], [run], lambda _: tick(1.0))
        return HeardPart(tuple(sorted(segments, key=lambda segment: segment.start)), hearing.language)

    def joined(self, parts: Sequence[Part], heard: Sequence[HeardPart]) -> list[Segment]:  # noqa: ARG002 - protocol
        return sorted((segment for piece in heard for segment in piece.segments), key=lambda segment: segment.start)

    def cost(self, usage: dict[str, float], seconds: float) -> float | None:  # noqa: ARG002 - protocol
        return None


class _Hearing:
    """One part of a channel being heard. `language` becomes what Whisper found, where none was given."""

    def __init__(self, whisper: Any, samples: Samples, language: str | None, hints: str | None) -> None:
        self.language = language
        self._whisper, self._samples, self._hints = whisper, samples, hints

    def clips(self, clips: Sequence[Run], runs: Sequence[Run], tick: Tick) -> list[Segment]:
        offset, length = clips[0].start, clips[-1].end - clips[0].start
        tick(0.0)
        found, seen = self._whisper.transcribe(
            _floats(self._samples, offset, clips[-1].end),
            language=self.language,
            beam_size=5,
            word_timestamps=True,
            condition_on_previous_text=False,
            vad_filter=False,
            hotwords=self._hints,
            clip_timestamps=[at - offset for clip in clips for at in (clip.start, clip.end)],
        )
        self.language = self.language or str(seen.language)
        segments = []
        for piece in found:
            tick(min(1.0, max(0.0, piece.end / length)) if length else 1.0)
            words = _words(piece, offset, clips)
            if words and not invented(piece, words, runs):
                segments.append(said(words))
        return segments


def _folder(model_dir: Path | None, cache: Path | None) -> Path:
    if model_dir is None:
        return model_folder(cache)
    if not (model_dir / "model.bin").is_file():
        raise WeightsMissing(f"TRANSCRIPTION_MODEL_DIR: {model_dir} holds no model.bin of faster-whisper")
    return model_dir


def _load_whisper(folder: Path, threads: int, device: Device) -> Any:
    # The weights come from a folder; a missing file must be an error, not a download.
    os.environ["HF_HUB_OFFLINE"] = "1"
    from ctranslate2 import get_cuda_device_count
    from faster_whisper import WhisperModel

    if device == "auto":
        device = "cuda" if get_cuda_device_count() else "cpu"
    kind = "int8" if device == "cpu" else "float16"
    return WhisperModel(str(folder), device=device, compute_type=kind, cpu_threads=threads, local_files_only=True)


def _floats(samples: Samples, start: float, end: float) -> NDArray[np.float32]:
    return samples[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)].astype(np.float32) / 32768.0


def _padded(clips: Sequence[Run], duration: float) -> list[Run]:
    return [Run(max(0.0, clip.start - _PAD_SHARED), min(duration, clip.end + _PAD_SHARED)) for clip in clips]


def _within(runs: Sequence[Run], clips: Sequence[Run]) -> list[Run]:
    """What of the runs lies in the clips."""
    return [
        Run(max(run.start, clip.start), min(run.end, clip.end), run.by_level_only)
        for clip in clips
        for run in runs
        if run.start < clip.end and clip.start < run.end
    ]


def _words(piece: Any, offset: float, clips: Sequence[Run]) -> list[Word]:
    """The words in the channel's time, held inside the clip in which they were heard."""
    middle = offset + (piece.start + piece.end) / 2
    clip = min(clips, key=lambda run: max(run.start - middle, middle - run.end))
    words = []
    for word in piece.words or ():
        # numpy's own floats would reach the JSON column.
        start = min(max(float(word.start) + offset, clip.start), clip.end)
        end = min(max(float(word.end) + offset, start), clip.end)
        words.append(Word(round(start, 2), round(end, 2), word.word, round(float(word.probability), 3)))
    return words


def invented(piece: Any, words: Sequence[Word], runs: Sequence[Run]) -> bool:
    """Whether a recognised segment is one of the phrases that Whisper makes up over silence, noise and tones."""
    if piece.compression_ratio > 2.4 or (piece.no_speech_prob > 0.6 and piece.avg_logprob < -1.0):
        return True
    start, end = words[0].start, words[-1].end
    touched = [run for run in runs if run.start < end + 0.2 and start < run.end + 0.2]
    if not touched:
        return bool(piece.no_speech_prob > 0.3 or piece.avg_logprob < -0.8)
    unsure = piece.no_speech_prob > 0.6 or piece.avg_logprob < -1.0
    return bool(unsure and all(run.by_level_only for run in touched))


def without_words(runs: Sequence[Run], segments: Sequence[Segment]) -> list[Run]:
    """Runs longer than 1.5 s in which no word has its middle."""
    middles = np.sort([(word.start + word.end) / 2 for segment in segments for word in segment.words])
    return [
        run
        for run in runs
        if run.end - run.start > _MUST_HAVE_WORDS
        and np.searchsorted(middles, run.start) == np.searchsorted(middles, run.end, side="right")
    ]
