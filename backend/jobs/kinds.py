"""The kinds of job: what people choose from. A kind names its task; nobody chooses a task by its name."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from backend.celery_app import QUEUE_LIMITS, TASK_ROUTES
from backend.config import Config
from backend.core.addresses import literal_refusal

# A run's own time limit must strike before the worker's, which kills the process: 30 s soft, 10 s to record it.
TIME_LIMIT_MARGIN = 40

_TOKEN = re.compile(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
_SECRET_HEADER = re.compile(
    r"\bauth\b|authoriz|authentic|cookie|token|secret|passw|credential|api[-_]?key|signature", re.IGNORECASE
)
_FRAMING_HEADERS = {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"}
_RANGE = re.compile(r"^([1-5][0-9]{2})\.\.([1-5][0-9]{2})$")
_MAX_BODY = 64 * 1024


class Parameters(BaseModel):
    """Parameters of a kind; a misspelt one is an error."""

    model_config = ConfigDict(extra="forbid")


class NoParameters(Parameters):
    """This kind takes no parameters."""


class NoopParameters(Parameters):
    note: str | None = Field(default=None, max_length=500, description="Shown in the result")


class SleepParameters(Parameters):
    seconds: float = Field(default=1.0, ge=0, le=3000, allow_inf_nan=False)
    fail: Literal["transient", "permanent"] | None = Field(
        default=None, description="End with an error: one that is tried again, or one that is not"
    )


def _http_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme.lower() not in {"http", "https"} or not parts.hostname:
        raise ValueError("must begin with http:// or https:// and name a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or password; secrets do not belong in parameters")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("must be ASCII without spaces; percent-encode the rest")
    try:
        _ = parts.port, httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as fault:
        raise ValueError(f"cannot be understood: {fault}") from fault
    return url


def _http_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not _TOKEN.match(name):
            raise ValueError(f"{name!r} is not a header name")
        if name.lower() in _FRAMING_HEADERS:
            raise ValueError(f"{name} is set by Beatline; leave it out")
        if _SECRET_HEADER.search(name):
            raise ValueError(f"{name} would hold a secret, and parameters can be read by everybody; leave it out")
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"the value of {name} must be printable ASCII")
    return headers


def _http_body(body: JsonValue) -> JsonValue:
    if len(str(body)) > _MAX_BODY:
        raise ValueError(f"must have at most {_MAX_BODY} characters")
    return body


def statuses(expected: int | list[int] | str) -> tuple[tuple[int, int], ...]:
    """The ranges, both ends included, that `expect_status` means. ValueError for what cannot be understood."""
    if isinstance(expected, str):
        match = _RANGE.match(expected)
        if match is None or match[1] > match[2]:
            raise ValueError('must be a status such as 204, a list of them, or a range such as "200..299"')
        return ((int(match[1]), int(match[2])),)
    wanted = [expected] if isinstance(expected, int) else expected
    if not wanted or not all(100 <= status <= 599 for status in wanted):
        raise ValueError("must be from 100 to 599")
    return tuple((status, status) for status in wanted)


def _expected(expected: int | list[int] | str) -> int | list[int] | str:
    statuses(expected)
    return expected


class HttpRequestParameters(Parameters):
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET"
    url: Annotated[str, Field(max_length=2000), AfterValidator(_http_url)]
    headers: Annotated[dict[str, str], Field(max_length=50), AfterValidator(_http_headers)] = Field(
        default_factory=dict
    )
    body: Annotated[JsonValue, AfterValidator(_http_body)] = Field(
        default=None, description="Text is sent as it is, anything else as JSON"
    )
    expect_status: Annotated[int | list[int] | str, AfterValidator(_expected)] = Field(
        default="200..299", description='A status, a list of them, or a range such as "200..299"'
    )
    expect_text: str | None = Field(default=None, min_length=1, max_length=1000)
    timeout_seconds: float = Field(default=30.0, ge=0.1, le=120, allow_inf_nan=False)
    follow_redirects: bool = False


def _check_http_request(parameters: Any, config: Config) -> None:
    refusal = literal_refusal(urlsplit(parameters.url).hostname or "")
    if refusal and not config.jobs_http_allow_private:
        raise ValueError(f"url: {refusal}")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of job. `check` looks at parameters that are well formed with the configuration in hand; ValueError refuses."""

    name: str
    label: str
    description: str
    parameters: type[Parameters]
    task: str
    time_limit: int
    uses_credential: bool = False
    check: Callable[[Any, Config], None] | None = None

    @property
    def queue(self) -> str:
        return TASK_ROUTES[self.task]["queue"]

    @property
    def longest_timeout(self) -> int:
        return self.time_limit - TIME_LIMIT_MARGIN


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            name="call_expiring_policies",
            label="Call expiring policies",
            description="Plan the calls of policies about to expire and call each customer who may be called now.",
            parameters=NoParameters,
            task="call_expiring_policies",
            time_limit=300,
        ),
        Kind(
            name="http_request",
            label="HTTP request",
            description="Call a URL and check the status and, if wanted, the text of the answer.",
            parameters=HttpRequestParameters,
            task="http_request",
            time_limit=300,
            check=_check_http_request,
        ),
        Kind(
            name="noop",
            label="Nothing",
            description="Does nothing and succeeds: for trying out schedules.",
            parameters=NoopParameters,
            task="noop",
            time_limit=300,
        ),
        Kind(
            name="sleep",
            label="Sleep",
            description="Waits, then succeeds or fails as told: for trying out overlap, cancelling and retries.",
            parameters=SleepParameters,
            task="sleep",
            time_limit=3600,
        ),
    )
}

PRIORITY_QUEUES = {"high": "high_priority", "normal": "default", "low": "low_priority"}
_PRIORITIES = {queue: priority for priority, queue in PRIORITY_QUEUES.items()}


def kind_of_task(task: str) -> Kind | None:
    """The kind that runs as this task; None for the system's own work."""
    return next((kind for kind in KINDS.values() if kind.task == task), None)


def priority_of(kind: Kind | None, queue: str) -> str | None:
    """The priority that a schedule's queue means; None where it cannot be chosen."""
    return _PRIORITIES.get(queue) if kind is not None and kind.queue == "default" else None


def longest_timeout(task: str, queue: str) -> int:
    """Seconds that a run of this task may be given."""
    kind = kind_of_task(task)
    return kind.longest_timeout if kind else QUEUE_LIMITS.get(queue, 300) - TIME_LIMIT_MARGIN
