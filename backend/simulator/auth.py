"""Access tokens: HS256, signed with the one key that the simulator knows."""

from dataclasses import dataclass, field
from typing import Any

import jwt

from backend.simulator.wire import TwirpError

_LEEWAY = 60


class BadToken(Exception):
    """A token that is not ours, or no longer valid; answered in plain text, as LiveKit does."""


@dataclass(frozen=True, slots=True)
class Claims:
    video: dict[str, Any] = field(default_factory=dict)
    sip: dict[str, Any] = field(default_factory=dict)


def read_claims(authorization: str, api_key: str, api_secret: str) -> Claims:
    """No header at all gives no grants, and the method then refuses; a bad token raises BadToken."""
    if not authorization:
        return Claims()
    scheme, _, token = authorization.partition(" ")
    if scheme != "Bearer" or not token:
        raise BadToken("invalid authorization header. Must start with Bearer ")
    try:
        claims = jwt.decode(
            token,
            api_secret,
            algorithms=["HS256"],
            issuer=api_key,
            leeway=_LEEWAY,
            options={"require": ["iss", "exp"], "verify_aud": False},
        )
    except jwt.PyJWTError as fault:
        raise BadToken(f"invalid token: {fault}") from fault
    return Claims(video=_section(claims, "video"), sip=_section(claims, "sip"))


def _section(claims: dict[str, Any], name: str) -> dict[str, Any]:
    section = claims.get(name)
    return section if isinstance(section, dict) else {}


_VIDEO_GRANTS = {"CreateRoom": "roomCreate", "DeleteRoom": "roomCreate", "ListRooms": "roomList"}
_SIP_CALLS = {"CreateSIPParticipant", "TransferSIPParticipant"}


def demand(claims: Claims, service: str, method: str, room: str) -> None:
    """Refuse a call that the token does not grant; `room` is the room that the request names."""
    if not _granted(claims, service, method, room):
        raise TwirpError("unauthenticated", "permissions denied")


def _granted(claims: Claims, service: str, method: str, room: str) -> bool:
    if service == "livekit.SIP":
        if method == "TransferSIPParticipant" and not _is_admin(claims, room):
            return False
        return claims.sip.get("call" if method in _SIP_CALLS else "admin") is True
    if service == "livekit.Egress":
        return claims.video.get("roomRecord") is True
    if service == "livekit.RoomService" and method in _VIDEO_GRANTS:
        return claims.video.get(_VIDEO_GRANTS[method]) is True
    return _is_admin(claims, room)


def _is_admin(claims: Claims, room: str) -> bool:
    return claims.video.get("roomAdmin") is True and claims.video.get("room") == room
