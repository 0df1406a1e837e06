"""What follows a finished call: reached, another attempt, or none left. Pure; the delays are the agency's default policy."""

from dataclasses import dataclass
from datetime import timedelta

from backend.calls.states import CallStatus, ScheduledCallStatus

_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Rule:
    """`delays` by how many attempts ended this way before; the last repeats. `cap` bounds attempts that end this way.

    An attempt that does not count is the line's fault, not the customer's answer: it uses up nobody's patience.
    """

    delays: tuple[timedelta, ...]
    cap: int
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """The scheduled call's next status; `delay` is set with `pending`, `reason` otherwise."""

    status: ScheduledCallStatus
    counts: bool
    delay: timedelta | None = None
    reason: str | None = None


_RULES = {
    "busy": Rule((20 * _MINUTE, _HOUR, _DAY), cap=5),
    "declined": Rule((_DAY,), cap=2),
    "no_answer": Rule((3 * _HOUR, _DAY, 2 * _DAY), cap=5),
    "voicemail": Rule((_DAY,), cap=3),
    "dropped": Rule((2 * _HOUR,), cap=2),
    "line": Rule((5 * _MINUTE, 15 * _MINUTE, 45 * _MINUTE), cap=5, counts=False),
}
_NEVER_AGAIN = {"invalid_number", "trunk_rejected"}


def kind_of(status: CallStatus, end_reason: str | None, talk_seconds: float | None, short_seconds: float) -> str:
    """Which rule an ended call falls under: a key of the policy, or `reached`, `never` or `canceled`."""
    if status is CallStatus.COMPLETED:
        return "dropped" if talk_seconds is not None and talk_seconds < short_seconds else "reached"
    if status is CallStatus.BUSY:
        return "declined" if end_reason == "declined" else "busy"
    if status in {CallStatus.NO_ANSWER, CallStatus.VOICEMAIL, CallStatus.CANCELED}:
        return status.value
    if end_reason == "unknown":
        # The phone may have rung, so it uses up patience.
        return "no_answer"
    return "never" if end_reason in _NEVER_AGAIN else "line"


def decide(kind: str, earlier: int, counted: int, *, max_attempts: int, scale: float) -> Verdict:
    """What to do after a call of `kind`.

    `earlier`: calls of this scheduled call that ended the same way before; `counted`: counted attempts before this one;
    `scale` multiplies every delay.
    """
    if kind == "reached":
        return Verdict(ScheduledCallStatus.COMPLETED, counts=True)
    if kind in {"never", "canceled"}:
        return Verdict(ScheduledCallStatus.EXHAUSTED, counts=True, reason=kind)
    rule = _RULES[kind]
    used = counted + 1 if rule.counts else counted
    if earlier + 1 >= rule.cap or (rule.counts and used >= max_attempts):
        return Verdict(ScheduledCallStatus.EXHAUSTED, counts=rule.counts, reason=kind)
    delay = rule.delays[min(earlier, len(rule.delays) - 1)] * scale
    return Verdict(ScheduledCallStatus.PENDING, counts=rule.counts, delay=delay)
