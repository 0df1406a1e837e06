"""faster-whisper on this machine, from packaged weights; opens no socket.

Without faster-whisper's own voice detection and without batching: both lose speech on telephone lines.
"""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.recordings.speech.base import Heard, Segment, Word, said
from backend.recordings.speech.clips import Block, blocks
from backend.recordings.speech.samples import SAMPLE_RATE, Samples
from backend.recordings.speech.threads import thread_count
from backend.recordings.speech.voice_activity import Run, VoiceActivity
from backend.recordings.speech.weights import MODEL_NAME, model_folder

# Pauses shorter than this stay inside a clip. One party's line has long ones, in which Whisper would invent text.
_GAP_ISOLATED, _GAP_SHARED = 1.0, 5.0
_PAD_SHARED = 0.5

# A run of speech this long must have words; otherwise it is heard again alone.
_MUST_HAVE_WORDS = 1.5
_LANGUAGE_SECONDS = 30.0


class LocalSpeechEngine:
    """Whisper base, int8. Loading takes about 500 MB and a few seconds: once per process, never before a fork."""

    backend = "faster-whisper"
    model = MODEL_NAME

    def __init__(self, *, threads: int = 0, cache: Path | None = None) -> None:
        """`threads` 0 takes what the CPU quota grants. `cache` is where the joined weights are kept."""
        self._whisper = _load_whisper(model_folder(cache), thread_count(threads))
        self._voice = VoiceActivity()
        # A task that ran out of time leaves its thread at work; the next one must wait for it.
        self._busy = threading.Lock()

    def hear(self, channels: Sequence[Samples], *, language: str | None) -> Heard:
        with self._busy:
            return self._hear(channels, language)

    def _hear(self, channels: Sequence[Samples], language: str | None) -> Heard:
        isolated = len(channels) > 1
        runs = [self._voice.runs(channel, isolated=isolated) for channel in channels]
        if not any(runs):
            return Heard(None, tuple(() for _ in channels))
        spoken = language or self._language(channels, runs)
        heard = [
            tuple(self._channel(channel, found, spoken, isolated=isolated))
            for channel, found in zip(channels, runs, strict=True)
        ]
        return Heard(spoken, tuple(heard))

    def _language(self, channels: Sequence[Samples], runs: Sequence[Sequence[Run]]) -> str:
        """Of the first half minute of speech, shared among the channels."""
        share = _LANGUAGE_SECONDS / sum(1 for found in runs if found)
        speech: list[NDArray[np.float32]] = []
        for channel, found in zip(channels, runs, strict=True):
            left = share
            for run in found:
                end = min(run.end, run.start + left)
                speech.append(_floats(channel, run.start, end))
                left -= end - run.start
                if left <= 0:
                    break
        language, _, _ = self._whisper.detect_language(audio=np.concatenate(speech))
        return str(language)

    def _channel(self, samples: Samples, runs: list[Run], language: str, *, isolated: bool) -> list[Segment]:
        segments: list[Segment] = []
        for block in blocks(runs, gap=_GAP_ISOLATED if isolated else _GAP_SHARED):
            clips = block.clips if isolated else _padded(block, len(samples) / SAMPLE_RATE)
            segments += self._clips(samples, clips, runs, language)
        for run in without_words(runs, segments):
            segments += self._clips(samples, (run,), [run], language)
        return sorted(segments, key=lambda segment: segment.start)

    def _clips(self, samples: Samples, clips: Sequence[Run], runs: Sequence[Run], language: str) -> list[Segment]:
        offset = clips[0].start
        found, _ = self._whisper.transcribe(
            _floats(samples, offset, clips[-1].end),
            language=language,
            beam_size=5,
            word_timestamps=True,
            condition_on_previous_text=False,
            vad_filter=False,
            clip_timestamps=[at - offset for clip in clips for at in (clip.start, clip.end)],
        )
        segments = []
        for piece in found:
            words = _words(piece, offset, clips)
            if words and not invented(piece, words, runs):
                segments.append(said(words))
        return segments


def _load_whisper(folder: Path, threads: int) -> Any:
    # The weights come from a folder; a missing file must be an error, not a download.
    os.environ["HF_HUB_OFFLINE"] = "1"
    from faster_whisper import WhisperModel

    return WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=threads, local_files_only=True)


def _floats(samples: Samples, start: float, end: float) -> NDArray[np.float32]:
    return samples[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)].astype(np.float32) / 32768.0


def _padded(block: Block, duration: float) -> tuple[Run, ...]:
    return tuple(Run(max(0.0, clip.start - _PAD_SHARED), min(duration, clip.end + _PAD_SHARED)) for clip in block.clips)


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
