"""Cursor pages over row numbers, newest first."""

import base64
import binascii

from backend.core.errors import Invalid

_LARGEST = 2**63 - 1


def encode_number(number: int | None) -> str:
    return base64.urlsafe_b64encode(f"n{number}".encode()).decode().rstrip("=")


def decode_number(cursor: str | None) -> int | None:
    """The number after which to go on; `Invalid` (422) for a cursor that this service did not make."""
    if cursor is None:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        number = int(text.removeprefix("n"))
    except (binascii.Error, UnicodeError, ValueError) as fault:
        raise Invalid("cursor: not one that this API gave; leave it out to start from the newest") from fault
    if not 0 <= number <= _LARGEST:
        raise Invalid("cursor: not one that this API gave; leave it out to start from the newest")
    return number
