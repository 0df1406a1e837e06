"""Secrets in what is kept for people to read."""

from typing import Any

import pytest

from backend.core.redaction import Redactor


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"password": "hunter22"}, {"password": "[redacted]"}),
        ({"api_key": "k", "to": "x"}, {"api_key": "[redacted]", "to": "x"}),
        ({"deep": [{"access_token": {"a": 1}}]}, {"deep": [{"access_token": "[redacted]"}]}),
        ({"url": "postgresql://me:pw1@host/db"}, {"url": "postgresql://[redacted]@host/db"}),
        ({"header": "Bearer abcdefghijkl"}, {"header": "Bearer [redacted]"}),
    ],
)
def test_a_secret_is_replaced(given: Any, kept: Any) -> None:
    redactor = Redactor()
    assert redactor.value(given) == kept
    assert redactor.changed


@pytest.mark.parametrize("given", [{"order": 1}, {"password": None}, {"key": "value", "keyboard": "us"}, [1.5, None]])
def test_what_is_no_secret_stays(given: Any) -> None:
    redactor = Redactor()
    assert redactor.value(given) == given
    assert not redactor.changed


def test_a_text_loses_the_secrets_that_the_value_held_and_what_looks_like_one() -> None:
    redactor = Redactor()
    redactor.value({"token": "s3cr3t-value", "pins": {"secret": [4711]}})
    text = redactor.text("no: s3cr3t-value, 4711, password='other', https://u:p@h/")
    assert text == "no: [redacted], [redacted], password='[redacted]', https://[redacted]@h/"
