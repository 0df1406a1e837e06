"""The environment, read once into a typed record. Standard library only: Beat imports this file.

A malformed value stops the start with one clear line and exit code 2; see docs/operations/configuration.md.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import time
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

T = TypeVar("T")

_OWN_PREFIXES = ("BEATLINE_", "CALLS_", "JOBS_", "TRANSCRIPTION_")
_MIN_SECRET = 32
_E164 = re.compile(r"^\+[1-9][0-9]{6,14}$")
_END_OF_DAY = time.max


class ConfigError(Exception):
    """One or more variables are missing or malformed; the message is one line that names each and its fix."""


@dataclass(frozen=True, slots=True)
class Window:
    """A span of local wall-clock time, start included, end excluded; an end of 24:00 is `time.max`."""

    start: time
    end: time


@dataclass(frozen=True, slots=True)
class Tls:
    """How a server is spoken to over TLS. Without `ca` the system's authorities count; `key` may stand in `certificate`."""

    verify: bool
    ca: str | None
    certificate: str | None
    key: str | None


@dataclass(frozen=True, slots=True)
class Signing:
    """Key and certificate with which messages are signed, and the folder of those that are trusted."""

    key: str
    certificate: str
    store: str


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting of every process. Durations are seconds, except where a name says days."""

    broker_url: str
    broker_tls: Tls | None
    redis_tls: Tls | None
    signing: Signing | None
    redis_url: str
    result_backend: str
    result_expires: int
    database_url: str
    api_url: str
    service_key: str
    livekit_url: str
    livekit_api_key: str
    livekit_api_secret: str
    livekit_agent_name: str
    livekit_sip_trunk: str
    livekit_sip_address: str
    livekit_sip_number: str
    egress_dir: Path
    recordings_dir: Path
    cache_dir: Path | None
    timezone: str
    default_region: str
    agency: str
    calls_horizon_days: int
    calls_window: Window
    calls_window_limit: Window
    calls_max_attempts: int
    calls_backoff_scale: float
    calls_ring_seconds: int
    calls_max_seconds: int
    calls_agent_wait_seconds: float
    calls_short_seconds: float
    calls_max_concurrent: int
    calls_per_second: float
    calls_claim_seconds: int
    calls_advance_seconds: float
    calls_grace_seconds: float
    calls_recording: bool
    transcription_language: str
    transcription_threads: int
    run_lease_seconds: float
    queue_timeout_seconds: float
    run_retention_days: int
    dead_letter_retention_days: int
    jobs_http_allow_private: bool
    alert_webhook_url: str
    log_level: str

    @property
    def broker_is_redis(self) -> bool:
        return self.broker_url.startswith("redis")

    def require(self, *variables: str) -> None:
        """Check that this process has what it cannot run without; raise ConfigError naming what is missing."""
        missing = [name for name in variables if not getattr(self, _FIELD_OF[name])]
        if missing:
            raise ConfigError(f"{', '.join(missing)} must be set; .env.example says how")


class _Reader:
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


def _text(value: str) -> str:
    return value


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not value.isdecimal() or not low <= int(value) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return parse


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not low <= number <= high:
            raise ValueError(f"must be a number from {low:g} to {high:g}")
        return number

    return parse


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value

    return parse


def _switch(value: str) -> bool:
    if value not in {"on", "off"}:
        raise ValueError("must be on or off")
    return value == "on"


def _secret(value: str) -> str:
    if value and len(value) < _MIN_SECRET:
        raise ValueError(f"must have at least {_MIN_SECRET} characters; `openssl rand -hex 32` makes one")
    return value


def _url(*schemes: str) -> Callable[[str], str]:
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


def _zone(value: str) -> str:
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


def _window(value: str) -> Window:
    start, dash, end = value.partition("-")
    try:
        window = Window(_clock(start.strip()), _clock(end.strip()))
    except ValueError as fault:
        raise ValueError("must be a window such as 10:00-19:00") from fault
    if not dash or window.start >= window.end:
        raise ValueError("must be a window such as 10:00-19:00, its end after its start")
    return window


def _folder(value: str) -> Path:
    path = Path(value)
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return path


def _optional_folder(value: str) -> Path | None:
    return _folder(value) if value else None


def _phone(value: str) -> str:
    if not _E164.match(value):
        raise ValueError("must be a phone number in E.164 form such as +911600000001")
    return value


def _region(value: str) -> str:
    if not re.fullmatch(r"[A-Z]{2}", value):
        raise ValueError("must be a two-letter country code such as IN")
    return value


def _file(value: str) -> str | None:
    if value and not (Path(value).is_absolute() and os.access(value, os.R_OK) and Path(value).is_file()):
        raise ValueError("must be the absolute path of a file that can be read")
    return value or None


def _tls(read: _Reader, server: str) -> Tls | None:
    mode = read.value(f"{server}_TLS", _choice("off", "on", "verify"), "off")
    ca, certificate, key = (read.value(f"{server}_TLS_{part}", _file, "") for part in ("CA", "CERTIFICATE", "KEY"))
    if ca and mode != "verify":
        read.problems.append(f"{server}_TLS_CA needs {server}_TLS=verify")
    if certificate and mode == "off":
        read.problems.append(f"{server}_TLS_CERTIFICATE needs {server}_TLS=on or verify")
    if key and not certificate:
        read.problems.append(f"{server}_TLS_KEY needs {server}_TLS_CERTIFICATE")
    return None if mode == "off" else Tls(mode == "verify", ca, certificate, key)


def _signing(read: _Reader) -> Signing | None:
    key = read.value("CELERY_SIGNING_KEY", _file, "")
    certificate = read.value("CELERY_SIGNING_CERTIFICATE", _file, "")
    store = read.value("CELERY_SIGNING_CERT_STORE", _optional_folder, "")
    if store and not store.is_dir():
        read.problems.append("CELERY_SIGNING_CERT_STORE must be a folder of certificates")
    if key and certificate and store:
        return Signing(key, certificate, str(store))
    if key or certificate or store:
        read.problems.append(
            "CELERY_SIGNING_KEY, CELERY_SIGNING_CERTIFICATE and CELERY_SIGNING_CERT_STORE must be set together"
        )
    return None


def _redis_url(read: _Reader, database: int) -> str:
    host = read.value("REDIS_HOST", _text, "127.0.0.1")
    port = read.value("REDIS_PORT", _whole(1, 65535), "6379")
    password = read.value("REDIS_PASSWORD", _text, "")
    login = f":{quote(password, safe='')}@" if password else ""
    scheme = "rediss" if _tls(read, "REDIS") else "redis"
    return f"{scheme}://{login}{host}:{port}/{database}"


def _common_redis_url(read: _Reader) -> str:
    """Of the database of idempotency records, locks and rate limits; results are kept there, too, unless elsewhere."""
    return _redis_url(read, read.value("CELERY_RESULT_REDIS_DATABASE", _whole(0, 1023), "1"))


def _result_backend(read: _Reader) -> str:
    """Empty, which keeps no results, where they belong in a database that this process does not know."""
    redis = _common_redis_url(read)
    if read.value("CELERY_RESULT_BACKEND", _choice("redis", "postgresql"), "redis") == "redis":
        return redis
    return read.value("DATABASE_URL", _url("postgresql"), "").replace("postgresql://", "db+postgresql+psycopg://", 1)


def _broker_url(read: _Reader) -> str:
    database = read.value("CELERY_BROKER_REDIS_DATABASE", _whole(0, 1023), "0")
    redis = _redis_url(read, database)
    tls = _tls(read, "CELERY_RABBITMQ")
    host = read.value("CELERY_RABBITMQ_HOST", _text, "127.0.0.1")
    port = read.value("CELERY_RABBITMQ_PORT", _whole(1, 65535), "5671" if tls else "5672")
    user = quote(read.value("CELERY_RABBITMQ_USERNAME", _text, "guest"), safe="")
    password = quote(read.value("CELERY_RABBITMQ_PASSWORD", _text, "guest"), safe="")
    # The default virtual host is named "/", which must arrive as %2F.
    vhost = quote(read.value("CELERY_RABBITMQ_VHOST", _text, "/"), safe="")
    if read.value("CELERY_BROKER", _choice("redis", "rabbitmq"), "redis") == "redis":
        return redis
    return f"{'amqps' if tls else 'amqp'}://{user}:{password}@{host}:{port}/{vhost}"


_DEFAULT_WINDOW, _DEFAULT_LIMIT = "10:00-19:00", "09:00-21:00"


def load(environ: Mapping[str, str]) -> Config:
    """Read and check the whole environment; raise ConfigError with one line that names every fault."""
    read = _Reader(environ)
    config = Config(
        broker_url=(broker := _broker_url(read)),
        broker_tls=_tls(read, "REDIS" if broker.startswith("redis") else "CELERY_RABBITMQ"),
        redis_tls=_tls(read, "REDIS"),
        signing=_signing(read),
        redis_url=_common_redis_url(read),
        result_backend=_result_backend(read),
        result_expires=read.value("CELERY_RESULT_EXPIRES", _whole(60, 31_536_000), "86400"),
        database_url=read.value("DATABASE_URL", _url("postgresql"), ""),
        api_url=read.value("BEATLINE_API_URL", _url("http", "https"), "http://127.0.0.1:8000"),
        service_key=read.value("BEATLINE_SERVICE_KEY", _secret, ""),
        livekit_url=read.value("LIVEKIT_URL", _url("http", "https", "ws", "wss"), "http://127.0.0.1:7880"),
        livekit_api_key=read.value("LIVEKIT_API_KEY", _text, ""),
        livekit_api_secret=read.value("LIVEKIT_API_SECRET", _secret, ""),
        livekit_agent_name=read.value("LIVEKIT_AGENT_NAME", _text, "beatline-renewal"),
        livekit_sip_trunk=read.value("LIVEKIT_SIP_TRUNK", _text, "beatline"),
        livekit_sip_address=read.value("LIVEKIT_SIP_ADDRESS", _text, "sip.invalid"),
        livekit_sip_number=read.value("LIVEKIT_SIP_NUMBER", _phone, "+911600000001"),
        egress_dir=read.value("EGRESS_DIR", _folder, "/var/lib/beatline/egress"),
        recordings_dir=read.value("RECORDINGS_DIR", _folder, "/var/lib/beatline/recordings"),
        cache_dir=read.value("BEATLINE_CACHE_DIR", _optional_folder, ""),
        timezone=read.value("DATETIME_TIMEZONE", _zone, "Asia/Kolkata"),
        default_region=read.value("DEFAULT_REGION", _region, "IN"),
        agency=read.value("BEATLINE_AGENCY", _text, "Beatline Insurance Agency"),
        calls_horizon_days=read.value("CALLS_HORIZON_DAYS", _whole(0, 366), "30"),
        calls_window=read.value("CALLS_WINDOW", _window, _DEFAULT_WINDOW),
        calls_window_limit=read.value("CALLS_WINDOW_LIMIT", _window, _DEFAULT_LIMIT),
        calls_max_attempts=read.value("CALLS_MAX_ATTEMPTS", _whole(1, 20), "5"),
        calls_backoff_scale=read.value("CALLS_BACKOFF_SCALE", _number(0, 100), "1"),
        # At most 75 s: livekit-server gives up on a waiting dial after 80 s.
        calls_ring_seconds=read.value("CALLS_RING_SECONDS", _whole(1, 75), "35"),
        calls_max_seconds=read.value("CALLS_MAX_SECONDS", _whole(10, 14_400), "600"),
        calls_agent_wait_seconds=read.value("CALLS_AGENT_WAIT_SECONDS", _number(0.1, 60), "10"),
        calls_short_seconds=read.value("CALLS_SHORT_SECONDS", _number(0, 60), "10"),
        calls_max_concurrent=read.value("CALLS_MAX_CONCURRENT", _whole(1, 10_000), "10"),
        calls_per_second=read.value("CALLS_PER_SECOND", _number(0.01, 10_000), "1"),
        calls_claim_seconds=read.value("CALLS_CLAIM_SECONDS", _whole(5, 3600), "180"),
        calls_advance_seconds=read.value("CALLS_ADVANCE_SECONDS", _number(1, 3600), "120"),
        calls_grace_seconds=read.value("CALLS_GRACE_SECONDS", _number(1, 600), "30"),
        calls_recording=read.value("CALLS_RECORDING", _switch, "on"),
        transcription_language=read.value("TRANSCRIPTION_LANGUAGE", _text, ""),
        transcription_threads=read.value("TRANSCRIPTION_THREADS", _whole(0, 256), "0"),
        run_lease_seconds=read.value("BEATLINE_RUN_LEASE_SECONDS", _number(2, 3600), "60"),
        queue_timeout_seconds=read.value("BEATLINE_QUEUE_TIMEOUT_SECONDS", _number(1, 86_400), "600"),
        run_retention_days=read.value("BEATLINE_RUN_RETENTION_DAYS", _whole(0, 3650), "90"),
        dead_letter_retention_days=read.value("BEATLINE_DEAD_LETTER_RETENTION_DAYS", _whole(0, 3650), "90"),
        jobs_http_allow_private=read.value("JOBS_HTTP_ALLOW_PRIVATE", _switch, "off"),
        alert_webhook_url=read.value("BEATLINE_ALERT_WEBHOOK_URL", _url("http", "https"), ""),
        log_level=read.value("LOG_LEVEL", _choice("DEBUG", "INFO", "WARNING", "ERROR"), "INFO"),
    )
    read.check_unknown()
    if read.problems:
        raise ConfigError("; ".join(dict.fromkeys(read.problems)))
    return config


_FIELD_OF = {
    "DATABASE_URL": "database_url",
    "BEATLINE_SERVICE_KEY": "service_key",
    "LIVEKIT_API_KEY": "livekit_api_key",
    "LIVEKIT_API_SECRET": "livekit_api_secret",
}


def stop(fault: ConfigError) -> None:
    """Say what is wrong in one line and leave with exit code 2."""
    sys.stderr.write(f"beatline: configuration: {fault}\n")
    raise SystemExit(2)


def load_or_exit(environ: Mapping[str, str] = os.environ) -> Config:
    """`load`, for a process's start."""
    try:
        return load(environ)
    except ConfigError as fault:
        stop(fault)
        raise
