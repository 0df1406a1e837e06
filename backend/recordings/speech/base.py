"""What every speech back end takes and gives. Times are seconds, as floats, from the start of the recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    # The API reads transcripts and has no numpy.
    from backend.recordings.speech.samples import Samples


@dataclass(frozen=True, slots=True)
class Word:
    """One word. `text` keeps its leading space (joined words are the sentence); `confidence` is from 0 to 1."""

    start: float
    end: float
    text: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Segment:
    """What one party said in one go.

    `channel` counts from 0 and is None where channels were mixed; `speaker` is None where nobody knows who spoke;
    `confidence` is the mean of the words'.
    """

    start: float
    end: float
    speaker: str | None
    channel: int | None
    text: str
    words: tuple[Word, ...]
    confidence: float


@dataclass(frozen=True, slots=True)
class Transcript:
    """Segments by start time; those of different channels may overlap. `language` is None where nobody spoke."""

    segments: tuple[Segment, ...]
    language: str | None
    duration_seconds: float
    channels: int
    backend: str
    model: str

    @property
    def text(self) -> str:
        """One line per segment, `speaker: text` where the speaker is known."""
        return "\n".join(f"{said.speaker}: {said.text}" if said.speaker else said.text for said in self.segments)

    def as_json(self) -> list[dict[str, Any]]:
        """The segments as JSON values."""
        return [asdict(said) | {"words": [asdict(word) for word in said.words]} for said in self.segments]


@dataclass(frozen=True, slots=True)
class Heard:
    """What an engine heard: for each channel it was given, its segments by start time, speaker and channel None."""

    language: str | None
    channels: tuple[tuple[Segment, ...], ...]


class SpeechEngine(Protocol):
    """Turns samples into words. Blocking, minutes long, not to be shared between threads."""

    @property
    def backend(self) -> str: ...

    @property
    def model(self) -> str: ...

    def hear(self, channels: Sequence[Samples], *, language: str | None) -> Heard:
        """Transcribe each channel for itself; with more than one, each holds one party only.

        `language` is an ISO 639-1 code, None to detect it once over all channels. No speech gives no segments.
        """
        ...


# A whole file: its path and the parties by channel -> transcript. Raises PermanentError for a file that cannot be read.
Transcriber = Callable[[Path, Sequence[str]], Transcript]


def said(words: Sequence[Word], *, speaker: str | None = None, channel: int | None = None) -> Segment:
    """The segment of some words, at least one."""
    return Segment(
        start=words[0].start,
        end=max(word.end for word in words),
        speaker=speaker,
        channel=channel,
        text="".join(word.text for word in words).strip(),
        words=tuple(words),
        confidence=round(sum(word.confidence for word in words) / len(words), 3),
    )
