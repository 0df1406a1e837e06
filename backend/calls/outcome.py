"""A first outcome from a transcript, by rules. Deterministic and explainable; says so by its `source` and `version`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

VERSION = "rules-1"

Intent = Literal[
    "do_not_call",
    "wrong_person",
    "callback",
    "renewed_elsewhere",
    "not_interested",
    "renew_interested",
    "unclear",
    "no_speech",
]

# Tried in this order: what binds the agency most comes first.
_RULES: tuple[tuple[Intent, str], ...] = (
    ("do_not_call", r"(do not|don't|never) call|stop calling|take me off|remove my number"),
    ("wrong_person", r"wrong (number|person)|no one by that name|nobody by that name"),
    ("callback", r"call (me )?(back|later|tomorrow|again)|not a good time|busy (right )?now|in a meeting"),
    ("renewed_elsewhere", r"(already|have) renewed|(another|different) (insurer|company)|switched"),
    ("not_interested", r"not interested|no,? thank|don't (want|need)|not going to renew"),
    (
        "renew_interested",
        (
            r"\b(renew|extend) (it|my|the)|yes,? (please|it is|that's right|sure|i would)|sounds (good|interesting|great)"
            r"|go ahead|i'd like to|i would like to|let's (go|do)|give (this|it) a try"
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`evidence` is the customer's own words that decided; `confidence` is 0 to 1."""

    intent: Intent
    confidence: float
    evidence: str


def extract(customer_lines: Sequence[str]) -> Outcome:
    """What the customer wants, from the customer's lines alone: what the agent says decides nothing."""
    lines = [line.strip() for line in customer_lines if line.strip()]
    if not lines:
        return Outcome("no_speech", 1.0, "")
    for intent, pattern in _RULES:
        for line in lines:
            if re.search(pattern, line.replace("\u2019", "'"), re.IGNORECASE):
                return Outcome(intent, 0.7, line[:200])
    return Outcome("unclear", 0.0, lines[0][:200])
