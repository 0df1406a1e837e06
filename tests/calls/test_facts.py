"""The status of a call from what is known of it."""

from dataclasses import replace
from itertools import permutations, product
from typing import Any

import pytest

from backend.calls.facts import Facts, derive

# Each scenario: the facts in the order in which they normally arrive, and where the call must end.
SCENARIOS: dict[str, tuple[list[tuple[str, Any]], tuple[str, str]]] = {
    "answered and hung up": ([("dialing", True), ("answered", True), ("left", True)], ("completed", "hangup")),
    "answered, agent hung up": (
        [("dialing", True), ("answered", True), ("reason", "ROOM_DELETED"), ("left", True)],
        ("completed", "agent_hangup"),
    ),
    "voicemail": ([("answered", True), ("amd", "machine-vm"), ("left", True)], ("voicemail", "machine-vm")),
    "busy": ([("dialing", True), ("sip_code", 486), ("reason", "USER_REJECTED"), ("left", True)], ("busy", "busy")),
    "declined": (
        [("dialing", True), ("sip_code", 603), ("reason", "USER_REJECTED"), ("left", True)],
        ("busy", "declined"),
    ),
    "rings out": (
        [("dialing", True), ("dial_error", "ring_timeout"), ("reason", "USER_UNAVAILABLE"), ("left", True)],
        ("no_answer", "ring_timeout"),
    ),
    "carrier error": ([("dialing", True), ("sip_code", 503), ("left", True)], ("failed", "carrier_error")),
    "canceled while ringing": ([("cancel", True), ("dial_error", "canceled"), ("left", True)], ("canceled", "api")),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_order_and_repetition_of_the_same_facts_ends_the_same(name: str) -> None:
    arrivals, expected = SCENARIOS[name]
    for order in permutations(arrivals):
        for repeats in product((1, 2), repeat=len(order)):
            facts = Facts()
            for (field, value), times in zip(order, repeats, strict=True):
                for _ in range(times):
                    facts = replace(facts, **{field: value})
            assert derive(facts) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (486, ("busy", "busy")),
        (600, ("busy", "busy")),
        (607, ("busy", "declined")),
        (480, ("no_answer", "unavailable")),
        (408, ("no_answer", "ring_timeout")),
        (404, ("failed", "invalid_number")),
        (484, ("failed", "invalid_number")),
        (403, ("failed", "trunk_rejected")),
        (500, ("failed", "carrier_error")),
        (488, ("failed", "sip_488")),
    ],
)
def test_a_sip_code_says_how_the_call_ended(code: int, expected: tuple[str, str]) -> None:
    assert derive(Facts(dialing=True, sip_code=code)) == expected


def test_a_terminated_dial_counts_as_canceled_only_if_we_asked() -> None:
    assert derive(Facts(sip_code=487)) == ("no_answer", "ring_timeout")
    assert derive(Facts(sip_code=487, cancel=True)) == ("canceled", "api")


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (Facts(), ("queued", None)),
        (Facts(dialing=True), ("dialing", None)),
        (Facts(dialing=True, ringing=True), ("ringing", None)),
        (Facts(dialing=True, answered=True), ("answered", None)),
        (Facts(answered=True, amd="machine-vm"), ("answered", None)),
        (Facts(left=True, reason="USER_UNAVAILABLE"), ("no_answer", "unavailable")),
        (Facts(left=True, reason="USER_REJECTED"), ("busy", "rejected")),
        (Facts(left=True, reason="ROOM_DELETED"), ("canceled", "room_deleted")),
        (Facts(left=True, reason="CONNECTION_TIMEOUT"), ("failed", "connection_timeout")),
        (Facts(left=True), ("failed", "unknown")),
        (Facts(dial_error="agent_unavailable"), ("failed", "agent_unavailable")),
    ],
)
def test_a_call_stands_where_its_facts_put_it(facts: Facts, expected: tuple[str, str | None]) -> None:
    assert derive(facts) == expected
