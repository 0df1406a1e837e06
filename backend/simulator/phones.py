"""What a phone does, by the last three digits of its number."""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

from livekit.protocol.models import DisconnectReason

from backend.simulator.wire import TwirpError

CLIPS_DIR = Path(__file__).parent / "clips"


@dataclass(frozen=True, slots=True)
class Clip:
    """One conversation ready to be recorded: agent left, customer right; `text` has both sides in the order spoken."""

    id: str
    file: str
    seconds: float
    role: str
    text: str
    agent_text: str
    customer_text: str
    source: str
    licence: str

    @property
    def path(self) -> Path:
        return CLIPS_DIR / self.file


def load_clips() -> dict[str, Clip]:
    entries = json.loads((CLIPS_DIR / "clips.json").read_text(encoding="utf-8"))
    return {entry["id"]: Clip(**entry) for entry in entries}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a phone was not answered: what the waiting RPC gets, and why the participant leaves."""

    code: str
    message: str
    reason: DisconnectReason
    outcome: str
    sip_code: int | None = None
    sip_text: str = ""

    def error(self) -> TwirpError:
        """A new one each time: an exception that is raised again keeps all its tracebacks."""
        if self.sip_code is None:
            return TwirpError(self.code, self.message)
        return TwirpError(self.code, self.message, sip_status_code=str(self.sip_code), sip_status=self.sip_text)


@dataclass(frozen=True, slots=True)
class Phone:
    """Simulated seconds. `rings` None is for ever; `trying` False never gets a SIP response; `talks` None is the whole clip."""

    behaviour: str
    rings: float | None = 2.0
    trying: bool = True
    refusal: Failure | None = None
    talks: float | None = None
    hangs_rpc: bool = False
    category: str = "human"
    outcome: str | None = None

    @property
    def answers(self) -> bool:
        return self.rings is not None and self.refusal is None and self.trying and not self.hangs_rpc


def sip_failure(code: int, text: str, twirp: str, reason: DisconnectReason, outcome: str) -> Failure:
    return Failure(twirp, f"INVITE failed: sip status: {code}: {text}", reason, outcome, code, text)


_REJECTED, _UNAVAILABLE = DisconnectReason.USER_REJECTED, DisconnectReason.USER_UNAVAILABLE
DECLINED = sip_failure(603, "Decline", "permission_denied", _REJECTED, "declined")
RING_OUT = Failure("canceled", "sip request timed out", _UNAVAILABLE, "no_answer")
TRUNK_TIMEOUT = Failure(
    "canceled", "transaction failed to complete (0 intermediate responses)", _UNAVAILABLE, "trunk_timeout"
)
SHUT_DOWN = Failure("unavailable", "the server is shutting down", DisconnectReason.SERVER_SHUTDOWN, "shut_down")
CANCELED = Failure("canceled", "the call was canceled: the room is closed", DisconnectReason.ROOM_DELETED, "canceled")
TRUNK_SECONDS = 32.0  # SIP timer B: 64 times T1
_GREETING_PAUSE = 30.0

_TALKS = Phone("talks")
_PHONES = {
    "200": _TALKS,
    "486": Phone("busy", rings=0.5, refusal=sip_failure(486, "Busy Here", "resource_exhausted", _REJECTED, "busy")),
    "603": Phone("declines", rings=3.0, refusal=DECLINED),
    "404": Phone(
        "bad number", rings=0.3, refusal=sip_failure(404, "Not Found", "not_found", _UNAVAILABLE, "bad_number")
    ),
    "484": Phone(
        "bad number",
        rings=0.3,
        refusal=sip_failure(484, "Address Incomplete", "invalid_argument", _REJECTED, "bad_number"),
    ),
    "480": Phone(
        "unavailable",
        rings=1.0,
        refusal=sip_failure(480, "Temporarily Unavailable", "resource_exhausted", _UNAVAILABLE, "unavailable"),
    ),
    "503": Phone(
        "carrier error",
        rings=0.3,
        refusal=sip_failure(
            503, "Service Unavailable", "failed_precondition", DisconnectReason.UNKNOWN_REASON, "carrier_error"
        ),
    ),
    "000": Phone("rings out", rings=None),
    "777": Phone("voicemail", rings=4.0, category="machine-vm"),
    "111": Phone("hangs up after a second", talks=1.0),
    "999": Phone("never responds", trying=False),
    "408": Phone("leaves the caller waiting", rings=None, hangs_rpc=True),
    "666": Phone("asks not to be called", outcome="do_not_call"),
    "222": Phone("asks for a callback", outcome="callback"),
}


def phone_of(number: str) -> Phone:
    return _PHONES.get(number[-3:], _TALKS)


def clip_of(number: str, clips: dict[str, Clip]) -> Clip | None:
    """The same number always has the same clip; a phone that nobody answers has none."""
    phone = phone_of(number)
    if not phone.answers:
        return None
    role = "greeting" if phone.category == "machine-vm" else "conversation"
    fitting = [clip for clip in clips.values() if clip.role == role]
    return fitting[zlib.crc32(number.encode()) % len(fitting)]


def talk_seconds(phone: Phone, clip: Clip) -> float:
    """How long the far side stays on the line; a voicemail system records for a while after its greeting."""
    if phone.category == "machine-vm":
        return clip.seconds + _GREETING_PAUSE
    return clip.seconds if phone.talks is None else phone.talks
