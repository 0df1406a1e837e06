"""A recording's file and its parties -> a transcript."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from backend.recordings.audio import decoded
from backend.recordings.speech.base import Segment, SpeechEngine, Transcript, said

# A party that pauses this long has ended its turn: what the other said meanwhile may come between.
TURN_PAUSE = 0.6


def transcribe_file(
    engine: SpeechEngine, path: Path, speakers: Sequence[str], *, language: str | None = None
) -> Transcript:
    """Transcribe a file; blocking, minutes long. Raises UnreadableAudio.

    `speakers` names the parties by channel and is used where a channel holds one party. `language` as in SpeechEngine.
    """
    with decoded(path) as audio:
        heard = engine.hear(audio.channels, language=language)
    segments: list[Segment] = []
    for number, channel in zip(audio.numbers, heard.channels, strict=True):
        speaker = _speaker(number, speakers)
        pieces = (piece for segment in channel for piece in (turns(segment) if len(audio.channels) > 1 else (segment,)))
        segments += [replace(piece, speaker=speaker, channel=number) for piece in pieces]
    return Transcript(
        segments=tuple(sorted(segments, key=lambda piece: (piece.start, piece.end))),
        language=heard.language,
        duration_seconds=round(audio.duration_seconds, 3),
        channels=audio.source_channels,
        backend=engine.backend,
        model=engine.model,
    )


def _speaker(number: int | None, speakers: Sequence[str]) -> str | None:
    if number is None:
        return speakers[0] if len(speakers) == 1 else None
    return speakers[number] if number < len(speakers) else None


def turns(segment: Segment) -> Iterator[Segment]:
    """Cut a segment at its long pauses, so that the turns of two parties can be put in the order they were taken."""
    start = 0
    for at in range(1, len(segment.words) + 1):
        ended = at == len(segment.words)
        if ended or segment.words[at].start - segment.words[at - 1].end > TURN_PAUSE:
            yield said(segment.words[start:at])
            start = at
