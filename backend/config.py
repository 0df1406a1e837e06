"""The environment, read once into a typed record. Standard library only: Beat imports this file.

A malformed value stops the start with one clear line and exit code 2; see docs/operations/configuration.md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import backend.environment as env
from backend.environment import ConfigError, Reader, Window
from backend.recording_settings import Recordings, read_recordings


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
class Accounts:
    """Who signs in, and how long that lasts. Without `token_key` tokens are signed by a key that the service key gives."""

    token_key: str
    admin_username: str
    admin_password: str
    access_seconds: int
    session_days: int
    retention_days: int
    login_attempts: int
    login_address_attempts: int
    trusted_proxies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Smtp:
    """The mail server. `tls`: from the start (`tls`), after STARTTLS (`starttls`), or not at all (`off`); `ca` as in Tls."""

    host: str
    port: int
    username: str
    password: str
    tls: str
    ca: str | None


@dataclass(frozen=True, slots=True)
class Notify:
    """How notifications leave. `sender` is an e-mail address with or without a name; `apprise` URLs by target.

    `alerts` are (channel, address) pairs that are told of the incidents of schedules, besides BEATLINE_ALERT_WEBHOOK_URL.
    """

    sender: str
    webhook_secret: bytes
    webhook_allow_private: bool
    apprise: Mapping[str, str]
    alerts: tuple[tuple[str, str], ...]
    max_tries: int
    bulk_per_second: float
    retention_days: int


@dataclass(frozen=True, slots=True)
class Retention:
    """For how many days what grows is kept; 0: for ever."""

    operations: int
    logins: int
    sent_tasks: int
    health: int
    imports: int
    call_events: int
    calls: int
    recordings: int
    quotas: int


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
    # Where people find the pages; empty where nobody has said.
    public_url: str
    service_key: str
    accounts: Accounts
    livekit_url: str
    livekit_api_key: str
    livekit_api_secret: str
    livekit_agent_name: str
    livekit_sip_trunk: str
    livekit_sip_address: str
    livekit_sip_number: str
    egress_dir: Path
    recordings: Recordings
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
    run_lease_seconds: float
    queue_timeout_seconds: float
    send_rate: str
    run_retention_days: int
    dead_letter_retention_days: int
    retention: Retention
    jobs_http_allow_private: bool
    alert_webhook_url: str
    smtp: Smtp | None
    notify: Notify
    log_level: str

    @property
    def broker_is_redis(self) -> bool:
        return self.broker_url.startswith("redis")

    def require(self, *variables: str) -> None:
        """Check that this process has what it cannot run without; raise ConfigError naming what is missing."""
        missing = [name for name in variables if not getattr(self, _FIELD_OF[name])]
        if missing:
            raise ConfigError(f"{', '.join(missing)} must be set; .env.example says how")


def _tls(read: Reader, server: str) -> Tls | None:
    mode = read.value(f"{server}_TLS", env.choice("off", "on", "verify"), "off")
    ca, certificate, key = (read.value(f"{server}_TLS_{part}", env.file, "") for part in ("CA", "CERTIFICATE", "KEY"))
    if ca and mode != "verify":
        read.problems.append(f"{server}_TLS_CA needs {server}_TLS=verify")
    if certificate and mode == "off":
        read.problems.append(f"{server}_TLS_CERTIFICATE needs {server}_TLS=on or verify")
    if key and not certificate:
        read.problems.append(f"{server}_TLS_KEY needs {server}_TLS_CERTIFICATE")
    return None if mode == "off" else Tls(mode == "verify", ca, certificate, key)


def _signing(read: Reader) -> Signing | None:
    key = read.value("CELERY_SIGNING_KEY", env.file, "")
    certificate = read.value("CELERY_SIGNING_CERTIFICATE", env.file, "")
    store = read.value("CELERY_SIGNING_CERT_STORE", env.optional_folder, "")
    if store and not store.is_dir():
        read.problems.append("CELERY_SIGNING_CERT_STORE must be a folder of certificates")
    if key and certificate and store:
        return Signing(key, certificate, str(store))
    if key or certificate or store:
        read.problems.append(
            "CELERY_SIGNING_KEY, CELERY_SIGNING_CERTIFICATE and CELERY_SIGNING_CERT_STORE must be set together"
        )
    return None


def _accounts(read: Reader) -> Accounts:
    accounts = Accounts(
        token_key=read.value("BEATLINE_TOKEN_KEY", env.secret, ""),
        admin_username=read.value("BEATLINE_ADMIN_USERNAME", env.text, ""),
        admin_password=read.value("BEATLINE_ADMIN_PASSWORD", env.text, ""),
        access_seconds=read.value("BEATLINE_ACCESS_TOKEN_SECONDS", env.whole(30, 86_400), "900"),
        session_days=read.value("BEATLINE_SESSION_DAYS", env.whole(1, 365), "14"),
        retention_days=read.value("BEATLINE_SESSION_RETENTION_DAYS", env.whole(0, 3650), "30"),
        login_attempts=read.value("BEATLINE_LOGIN_ATTEMPTS", env.whole(3, 1_000), "10"),
        login_address_attempts=read.value("BEATLINE_LOGIN_ADDRESS_ATTEMPTS", env.whole(3, 100_000), "100"),
        trusted_proxies=read.value("BEATLINE_TRUSTED_PROXIES", env.networks, ""),
    )
    if bool(accounts.admin_username) != bool(accounts.admin_password):
        read.problems.append("BEATLINE_ADMIN_USERNAME and BEATLINE_ADMIN_PASSWORD must be set together")
    return accounts


def _retention(read: Reader) -> Retention:
    days = env.whole(0, 3650)
    return Retention(
        operations=read.value("BEATLINE_OPERATION_LOG_RETENTION_DAYS", days, "400"),
        logins=read.value("BEATLINE_LOGIN_LOG_RETENTION_DAYS", days, "400"),
        sent_tasks=read.value("BEATLINE_SENT_TASK_RETENTION_DAYS", days, "7"),
        health=read.value("BEATLINE_HEALTH_RETENTION_DAYS", days, "7"),
        imports=read.value("BEATLINE_IMPORT_RETENTION_DAYS", days, "90"),
        call_events=read.value("CALLS_EVENT_RETENTION_DAYS", days, "400"),
        calls=read.value("CALLS_RETENTION_DAYS", days, "0"),
        recordings=read.value("CALLS_RECORDING_RETENTION_DAYS", days, "0"),
        quotas=read.value("QUOTA_RETENTION_DAYS", days, "90"),
    )


def _redis_url(read: Reader, database: int) -> str:
    host = read.value("REDIS_HOST", env.text, "127.0.0.1")
    port = read.value("REDIS_PORT", env.whole(1, 65535), "6379")
    password = read.value("REDIS_PASSWORD", env.text, "")
    login = f":{quote(password, safe='')}@" if password else ""
    scheme = "rediss" if _tls(read, "REDIS") else "redis"
    return f"{scheme}://{login}{host}:{port}/{database}"


def _common_redis_url(read: Reader) -> str:
    """Of the database of idempotency records, locks and rate limits; results are kept there, too, unless elsewhere."""
    return _redis_url(read, read.value("CELERY_RESULT_REDIS_DATABASE", env.whole(0, 1023), "1"))


def _result_backend(read: Reader) -> str:
    """Empty, which keeps no results, where they belong in a database that this process does not know."""
    redis = _common_redis_url(read)
    if read.value("CELERY_RESULT_BACKEND", env.choice("redis", "postgresql"), "redis") == "redis":
        return redis
    return read.value("DATABASE_URL", env.url("postgresql"), "").replace("postgresql://", "db+postgresql+psycopg://", 1)


def _broker_url(read: Reader) -> str:
    database = read.value("CELERY_BROKER_REDIS_DATABASE", env.whole(0, 1023), "0")
    redis = _redis_url(read, database)
    tls = _tls(read, "CELERY_RABBITMQ")
    host = read.value("CELERY_RABBITMQ_HOST", env.text, "127.0.0.1")
    port = read.value("CELERY_RABBITMQ_PORT", env.whole(1, 65535), "5671" if tls else "5672")
    user = quote(read.value("CELERY_RABBITMQ_USERNAME", env.text, "guest"), safe="")
    password = quote(read.value("CELERY_RABBITMQ_PASSWORD", env.text, "guest"), safe="")
    # The default virtual host is named "/", which must arrive as %2F.
    vhost = quote(read.value("CELERY_RABBITMQ_VHOST", env.text, "/"), safe="")
    if read.value("CELERY_BROKER", env.choice("redis", "rabbitmq"), "redis") == "redis":
        return redis
    return f"{'amqps' if tls else 'amqp'}://{user}:{password}@{host}:{port}/{vhost}"


def _smtp(read: Reader) -> Smtp | None:
    """None without a host: e-mail is not set up."""
    tls = read.value("SMTP_TLS", env.choice("starttls", "tls", "off"), "starttls")
    smtp = Smtp(
        host=read.value("SMTP_HOST", env.text, ""),
        port=read.value("SMTP_PORT", env.whole(1, 65535), {"starttls": "587", "tls": "465", "off": "25"}[tls]),
        username=read.value("SMTP_USERNAME", env.text, ""),
        password=read.value("SMTP_PASSWORD", env.text, ""),
        tls=tls,
        ca=read.value("SMTP_TLS_CA", env.file, ""),
    )
    if bool(smtp.username) != bool(smtp.password):
        read.problems.append("SMTP_USERNAME and SMTP_PASSWORD must be set together")
    if smtp.password and tls == "off":
        read.problems.append("SMTP_PASSWORD needs SMTP_TLS=starttls or tls")
    return smtp if smtp.host else None


def _notify(read: Reader) -> Notify:
    notify = Notify(
        sender=read.value("NOTIFY_FROM", env.mailbox, ""),
        webhook_secret=read.value("NOTIFY_WEBHOOK_SECRET", env.webhook_secret, ""),
        webhook_allow_private=read.value("NOTIFY_WEBHOOK_ALLOW_PRIVATE", env.switch, "off"),
        apprise=read.value("NOTIFY_APPRISE_URLS", env.named_urls, ""),
        alerts=read.value("NOTIFY_ALERTS", env.targets("email", "apprise"), ""),
        max_tries=read.value("NOTIFY_MAX_TRIES", env.whole(1, 50), "12"),
        bulk_per_second=read.value("NOTIFY_BULK_PER_SECOND", env.number(0.1, 10_000), "10"),
        retention_days=read.value("NOTIFY_RETENTION_DAYS", env.whole(0, 3650), "90"),
    )
    if read.environ.get("SMTP_HOST", "").strip() and not notify.sender:
        read.problems.append("SMTP_HOST needs NOTIFY_FROM, the sender's address")
    for channel, name in notify.alerts:
        if channel == "apprise" and name not in notify.apprise:
            read.problems.append(f"NOTIFY_ALERTS names apprise:{name}, which NOTIFY_APPRISE_URLS does not")
    return notify


_DEFAULT_WINDOW, _DEFAULT_LIMIT = "10:00-19:00", "09:00-21:00"


def load(environ: Mapping[str, str]) -> Config:
    """Read and check the whole environment; raise ConfigError with one line that names every fault."""
    read = Reader(environ)
    config = Config(
        broker_url=(broker := _broker_url(read)),
        broker_tls=_tls(read, "REDIS" if broker.startswith("redis") else "CELERY_RABBITMQ"),
        redis_tls=_tls(read, "REDIS"),
        signing=_signing(read),
        redis_url=_common_redis_url(read),
        result_backend=_result_backend(read),
        result_expires=read.value("CELERY_RESULT_EXPIRES", env.whole(60, 31_536_000), "86400"),
        database_url=read.value("DATABASE_URL", env.url("postgresql"), ""),
        api_url=read.value("BEATLINE_API_URL", env.url("http", "https"), "http://127.0.0.1:8000"),
        public_url=read.value("BEATLINE_PUBLIC_URL", env.url("http", "https"), ""),
        service_key=read.value("BEATLINE_SERVICE_KEY", env.secret, ""),
        accounts=_accounts(read),
        livekit_url=read.value("LIVEKIT_URL", env.url("http", "https", "ws", "wss"), "http://127.0.0.1:7880"),
        livekit_api_key=read.value("LIVEKIT_API_KEY", env.text, ""),
        livekit_api_secret=read.value("LIVEKIT_API_SECRET", env.secret, ""),
        livekit_agent_name=read.value("LIVEKIT_AGENT_NAME", env.text, "beatline-renewal"),
        livekit_sip_trunk=read.value("LIVEKIT_SIP_TRUNK", env.text, "beatline"),
        livekit_sip_address=read.value("LIVEKIT_SIP_ADDRESS", env.text, "sip.invalid"),
        livekit_sip_number=read.value("LIVEKIT_SIP_NUMBER", env.phone, "+911600000001"),
        egress_dir=read.value("EGRESS_DIR", env.folder, "/var/lib/beatline/egress"),
        recordings=read_recordings(read),
        cache_dir=read.value("BEATLINE_CACHE_DIR", env.optional_folder, ""),
        timezone=read.value("DATETIME_TIMEZONE", env.zone, "Asia/Kolkata"),
        default_region=read.value("DEFAULT_REGION", env.region, "IN"),
        agency=read.value("BEATLINE_AGENCY", env.text, "Beatline Insurance Agency"),
        calls_horizon_days=read.value("CALLS_HORIZON_DAYS", env.whole(0, 366), "30"),
        calls_window=read.value("CALLS_WINDOW", env.window, _DEFAULT_WINDOW),
        calls_window_limit=read.value("CALLS_WINDOW_LIMIT", env.window, _DEFAULT_LIMIT),
        calls_max_attempts=read.value("CALLS_MAX_ATTEMPTS", env.whole(1, 20), "5"),
        calls_backoff_scale=read.value("CALLS_BACKOFF_SCALE", env.number(0, 100), "1"),
        # At most 75 s: livekit-server gives up on a waiting dial after 80 s.
        calls_ring_seconds=read.value("CALLS_RING_SECONDS", env.whole(1, 75), "35"),
        calls_max_seconds=read.value("CALLS_MAX_SECONDS", env.whole(10, 14_400), "600"),
        calls_agent_wait_seconds=read.value("CALLS_AGENT_WAIT_SECONDS", env.number(0.1, 60), "10"),
        calls_short_seconds=read.value("CALLS_SHORT_SECONDS", env.number(0, 60), "10"),
        calls_max_concurrent=read.value("CALLS_MAX_CONCURRENT", env.whole(1, 10_000), "10"),
        calls_per_second=read.value("CALLS_PER_SECOND", env.number(0.01, 10_000), "1"),
        calls_claim_seconds=read.value("CALLS_CLAIM_SECONDS", env.whole(5, 3600), "180"),
        calls_advance_seconds=read.value("CALLS_ADVANCE_SECONDS", env.number(1, 3600), "120"),
        calls_grace_seconds=read.value("CALLS_GRACE_SECONDS", env.number(1, 600), "30"),
        calls_recording=read.value("CALLS_RECORDING", env.switch, "on"),
        run_lease_seconds=read.value("BEATLINE_RUN_LEASE_SECONDS", env.number(2, 3600), "60"),
        queue_timeout_seconds=read.value("BEATLINE_QUEUE_TIMEOUT_SECONDS", env.number(1, 86_400), "600"),
        send_rate=read.value("BEATLINE_SEND_RATE", env.rate, "600/minute"),
        run_retention_days=read.value("BEATLINE_RUN_RETENTION_DAYS", env.whole(0, 3650), "90"),
        dead_letter_retention_days=read.value("BEATLINE_DEAD_LETTER_RETENTION_DAYS", env.whole(0, 3650), "90"),
        retention=_retention(read),
        jobs_http_allow_private=read.value("JOBS_HTTP_ALLOW_PRIVATE", env.switch, "off"),
        alert_webhook_url=read.value("BEATLINE_ALERT_WEBHOOK_URL", env.url("http", "https"), ""),
        smtp=_smtp(read),
        notify=_notify(read),
        log_level=read.value("LOG_LEVEL", env.choice("DEBUG", "INFO", "WARNING", "ERROR"), "INFO"),
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
