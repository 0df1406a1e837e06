"""The environment first, since backend.config reads it once, then the fixtures."""

import os
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from devstack.readiness import free_port

_FOLDER = Path(tempfile.mkdtemp(prefix="beatline-tests-"))
os.environ.update(
    {
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(free_port()),
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none",
        "BEATLINE_SERVICE_KEY": "test-service-key-0123456789-0123456789",
        "LIVEKIT_API_KEY": "beatline-test",
        "LIVEKIT_API_SECRET": "test-livekit-secret-0123456789-0123456789",
        "EGRESS_DIR": str(_FOLDER / "egress"),
        "RECORDINGS_DIR": str(_FOLDER / "recordings"),
        "BEATLINE_CACHE_DIR": str(Path(tempfile.gettempdir()) / "beatline-test-cache"),
    }
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test has printed may hold half a surrogate pair, which pytest-xdist cannot send to its parent process."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


pytest_plugins = ["tests.fixtures.servers", "tests.fixtures.product", "tests.fixtures.people"]
