"""Errors that say whose problem it is."""

from typing import Any, ClassVar


class AppError(Exception):
    """The caller's problem: answered as an RFC 9457 problem document.

    `code` is stable and machine-readable; `detail` is for people and names the fix; `extra` becomes further members, `headers` go
    with the answer.
    """

    status: ClassVar[int] = 400
    code: ClassVar[str] = "bad_request"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        retry_after: float | None = None,
        headers: dict[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.problem = code or self.code
        self.retry_after = retry_after
        self.headers = headers or {}
        self.extra = extra


class Unauthorized(AppError):
    status, code = 401, "unauthorized"


class Forbidden(AppError):
    status, code = 403, "forbidden"


class NotFound(AppError):
    status, code = 404, "not_found"


class Conflict(AppError):
    status, code = 409, "conflict"


class TooLarge(AppError):
    status, code = 413, "too_large"


class Invalid(AppError):
    status, code = 422, "invalid"


class TooMany(AppError):
    status, code = 429, "too_many_requests"


class Unavailable(AppError):
    status, code = 503, "unavailable"


class TransientError(Exception):
    """Worth trying again later; `after` is the shortest wait in seconds, where the other side named one."""

    def __init__(self, message: str, *, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class PermanentError(Exception):
    """No retry can help; it is recorded on the row and stops."""
