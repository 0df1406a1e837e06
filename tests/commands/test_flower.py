"""Flower: a login from the environment, or no start."""

import secrets
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.commands.conftest import Shell, Started

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(120)]

COMMAND = "celery -A backend.celery_app flower --port=8555"
PASSWORD = secrets.token_hex(16)


@pytest.fixture(scope="module")
def flower(shell: Shell) -> Iterator[Started]:
    started = shell.serve(COMMAND, FLOWER_BASIC_AUTH=f"admin:{PASSWORD}")
    started.wait_for("Visit me at")
    yield started
    started.stop()


@pytest.mark.parametrize("page", ["/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks"])
def test_nobody_comes_in_without_the_password(flower: Started, page: str) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{flower.port}", verify=False) as client:
        assert client.get(page).status_code == 401
        assert client.get(page, auth=("admin", "password")).status_code == 401


@pytest.mark.parametrize("page", ["/workers", "/tasks", "/broker"])
def test_the_pages_are_there_with_it(flower: Started, page: str) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{flower.port}", verify=False) as client:
        assert client.get(page, auth=("admin", PASSWORD)).status_code == 200


def test_it_sees_the_stacks_workers(flower: Started) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{flower.port}", verify=False) as client:
        answer = client.get("/api/workers", params={"refresh": "true"}, auth=("admin", PASSWORD), timeout=20)
    assert {name.partition("@")[0] for name in answer.json()} >= {"worker", "worker-scheduled", "worker-audio"}


def test_the_password_stands_in_no_list_of_processes(flower: Started) -> None:
    process = psutil.Process(flower.process.pid)
    assert "flower" in process.cmdline()
    assert PASSWORD not in " ".join(process.cmdline())
    assert PASSWORD not in flower.output


@pytest.mark.parametrize("login", ["", "admin", "admin:", "admin:short", ":long-enough-but-nobody"])
def test_without_a_proper_login_it_does_not_start(shell: Shell, login: str) -> None:
    started = shell.serve(COMMAND, FLOWER_BASIC_AUTH=login)
    assert started.end() == 1
    assert "FLOWER_BASIC_AUTH must be user:password" in started.output
