"""What an OpenAI-compatible service will not do; a file of its own, so that naming it loads no library."""

from backend.core.errors import PermanentError


class Refused(PermanentError):
    """The service will not do this, now or later. `status` is HTTP's, `code` the service's own, if it names one."""

    def __init__(self, message: str, *, status: int = 0, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
