"""The whole way with the openai back end: real sound, the real pipeline, a service on loopback."""

import asyncio
import json
from pathlib import Path

import pytest

from backend.config import load
from backend.recordings.models import Stage
from backend.recordings.options import TranscribeOptions
from backend.recordings.pipeline import FolderCheckpoints, Observe, Result, open_tools, run
from backend.recordings.speech.base import Cancelled
from tests.recordings.openai.beeps import decoded
from tests.recordings.openai.service import KEY, Asked, Says, Service
from tests.recordings.openai.test_summaries import DRAFT, response
from tests.recordings.sounds import CALL, RATE

AGENT = "Good morning, this is the agency. Your policy expires next week. Shall we renew it?"


def answer(asked: Asked) -> Says:
    if asked.path.endswith("/responses"):
        return response()
    return Says({"text": AGENT, "usage": {"type": "duration", "seconds": len(decoded(asked.sound)) / RATE}})


def nothing(stage: Stage, share: float) -> None:
    """Nobody looks."""


async def transcribed(service: Service, tmp_path: Path, observe: Observe = nothing) -> Result:
    tools = open_tools(
        load(
            {
                "TRANSCRIPTION_BACKEND": "openai",
                "OPENAI_API_KEY": KEY,
                "OPENAI_BASE_URL": f"{service.url}/v1",
                "OPENAI_TEXT_MODEL": "gpt-5.4-mini",
                "OPENAI_PRICE_PER_MINUTE": "0.006",
            }
        )
    )

    for folder in ("work", "kept"):
        (tmp_path / folder).mkdir(exist_ok=True)
    return await asyncio.to_thread(
        lambda: run(
            CALL,
            tools,
            options=TranscribeOptions(),
            channel_speakers=("agent", "customer"),
            work=tmp_path / "work",
            checkpoints=FolderCheckpoints(tmp_path / "kept"),
            observe=observe,
        )
    )


async def test_a_call_of_two_channels_is_heard_channel_by_channel_with_cost_and_summary(
    service: Service, tmp_path: Path
) -> None:
    service.always = answer
    result = await transcribed(service, tmp_path)

    sounds = [asked for asked in service.asked if asked.path.endswith("/transcriptions")]
    assert {segment.speaker for segment in result.transcript.segments} == {"agent", "customer"}
    assert (result.transcript.backend, result.transcript.model) == ("openai", "gpt-transcribe")
    assert result.transcript.language == "en"
    assert all(
        0.0 <= word.start <= word.end <= result.transcript.duration_seconds
        for s in result.transcript.segments
        for word in s.words
    )
    sent = sum(len(decoded(asked.sound)) for asked in sounds) / RATE
    assert result.usage["requests"] == len(sounds)
    assert result.cost == pytest.approx(sent / 60 * 0.006, rel=0.01)
    assert result.summary is not None
    assert (result.summary.backend, result.summary.title) == ("openai", DRAFT["title"])
    assert json.loads(json.dumps(result.usage)) == result.usage


async def test_what_was_heard_before_a_stop_is_not_paid_for_again(service: Service, tmp_path: Path) -> None:
    service.always = answer

    def stop(stage: Stage, share: float) -> None:
        if stage is Stage.SUMMARY:
            raise Cancelled

    with pytest.raises(Cancelled):
        await transcribed(service, tmp_path, stop)
    paid = len(service.asked)
    assert paid > 0

    result = await transcribed(service, tmp_path)
    assert [asked.path for asked in service.asked[paid:]] == ["/v1/responses"]
    assert result.transcript.segments
