"""What a button did, told on the next page: in a cookie that is gone once it was shown."""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

_COOKIE = "beatline_said"
_SECONDS = 60
# A cookie may hold about 4 kB; base64 makes four bytes of three.
_MOST = 1_500


@dataclass(frozen=True, slots=True)
class Said:
    text: str
    good: bool


def lead(path: str, text: str, *, good: bool = True) -> Response:
    """To a page that says `text` once."""
    answer = RedirectResponse(path, 303)
    short = text.encode()[:_MOST].decode(errors="ignore")
    value = base64.urlsafe_b64encode(json.dumps([short, good], ensure_ascii=False).encode()).decode()
    answer.set_cookie(_COOKIE, value, max_age=_SECONDS, path="/ops", httponly=True, samesite="strict")
    return answer


def said(request: Request) -> Said | None:
    """What the button before had to say. Whatever the cookie holds is text for its own browser."""
    try:
        found: Any = json.loads(base64.urlsafe_b64decode(request.cookies.get(_COOKIE, "")))
    except (binascii.Error, ValueError, RecursionError):
        return None
    match found:
        case [str(text), bool(good)]:
            return Said(text, good)
    return None


def forget(answer: Response) -> None:
    answer.delete_cookie(_COOKIE, path="/ops", httponly=True, samesite="strict")
