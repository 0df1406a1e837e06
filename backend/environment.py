"""Reading environment variables: a reader that gathers every fault, and a parser for each kind of value.

Standard library only: Beat imports this file. A parser takes a text and returns a value; its ValueError says what it must be.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import time
from email.utils import formataddr, parseaddr
from ipaddress import ip_network
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

T = TypeVar("T")

_OWN_PREFIXES = ("BEATLINE_", "CALLS_", "JOBS_", "NOTIFY_", "SMTP_", "TRANSCRIPTION_")
_MIN_SECRET = 32
_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,40}$")
# What mail servers take everywhere; quoted local parts and addresses beyond ASCII are not among it.
_EMAIL = re.compile(
    r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?=.{1,255}$)[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*$"
)
_E164 = re.compile(r"^\+[1-9][0-9]{6,14}$")
_END_OF_DAY = time.max


class ConfigError(Exception):
    """One or more variables are missing or malformed; the message is one line that names each and its fix."""


@dataclass(frozen=True, slots=True)
class Window:
    """A span of local wall-clock time, start included, end excluded; an end of 24:00 is `time.max`."""

    start: time
    end: time


class Reader:
    """Reads variables and gathers every problem, so that one start shows them all."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.known: set[str] = set()
        self.problems: list[str] = []

    def value(self, name: str, parse: Callable[[str], T], default: str) -> T:
        """Parse `name` (empty counts as unset). On a fault remember it and go on with the default."""
        self.known.add(name)
        text = self.environ.get(name, "").strip() or default
        try:
            return parse(text)
        except ValueError as fault:
            # A secret must not reach a log through its own complaint.
            shown = "" if any(word in name for word in ("SECRET", "KEY", "PASSWORD", "URL")) else f"={text!r}"
            self.problems.append(f"{name}{shown} {fault}")
            return parse(default)

    def check_unknown(self) -> None:
        for name in sorted(self.environ):
            if name.startswith(_OWN_PREFIXES) and name not in self.known:
                near = difflib.get_close_matches(name, self.known, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                self.problems.append(f"{name} is not a setting{hint}")


def text(value: str) -> str:
    return value


def whole(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not value.isdecimal() or not low <= int(value) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return parse


def number(low: float, high: float) -> Callable[[str], float]:
    def parse(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            raise ValueError(f"must be a number from {low:g} to {high:g}")
        return number

    return parse


def choice(*allowed: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value

    return parse


def switch(value: str) -> bool:
    if value not in {"on", "off"}:
        raise ValueError("must be on or off")
    return value == "on"


def secret(value: str) -> str:
    if value and len(value) < _MIN_SECRET:
        raise ValueError(f"must have at least {_MIN_SECRET} characters; `openssl rand -hex 32` makes one")
    return value


def url(*schemes: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if not value:
            return value
        parts = urlsplit(value)
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(
                f"must be a URL that begins with {' or '.join(f'{s}://' for s in schemes)} and names a host"
            )
        return value.rstrip("/")

    return parse


def zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as fault:
        raise ValueError("must be an IANA time zone such as Asia/Kolkata") from fault
    return value


def _clock(text: str) -> time:
    if text == "24:00":
        return _END_OF_DAY
    if not re.fullmatch(r"[0-9]{2}:[0-9]{2}", text):
        raise ValueError(text)
    return time(int(text[:2]), int(text[3:]))


def window(value: str) -> Window:
    start, dash, end = value.partition("-")
    try:
        window = Window(_clock(start.strip()), _clock(end.strip()))
    except ValueError as fault:
        raise ValueError("must be a window such as 10:00-19:00") from fault
    if not dash or window.start >= window.end:
        raise ValueError("must be a window such as 10:00-19:00, its end after its start")
    return window


def folder(value: str) -> Path:
    path = Path(value)
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return path


def optional_folder(value: str) -> Path | None:
    return folder(value) if value else None


def phone(value: str) -> str:
    if not _E164.match(value):
        raise ValueError("must be a phone number in E.164 form such as +911600000001")
    return value


def region(value: str) -> str:
    if not re.fullmatch(r"[A-Z]{2}", value):
        raise ValueError("must be a two-letter country code such as IN")
    return value


def networks(value: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in value.split(",") if part.strip())
    for part in found:
        try:
            ip_network(part)
        except ValueError as fault:
            raise ValueError(
                "must be IP addresses and networks such as 10.0.0.0/8, with commas between them"
            ) from fault
    return found


def rate(value: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,6}/(second|minute|hour|day)", value):
        raise ValueError("must be a rate such as 600/minute; its spans are second, minute, hour and day")
    return value


def file(value: str) -> str | None:
    if value and not (Path(value).is_absolute() and os.access(value, os.R_OK) and Path(value).is_file()):
        raise ValueError("must be the absolute path of a file that can be read")
    return value or None


def email(value: str) -> str:
    """An e-mail address, alone. ValueError for anything else, line breaks included."""
    if not _EMAIL.fullmatch(value) or ".." in value or value.startswith(".") or ".@" in value:
        raise ValueError("must be an e-mail address such as ops@example.net")
    return value


def mailbox(value: str) -> str:
    """An e-mail address with or without a name before it; empty is left empty."""
    name, address = parseaddr(value)
    if not value:
        return value
    try:
        email(address)
    except ValueError:
        address = ""
    if not address or not value.isprintable():
        raise ValueError('must be an e-mail address, such as "Beatline <beatline@example.net>"')
    return formataddr((name, address))


def webhook_secret(value: str) -> bytes:
    """The key's bytes. The form is that of standardwebhooks.com: whsec_ and Base64 of 24 to 64 bytes."""
    if not value:
        return b""
    try:
        key = base64.b64decode(value.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not value.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError(
            'must be whsec_ and Base64 of 24 to 64 bytes; `echo "whsec_$(openssl rand -base64 32)"` makes one'
        )
    return key


def named_urls(value: str) -> dict[str, str]:
    """`name=url` pairs with spaces between them."""
    found: dict[str, str] = {}
    for pair in value.split():
        name, _, url = pair.partition("=")
        if not _NAME.match(name) or "://" not in url or name in found:
            raise ValueError(
                "must be pairs such as ops=slack://... with spaces between them, each name once, in small letters"
            )
        found[name] = url
    return found


def targets(*channels: str) -> Callable[[str], tuple[tuple[str, str], ...]]:
    """`channel:address` words; those of `email` hold an address, the others a name."""

    def parse(value: str) -> tuple[tuple[str, str], ...]:
        found = []
        for word in value.split():
            channel, _, address = word.partition(":")
            if channel not in channels or not (channel == "email" or _NAME.match(address)):
                raise ValueError(f"must be words such as email:ops@example.net; channels are {', '.join(channels)}")
            found.append((channel, email(address) if channel == "email" else address))
        return tuple(dict.fromkeys(found))

    return parse
