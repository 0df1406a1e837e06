"""A transcript as a file, with everything that people have made of it."""

import json
from pathlib import Path

import pytest
from jsonschema_rs import Draft202012Validator

from backend.recordings.library.exporting import Abstract, as_json, as_txt, document_of
from backend.recordings.speech.base import Transcript, Word, said
from tests.factories.recordings import at
from tests.recordings.reading.conftest import Library

SCHEMA = Path(__file__).parents[3] / "docs" / "operations" / "transcript.schema.json"
HEARD = Transcript(
    segments=(
        said([Word(0.0, 0.5, " Good", 0.9), Word(0.5, 1.0, " morning.", 0.7)], speaker="Speaker 1", channel=0),
        said([Word(1.2, 1.6, " Again.", 0.8)], speaker="Speaker 1", channel=0),
        said([Word(3725.2, 3725.6, " Yes?", 0.8)], speaker="Speaker 2", channel=1),
    ),
    language="en",
    duration_seconds=3726.0,
    channels=2,
    backend="local",
    model="tiny",
)


def valid(text: str) -> dict[str, object]:
    body: dict[str, object] = json.loads(text)
    Draft202012Validator(json.loads(SCHEMA.read_text()), validate_formats=True).validate(body)
    return body


def test_the_command_lines_json_is_as_its_schema_says() -> None:
    abstract = Abstract("A talk", "They talk.", ("Call back",), "extractive", None)
    body = valid(as_json(document_of(HEARD, speakers=[("Speaker 1", 1.4)], title="A talk", abstract=abstract)))
    assert (body["id"], body["recorded_at"]) == (None, None)
    empty = Transcript((), None, 3.0, 1, "local", "tiny")
    assert valid(as_json(document_of(empty)))["segments"] == []


def test_plain_text_has_a_paragraph_for_each_turn() -> None:
    expected = "[0:00:00] Speaker 1: Good morning. Again.\n\n[1:02:05] Speaker 2: Yes?\n"
    assert as_txt(document_of(HEARD)) == expected
    assert as_txt(document_of(HEARD, title="A talk")) == f"A talk\n\n{expected}"
    assert as_txt(document_of(Transcript((), None, 3.0, 1, "local", "tiny"))) == ""


async def test_the_apis_json_is_as_its_schema_says(library: Library) -> None:
    note = await library.note()
    answer = await library.owner.client.get(at(note, "/transcript"))
    assert answer.headers["Content-Type"] == "application/json"
    body = valid(answer.text)
    assert body["id"] == str(note.id)
    segments = body["segments"]
    assert isinstance(segments, list)
    assert "".join(word["text"] for word in segments[0]["words"]).strip() == segments[0]["text"]


@pytest.mark.parametrize(
    ("form", "media_type", "begins"),
    [
        ("txt", "text/plain", "A talk\n\n[0:00:00] Speaker 1: Good"),
        ("srt", "application/x-subrip", "1\n00:00:00,000 --> 00:00:02,000\nSpeaker 1: Good"),
        ("vtt", "text/vtt", "WEBVTT\n\n1\n00:00:00.000 --> 00:00:02.000\n<v Speaker 1>Good"),
    ],
)
async def test_each_format_says_what_it_is(library: Library, form: str, media_type: str, begins: str) -> None:
    note = await library.note(title="A talk")
    answer = await library.owner.client.get(at(note, f"/transcript?format={form}&download=true"))
    assert answer.headers["Content-Type"] == f"{media_type}; charset=utf-8"
    assert answer.headers["Content-Disposition"] == f"attachment; filename*=UTF-8''A%20talk.{form}"
    assert answer.text.startswith(begins)


async def test_edits_and_names_are_in_every_format_and_words_of_an_edited_segment_in_none(library: Library) -> None:
    note = await library.note()
    client = library.owner.client
    await client.put(at(note, "/speakers/Speaker 2"), json={"name": "María <b>"})
    await client.put(at(note, "/segments/1"), json={"version": 1, "text": "Hello, I call about my house."})
    await client.put(at(note, "/segments/2"), json={"version": 1, "text": ""})
    texts = {form: (await client.get(at(note, f"/transcript?format={form}"))).text for form in ("txt", "srt", "vtt")}
    for form, text in texts.items():
        assert "I call about my house." in " ".join(text.split()), form
        assert "Which of the policies" not in text
        assert ("María &lt;b&gt;" if form == "vtt" else "María <b>:") in text
    body = valid((await client.get(at(note, "/transcript"))).text)
    segments = body["segments"]
    assert isinstance(segments, list)
    assert [(each["version"], bool(each["words"])) for each in segments] == [(1, True), (2, False), (2, False)]
    assert segments[1]["name"] == "María <b>"


async def test_a_recording_without_a_transcript_says_so(library: Library) -> None:
    note = await library.note(state="failed", error="it broke")
    answer = await library.owner.client.get(at(note, "/transcript"))
    assert (answer.status_code, answer.json()["code"]) == (404, "no_transcript")
    assert "failed" in answer.json()["detail"]
    assert (await library.owner.client.get(at(note, "/segments"))).json() == []


async def test_ten_thousand_segments_are_read_in_pages_and_exported_whole(library: Library) -> None:
    talk = [(number * 2.0, number * 2.0 + 1.5, "Speaker 1", f"This is sentence {number}.") for number in range(10_000)]
    note = await library.note(talk=talk)
    client, numbers = library.owner.client, list[int]()
    while page := (await client.get(at(note, f"/segments?limit=1000&after={numbers[-1] if numbers else -1}"))).json():
        numbers += [each["number"] for each in page]
    assert numbers == list(range(10_000))
    assert (await client.get(at(note))).json()["transcript"]["segments"] == 10_000
    assert len(json.loads((await client.get(at(note, "/transcript"))).text)["segments"]) == 10_000
    assert "This is sentence 9999." in (await client.get(at(note, "/transcript?format=vtt"))).text


async def test_right_to_left_text_comes_out_as_it_went_in(library: Library) -> None:
    line = "مرحبا، كيف يمكنني مساعدتك؟"
    note = await library.note(talk=[(0.0, 2.0, "Speaker 1", line)], language="ar", title="محادثة")
    for form in ("txt", "vtt", "json", "srt"):
        answer = await library.owner.client.get(at(note, f"/transcript?format={form}"))
        assert line in answer.text, form
        assert answer.headers["Content-Disposition"].isascii()
