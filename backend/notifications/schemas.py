"""What the API takes and gives about notifications."""

from datetime import datetime, time
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from backend.core.addresses import literal_refusal
from backend.core.errors import AppError
from backend.core.principal import Role
from backend.core.redaction import storable
from backend.environment import email, zone
from backend.notifications.rendering import one_line
from backend.notifications.states import Channel, DeliveryState, Digest, Kind

ALLOW_PRIVATE = "NOTIFY_WEBHOOK_ALLOW_PRIVATE"
MOST_RECIPIENTS = 10_000


class Wish(BaseModel):
    """What somebody asks for; a misspelt member is an error."""

    model_config = ConfigDict(extra="forbid")


def _subject(value: str) -> str:
    try:
        return one_line(value)
    except AppError as fault:
        raise ValueError(fault.detail.removeprefix("subject: ")) from fault


def _text(value: str) -> str:
    if value != storable(value):
        raise ValueError("must not hold U+0000 or half of a surrogate pair")
    if not value.strip():
        raise ValueError("must not be empty")
    return value


def _clock(value: object) -> object:
    """A time of whole minutes, as people write it."""
    if isinstance(value, time):
        return value
    if not isinstance(value, str) or len(value) != len("09:30") or value[2] != ":":
        raise ValueError("must be a time such as 09:30")
    return value


def _url(value: str) -> str:
    if not value:
        return value
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("must be ASCII without spaces; percent-encode the rest")
    try:
        parts = urlsplit(value)
        _ = parts.port, httpx.URL(value)
    except (ValueError, httpx.InvalidURL) as fault:
        raise ValueError(f"cannot be understood: {fault}") from fault
    if parts.scheme.lower() not in {"http", "https"} or not parts.hostname:
        raise ValueError("must begin with http:// or https:// and name a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or password")
    return value


Subject = Annotated[str, Field(max_length=200), AfterValidator(_subject)]
Text = Annotated[str, Field(max_length=20_000), AfterValidator(_text)]
Email = Annotated[str, Field(max_length=254, json_schema_extra={"format": "email"}), AfterValidator(email)]
Clock = Annotated[
    time,
    BeforeValidator(_clock, json_schema_input_type=str),
    PlainSerializer(lambda value: f"{value:%H:%M}", return_type=str, when_used="json"),
    Field(examples=["09:30"]),
]


class NotificationWish(Wish):
    """A message to a user, in words or by a template."""

    user_id: UUID
    message: Text | None = None
    subject: Subject | None = None
    template: str | None = Field(default=None, max_length=100)
    context: dict[str, Any] | None = Field(default=None, description="The template's variables")
    channels: list[Channel] | None = Field(
        default=None, min_length=1, max_length=3, description="Only these; apprise reaches nobody by an account"
    )
    urgent: bool = Field(default=False, description="At once, whatever digest and quiet hours the user has")

    @model_validator(mode="after")
    def _one_way(self) -> "NotificationWish":
        if (self.message is None) == (self.template is None):
            raise ValueError("give either message or template")
        if self.template is not None and self.subject is not None:
            raise ValueError("a template makes its own subject")
        if self.template is None and self.context is not None:
            raise ValueError("context belongs to a template")
        return self


class EmailWish(Wish):
    """An e-mail to one address."""

    to: Email
    subject: Subject
    body: Text


class BulkWish(Wish):
    """One e-mail to many: to these addresses, and to all active users of these roles who want e-mail. An address counts once."""

    subject: Subject | None = None
    message: Text | None = None
    template: str | None = Field(default=None, max_length=100)
    context: dict[str, Any] | None = None
    recipients: list[Email] = Field(default_factory=list, max_length=MOST_RECIPIENTS)
    roles: list[Role] = Field(default_factory=list, max_length=3)

    @model_validator(mode="after")
    def _one_way(self) -> "BulkWish":
        by_words = self.subject is not None and self.message is not None
        if by_words == (self.template is not None) or (self.template is not None and self.subject is not None):
            raise ValueError("give either subject and message, or template and context")
        if not self.recipients and not self.roles:
            raise ValueError("give recipients, roles or both")
        return self


class PreviewWish(Wish):
    template: str = Field(max_length=100)
    context: dict[str, Any] = Field(default_factory=dict)


class Preview(BaseModel):
    subject: str
    text: str
    html: str | None


class TemplateRead(BaseModel):
    """`variables` are the names that it knows; `sendable` is false for those that the product fills by itself."""

    name: str
    description: str
    variables: list[str]
    has_html: bool
    sendable: bool


class NotifyAccepted(BaseModel):
    """Its state and result stand at `Location`, /api/tasks/{task_id}."""

    task_id: UUID


class BulkAccepted(BaseModel):
    task_id: UUID
    bulk_id: UUID
    recipients: int


class BulkRead(BaseModel):
    """`sent`, `failed` and `waiting` add up to `recipients`; the latter may be in a worker's hand."""

    id: UUID
    subject: str
    created_by: str
    created_at: datetime
    recipients: int
    sent: int
    failed: int
    waiting: int


class NotificationRead(BaseModel):
    """Of the inbox."""

    id: UUID
    subject: str
    text: str
    urgent: bool
    created_at: datetime
    read_at: datetime | None


class Read(BaseModel):
    """How many were unread until now."""

    read: int


class DeliveryRead(BaseModel):
    """Of the outbox. `attempts` counts the tries since it was last begun; `due_at` is the next one of what is pending.

    `address` is that of when it was noted; a user's mail goes to the one that the account has when it is sent.
    """

    id: UUID
    notification_id: UUID
    user_id: UUID | None
    channel: Channel
    address: str
    state: DeliveryState
    attempts: int
    due_at: datetime
    digest_for: datetime | None
    digest_id: UUID | None
    receipt: str
    last_error: str
    created_at: datetime
    ended_at: datetime | None


class NotificationDetail(BaseModel):
    """What was said, and the first hundred of its deliveries."""

    id: UUID
    kind: Kind
    user_id: UUID | None
    template: str
    subject: str
    text: str
    html: str | None
    urgent: bool
    created_by: str
    created_at: datetime
    deliveries: list[DeliveryRead]


class Preferences(Wish):
    """How one wants to be told. Times are wall-clock times in `timezone`, of whole minutes; quiet hours may span midnight."""

    email: bool = True
    webhook: bool = False
    webhook_url: Annotated[str, Field(max_length=2000), AfterValidator(_url)] = ""
    timezone: Annotated[str, Field(max_length=100), AfterValidator(zone)] = Field(
        default="", validate_default=False, description="An IANA name; DATETIME_TIMEZONE where it is left out"
    )
    digest: Digest = Digest.OFF
    digest_at: Clock = Field(default=time(9), description="When the daily digest goes out")
    quiet_start: Clock | None = None
    quiet_end: Clock | None = None

    @model_validator(mode="after")
    def _together(self) -> "Preferences":
        if (self.quiet_start is None) != (self.quiet_end is None):
            raise ValueError("quiet_start and quiet_end belong together")
        if self.quiet_start is not None and self.quiet_start == self.quiet_end:
            raise ValueError("quiet_start and quiet_end must differ")
        if self.webhook and not self.webhook_url:
            raise ValueError("webhook needs webhook_url")
        return self

    def refusal(self, *, webhooks: bool, allow_private: bool) -> str | None:
        """Why these cannot be had here."""
        if self.webhook and not webhooks:
            return "webhook: NOTIFY_WEBHOOK_SECRET is not set here"
        host = urlsplit(self.webhook_url).hostname or ""
        problem = None if allow_private else literal_refusal(host, ALLOW_PRIVATE)
        return f"webhook_url: {problem}" if problem else None


class PreferencesRead(Preferences):
    """`webhook_secret` verifies what one's own webhook receives; null where webhooks are not set up."""

    webhook_secret: str | None
