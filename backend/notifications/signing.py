"""Signatures of webhooks by the rules of Standard Webhooks (standardwebhooks.com), version v1."""

import base64
import hashlib
import hmac
from uuid import UUID


def key_of(secret: bytes, user_id: UUID | None) -> bytes:
    """The key of a receiver: the operator's own is the secret itself, each user's is derived from it.

    With one key for all, a user could hand a message that was signed for them to somebody else's receiver.
    """
    if user_id is None or not secret:
        return secret
    return hmac.new(secret, f"beatline webhook of user {user_id}".encode(), hashlib.sha256).digest()


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def written(key: bytes) -> str:
    """A key as the libraries of receivers take it."""
    return "whsec_" + base64.b64encode(key).decode()
