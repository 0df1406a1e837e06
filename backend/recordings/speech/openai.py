"""A service that speaks OpenAI's protocol: whisper-1 and servers like it with word times, newer models without."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from backend.config import Config
from backend.recordings.openai_refused import Refused
from backend.recordings.speech.answers import Answer, Timing, counted, heard_part, read_answer
from backend.recordings.speech.base import HeardPart, Part, Segment, Tick
from backend.recordings.speech.cutting import Clips, Cutting, cut, seconds_of, speech_clips
from backend.recordings.speech.encoding import encoded
from backend.recordings.speech.pauses import spoken
from backend.recordings.speech.samples import Samples
from backend.recordings.speech.stitching import stitched
from backend.recordings.speech.timeline import Timeline, timeline
from backend.recordings.speech.voice_activity import Run

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from backend.recordings.openai_service import OpenAIService

# Twenty minutes at 64 kbit/s are 9.6 MB of the 25 MB that OpenAI takes, and less than the 25 min that its newer models take.
_TIMED = Cutting(limit=1200.0, overlap=4.0, clean=float("inf"))
# Without times in the answer a word's time is only as good as the piece is short.
_UNTIMED = Cutting(limit=20.0, overlap=3.0, clean=0.5)
_WORTH_HEARING_AGAIN = 60.0
_GAP_ISOLATED, _GAP_SHARED = 1.0, 2.0
# A server that finds even this much too large takes nothing.
_SHORTEST_SECONDS = 5.0
# What servers answer that do not know the form asked for.
_UNKNOWN_FORM = {400, 404, 415, 422, 501}
_HINTS = re.compile(r"\s*[,;\n]\s*")


def open_engine(config: Config) -> OpenAISpeechEngine:
    """Opens no connection. PermanentError where no key is set."""
    from backend.recordings.openai_service import OpenAIService

    return OpenAISpeechEngine(OpenAIService(config.recordings.openai))


class OpenAISpeechEngine:
    """One request per piece of a channel. Keeps what it learns about the service; one thread at a time."""

    backend = "openai"

    def __init__(self, service: OpenAIService) -> None:
        self.service = service
        self.model = service.settings.transcription_model
        self.timing = _timing_of(self.model)
        # Learned: seconds of sound that the service takes at once, and whether it has answered in the form asked for.
        self.limit = _cutting(self.timing).limit
        self.proven = False

    def parts(self, runs: Sequence[Sequence[Run]], duration: float, *, isolated: bool) -> list[Part]:
        """By the model's name alone, so that a restart cuts as before."""
        gap = _GAP_ISOLATED if isolated else _GAP_SHARED
        return [
            Part(channel, piece, isolated)
            for channel, found in enumerate(runs)
            for piece in cut(speech_clips(found, duration, gap), found, _cutting(_timing_of(self.model)))
        ]

    def language(self, channels: Sequence[Samples], runs: Sequence[Sequence[Run]], tick: Tick) -> str | None:  # noqa: ARG002 - protocol
        """None: the service finds out part by part."""
        return None

    def hear(
        self, samples: Samples, part: Part, runs: Sequence[Run], *, language: str | None, hints: str | None, tick: Tick
    ) -> HeardPart:
        return _Hearing(self, samples, runs, language, hints, tick, seconds_of(part.clips)).of(part.clips)

    def joined(self, parts: Sequence[Part], heard: Sequence[HeardPart]) -> list[Segment]:
        return _joined([part.clips for part in parts], heard)

    def cost(self, usage: dict[str, float], seconds: float) -> float | None:
        """By the minutes that were sent, which are speech alone; `seconds` where nothing was counted."""
        price = self.service.settings.price_per_minute
        return None if price is None else round(usage.get("seconds", seconds) / 60.0 * price, 6)


def _timing_of(model: str) -> Timing:
    """By name: OpenAI's whisper-1 and the servers that speak like it give word times, its newer models none."""
    if "diarize" in model:
        return Timing.TURNS
    return Timing.NONE if _name(model).startswith("gpt-") else Timing.WORDS


def _name(model: str) -> str:
    """Without what a gateway puts before it: `openai/gpt-transcribe`."""
    return model.rpartition("/")[2]


def _cutting(timing: Timing) -> Cutting:
    return _UNTIMED if timing is Timing.NONE else _TIMED


def _joined(clips: Sequence[Clips], heard: Sequence[HeardPart]) -> list[Segment]:
    segments: list[Segment] = []
    for number, said in enumerate(heard):
        segments = stitched(segments, said.segments, clips[number][0][0], clips[number - 1][-1][1] if number else 0.0)
    return segments


class _Untimed(Exception):
    """The service gives no times, or does not know the form of answer that has them."""


@dataclass
class _Hearing:
    """Of one part: in one request, or in several where the service takes no more at once."""

    engine: OpenAISpeechEngine
    samples: Samples
    runs: Sequence[Run]
    language: str | None
    hints: str | None
    tick: Tick
    seconds: float
    done: float = 0.0

    def of(self, clips: Clips) -> HeardPart:
        seconds = seconds_of(clips)
        if seconds > self.engine.limit + 0.01:
            return self._in_pieces(clips)
        try:
            heard = self._heard(clips)
        except _Untimed:
            self.engine.timing, self.engine.limit = Timing.NONE, min(self.engine.limit, _UNTIMED.limit)
            return self.of(clips)
        except Refused as refusal:
            if refusal.status != 413 or seconds <= _SHORTEST_SECONDS:
                raise
            self.engine.limit = max(_SHORTEST_SECONDS, seconds / 2)
            return self.of(clips)
        self.done += seconds
        return heard

    def _in_pieces(self, clips: Clips) -> HeardPart:
        cutting = _cutting(self.engine.timing)
        pieces = cut(clips, self.runs, replace(cutting, limit=self.engine.limit))
        heard = [self.of(piece) for piece in pieces]
        usage: Counter[str] = Counter()
        for piece in heard:
            usage.update(piece.usage)
        language = next((piece.language for piece in heard if piece.language), None)
        return HeardPart(tuple(_joined(pieces, heard)), language, dict(usage))

    def _heard(self, clips: Clips) -> HeardPart:
        line = timeline(clips)
        try:
            answer = self._asked(line)
        except Refused as refusal:
            if refusal.status in _UNKNOWN_FORM and self.engine.timing is not Timing.NONE and not self.engine.proven:
                raise _Untimed from refusal
            raise
        if answer.words or answer.segments:
            self.engine.proven = True
        elif answer.text.strip() and self.engine.timing is not Timing.NONE and line.seconds > _WORTH_HEARING_AGAIN:
            raise _Untimed
        spans = spoken(self.samples, self.runs, clips)
        heard = heard_part(answer, line, spans, language=self.language, hints=self.hints)
        return replace(heard, usage=counted(answer, line.seconds))

    def _asked(self, line: Timeline) -> Answer:
        self._watch()
        sound = encoded(line.pieces(self.samples))
        fields = self._fields()

        async def ask(client: AsyncOpenAI) -> Any:
            file = ("speech.mp3", sound, "audio/mpeg")
            return await client.audio.transcriptions.with_raw_response.create(file=file, **fields)

        return read_answer(self.engine.service.ask(ask, self._watch))

    def _watch(self) -> None:
        self.tick(min(1.0, self.done / self.seconds))

    def _fields(self) -> dict[str, Any]:
        """What each model knows, as its maker documents it; one that is not known gets whisper-1's."""
        model, timing = self.engine.model, self.engine.timing
        fields: dict[str, Any] = {"model": model, "response_format": timing.value}
        if self.language:
            fields["language"] = self.language
        if timing is Timing.WORDS:
            fields["timestamp_granularities"] = ["word", "segment"]
        if timing is Timing.TURNS:
            # Required for more than 30 s; such a model takes no hints.
            return fields | {"chunking_strategy": "auto"}
        if self.hints and _name(model).startswith("gpt-transcribe"):
            fields["keywords"] = [hint for hint in _HINTS.split(self.hints) if hint]
        elif self.hints:
            fields["prompt"] = self.hints
        return fields
