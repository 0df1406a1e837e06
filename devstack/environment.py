"""The environment of the local stack's processes: its keys, its ports, its quick timing."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from devstack.readiness import free_port

ROOT = Path(__file__).resolve().parent.parent

SECRETS = ("BEATLINE_SERVICE_KEY", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "POSTGRES_PASSWORD", "REDIS_PASSWORD")

# Settings of the shell that started us must not leak into the stack: it is complete in itself.
_OWN = (
    "BEATLINE_",
    "CALLS_",
    "CELERY_",
    "LIVEKIT_",
    "NOTES_",
    "OPENAI_",
    "PG",
    "POSTGRES_",
    "QUOTA_",
    "RECORDINGS_",
    "REDIS_",
    "S3_",
    "SIM_",
    "TRANSCRIPTION_",
    "UPLOAD_",
)
_OWN_NAMES = {"DATABASE_URL", "EGRESS_DIR", "DATETIME_TIMEZONE", "DEFAULT_REGION", "LOG_LEVEL"}

# Calls at any hour, at five times life's speed, with the delays between attempts shrunk to seconds.
# CALLS_SHORT_SECONDS is real time, so it shrinks with the speed, too.
QUICK = {
    "CALLS_WINDOW": "00:00-24:00",
    "CALLS_WINDOW_LIMIT": "00:00-24:00",
    "CALLS_BACKOFF_SCALE": "0.0001",
    "CALLS_MAX_ATTEMPTS": "2",
    "CALLS_ADVANCE_SECONDS": "2",
    "CALLS_PER_SECOND": "20",
    "CALLS_MAX_CONCURRENT": "30",
    "CALLS_CLAIM_SECONDS": "15",
    "CALLS_GRACE_SECONDS": "5",
    "CALLS_RING_SECONDS": "5",
    "CALLS_SHORT_SECONDS": "1.2",
    "SIM_SPEED": "0.2",
}


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports of the servers."""

    postgres: int
    valkey: int
    simulator: int
    api: int

    @classmethod
    def choose(cls, wanted: Mapping[str, int], api: int) -> Ports:
        """Free ports: those of the last start where still free, and `api` for the API (0: any)."""
        return cls(
            postgres=free_port(wanted.get("postgres", 0)),
            valkey=free_port(wanted.get("valkey", 0)),
            simulator=free_port(wanted.get("simulator", 0)),
            api=free_port(api),
        )

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api}"

    @property
    def livekit_url(self) -> str:
        return f"http://127.0.0.1:{self.simulator}"


def load_secrets(path: Path) -> dict[str, str]:
    """The stack's random keys, made at the first start and readable by their owner alone."""
    kept = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line) if path.exists() else {}
    missing = [name for name in SECRETS if name not in kept]
    if missing:
        kept |= {name: secrets.token_hex(24) for name in missing}
        write_private(path, kept)
    return kept


def write_private(path: Path, variables: Mapping[str, str]) -> None:
    """Write variables in the form that a shell can read, for the owner's eyes alone."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))


def variables(state: Path, ports: Ports, keys: Mapping[str, str], database_url: str) -> dict[str, str]:
    """What Beatline and the simulator read."""
    return {
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(ports.valkey),
        "REDIS_PASSWORD": keys["REDIS_PASSWORD"],
        "DATABASE_URL": database_url,
        "BEATLINE_API_URL": ports.api_url,
        "BEATLINE_SERVICE_KEY": keys["BEATLINE_SERVICE_KEY"],
        "BEATLINE_CACHE_DIR": str(state / "cache"),
        "LIVEKIT_URL": ports.livekit_url,
        "LIVEKIT_API_KEY": keys["LIVEKIT_API_KEY"],
        "LIVEKIT_API_SECRET": keys["LIVEKIT_API_SECRET"],
        "LIVEKIT_SIP_ADDRESS": "sip.example.net",
        "EGRESS_DIR": str(state / "egress"),
        "RECORDINGS_DIR": str(state / "recordings"),
        **QUICK,
        "SIM_HOST": "127.0.0.1",
        "SIM_PORT": str(ports.simulator),
        "SIM_WEBHOOK_URL": f"{ports.api_url}/api/webhooks/livekit",
        "SIM_STATE_DIR": str(state / "simulator"),
    }


def inherited() -> dict[str, str]:
    """The caller's environment without any setting of ours, and with our own Python first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OWN) and name not in _OWN_NAMES}
    kept["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), kept.get("PATH", os.defpath)))
    return kept | {"PYTHONUNBUFFERED": "1"}
