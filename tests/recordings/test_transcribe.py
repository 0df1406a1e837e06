from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from backend.recordings.speech.base import Heard, Segment, Word, said
from backend.recordings.speech.samples import Samples
from backend.recordings.transcribe import transcribe_file
from tests.recordings.sounds import noise, silence, write_wav


def _spoken(*words: tuple[float, float, str]) -> Segment:
    return said([Word(start, end, f" {text}", 0.9) for start, end, text in words])


@dataclass
class Scripted:
    """An engine that hears what it is told, per channel."""

    script: Sequence[tuple[Segment, ...]]
    backend: str = "scripted"
    model: str = "none"
    given: list[int] = field(default_factory=list)
    languages: list[str | None] = field(default_factory=list)

    def hear(self, channels: Sequence[Samples], *, language: str | None) -> Heard:
        self.given.append(len(channels))
        self.languages.append(language)
        return Heard(language or "en", tuple(self.script))


def _two_parties(folder: Path) -> Path:
    left, right = noise(2.0), noise(2.0, seed=2)
    return write_wav(folder / "call.wav", np.concatenate([left, silence(2.0)]), np.concatenate([silence(2.0), right]))


def test_what_one_party_says_in_the_others_pause_comes_between(tmp_path: Path) -> None:
    agent = _spoken((0.0, 0.5, "Your"), (0.5, 1.0, "policy"), (2.5, 3.0, "ends"), (3.0, 3.4, "Friday."))
    customer = _spoken((1.2, 1.6, "Yes?"))
    engine = Scripted([(agent,), (customer,)])
    heard = transcribe_file(engine, _two_parties(tmp_path), ["agent", "customer"])
    assert heard.text == "agent: Your policy\ncustomer: Yes?\nagent: ends Friday."
    assert [segment.channel for segment in heard.segments] == [0, 1, 0]
    assert engine.given == [2]


def test_parties_without_names_keep_their_channel(tmp_path: Path) -> None:
    engine = Scripted(
        [
            (
                _spoken(
                    (0.0, 1.0, "One"),
                ),
            ),
            (
                _spoken(
                    (2.0, 3.0, "two"),
                ),
            ),
        ]
    )
    heard = transcribe_file(engine, _two_parties(tmp_path), ["agent"])
    assert [(segment.speaker, segment.channel) for segment in heard.segments] == [("agent", 0), (None, 1)]


def test_nobody_is_named_where_channels_were_mixed(tmp_path: Path) -> None:
    engine = Scripted([(_spoken((0.0, 1.0, "Hello")),)])
    both = noise(2.0)
    heard = transcribe_file(engine, write_wav(tmp_path / "x.wav", both, both), ["agent", "customer"])
    assert [(segment.speaker, segment.channel) for segment in heard.segments] == [(None, None)]
    assert (engine.given, heard.channels) == ([1], 2)


def test_the_only_speaker_of_a_voice_note_is_named(tmp_path: Path) -> None:
    engine = Scripted([(_spoken((0.0, 1.0, "Remember"), (5.0, 6.0, "milk.")),)])
    heard = transcribe_file(engine, write_wav(tmp_path / "x.wav", noise(2.0)), ["me"], language="de")
    assert heard.text == "me: Remember milk."
    assert (heard.language, engine.languages) == ("de", ["de"])
