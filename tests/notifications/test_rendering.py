"""Templates: every variable given, nothing executed, nothing that breaks a header."""

from typing import Any

import pytest

from backend.core.errors import Invalid, NotFound
from backend.notifications.rendering import every_template, one_line, render


def test_a_message_is_text_and_html() -> None:
    content = render("message", {"subject": "Hello", "message": "one <b>\ntwo"})
    assert (content.subject, content.text) == ("Hello", "one <b>\ntwo")
    assert content.html is not None
    assert "one &lt;b&gt;<br>\ntwo" in content.html


def test_a_value_is_never_taken_for_a_template() -> None:
    content = render("message", {"subject": "{{ 7 * 7 }}", "message": "{% raise %}{{ message.__class__ }}"})
    assert (content.subject, content.text) == ("{{ 7 * 7 }}", "{% raise %}{{ message.__class__ }}")


@pytest.mark.parametrize(
    ("name", "context", "problem"),
    [
        ("message", {"subject": "s"}, "'message' is undefined"),
        ("message", {}, "'subject' is undefined"),
        ("message", {"subject": "s", "message": "m", "mesage": "m"}, "it has no mesage; it has message, subject"),
        ("message", {"subject": "s", "message": 7}, "has no attribute"),
        ("message", {"subject": "s\r\nBcc: a@b.example", "message": "m"}, "one line"),
        ("message", {"subject": " ", "message": "m"}, "empty"),
        ("message", {"subject": "s" * 201, "message": "m"}, "200"),
        ("message", {"subject": "s", "message": "m" * 60_001}, "60000"),
        ("message", {"subject": "s", "message": "a\0b"}, "U\\+0000"),
        ("message", {"subject": "s", "message": "\ud800"}, "surrogate"),
        ("digest", {"total": 1, "since": "now", "items": [{"at": "1"}]}, "has no attribute 'subject'"),
        ("digest", {"total": "x", "since": "now", "items": []}, "TypeError"),
    ],
)
def test_what_cannot_be_rendered_says_why(name: str, context: dict[str, Any], problem: str) -> None:
    with pytest.raises(Invalid, match=problem):
        render(name, context)


def test_an_unknown_template_names_those_there_are() -> None:
    with pytest.raises(NotFound, match="announcement, digest, job_alert, message"):
        render("../message", {})


def test_a_link_that_is_no_web_address_is_not_made_one() -> None:
    def html(link: str) -> str:
        return render("announcement", {"title": "t", "text": "x", "link": link}).html or ""

    assert '<a href="https://example.net/?a=1&amp;b=2">' in html("https://example.net/?a=1&b=2")
    assert "href" not in html("javascript:alert(1)")
    assert render("announcement", {"title": "t", "text": "x"}).text == "t\n\nx\n"


def test_every_template_is_complete() -> None:
    samples: dict[str, dict[str, Any]] = {
        "announcement": {"title": "t", "text": "x", "link": "https://example.net"},
        "digest": {"total": 3, "since": "now", "items": [{"at": "1", "subject": "s", "text": "t\nu"}]},
        "job_alert": {"event": "opened", "kind": "late", "schedule": "Nightly", "text": "late"},
        "message": {"subject": "s", "message": "m"},
        "recording_ended": {"name": "Monday", "end": "kept", "minutes": "1:02", "error": "silent", "link": "/ops"},
    }
    assert {one.name: set(one.variables) for one in every_template()} == {
        name: set(context) for name, context in samples.items()
    }
    for name, context in samples.items():
        content = render(name, context)
        assert content.subject
        assert content.html is not None
        assert content.text.strip()
    assert "and 2 more" in render("digest", samples["digest"]).text


@pytest.mark.parametrize("subject", ["a\nb", "a\rb", "a\u2028b", "a\x0bb", "a\ud800", "\x1b[31m", "a\u0085b"])
def test_a_subject_is_one_printable_line(subject: str) -> None:
    with pytest.raises(Invalid):
        one_line(subject)
