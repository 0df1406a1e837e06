from typing import Any

import pytest
from rich.console import Console

from devstack.dials import Dial
from devstack.report import Promises, as_object, table
from devstack.sample import PEOPLE, do_not_call_phones, phone_of, policy_number_of


def row(**fields: Any) -> dict[str, Any]:
    return {
        "customer_name": "Asha Rao",
        "policy_number": policy_number_of(0),
        "expiry_date": "2026-11-24",
        "status": "completed",
        "reason": None,
        "attempts": 1,
        "call_status": "completed",
        "end_reason": None,
        "talk_seconds": 1.25,
        "outcome": "renew_interested",
        "first_line": "[b]",
    } | fields


def text_of(width: int, *rows: dict[str, Any]) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(table(list(rows), width))
    return captured.get()


CALLED = phone_of(PEOPLE[0])


def test_promises_are_kept_when_each_attempt_has_one_dial() -> None:
    dials = [Dial(CALLED, "call-1", None), Dial(CALLED, "call-2", None)]
    promises = Promises.check(dials, [row(attempts=2)])
    assert promises.kept
    assert promises.line() == "2 dials so far: no number on the do-not-call list, no attempt twice."


def test_a_number_on_the_do_not_call_list_breaks_the_promises() -> None:
    forbidden = min(do_not_call_phones())
    promises = Promises.check([Dial(forbidden, "call-1", None)], [])
    assert not promises.kept
    assert promises.do_not_call == [forbidden]
    assert forbidden in promises.line()


@pytest.mark.parametrize("rooms", [("call-1", "call-1"), ("call-1", "call-2")])
def test_a_second_dial_of_one_attempt_breaks_the_promises_whatever_its_room(rooms: tuple[str, str]) -> None:
    promises = Promises.check([Dial(CALLED, room, None) for room in rooms], [row(attempts=1)])
    assert not promises.kept
    assert CALLED in promises.line()


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_fits_the_terminal_and_shows_words_as_they_were_spoken(width: int) -> None:
    shown = text_of(
        width,
        row(),
        row(customer_name="Arjun Patel", status="exhausted", outcome=None, end_reason="ring_timeout", first_line=None),
        row(customer_name="Fatima Al Suwaidi", first_line="a very long line " * 40),
    )
    assert max(len(line) for line in shown.splitlines()) <= width
    assert len(shown.splitlines()) == 4
    for expected in (
        "Fatima Al Suwaidi",
        "CA-2026001",
        "24 Nov",
        "exhausted",
        "1.2",
        "renew interested",
        "[b]",
        "ring timeout",
    ):
        assert expected in shown


def test_the_object_counts_by_status_and_gives_phones() -> None:
    promises = Promises.check([], [])
    result = as_object([row(), row(status="skipped")], promises, {"total": 1.234}, {"ok": True})
    assert result["counts"] == {"completed": 1, "skipped": 1}
    assert result["calls"][0]["phone"] == phone_of(PEOPLE[0])
    assert result["timings"] == {"total": 1.23}
    assert result["ok"] is True
