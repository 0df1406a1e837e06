"""One log line format for every process of ours (Celery keeps its own, which operators grep)."""

import logging
import logging.config
from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="-")


class _RequestId(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


def configure_logging(level: str) -> None:
    """Log to standard error; `level` is a name of the logging module."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"request_id": {"()": _RequestId}},
            "formatters": {"line": {"format": "[%(asctime)s: %(levelname)s/%(request_id)s] %(name)s: %(message)s"}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["request_id"]}},
            "root": {"level": level, "handlers": ["stderr"]},
            # httpx logs a line per request at INFO; uvicorn's own handlers would print each line twice.
            "loggers": {
                "httpx": {"level": "WARNING"},
                "uvicorn": {"handlers": [], "propagate": True},
                "uvicorn.access": {"handlers": [], "propagate": True, "level": "WARNING"},
            },
        }
    )
