"""What a transcription service answers, checked field by field, and what is made of it."""

import json
import math
import zlib
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backend.core.errors import TransientError
from backend.core.redaction import storable
from backend.recordings.speech.base import HeardPart, Segment, Word
from backend.recordings.speech.languages import code_of, language_of
from backend.recordings.speech.timeline import Timeline
from backend.recordings.speech.wording import Span, phrases, spread, worded

_Number = Annotated[float, Field(allow_inf_nan=False)]

# Of words without any measure of their own; of words whose time was only worked out here.
_ASSUMED, _SPREAD = 0.8, 0.5
# Which word stands before a pause is a guess then, so that only a long one ends a sentence.
_SPREAD_PAUSE = 2.0
# As Whisper's own rules have it: a loop, or words made up over silence.
_LOOP, _NO_SPEECH, _UNSURE = 2.4, 0.6, -1.0
# Letters a second: fast speech has 20.
_FASTEST = 40.0


class Timing(StrEnum):
    """The answer's form, and so how good its times are: of each word, of each turn, or none."""

    WORDS = "verbose_json"
    TURNS = "diarized_json"
    NONE = "json"


class _Answered(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Word(_Answered):
    word: str
    start: _Number
    end: _Number


class _Piece(_Answered):
    text: str
    start: _Number
    end: _Number
    avg_logprob: _Number | None = None
    compression_ratio: _Number | None = None
    no_speech_prob: _Number | None = None

    @property
    def invented(self) -> bool:
        unsure = (self.no_speech_prob or 0.0) > _NO_SPEECH and (self.avg_logprob or 0.0) < _UNSURE
        return unsure or (self.compression_ratio or 0.0) > _LOOP

    @property
    def confidence(self) -> float:
        return _ASSUMED if self.avg_logprob is None else round(math.exp(min(0.0, self.avg_logprob)), 3)


class _Language(_Answered):
    code: str


class Answer(_Answered):
    """Any of the three forms; `usage` has the numbers that the service bills by."""

    text: str
    language: str | None = None
    languages: list[_Language] | None = None
    words: list[_Word] | None = None
    segments: list[_Piece] | None = None
    usage: dict[str, Any] | None = None


def read_answer(body: str) -> Answer:
    """TransientError for what is no transcription, such as a proxy's page."""
    try:
        return Answer.model_validate_json(_whole(body))
    except ValidationError as fault:
        first = fault.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise TransientError(
            f"the OpenAI service answered what is no transcription: {where}: {first['msg']}"
        ) from fault


def _whole(body: str) -> str:
    """JSON without halves of surrogate pairs, as a sign has that was cut in two, and which no text can hold."""
    if "\\ud" not in body.lower():
        return body
    try:
        return storable(json.dumps(json.loads(body), ensure_ascii=False))
    except (ValueError, RecursionError):
        return body


def counted(answer: Answer, sent_seconds: float) -> dict[str, float]:
    """`requests`, `seconds` as billed, else as sent, and tokens where the service counts them."""
    usage = {"requests": 1.0, "seconds": round(sent_seconds, 2)}
    for name in ("seconds", "input_tokens", "output_tokens"):
        value = (answer.usage or {}).get(name)
        if isinstance(value, int | float) and math.isfinite(value) and value >= 0:
            usage[name] = float(value)
    return usage


def heard_part(
    answer: Answer, line: Timeline, spans: Sequence[Span], *, language: str | None, hints: str | None
) -> HeardPart:
    """Segments in the recording's time. `spans` are the speech that was sent.

    No speech: the hints alone, which a model echoes over noise, and a loop that is too fast for anybody to say.
    """
    text = answer.text.strip()
    if not text or (hints and text.casefold() == hints.strip().casefold()) or _is_loop(text, spans):
        return HeardPart((), None)
    segments = _segments(answer, line, spans)
    return HeardPart(tuple(segments), language or _language(answer) if segments else None)


def _is_loop(text: str, spans: Sequence[Span]) -> bool:
    seconds = sum(end - start for start, end in spans)
    said = text.encode()
    return len(text) > _FASTEST * max(1.0, seconds) and len(said) / len(zlib.compress(said)) > _LOOP


def _language(answer: Answer) -> str | None:
    named = answer.language or (answer.languages[0].code if answer.languages else None)
    return (code_of(named) if named else None) or language_of(answer.text)


def _segments(answer: Answer, line: Timeline, spans: Sequence[Span]) -> list[Segment]:
    pieces = sorted(answer.segments or (), key=lambda piece: piece.start)
    if answer.words:
        return phrases(_measured(answer.text, answer.words, pieces, line))
    if pieces:
        kept = [piece for piece in pieces if not piece.invented]
        return [segment for piece in kept for segment in phrases(_within(piece, line, spans), pause=_SPREAD_PAUSE)]
    return phrases(spread(answer.text, spans, _SPREAD), pause=_SPREAD_PAUSE)


def _measured(text: str, heard: Sequence[_Word], pieces: Sequence[_Piece], line: Timeline) -> list[Word]:
    """Each no earlier than the one before."""
    words: list[Word] = []
    for word, written in zip(heard, worded(text, [word.word for word in heard]), strict=True):
        middle = (word.start + word.end) / 2
        piece = next((piece for piece in pieces if piece.start <= middle <= piece.end), None)
        if not written.strip() or (piece and piece.invented):
            continue
        placed, end = line.word(word.start, word.end)
        start = max(placed, words[-1].start if words else 0.0)
        words.append(Word(start, max(start, end), written, piece.confidence if piece else _ASSUMED))
    return words


def _within(piece: _Piece, line: Timeline, spans: Sequence[Span]) -> list[Word]:
    """Spread over the speech inside the piece's own times."""
    start, end = line.recorded(piece.start, piece.end)
    inside = [(max(start, first), min(end, last)) for first, last in spans if first < end and last > start]
    return spread(piece.text, inside or [(start, end)], _SPREAD)
