"""A transcript as a document, and the document as a file: plain text, subtitles (SRT, WebVTT), JSON.

Nothing here needs a database: the command line writes with it what it has just heard. Offsets are seconds.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from backend.recordings.library.captions import as_srt, as_vtt
from backend.recordings.speech.base import Transcript, Word

# Of the JSON file; another number where a reader of this one would stumble.
SCHEMA = "beatline.transcript/1"


@dataclass(frozen=True, slots=True)
class Line:
    """A segment as it stands now. `speaker` is a label, `name` what people call them; `words` only where they are the text."""

    number: int
    start: float
    end: float
    speaker: str | None
    name: str | None
    channel: int | None
    text: str
    confidence: float | None = None
    version: int = 1
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class Party:
    label: str
    name: str
    spoken_seconds: float


@dataclass(frozen=True, slots=True)
class Abstract:
    """`backend` wrote it: openai or extractive."""

    title: str
    summary: str
    action_items: tuple[str, ...]
    backend: str
    model: str | None


@dataclass(frozen=True, slots=True)
class Document:
    """All that an export says. `recording_id` and `recorded_at` are None for a file that was never uploaded."""

    title: str | None
    language: str | None
    duration_seconds: float | None
    backend: str
    model: str
    diarizer: str | None
    parties: tuple[Party, ...]
    lines: tuple[Line, ...]
    abstract: Abstract | None = None
    recording_id: str | None = None
    recorded_at: datetime | None = None


def document_of(
    transcript: Transcript,
    *,
    speakers: Sequence[tuple[str, float]] = (),
    title: str | None = None,
    diarizer: str | None = None,
    abstract: Abstract | None = None,
) -> Document:
    """Of what was just heard; `speakers` are labels and spoken seconds."""
    lines = tuple(
        Line(
            number,
            said.start,
            said.end,
            said.speaker,
            said.speaker,
            said.channel,
            said.text,
            said.confidence,
            1,
            said.words,
        )
        for number, said in enumerate(transcript.segments)
    )
    return Document(
        title=title,
        language=transcript.language,
        duration_seconds=transcript.duration_seconds,
        backend=transcript.backend,
        model=transcript.model,
        diarizer=diarizer,
        parties=tuple(Party(label, label, spoken) for label, spoken in speakers),
        lines=lines,
        abstract=abstract,
    )


def as_json(document: Document) -> str:
    """docs/operations/transcript.schema.json describes it. A line's end at its end."""
    body = {
        "schema": SCHEMA,
        "id": document.recording_id,
        "title": document.title,
        "recorded_at": document.recorded_at.isoformat() if document.recorded_at else None,
        "language": document.language,
        "duration_seconds": document.duration_seconds,
        "engine": {"backend": document.backend, "model": document.model, "diarizer": document.diarizer},
        "speakers": [asdict(party) for party in document.parties],
        "summary": asdict(document.abstract) if document.abstract else None,
        "segments": [_segment(line) for line in document.lines],
    }
    return json.dumps(body, ensure_ascii=False, indent=1) + "\n"


def _segment(line: Line) -> dict[str, Any]:
    words = [
        {
            "start": round(word.start, 3),
            "end": round(word.end, 3),
            "text": word.text,
            "confidence": round(word.confidence, 3),
        }
        for word in line.words
    ]
    return {
        "number": line.number,
        "start": round(line.start, 3),
        "end": round(line.end, 3),
        "speaker": line.speaker,
        "name": line.name,
        "channel": line.channel,
        "text": line.text,
        "confidence": line.confidence,
        "version": line.version,
        "words": words,
    }


def as_txt(document: Document) -> str:
    """A paragraph for each turn, `[h:mm:ss] Name: text`; nothing but a title where nobody spoke."""
    paragraphs = [document.title] if document.title else []
    spoken = [line for line in document.lines if line.text.strip()]
    for (_, name), turn in groupby(spoken, key=lambda line: (line.speaker, line.name)):
        said = list(turn)
        words = " ".join(" ".join(line.text.split()) for line in said)
        paragraphs.append(
            f"[{_clock(said[0].start)}] {name}: {words}" if name else f"[{_clock(said[0].start)}] {words}"
        )
    return "\n\n".join(paragraphs) + "\n" if paragraphs else ""


def _clock(seconds: float) -> str:
    whole = int(max(0.0, seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


WRITERS: dict[str, Callable[[Document], str]] = {
    "json": as_json,
    "txt": as_txt,
    "srt": lambda document: as_srt(document.lines),
    "vtt": lambda document: as_vtt(document.lines),
}
MEDIA_TYPES = {
    "json": "application/json",
    "txt": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}


def export(document: Document, form: str) -> str:
    """The file's text; `form` is one of WRITERS. Long transcripts take long: not in an event loop."""
    return WRITERS[form](document)
