"""The words of accounts: what is throttled, how a login ended, why a session did."""

from enum import StrEnum


class Bucket(StrEnum):
    """What attempts to sign in are counted by."""

    ACCOUNT = "account"
    ADDRESS = "address"


class Outcome(StrEnum):
    """Of an attempt to sign in, or of what ended a session; for the login log."""

    SUCCESS = "success"
    WRONG_PASSWORD = "wrong_password"  # noqa: S105 - a word, no password
    UNKNOWN_USER = "unknown_user"
    INACTIVE = "inactive"
    LOCKED = "locked"
    LOGOUT = "logout"
    TOKEN_REUSED = "token_reused"  # noqa: S105 - a word, no token


class Ended(StrEnum):
    """Why a session is over before its time."""

    LOGOUT = "logout"
    REVOKED = "revoked"
    PASSWORD = "password"  # noqa: S105 - a word, no password
    DEACTIVATED = "deactivated"
    TOKEN_REUSED = "token_reused"  # noqa: S105 - a word, no token
