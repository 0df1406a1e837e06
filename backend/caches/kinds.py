"""Caches that are refreshed every so often: each domain registers its own."""

from dataclasses import dataclass

SHORTEST, LONGEST = 60, 7 * 86_400


@dataclass(frozen=True, slots=True)
class CacheKind:
    """A cache that the task `task`, without arguments, refreshes. `interval_seconds` holds until somebody sets another."""

    name: str
    description: str
    task: str
    interval_seconds: int


_KINDS: dict[str, CacheKind] = {}


def register(kind: CacheKind) -> None:
    """Have this cache refreshed; a second registration of a name replaces the first. ValueError for an interval out of range."""
    if not SHORTEST <= kind.interval_seconds <= LONGEST:
        raise ValueError(f"cache {kind.name}: the interval must be from {SHORTEST} to {LONGEST} seconds")
    _KINDS[kind.name] = kind


def every_kind() -> dict[str, CacheKind]:
    """By name."""
    return dict(sorted(_KINDS.items()))
