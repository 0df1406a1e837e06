"""A first outcome from what the customer said."""

import pytest

from backend.calls.outcome import extract


@pytest.mark.parametrize(
    ("said", "intent"),
    [
        ("Please don\u2019t call me again.", "do_not_call"),
        ("Sorry, wrong number.", "wrong_person"),
        ("I'm in a meeting, call me tomorrow.", "callback"),
        ("I have already renewed with another company.", "renewed_elsewhere"),
        ("No thanks, I'm not interested.", "not_interested"),
        ("Yes, that's right.", "renew_interested"),
        ("That sounds interesting. I'm going to give this a try.", "renew_interested"),
        ("The weather is fine.", "unclear"),
    ],
)
def test_the_customers_words_decide(said: str, intent: str) -> None:
    assert extract([said]).intent == intent


def test_a_wish_not_to_be_called_stands_above_everything_else() -> None:
    found = extract(["Yes, please renew it.", "And stop calling me."])
    assert (found.intent, found.evidence) == ("do_not_call", "And stop calling me.")


def test_a_customer_who_said_nothing_is_not_unclear() -> None:
    assert extract(["", "  "]).intent == "no_speech"
