"""The real model on real speech."""

import json
import re
import subprocess
import sys
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
from rapidfuzz import fuzz

from backend.recordings.options import TranscribeOptions
from backend.recordings.pipeline import FolderCheckpoints, Tools, run
from backend.recordings.sound.unreadable import SilentAudio
from backend.recordings.speech.base import Segment, Transcript, Word, said
from backend.recordings.speech.local import LocalSpeechEngine, UnknownLanguage, invented, without_words
from backend.recordings.speech.voice_activity import Run
from tests.recordings.sounds import AUSTEN, JFK, noise, silence, tone, write_wav

Hear = Callable[..., Transcript]

AGENT_SAYS = (
    "thank you for calling platinum motors",
    "how can i help you today",
    "so sorry for the inconvenience",
    "what was your last name",
    "look you up in the system",
)
CUSTOMER_SAYS = ("two weeks ago", "from your dealership", "service light came on", "my last name is")

# Speech in seconds, measured on the clean channels.
AGENT_SPEAKS = ((0.35, 5.85), (6.55, 6.81), (44.83, 50.83), (56.93, 58.03))
CUSTOMER_SPEAKS = (
    (6.81, 9.51),
    (10.09, 13.13),
    (14.09, 18.49),
    (19.27, 19.91),
    (21.09, 22.33),
    (23.31, 26.21),
    (26.67, 29.51),
    (29.93, 31.03),
    (31.71, 32.25),
    (32.89, 36.81),
    (37.45, 42.71),
    (51.79, 52.53),
    (53.51, 56.05),
)


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^a-z0-9']", " ", text.lower()).split())


def _of(call: Transcript, speaker: str) -> list[Segment]:
    return [segment for segment in call.segments if segment.speaker == speaker]


def _text(segments: list[Segment]) -> str:
    return _plain(" ".join(segment.text for segment in segments))


def _found(phrases: tuple[str, ...], text: str) -> float:
    return sum(fuzz.partial_ratio(phrase, text) >= 80 for phrase in phrases) / len(phrases)


def test_each_party_of_a_call_is_heard_on_its_own_channel(call: Transcript) -> None:
    assert {(segment.speaker, segment.channel) for segment in call.segments} == {("agent", 0), ("customer", 1)}
    assert _found(AGENT_SAYS, _text(_of(call, "agent"))) >= 0.8
    assert _found(CUSTOMER_SAYS, _text(_of(call, "customer"))) >= 0.8


@pytest.mark.parametrize(("speaker", "speaks"), [("agent", AGENT_SPEAKS), ("customer", CUSTOMER_SPEAKS)])
def test_no_word_lands_on_the_wrong_channel(
    call: Transcript, speaker: str, speaks: tuple[tuple[float, float], ...]
) -> None:
    middles = [(word.start + word.end) / 2 for segment in _of(call, speaker) for word in segment.words]
    assert [at for at in middles if not any(start - 0.5 < at < end + 0.5 for start, end in speaks)] == []


@pytest.mark.parametrize(("speaker", "speaks"), [("agent", AGENT_SPEAKS), ("customer", CUSTOMER_SPEAKS)])
def test_segments_cover_the_speech_of_each_party(
    call: Transcript, speaker: str, speaks: tuple[tuple[float, float], ...]
) -> None:
    covered = sum(
        max(0.0, min(end, segment.end) - max(start, segment.start))
        for start, end in speaks
        for segment in _of(call, speaker)
    )
    assert covered / sum(end - start for start, end in speaks) >= 0.85


def test_a_call_reads_in_the_order_it_was_spoken(call: Transcript) -> None:
    starts = [segment.start for segment in call.segments]
    assert starts == sorted(starts)
    assert [segment.speaker for segment in call.segments][:2] == ["agent", "customer"]
    assert call.text.startswith("agent: Thank you for calling")


def test_times_lie_inside_the_recording_and_words_inside_their_segment(call: Transcript) -> None:
    assert call.duration_seconds == pytest.approx(58.2, abs=0.01)
    for segment in call.segments:
        assert 0 <= segment.start <= segment.end <= call.duration_seconds
        assert all(segment.start <= word.start <= word.end <= segment.end for word in segment.words)
        assert "".join(word.text for word in segment.words).strip() == segment.text
        assert 0 < segment.confidence <= 1


def test_the_language_is_detected_and_what_heard_it_is_named(call: Transcript) -> None:
    assert (call.language, call.channels) == ("en", 2)
    assert (call.backend, call.model) == ("faster-whisper", "whisper-base-int8")


def test_a_transcript_is_json(call: Transcript) -> None:
    segments = json.loads(json.dumps(call.as_json()))
    assert set(segments[0]) == {"start", "end", "speaker", "channel", "text", "words", "confidence"}
    assert set(segments[0]["words"][0]) == {"start", "end", "text", "confidence"}


def test_one_speaker_is_heard_as_well_as_by_the_bare_model(hear: Hear, engine: LocalSpeechEngine) -> None:
    references, ours, bare = [], [], []
    for path in (JFK, AUSTEN):
        references.append(_plain(path.with_suffix(".txt").read_text()))
        ours.append(_plain(hear(path).text))
        found, _ = engine._whisper.transcribe(
            str(path), language="en", beam_size=5, condition_on_previous_text=False, vad_filter=False
        )
        bare.append(_plain(" ".join(piece.text for piece in found)))
    assert jiwer.wer(references, ours) <= 1.15 * jiwer.wer(references, bare) + 1e-9
    assert jiwer.wer(references, ours) < 0.05


@pytest.mark.parametrize(
    "sound",
    [noise(5.0), noise(5.0, level=0.002), noise(0.1), tone(2 / 16_000)],
    ids=["loud noise", "quiet noise", "a tenth of a second", "two samples"],
)
def test_where_nobody_speaks_nothing_is_written(hear: Hear, tmp_path: Path, sound: np.ndarray) -> None:
    heard = hear(write_wav(tmp_path / "x.wav", sound), language=None)
    assert (heard.segments, heard.language, heard.text) == ((), None, "")


def test_digital_silence_is_told_from_a_room_in_which_nobody_speaks(hear: Hear, tmp_path: Path) -> None:
    with pytest.raises(SilentAudio, match="digital silence"):
        hear(write_wav(tmp_path / "x.wav", silence(5.0), silence(5.0)))


def test_a_tone_on_a_clean_line_is_no_speech(hear: Hear, tmp_path: Path) -> None:
    ring = np.concatenate([tone(1.0), silence(3.0)])
    heard = hear(write_wav(tmp_path / "ring.wav", ring, np.roll(ring, 30_000)), "agent", "customer")
    assert heard.text == ""


def test_a_customer_who_never_speaks_leaves_the_agent_named(hear: Hear, tmp_path: Path) -> None:
    with wave.open(str(AUSTEN), "rb") as file:
        speech = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    heard = hear(write_wav(tmp_path / "x.wav", speech, np.zeros_like(speech)), "agent", "customer")
    assert {(segment.speaker, segment.channel) for segment in heard.segments} == {("agent", 0)}
    assert "young man" in _plain(heard.text)


_ALONE = """
import os, sys
opened = []
sys.addaudithook(lambda event, _: opened.append(event) if event.startswith("socket.") else None)
from pathlib import Path
from backend.recordings import service
assert not {"numpy", "av"} & set(sys.modules), "the API has neither"
from backend.recordings import pipeline
from backend.recordings.work import running
from backend.recordings.options import TranscribeOptions
from backend.recordings.speech import local
assert not {"torch", "faster_whisper", "ctranslate2", "onnxruntime"} & set(sys.modules), "imported too early"
import torch
torch.set_num_threads(2)
engine = local.LocalSpeechEngine(cache=Path(sys.argv[2]))
opened.clear()
tools = pipeline.Tools(engines={"local": lambda: engine}, open_diarizer=None, open_summarizer=None)
text = pipeline.run(
    Path(sys.argv[1]),
    tools,
    options=TranscribeOptions(diarization=False, summary=False),
    work=Path(sys.argv[2]) / "work",
    checkpoints=pipeline.FolderCheckpoints(Path(sys.argv[2]) / "checkpoints"),
    observe=lambda stage, share: None,
).transcript.text
assert "young man" in text, text
assert not opened, opened
assert not [fd for fd in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{fd}")
            and os.readlink(f"/proc/self/fd/{fd}").startswith("socket")]
assert "onnxruntime" not in sys.modules
assert torch.get_num_threads() == 2
"""


def test_no_socket_is_opened_nothing_heavy_is_imported_early_and_torch_keeps_its_threads(
    engine: LocalSpeechEngine, tmp_path: Path
) -> None:
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", _ALONE, str(AUSTEN), str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr


def test_hints_are_taken_and_a_language_that_the_model_lacks_is_refused(
    engine: LocalSpeechEngine, tools: Tools, tmp_path: Path
) -> None:
    def heard(**asked: Any) -> str:
        return run(
            AUSTEN,
            tools,
            options=TranscribeOptions(summary=False, **asked),
            work=tmp_path / "work",
            checkpoints=FolderCheckpoints(tmp_path / "checkpoints"),
            observe=lambda *_: None,
        ).transcript.text

    assert "young man" in _plain(heard(language="en", hints="Willoughby, Marianne"))
    with pytest.raises(UnknownLanguage, match="does not know the language zz"):
        heard(language="zz")


@dataclass
class Piece:
    """What faster-whisper says of a segment."""

    no_speech_prob: float = 0.1
    avg_logprob: float = -0.3
    compression_ratio: float = 1.2


WORDS = [Word(2.0, 2.5, " Thank", 0.9), Word(2.5, 3.0, " you.", 0.9)]
SPEECH = [Run(1.5, 4.0)]


@pytest.mark.parametrize(
    ("piece", "runs", "expected"),
    [
        (Piece(), SPEECH, False),
        (Piece(no_speech_prob=0.9), SPEECH, False),
        (Piece(compression_ratio=3.0), SPEECH, True),
        (Piece(no_speech_prob=0.7, avg_logprob=-1.1), SPEECH, True),
        (Piece(no_speech_prob=0.4), [Run(9, 10)], True),
        (Piece(avg_logprob=-0.9), [Run(9, 10)], True),
        (Piece(), [Run(9, 10)], False),
        (Piece(avg_logprob=-1.2), [Run(1.5, 4.0, by_level_only=True)], True),
        (Piece(), [Run(1.5, 4.0, by_level_only=True)], False),
    ],
)
def test_made_up_phrases_are_told_from_speech(piece: Piece, runs: list[Run], expected: bool) -> None:
    assert invented(piece, WORDS, runs) is expected


def test_only_long_runs_without_a_word_are_heard_again() -> None:
    runs = [Run(0, 1.2), Run(1.8, 3.2), Run(5, 9), Run(10, 12)]
    heard = [said([Word(10.5, 11.0, " yes", 0.9)]), said(WORDS)]
    assert without_words(runs, heard) == [Run(5, 9)]
