"""Takes secrets out of what is kept for people to read: arguments, error texts, tracebacks."""

import math
import re
from dataclasses import dataclass, field

REDACTED = "[redacted]"

_SECRET_NAME = re.compile(
    r"passw|secret|token|credential|cookie|authoriz|private[-_]?key|(api|access|service|signing)[-_]?key|passphrase",
    re.IGNORECASE,
)
_IN_TEXT = (
    # user:password@ of a URL; Bearer and Basic credentials; name=value pairs.
    (re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]+(?=@)"), REDACTED),
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {REDACTED}"),
    (
        re.compile(
            r"((?:password|passwd|secret|token|api[-_]?key|access[-_]?key)[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,;)}]+",
            re.IGNORECASE,
        ),
        rf"\1{REDACTED}",
    ),
)
# PostgreSQL's text takes no NUL and no half of a surrogate pair.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_SHORTEST_SECRET = 4


@dataclass
class Redactor:
    """Cleans a value, then texts that may quote it. `changed`: whether the value lost anything."""

    changed: bool = False
    _seen: set[str] = field(default_factory=set)

    def value(self, given: object) -> object:
        """A copy that JSON can hold, secrets replaced by name. Raises RecursionError for what is nested too deeply."""
        if isinstance(given, dict):
            return {storable(str(key)): self._member(str(key), inner) for key, inner in given.items()}
        if isinstance(given, list | tuple):
            return [self.value(inner) for inner in given]
        if isinstance(given, bool | int) or given is None:
            return given
        if isinstance(given, float) and math.isfinite(given):
            return given
        return self._string(str(given))

    def text(self, given: str) -> str:
        """A text without the secrets that `value` has met, and without what looks like one."""
        for secret in sorted(self._seen, key=len, reverse=True):
            given = given.replace(secret, REDACTED)
        for pattern, instead in _IN_TEXT:
            given = pattern.sub(instead, given)
        return storable(given)

    def _member(self, name: str, inner: object) -> object:
        if not _SECRET_NAME.search(name) or inner is None or isinstance(inner, bool):
            return self.value(inner)
        self.changed = True
        self._remember(inner)
        return REDACTED

    def _remember(self, inner: object) -> None:
        if isinstance(inner, dict):
            inner = list(inner.values())
        if isinstance(inner, list | tuple):
            for one in inner:
                self._remember(one)
        elif len(text := str(inner)) >= _SHORTEST_SECRET:
            self._seen.add(text)

    def _string(self, given: str) -> str:
        cleaned = given
        for pattern, instead in _IN_TEXT:
            cleaned = pattern.sub(instead, cleaned)
        cleaned = storable(cleaned)
        self.changed = self.changed or cleaned != given
        return cleaned


def storable(text: str) -> str:
    """The text as PostgreSQL can hold it."""
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)
