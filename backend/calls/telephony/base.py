"""What calling needs of a telephony vendor. Adapters raise `TelephonyAway` for a vendor that cannot be reached."""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from backend.core.errors import TransientError


class TelephonyAway(TransientError):
    """The vendor did not answer, or answered that it cannot work now; nobody's phone rang."""


class BadSignature(Exception):
    """A webhook that the vendor did not sign; the message says why."""


@dataclass(frozen=True, slots=True)
class DialOrder:
    """`ring_seconds` and `max_seconds` bound the ringing and the talk."""

    room: str
    to_e164: str
    caller_id: str
    call_id: str
    ring_seconds: int
    max_seconds: int


@dataclass(frozen=True, slots=True)
class DialResult:
    """How a dial ended. One of: `answered`; `sip_code`; `error` (see facts.derive); `uncertain`, when the phone may still ring."""

    answered: bool = False
    sip_call_id: str | None = None
    sip_code: int | None = None
    sip_text: str | None = None
    error: str | None = None
    uncertain: bool = False


EventKind = Literal[
    "agent_joined", "phone_joined", "phone_left", "room_finished", "recording_started", "recording_ended", "other"
]


@dataclass(frozen=True, slots=True)
class RecordingResult:
    """A finished recording; `path` is None when there is none. `duration_ms` is milliseconds."""

    egress_id: str
    path: str | None
    duration_ms: int
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class TelephonyEvent:
    """A verified report of the vendor."""

    event_id: str
    kind: EventKind
    type: str
    room: str
    was_answered: bool = False
    reason: str | None = None
    sip_call_id: str | None = None
    recording: RecordingResult | None = None
    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observation:
    """What the vendor says now of a call's room."""

    room_exists: bool
    phone_present: bool = False
    phone_status: str | None = None
    recording: RecordingResult | None = None
    recording_running: bool = False


class Telephony(Protocol):
    """A vendor. No method retries a dial; `dial` is called at most once per call."""

    async def open_room(self, room: str, agent_job: dict[str, str]) -> None:
        """Create the room (idempotent by name) and send for the agent with `agent_job` as its metadata."""
        ...

    async def agent_present(self, room: str) -> bool: ...

    async def dial(self, order: DialOrder) -> DialResult:
        """Ring the phone and wait for the answer."""
        ...

    async def start_recording(self, room: str, path: str) -> str:
        """Record agent left, phone right, to `path` (Ogg/Opus); the recording's id."""
        ...

    async def close_room(self, room: str) -> None:
        """End the call and its recording; a room that is gone is no error."""
        ...

    async def observe(self, room: str) -> Observation: ...

    def receive(self, body: bytes, authorization: str) -> TelephonyEvent:
        """Verify and read a webhook. Raises BadSignature."""
        ...

    async def close(self) -> None: ...
