"""What every speech back end takes and gives. Times are seconds, as floats, from the start of the recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from backend.core.redaction import storable

if TYPE_CHECKING:
    # The API reads transcripts and has no numpy.
    from backend.recordings.speech.samples import Samples
    from backend.recordings.speech.voice_activity import Run


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


class Cancelled(Exception):
    """Somebody asked for the work to stop."""


# Called at least every few seconds of long work with the share that is done (0 to 1); raises Cancelled to stop it.
Tick = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Part:
    """What an engine hears in one go: clips of speech (start, end) of one channel, in seconds from the recording's start.

    Parts of a channel may overlap where an engine cuts that way; `isolated`: the channel holds one party and nothing else.
    """

    channel: int
    clips: tuple[tuple[float, float], ...]
    isolated: bool

    @property
    def start(self) -> float:
        return self.clips[0][0]

    @property
    def end(self) -> float:
        return self.clips[-1][1]


@dataclass(frozen=True, slots=True)
class HeardPart:
    """Of one part: segments by start time in the recording's time, speaker and channel None. `usage` as the service counts."""

    segments: tuple[Segment, ...]
    language: str | None
    usage: dict[str, float] = field(default_factory=dict)


class SpeechEngine(Protocol):
    """Turns samples into words, part by part, so that a part that is done need not be heard again. Blocking.

    Raises PermanentError for what no second try mends, TransientError for a service that is away.
    """

    @property
    def backend(self) -> str: ...

    @property
    def model(self) -> str: ...

    def parts(self, runs: Sequence[Sequence[Run]], duration: float, *, isolated: bool) -> list[Part]:
        """How to cut the speech (`runs` by channel); the same runs give the same parts. No speech, no parts."""
        ...

    def language(self, channels: Sequence[Samples], runs: Sequence[Sequence[Run]], tick: Tick) -> str | None:
        """The ISO 639-1 code of what is spoken, once over all channels; None where `hear` finds out by itself."""
        ...

    def hear(
        self, samples: Samples, part: Part, runs: Sequence[Run], *, language: str | None, hints: str | None, tick: Tick
    ) -> HeardPart:
        """Transcribe one part of a channel; `samples` and `runs` are the whole channel's."""
        ...

    def joined(self, parts: Sequence[Part], heard: Sequence[HeardPart]) -> list[Segment]:
        """One channel's segments by start time, out of its parts; what two overlapping parts both heard stands once."""
        ...

    def cost(self, usage: dict[str, float], seconds: float) -> float | None:
        """US dollars for a transcription; None where nothing is paid or no price is known."""
        ...


@dataclass(frozen=True, slots=True)
class Turn:
    """Somebody speaks from `start` to `end`; `speaker` counts from 0 by first appearance. Turns may overlap."""

    start: float
    end: float
    speaker: int


@dataclass(frozen=True, slots=True)
class SpeakerCount:
    """How many speakers there may be; both the same where the number is known."""

    low: int = 1
    high: int = 20


class Diarizer(Protocol):
    """Tells speakers of one channel apart. Blocking."""

    @property
    def model(self) -> str: ...

    def turns(self, samples: Samples, runs: Sequence[Run], count: SpeakerCount, tick: Tick) -> list[Turn]:
        """Turns by start time. No speech gives none."""
        ...


def said(words: Sequence[Word], *, speaker: str | None = None, channel: int | None = None) -> Segment:
    """The segment of some words, at least one; signs that PostgreSQL does not take are replaced."""
    words = tuple(replace(word, text=storable(word.text)) for word in words)
    return Segment(
        start=words[0].start,
        end=max(word.end for word in words),
        speaker=speaker,
        channel=channel,
        text="".join(word.text for word in words).strip(),
        words=words,
        confidence=round(sum(word.confidence for word in words) / len(words), 3),
    )
