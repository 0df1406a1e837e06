"""The states of scheduled calls and of calls."""

from enum import StrEnum


class ScheduledCallStatus(StrEnum):
    """`completed`: the customer was reached; `exhausted`: no attempt is left; `skipped`: a gate closed for good."""

    PENDING = "pending"
    CLAIMED = "claimed"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    EXHAUSTED = "exhausted"
    SKIPPED = "skipped"


class CallStatus(StrEnum):
    """Derived from a call's facts, see facts.py."""

    QUEUED = "queued"
    DIALING = "dialing"
    RINGING = "ringing"
    ANSWERED = "answered"
    COMPLETED = "completed"
    VOICEMAIL = "voicemail"
    NO_ANSWER = "no_answer"
    BUSY = "busy"
    FAILED = "failed"
    CANCELED = "canceled"


LIVE_STATUSES = (CallStatus.QUEUED, CallStatus.DIALING, CallStatus.RINGING, CallStatus.ANSWERED)
