"""What the API takes and gives about people."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from backend.accounts.passwords import LONGEST
from backend.core.instants import Instant
from backend.core.principal import Role, Scope

# Names of what is not a person, as it stands in `created_by` and the like.
_RESERVED = {"api", "beat", "beatline", "cli", "me", "ops", "schedule", "scheduler", "service", "system", "user"}
_LONGEST_GIVEN = 1_024


def _not_reserved(name: str) -> str:
    if name.lower() in _RESERVED:
        raise ValueError("is reserved: it stands for what is not a person")
    return name


def _text(secret: SecretStr) -> SecretStr:
    try:
        secret.get_secret_value().encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which is no text") from None
    return secret


# No @: whoever signs in may give either the name or the e-mail address.
Username = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,63}$", strip_whitespace=True),
    AfterValidator(_not_reserved),
]
# As browsers check type=email (HTML, 4.10.5.1.5); ASCII alone, and nothing that a mail header would take for two addresses.
Email = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9-]*[A-Za-z0-9])*$",
        max_length=254,
        strip_whitespace=True,
    ),
]
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=200, strip_whitespace=True)]
KeyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$", strip_whitespace=True)]
# Whatever is sent as a password is never shown, not even by a fault's text.
Given = Annotated[SecretStr, Field(min_length=1, max_length=_LONGEST_GIVEN), AfterValidator(_text)]
Password = Annotated[SecretStr, Field(max_length=LONGEST), AfterValidator(_text)]


class _Wish(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Login(_Wish):
    """`username` may be the e-mail address."""

    username: Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]
    password: Given


class Refresh(_Wish):
    refresh_token: Annotated[str, StringConstraints(max_length=300)]


class PasswordChange(_Wish):
    current_password: Given
    new_password: Password


class PasswordReset(_Wish):
    new_password: Password


class ApiKeyCreate(_Wish):
    """`scopes` narrow what the owner may do; each holds the ones before it: read, write, admin."""

    name: KeyName
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=3)] = [Scope.READ]
    expires_at: Instant | None = Field(default=None, description="Default: never")


class UserCreate(_Wish):
    username: Username
    email: Email | None = None
    display_name: Text = ""
    role: Role = Role.VIEWER
    password: Password


class UserUpdate(_Wish):
    """What is left out stays."""

    email: Email | None = None
    display_name: Text | None = None
    role: Role | None = None
    is_active: bool | None = None

    def given(self) -> dict[str, Any]:
        """The fields that were sent; a null clears the e-mail address, and changes no other field."""
        sent = self.model_dump(include=self.model_fields_set)
        return {name: value for name, value in sent.items() if value is not None or name == "email"}


class StatsRead(BaseModel):
    """What a user has done, as far as the rows are still kept, at `synced_at`."""

    schedules_created: int
    runs_started: int
    tasks_sent: int
    logins: int
    synced_at: datetime


class UserRead(BaseModel):
    id: UUID
    username: str
    email: str | None
    display_name: str
    role: Role
    is_active: bool
    last_login_at: datetime | None
    password_changed_at: datetime
    created_by: str
    created_at: datetime
    updated_at: datetime


class UserDetail(UserRead):
    """`stats` are null until they were counted for the first time."""

    stats: StatsRead | None


class Tokens(BaseModel):
    """`access_token` goes into `Authorization: Bearer …`; `refresh_token` gives the next pair, once. `expires_in`: seconds."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - RFC 6749's word, no token
    expires_in: int
    refresh_token: str
    session_id: UUID
    session_expires_at: datetime


class LoginRead(Tokens):
    user: UserRead


class MeRead(BaseModel):
    """Who asks. `role` is what they may do, which an API key's `scopes` narrow; `user` is null for the service key."""

    kind: Literal["user", "api_key", "service"]
    name: str
    role: Role
    scopes: list[Scope] | None
    session_id: UUID | None
    user: UserRead | None


class SessionRead(BaseModel):
    """A sign-in. `is_current`: the one that asks."""

    id: UUID
    address: str
    user_agent: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    is_current: bool = False


class SessionsEnded(BaseModel):
    ended: int


class ApiKeyRead(BaseModel):
    """A key, without its secret: `bl_<prefix>_…`."""

    id: UUID
    name: str
    prefix: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class ApiKeyCreated(ApiKeyRead):
    """`key` is shown now and never again."""

    key: str
