"""Who said what: by channel where each party has one, else by voice."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from backend.recordings.options import TranscribeOptions
from backend.recordings.speech.base import Segment, SpeakerCount, Turn, said
from backend.recordings.speech.merging import with_speakers

# A party that pauses this long has ended its turn: what the other said meanwhile may come between.
TURN_PAUSE = 0.6
MOST_SPEAKERS = 20


def named(number: int | None, names: Sequence[str], *, several: bool) -> str | None:
    """Who speaks on a channel; None where only the voices can tell. `several`: each party has a channel of its own."""
    if number is None:
        return names[0] if len(names) == 1 else None
    if number < len(names):
        return names[number]
    return f"Speaker {number + 1}" if several else None


def count(options: TranscribeOptions, names: Sequence[str]) -> SpeakerCount:
    """What was asked for; parties who are known by name bound what nobody asked for."""
    if options.speakers is not None:
        return SpeakerCount(options.speakers, options.speakers)
    low = options.min_speakers or 1
    return SpeakerCount(low, max(low, options.max_speakers or len(names) or MOST_SPEAKERS))


def by_channel(segments: Sequence[Segment], channel: int | None, speaker: str | None, *, split: bool) -> list[Segment]:
    """One channel's segments with their party; `split` cuts them at long pauses."""
    pieces = (piece for segment in segments for piece in (turns(segment) if split else (segment,)))
    return [replace(piece, speaker=speaker, channel=channel) for piece in pieces]


def by_voice(segments: Sequence[Segment], channel: int | None, told: Sequence[Turn]) -> list[Segment]:
    """Segments without words, which some services give, are whole the speaker's who talks most meanwhile."""
    worded = with_speakers([segment for segment in segments if segment.words], told)
    rest = [replace(segment, speaker=_loudest(segment, told)) for segment in segments if not segment.words]
    return [
        replace(segment, channel=channel)
        for segment in sorted([*worded, *rest], key=lambda segment: (segment.start, segment.end))
    ]


def _loudest(segment: Segment, told: Sequence[Turn]) -> str | None:
    best = max(told, key=lambda turn: min(turn.end, segment.end) - max(turn.start, segment.start), default=None)
    return None if best is None else f"Speaker {best.speaker + 1}"


def turns(segment: Segment) -> Iterator[Segment]:
    """Cut a segment at its long pauses, so that the turns of two parties can be put in the order they were taken."""
    if not segment.words:
        yield segment
    start = 0
    for at in range(1, len(segment.words) + 1):
        ended = at == len(segment.words)
        if ended or segment.words[at].start - segment.words[at - 1].end > TURN_PAUSE:
            yield said(segment.words[start:at])
            start = at


def stretches(segments: Sequence[Segment], labels: Sequence[str | None]) -> list[Turn]:
    """One channel's segments as turns, `speaker` being the label's index; who goes on after a breath has one turn."""
    result: list[Turn] = []
    for segment in segments:
        speaker = labels.index(segment.speaker)
        last = result[-1] if result else None
        if last is not None and last.speaker == speaker and segment.start - last.end <= TURN_PAUSE:
            result[-1] = Turn(last.start, max(last.end, segment.end), speaker)
        else:
            result.append(Turn(segment.start, segment.end, speaker))
    return result


def spoken(segments: Sequence[Segment]) -> tuple[tuple[str, float], ...]:
    """Each speaker's label and seconds, by first appearance."""
    seconds: dict[str, float] = {}
    for segment in segments:
        if segment.speaker is not None:
            seconds[segment.speaker] = seconds.get(segment.speaker, 0.0) + segment.end - segment.start
    return tuple((label, round(total, 2)) for label, total in seconds.items())
