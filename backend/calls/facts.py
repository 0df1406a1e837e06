"""A call's status is a function of what is known of it, so that order and repetition of reports don't matter."""

from dataclasses import dataclass

from backend.calls.states import CallStatus

_BUSY = {486, 600}
_DECLINED = {603, 607, 608}
_NO_ANSWER = {408, 480, 487}
_BAD_NUMBER = {404, 410, 484, 604}
_TRUNK = {401, 402, 403, 407}
_MACHINES = {"machine-vm", "machine-unavailable"}

# LiveKit's disconnect reasons of a phone that was never answered (livekit/protocol, enum DisconnectReason).
_LEFT = {
    "USER_UNAVAILABLE": (CallStatus.NO_ANSWER, "unavailable"),
    "USER_REJECTED": (CallStatus.BUSY, "rejected"),
    "ROOM_DELETED": (CallStatus.CANCELED, "room_deleted"),
    "PARTICIPANT_REMOVED": (CallStatus.CANCELED, "removed"),
}

Derived = tuple[CallStatus, str | None]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a call; each is filled in once and never cleared."""

    dialing: bool = False
    ringing: bool = False
    answered: bool = False
    left: bool = False
    sip_code: int | None = None
    dial_error: str | None = None
    reason: str | None = None
    amd: str | None = None
    cancel: bool = False


def derive(facts: Facts) -> Derived:
    """The status and, for an ended call, the reason of its end."""
    if facts.answered:
        return _answered(facts)
    if facts.sip_code:
        return _refused(facts.sip_code, canceled=facts.cancel)
    if facts.left or facts.dial_error:
        return _unanswered(facts)
    if facts.ringing:
        return CallStatus.RINGING, None
    return (CallStatus.DIALING if facts.dialing else CallStatus.QUEUED), None


def _answered(facts: Facts) -> Derived:
    if not facts.left:
        return CallStatus.ANSWERED, None
    if facts.amd in _MACHINES:
        return CallStatus.VOICEMAIL, facts.amd
    return CallStatus.COMPLETED, "agent_hangup" if facts.reason == "ROOM_DELETED" else "hangup"


def _unanswered(facts: Facts) -> Derived:
    if facts.cancel:
        return CallStatus.CANCELED, "api"
    if facts.dial_error:
        status = CallStatus.NO_ANSWER if facts.dial_error == "ring_timeout" else CallStatus.FAILED
        return status, facts.dial_error
    return _LEFT.get(facts.reason or "", (CallStatus.FAILED, (facts.reason or "unknown").lower()))


def _refused(code: int, *, canceled: bool) -> Derived:
    if code == 487 and canceled:
        return CallStatus.CANCELED, "api"
    for codes, verdict in (
        (_BUSY, (CallStatus.BUSY, "busy")),
        (_DECLINED, (CallStatus.BUSY, "declined")),
        (_NO_ANSWER, (CallStatus.NO_ANSWER, "unavailable" if code == 480 else "ring_timeout")),
        (_BAD_NUMBER, (CallStatus.FAILED, "invalid_number")),
        (_TRUNK, (CallStatus.FAILED, "trunk_rejected")),
    ):
        if code in codes:
            return verdict
    return CallStatus.FAILED, "carrier_error" if 500 <= code < 600 else f"sip_{code}"
