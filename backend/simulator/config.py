"""The simulator's environment, read once. A malformed value stops the start with one clear line and exit code 2."""

import ipaddress
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_OWN = {
    "SIM_HOST",
    "SIM_PORT",
    "SIM_WEBHOOK_URL",
    "SIM_SPEED",
    "SIM_AGENTS",
    "SIM_STATE_DIR",
    "SIM_ALLOW_NETWORK",
}
_MIN_SECRET = 32


class ConfigError(Exception):
    """One line that names every wrong variable and its fix."""


@dataclass(frozen=True, slots=True)
class SimConfig:
    """`speed` multiplies every simulated wait: 0.05 is twenty times faster than life."""

    host: str
    port: int
    api_key: str
    api_secret: str
    webhook_url: str
    speed: float
    agents: bool
    state_dir: Path | None
    egress_dir: Path
    api_url: str


class _Reader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems = [
            f"{name} is unknown (known: {', '.join(sorted(_OWN))})"
            for name in sorted(environ)
            if name.startswith("SIM_") and name not in _OWN
        ]

    def text(self, name: str, default: str = "") -> str:
        return self._environ.get(name, "").strip() or default

    def port(self) -> int:
        raw = self.text("SIM_PORT", "7880")
        if raw.isascii() and raw.isdigit() and 0 <= int(raw) <= 65535:
            return int(raw)
        self.problems.append(f"SIM_PORT={raw!r} is not a port (0-65535)")
        return 0

    def speed(self) -> float:
        raw = self.text("SIM_SPEED", "1.0")
        try:
            speed = float(raw)
        except ValueError:
            speed = math.nan
        if not 0.001 <= speed <= 10:
            self.problems.append(f"SIM_SPEED={raw!r} is not a number from 0.001 to 10 (0.05 is twenty times faster)")
        return speed

    def agents(self) -> bool:
        raw = self.text("SIM_AGENTS", "auto")
        if raw not in {"auto", "none"}:
            self.problems.append(f"SIM_AGENTS={raw!r} is neither auto nor none")
        return raw == "auto"

    def url(self, name: str, default: str) -> str:
        raw = self.text(name, default)
        parts = urlsplit(raw)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            self.problems.append(f"{name}={raw!r} is not an http:// or https:// address")
        return raw.rstrip("/")

    def folder(self, name: str, default: str) -> Path:
        path = Path(self.text(name, default))
        if not path.is_absolute():
            self.problems.append(f"{name}={str(path)!r} is not an absolute path")
        return path

    def host(self) -> str:
        host = self.text("SIM_HOST", "127.0.0.1")
        allowed = self.text("SIM_ALLOW_NETWORK", "no")
        if allowed not in {"yes", "no"}:
            self.problems.append(f"SIM_ALLOW_NETWORK={allowed!r} is neither yes nor no")
        elif allowed == "no" and not _is_loopback(host):
            self.problems.append(
                f"SIM_HOST={host!r} is not a loopback address; set SIM_ALLOW_NETWORK=yes if you mean it"
            )
        return host

    def credentials(self) -> tuple[str, str]:
        key, secret = self.text("LIVEKIT_API_KEY"), self.text("LIVEKIT_API_SECRET")
        if not key:
            self.problems.append("LIVEKIT_API_KEY is missing")
        if len(secret) < _MIN_SECRET:
            self.problems.append(f"LIVEKIT_API_SECRET must have at least {_MIN_SECRET} characters")
        return key, secret


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load(environ: Mapping[str, str]) -> SimConfig:
    """Raises ConfigError with every problem at once."""
    read = _Reader(environ)
    key, secret = read.credentials()
    config = SimConfig(
        host=read.host(),
        port=read.port(),
        api_key=key,
        api_secret=secret,
        webhook_url=read.url("SIM_WEBHOOK_URL", "http://127.0.0.1:8000/api/webhooks/livekit"),
        speed=read.speed(),
        agents=read.agents(),
        state_dir=read.folder("SIM_STATE_DIR", "") if read.text("SIM_STATE_DIR") else None,
        egress_dir=read.folder("EGRESS_DIR", "/var/lib/beatline/egress"),
        api_url=read.url("BEATLINE_API_URL", "http://127.0.0.1:8000"),
    )
    if read.problems:
        raise ConfigError("; ".join(read.problems))
    return config


def load_or_exit() -> SimConfig:
    try:
        return load(os.environ)
    except ConfigError as error:
        sys.stderr.write(f"simulator: {error}\n")
        raise SystemExit(2) from None
