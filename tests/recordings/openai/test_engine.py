"""The engine against a service on loopback: what is sent, what becomes of it, and what it learns."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from backend.core.errors import PermanentError, TransientError
from backend.recordings.openai_refused import Refused
from backend.recordings.openai_service import OpenAIService
from backend.recordings.speech.base import HeardPart, Segment
from backend.recordings.speech.openai import OpenAISpeechEngine
from backend.recordings.speech.voice_activity import Run
from tests.recordings.openai.beeps import Beeps, beeps, decoded, listen, name
from tests.recordings.openai.service import KEY, Asked, Says, Service, error
from tests.recordings.sounds import RATE, silence

# Words in a row and pauses, 40 s of them.
TALK = beeps([0.4, *([0.15] * 9), 1.2, *([0.2] * 14), 0.6, *([0.1] * 30), 5.0, *([0.15] * 19)])
HELLO = beeps([0.3, 0.15, 0.15])


def no_tick(done: float) -> None:
    assert 0.0 <= done <= 1.0


async def heard(
    engine: OpenAISpeechEngine, talk: Beeps, *, language: str | None = None, hints: str | None = None
) -> tuple[list[HeardPart], list[Segment]]:
    """Part by part, as the pipeline does it, away from the loop that runs the service."""
    parts = engine.parts([talk.runs], talk.seconds, isolated=False)

    def work() -> tuple[list[HeardPart], list[Segment]]:
        found = [
            engine.hear(talk.samples, part, talk.runs, language=language, hints=hints, tick=no_tick) for part in parts
        ]
        return found, engine.joined(parts, found)

    return await asyncio.to_thread(work)


def texts(segments: Sequence[Segment]) -> list[str]:
    return [word.text.strip() for segment in segments for word in segment.words]


def all_words(talk: Beeps) -> list[str]:
    return [name(number) for number, _ in talk.words]


def off(segments: Sequence[Segment], talk: Beeps) -> float:
    """The worst difference in seconds between a word's time and where it is."""
    at = [word.start for segment in segments for word in segment.words]
    return float(np.abs(np.array(at) - np.array([start for _, start in talk.words])).max())


async def test_words_come_back_with_the_times_of_the_recording_though_long_pauses_are_not_sent(
    service: Service,
) -> None:
    service.always = listen
    engine = OpenAISpeechEngine(service.opened())

    (part,), segments = await heard(engine, TALK)

    assert texts(segments) == all_words(TALK)
    assert off(segments, TALK) < 0.06
    sent = len(decoded(service.asked[0].sound)) / RATE
    assert sent < TALK.seconds - 3.0, "a pause of five seconds is not paid for"
    assert part.language == "en"
    assert part.usage == {"requests": 1.0, "seconds": pytest.approx(sent, abs=0.1)}
    assert all(segment.speaker is None and segment.channel is None for segment in segments)


async def test_whisper_is_asked_for_word_times_with_language_and_hints(service: Service) -> None:
    service.always = listen
    await heard(OpenAISpeechEngine(service.opened()), HELLO, language="de", hints="Beatline, Kolkata")

    asked = service.asked[0]
    assert asked.path == "/v1/audio/transcriptions"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.filename == "speech.mp3"
    assert asked.fields == {
        "model": ["whisper-1"],
        "response_format": ["verbose_json"],
        "timestamp_granularities[]": ["word", "segment"],
        "language": ["de"],
        "prompt": ["Beatline, Kolkata"],
    }


async def test_gpt_transcribe_is_asked_for_json_with_keywords(service: Service) -> None:
    service.always = listen
    await heard(
        OpenAISpeechEngine(service.opened(transcription_model="gpt-transcribe")), HELLO, hints="Beatline, Kolkata"
    )

    assert service.asked[0].fields == {
        "model": ["gpt-transcribe"],
        "response_format": ["json"],
        "keywords[]": ["Beatline", "Kolkata"],
    }


async def test_a_model_without_times_hears_short_pieces_and_its_words_are_spread_over_the_speech(
    service: Service,
) -> None:
    service.always = listen
    engine = OpenAISpeechEngine(service.opened(transcription_model="gpt-4o-transcribe"))
    long = beeps([0.4, *([0.15] * 40), 0.8, *([0.15] * 40), 0.7, *([0.15] * 40)])

    parts, segments = await heard(engine, long)

    assert len(parts) == 3
    assert texts(segments) == all_words(long)
    assert off(segments, long) < 0.3
    assert {word.confidence for segment in segments for word in segment.words} == {0.5}
    assert all(len(decoded(asked.sound)) / RATE <= 21.0 for asked in service.asked)


async def test_a_pause_inside_a_sentence_of_guessed_times_does_not_cut_it(service: Service) -> None:
    service.always = Says({"text": "Your policy expires very soon."})
    engine = OpenAISpeechEngine(service.opened(transcription_model="gpt-transcribe"))
    _, segments = await heard(engine, beeps([0.3, 0.15, 1.5, 0.15]))
    assert [segment.text for segment in segments] == ["Your policy expires very soon."]


async def test_speech_without_a_pause_is_cut_with_overlap_and_no_word_is_lost_or_doubled(service: Service) -> None:
    service.always = listen
    engine = OpenAISpeechEngine(service.opened(transcription_model="gpt-transcribe"))
    endless = beeps([0.3, *([0.12] * 239)])

    parts, segments = await heard(engine, endless)

    assert len(parts) > 3
    assert sum(len(texts(part.segments)) for part in parts) > 240, "neighbours both heard the overlap"
    assert texts(segments) == all_words(endless)


def test_an_hour_goes_in_pieces_of_at_most_twenty_minutes_that_overlap_by_four_seconds() -> None:
    # A pause of 1.5 s each minute, of 0.4 s else.
    runs = [Run(4.0 * number, 4.0 * number + (2.5 if number % 15 == 14 else 3.6)) for number in range(900)]
    engine = OpenAISpeechEngine(OpenAIService(Service(url="http://127.0.0.1:9").settings()))

    parts = engine.parts([runs], 3600.0, isolated=False)

    assert len(parts) == 4
    assert all(part.end - part.start <= 1200.0 for part in parts)
    cuts = [(before.end + after.start) / 2 for before, after in pairwise(parts)]
    assert [before.end - after.start for before, after in pairwise(parts)] == pytest.approx([4.0] * 3)
    assert all((cut + 0.75) % 60.0 < 0.01 for cut in cuts), "in the middle of the longest pauses"


async def test_a_long_part_that_must_be_sent_in_pieces_comes_back_as_one(service: Service) -> None:
    service.always = listen
    engine = OpenAISpeechEngine(service.opened())
    engine.limit = 15.0
    long = beeps([0.5, *([*([0.15] * 9), 1.2] * 14), 0.2])

    (part,), segments = await heard(engine, long)

    assert part.usage["requests"] > 4
    assert texts(segments) == all_words(long)
    assert off(segments, long) < 0.06


async def test_a_service_that_finds_a_piece_too_large_gets_smaller_ones(service: Service) -> None:
    def small(asked: Asked) -> Says:
        return listen(asked) if len(asked.sound) < 100_000 else error(413, "Maximum content size limit exceeded")

    service.always = small
    engine = OpenAISpeechEngine(service.opened())

    (part,), segments = await heard(engine, TALK)

    assert texts(segments) == all_words(TALK)
    assert off(segments, TALK) < 0.06
    refused = sum(1 for asked in service.asked if len(asked.sound) >= 100_000)
    assert refused >= 2
    before = len(service.asked)
    await heard(engine, TALK)
    assert len(service.asked) - before == len(service.asked[:before]) - refused, "it has learned what fits"
    assert part.usage["requests"] == before - refused


async def test_a_service_that_finds_everything_too_large_is_a_permanent_error(service: Service) -> None:
    service.always = error(413, "Request Entity Too Large")
    with pytest.raises(Refused, match=r"refused \(413\)"):
        await heard(OpenAISpeechEngine(service.opened()), TALK)


async def test_a_server_that_knows_no_verbose_json_is_asked_for_json_in_short_pieces(service: Service) -> None:
    def plain(asked: Asked) -> Says:
        if asked.first("response_format") != "json":
            return error(400, "Currently do not support verbose_json")
        return listen(asked)

    service.always = plain
    engine = OpenAISpeechEngine(service.opened(transcription_model="local-asr"))

    _, segments = await heard(engine, TALK)

    assert texts(segments) == all_words(TALK)
    first, *others = [asked.first("response_format") for asked in service.asked]
    assert first == "verbose_json"
    assert set(others) == {"json"}
    assert all(len(decoded(asked.sound)) / RATE <= 21.0 for asked in service.asked[1:])


async def test_a_server_that_takes_neither_form_says_why(service: Service) -> None:
    service.always = error(400, "Audio file might be corrupted or unsupported")
    with pytest.raises(PermanentError, match="might be corrupted"):
        await heard(OpenAISpeechEngine(service.opened()), HELLO)
    assert len(service.asked) == 2


async def test_a_refusal_after_word_times_have_come_is_what_it_says(service: Service) -> None:
    service.answers, service.always = [listen], error(400, "This sound is not allowed")
    engine = OpenAISpeechEngine(service.opened())
    await heard(engine, HELLO)
    with pytest.raises(Refused, match="not allowed"):
        await heard(engine, HELLO)
    assert len(service.asked) == 2


async def test_turns_of_a_diarizing_model_become_segments_with_words_inside_their_times(service: Service) -> None:
    def diarized(asked: Asked) -> Says:
        turns = [
            ("A", 0.0, 2.0, "Good morning, this is Anna."),
            ("B", 2.0, 3.5, "Hello Anna."),
            ("A", 3.5, 5.0, "How are you?"),
        ]
        kept = [
            {
                "type": "transcript.text.segment",
                "id": f"seg_{number}",
                "speaker": speaker,
                "start": start,
                "end": end,
                "text": text,
            }
            for number, (speaker, start, end, text) in enumerate(turns)
        ]
        usage = {"type": "tokens", "input_tokens": 50, "output_tokens": 20, "total_tokens": 70}
        text = " ".join(turn[3] for turn in turns)
        return Says({"task": "transcribe", "duration": 5.0, "text": text, "segments": kept, "usage": usage})

    service.always = diarized
    talk = beeps([0.5, *([0.1] * 10)])
    (part,), segments = await heard(
        OpenAISpeechEngine(service.opened(transcription_model="gpt-4o-transcribe-diarize")), talk, hints="Anna"
    )

    assert [segment.text for segment in segments] == ["Good morning, this is Anna.", "Hello Anna.", "How are you?"]
    assert segments[0].end <= segments[1].start + 0.01
    assert service.asked[0].fields == {
        "model": ["gpt-4o-transcribe-diarize"],
        "response_format": ["diarized_json"],
        "chunking_strategy": ["auto"],
    }
    assert part.usage["input_tokens"] == 50


async def test_segments_without_words_are_spread_inside_their_own_times(service: Service) -> None:
    pieces = [
        {"id": 0, "start": 0.1, "end": 0.6, "text": " One two.", "avg_logprob": -0.1},
        {"id": 1, "start": 0.6, "end": 1.2, "text": " Thank you. Thank you. Thank you.", "compression_ratio": 9.0},
    ]
    service.always = Says({"text": "One two. Thank you.", "language": "en", "duration": 1.4, "segments": pieces})

    _, segments = await heard(OpenAISpeechEngine(service.opened()), HELLO)

    assert [segment.text for segment in segments] == ["One two."], "a loop is an invention"
    assert 0.1 <= segments[0].start < segments[0].end <= 1.0


async def test_pure_silence_is_not_sent(service: Service) -> None:
    engine = OpenAISpeechEngine(service.opened())
    assert engine.parts([(), ()], 60.0, isolated=True) == []
    assert engine.joined([], []) == []
    assert service.asked == []


@pytest.mark.parametrize("text", ["", "  ", "Beatline, Kolkata"])
async def test_nothing_and_an_echo_of_the_hints_are_no_speech(service: Service, text: str) -> None:
    service.always = Says({"text": text, "usage": {"type": "duration", "seconds": 2}})
    (part,), segments = await heard(OpenAISpeechEngine(service.opened()), HELLO, hints="Beatline, Kolkata")
    assert segments == []
    assert part.language is None
    assert part.usage["seconds"] == 2.0, "it is paid for all the same"


async def test_the_shortest_sound_is_sent_as_a_second(service: Service) -> None:
    service.always = listen
    engine = OpenAISpeechEngine(service.opened())
    short = Beeps(silence(0.05), (), (Run(0.0, 0.05),))
    _, segments = await heard(engine, short)
    assert segments == []
    assert len(decoded(service.asked[0].sound)) >= 0.95 * RATE


async def test_each_channel_is_asked_for_alone(service: Service) -> None:
    engine = OpenAISpeechEngine(service.opened())
    parts = engine.parts([TALK.runs, HELLO.runs], TALK.seconds, isolated=True)
    assert [part.channel for part in parts] == [0, 1]
    assert all(part.isolated for part in parts)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ("<html>Sign in to the hotel's network</html>", "the body"),
        ('{"text": 5}', "text"),
        ('{"message": "ok"}', "text"),
        ('{"text": "a", "words": [{"word": "a", "start": NaN, "end": 1}]}', "start"),
        ('{"text": "a", "words": [{"word": "a"}]}', "words"),
    ],
)
async def test_an_answer_that_is_no_transcription_is_a_transient_error(service: Service, body: str, where: str) -> None:
    service.always = Says(text=body)
    with pytest.raises(TransientError, match=where):
        await heard(OpenAISpeechEngine(service.opened()), HELLO)


async def test_signs_that_no_text_can_hold_are_replaced_and_the_others_stay(service: Service) -> None:
    body = '{"text": "Hello \\u0000 \\ud83d \\ud83d\\ude00.", "language": "en"}'
    service.always = Says(text=body)

    _, segments = await heard(OpenAISpeechEngine(service.opened()), HELLO)

    assert "".join(segment.text for segment in segments) == "Hello \ufffd \ufffd \U0001f600."


async def test_times_beyond_the_sound_are_held_inside_it(service: Service) -> None:
    words: list[dict[str, Any]] = [
        {"word": "One", "start": -5.0, "end": 0.2},
        {"word": "two", "start": 0.1, "end": 1e12},
        {"word": "three", "start": 0.05, "end": 0.01},
    ]
    service.always = Says({"text": "One, two three.", "words": words})
    _, segments = await heard(OpenAISpeechEngine(service.opened()), HELLO)
    times = [at for segment in segments for word in segment.words for at in (word.start, word.end)]
    assert texts(segments) == ["One,", "two", "three."]
    assert all(0.0 <= at <= HELLO.seconds for at in times)
    starts = [word.start for segment in segments for word in segment.words]
    assert starts == sorted(starts)


@pytest.mark.parametrize("model", ["gpt-transcribe", "openai/gpt-transcribe"])
async def test_the_language_is_what_the_service_heard(service: Service, model: str) -> None:
    service.always = Says({"text": "Guten Morgen zusammen, wie geht es Ihnen?", "languages": [{"code": "nl"}]})
    (part,), _ = await heard(OpenAISpeechEngine(service.opened(transcription_model=model)), HELLO)
    assert part.language == "nl"
    assert service.asked[0].first("response_format") == "json"


async def test_without_a_word_about_it_the_text_tells_the_language(service: Service) -> None:
    service.always = Says({"text": "Guten Morgen zusammen, wie geht es Ihnen?"})
    (part,), _ = await heard(OpenAISpeechEngine(service.opened()), HELLO)
    assert part.language == "de"


async def test_a_word_between_two_clips_does_not_reach_over_the_pause_that_was_not_sent(service: Service) -> None:
    talk = beeps([0.5, 0.15, 30.0, 0.15])
    # Of what is sent, the first clip ends at 1.15 s and the second begins at 1.45 s.
    words = [{"word": "edge", "start": 1.05, "end": 1.5}, {"word": "next", "start": 1.25, "end": 1.7}]
    service.always = Says({"text": "edge next", "words": words})
    _, segments = await heard(OpenAISpeechEngine(service.opened()), talk)
    first, second = (word for segment in segments for word in segment.words)
    assert first.end < 2.0
    assert second.start > 30.0


async def test_a_loop_that_nobody_could_say_is_an_invention(service: Service) -> None:
    service.always = Says({"text": "Thank you for watching. " * 40})
    _, segments = await heard(OpenAISpeechEngine(service.opened(transcription_model="gpt-transcribe")), HELLO)
    assert segments == []


async def test_cost_is_by_the_minutes_that_were_billed_and_unknown_without_a_price(service: Service) -> None:
    known = OpenAISpeechEngine(service.opened(price_per_minute=0.006))
    assert known.cost({"requests": 2.0, "seconds": 90.0}, 300.0) == pytest.approx(0.009)
    assert known.cost({}, 60.0) == pytest.approx(0.006)
    assert OpenAISpeechEngine(service.opened()).cost({"seconds": 90.0}, 300.0) is None


async def test_the_same_speech_is_cut_in_the_same_way_after_a_restart(service: Service) -> None:
    first = OpenAISpeechEngine(service.opened(transcription_model="gpt-transcribe"))
    first.limit = 7.0
    again = OpenAISpeechEngine(service.opened(transcription_model="gpt-transcribe"))
    assert first.parts([TALK.runs], TALK.seconds, isolated=False) == again.parts(
        [TALK.runs], TALK.seconds, isolated=False
    )
