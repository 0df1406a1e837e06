"""Tokens: access tokens that are signed, refresh tokens that are derived, API keys that are random.

None of them is stored. `Keys` are those of one deployment: every API process has the same.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import jwt

from backend.config import Config

_ISSUER, _ALGORITHM = "beatline", "HS256"
_PREFIX_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_REFRESH = re.compile(r"^blr_([0-9a-f]{32})_([0-9]{1,9})_([0-9a-f]{64})$")
_API_KEY = re.compile(r"^bl_([a-z2-9]{10})_[0-9a-f]{48}$")


def hkdf(secret: bytes, info: bytes) -> bytes:
    """A key of 32 bytes for one purpose: HKDF-SHA256 (RFC 5869) without salt, its first block."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


@dataclass(frozen=True, slots=True)
class Keys:
    """What access tokens are signed with, and refresh tokens derived from. They never stand for one another."""

    access: bytes
    refresh: bytes


def keys_of(config: Config) -> Keys:
    """From BEATLINE_TOKEN_KEY; without one from the service key, which itself signs nothing."""
    secret = (config.accounts.token_key or config.service_key).encode()
    return Keys(hkdf(secret, b"beatline access token"), hkdf(secret, b"beatline refresh token"))


def access_token(keys: Keys, *, user_id: UUID, session_id: UUID, now: datetime, lasting: timedelta) -> str:
    """A JWT. It says who and which session, not what they may: that is looked up each time."""
    claims = {
        "iss": _ISSUER,
        "sub": str(user_id),
        "sid": str(session_id),
        "iat": int(now.timestamp()),
        "exp": int((now + lasting).timestamp()),
    }
    return jwt.encode(claims, keys.access, algorithm=_ALGORITHM)


def session_of_access(keys: Keys, token: str) -> UUID | None:
    """The session of an access token that we signed and that has not expired."""
    try:
        claims = jwt.decode(
            token,
            keys.access,
            algorithms=[_ALGORITHM],
            issuer=_ISSUER,
            # Another host, whose clock is ahead, may have made it.
            options={"require": ["iss", "sub", "sid", "iat", "exp"], "verify_iat": False},
        )
        return UUID(claims["sid"])
    except (jwt.InvalidTokenError, ValueError, AttributeError, TypeError):
        return None


def new_seed() -> str:
    return secrets.token_hex(32)


def refresh_token(keys: Keys, *, session_id: UUID, seed: str, generation: int) -> str:
    """The same for the same arguments: a client whose answer got lost is given it again.

    Who has the database has no key to make it with, and who has the key has no seed.
    """
    proof = hmac.new(keys.refresh, f"{session_id.hex} {generation} {seed}".encode(), hashlib.sha256).hexdigest()
    return f"blr_{session_id.hex}_{generation}_{proof}"


def parts_of_refresh(token: str) -> tuple[UUID, int] | None:
    """Session and generation that a refresh token claims to be of; None for what has not its form."""
    found = _REFRESH.match(token)
    return (UUID(found[1]), int(found[2])) if found else None


def same(given: str, expected: str) -> bool:
    """Compared in a time that does not tell how much of it is right."""
    return hmac.compare_digest(given.encode(), expected.encode())


def new_api_key() -> tuple[str, str]:
    """Prefix and whole of a key `bl_<prefix>_<secret>`: ten characters that find it, 192 random bits that prove it."""
    prefix = "".join(secrets.choice(_PREFIX_ALPHABET) for _ in range(10))
    return prefix, f"bl_{prefix}_{secrets.token_hex(24)}"


def prefix_of(token: str) -> str | None:
    """The prefix of what has the form of an API key."""
    found = _API_KEY.match(token)
    return found[1] if found else None


def hashed(api_key: str) -> str:
    return hashlib.sha256(api_key.encode()).hexdigest()
