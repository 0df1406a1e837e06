"""Summaries out of the transcript's own sentences."""

import pytest

from backend.recordings.speech.base import Cancelled
from backend.recordings.summaries.extractive import ExtractiveSummarizer
from tests.recordings.openai.talk import CALL, talk


def test_the_summary_is_made_of_sentences_that_were_said_in_their_order() -> None:
    summary = ExtractiveSummarizer().summarize(CALL)
    text = " ".join(said.text for said in CALL.segments)
    places = [text.find(part.strip(" .?")) for part in summary.summary.replace("?", ".").split(". ")]
    assert min(places) >= 0
    assert places == sorted(places)
    assert (
        summary.title
        == "Your car insurance policy expires next Friday, and I am calling about the renewal of the policy"
    )
    assert "weather" not in summary.summary
    assert (summary.backend, summary.model, summary.note, summary.cost) == ("extractive", None, None, None)


def test_promises_and_requests_are_action_items_and_small_talk_is_not() -> None:
    assert ExtractiveSummarizer().summarize(CALL).action_items == (
        "I'll send you the renewal papers by e-mail tomorrow.",
        "Can you also check whether the policy covers my trailer?",
        "Yes, I will check that and call you back on Monday.",
    )


@pytest.mark.parametrize(
    ("language", "task", "other"),
    [
        ("de", "Ich schicke Ihnen morgen die Unterlagen.", "Das Wetter ist heute schön."),
        ("de", "Können Sie bitte die Adresse bestätigen?", "Wir waren gestern im Kino."),
        ("es", "Voy a enviar los documentos mañana.", "Hace buen tiempo hoy."),
        ("fr", "Je vais envoyer les documents demain.", "Il fait beau aujourd'hui."),
        ("pt", "Vou enviar os documentos amanhã.", "O tempo está bom hoje."),
        ("it", "Devo inviare i documenti domani.", "Oggi fa bel tempo."),
        ("nl", "Ik zal de papieren morgen sturen.", "Het is mooi weer vandaag."),
    ],
)
def test_action_items_are_found_in_several_languages(language: str, task: str, other: str) -> None:
    summary = ExtractiveSummarizer().summarize(talk(("a", f"{task} {other}"), language=language))
    assert summary.action_items == (task,)


@pytest.mark.parametrize(
    ("language", "text", "title"),
    [
        (
            "hi",
            "आपकी बीमा पॉलिसी अगले हफ्ते समाप्त हो रही है। बीमा पॉलिसी का नवीनीकरण करें।",
            "आपकी बीमा पॉलिसी अगले हफ्ते समाप्त हो रही है",
        ),
        ("zh", "今天我们讨论保险续保的问题。保险下周到期。", "今天我们讨论保险续保的问题"),
        ("xx", "Blah blah blub. Blub blah bleh.", "Blah blah blub"),
        (None, "Hello there my friend.", "Hello there my friend"),
    ],
)
def test_other_languages_get_a_summary_without_action_items(language: str | None, text: str, title: str) -> None:
    summary = ExtractiveSummarizer().summarize(talk((None, text), language=language))
    assert summary.title == title
    assert summary.action_items == ()


def test_the_language_that_is_given_overrides_the_transcripts() -> None:
    transcript = talk((None, "Ich schicke Ihnen morgen die Unterlagen."), language="en")
    assert ExtractiveSummarizer().summarize(transcript).action_items == ()
    assert ExtractiveSummarizer().summarize(transcript, "de").action_items != ()


def test_what_is_said_again_and_again_stands_once() -> None:
    again = talk(
        *[("a", "The renewal of the policy costs 340 euros.")] * 20,
        ("b", "The trailer of the customer is not covered by it."),
    )
    assert ExtractiveSummarizer().summarize(again).summary.count("340 euros") == 1


def test_text_without_any_marks_is_cut() -> None:
    endless = talk((None, "the policy and the renewal and the price " * 200))
    summary = ExtractiveSummarizer().summarize(endless)
    assert 0 < len(summary.title) <= 100
    assert len(summary.summary) <= 3000


def test_three_hours_of_talk_take_bounded_time() -> None:
    long = talk(
        *[
            ("a", f"Word{number % 97} and word{number % 89} decide about item{number % 83} today.")
            for number in range(6000)
        ]
    )
    assert ExtractiveSummarizer().summarize(long).summary


def test_nobody_said_anything() -> None:
    summary = ExtractiveSummarizer().summarize(talk())
    assert (summary.title, summary.summary, summary.action_items) == ("", "", ())


def test_it_can_be_cancelled() -> None:
    def tick(done: float) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        ExtractiveSummarizer().summarize(CALL, tick=tick)
