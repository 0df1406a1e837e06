"""Results of stages as JSON values, and back."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from backend.recordings.speech.base import HeardPart, Part, Segment, Turn, Word, said
from backend.recordings.speech.voice_activity import Run
from backend.recordings.summaries.base import Summary


def runs_json(runs: Sequence[Run]) -> list[list[Any]]:
    return [[run.start, run.end, run.by_level_only] for run in runs]


def runs_of(value: list[list[Any]]) -> list[Run]:
    return [Run(start, end, level) for start, end, level in value]


def heard_json(part: Part, heard: HeardPart) -> dict[str, Any]:
    return {
        "clips": [list(clip) for clip in part.clips],
        "language": heard.language,
        "usage": heard.usage,
        "segments": [_segment_json(segment) for segment in heard.segments],
    }


def heard_of(part: Part, value: dict[str, Any] | None) -> HeardPart | None:
    """None where it is of another part."""
    if value is None or value["clips"] != [list(clip) for clip in part.clips]:
        return None
    return HeardPart(tuple(_segment(each) for each in value["segments"]), value["language"], value["usage"])


def _segment_json(segment: Segment) -> dict[str, Any]:
    words = [[word.start, word.end, word.text, word.confidence] for word in segment.words]
    return {"words": words} if words else asdict(segment)


def _segment(value: dict[str, Any]) -> Segment:
    words = [Word(*word) for word in value["words"]]
    return said(words) if words else Segment(**value | {"words": ()})


def turns_json(turns: Sequence[Turn]) -> list[list[Any]]:
    return [[turn.start, turn.end, turn.speaker] for turn in turns]


def turns_of(value: list[list[Any]]) -> list[Turn]:
    return [Turn(start, end, speaker) for start, end, speaker in value]


def summary_json(summary: Summary) -> dict[str, Any]:
    return asdict(summary)


def summary_of(value: dict[str, Any]) -> Summary:
    return Summary(**value | {"action_items": tuple(value["action_items"])})
