"""The rows of a result."""

from decimal import Decimal

from backend.core.db import Session
from backend.recordings.languages import search_config
from backend.recordings.models import Recording, SegmentRow, SpeakerRow, SummaryRow, TranscriptRow
from backend.recordings.pipeline.result import Result
from backend.recordings.repository import RecordingRepository
from backend.recordings.repository.removals import RemovalRepository
from backend.recordings.speech.base import Segment


async def store(session: Session, recording: Recording, result: Result, samples: dict[str, str]) -> None:
    """Write what was heard, in the place of what was heard before. `samples`: the storage's keys of the voices' clips, by label."""
    transcript = result.transcript
    rows = RecordingRepository(session)
    before = await RemovalRepository(session).replace_result(recording.id)
    await rows.give_title(recording.id, result.summary.title if result.summary else None, instead_of=before)
    await rows.store(
        [
            TranscriptRow(
                recording_id=recording.id,
                language=transcript.language,
                text=transcript.text,
                segments=transcript.as_json(),
                backend=transcript.backend,
                model=transcript.model,
                diarizer=result.diarizer,
                usage=result.usage,
                cost_usd=_dollars(result.cost),
            )
        ]
    )
    config = search_config(transcript.language)
    await rows.store([_segment(recording, number, said, config) for number, said in enumerate(transcript.segments)])
    await rows.store(
        [
            SpeakerRow(
                recording_id=recording.id,
                label=label,
                position=position,
                spoken_ms=round(seconds * 1000),
                sample_key=samples.get(label),
            )
            for position, (label, seconds) in enumerate(result.speakers)
        ]
    )
    if result.summary is not None:
        await rows.store([_summary(recording, result)])


def _segment(recording: Recording, number: int, said: Segment, config: str) -> SegmentRow:
    return SegmentRow(
        recording_id=recording.id,
        number=number,
        start_ms=round(said.start * 1000),
        end_ms=round(said.end * 1000),
        speaker=said.speaker,
        channel=said.channel,
        text=said.text,
        confidence=said.confidence,
        config=config,
    )


def _summary(recording: Recording, result: Result) -> SummaryRow:
    written = result.summary
    assert written is not None, "asked before"  # noqa: S101
    return SummaryRow(
        recording_id=recording.id,
        title=written.title,
        summary=written.summary,
        action_items=list(written.action_items),
        backend=written.backend,
        model=written.model,
        note=written.note,
        cost_usd=_dollars(written.cost),
    )


def _dollars(cost: float | None) -> Decimal | None:
    return None if cost is None else Decimal(str(round(cost, 6)))
