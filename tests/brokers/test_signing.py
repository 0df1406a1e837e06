"""Signed messages: what is ours is executed, what is unsigned or a stranger's is not, and the worker goes on."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from tests.brokers.certificates import Authority, Issued
from tests.brokers.site import ROOT, Site, wait_for


def signing(issued: Issued, store: Path) -> dict[str, str]:
    return {
        "CELERY_SIGNING_KEY": str(issued.key),
        "CELERY_SIGNING_CERTIFICATE": str(issued.certificate),
        "CELERY_SIGNING_CERT_STORE": str(store),
    }


@pytest.fixture
def trusted(authority: Authority, tmp_path: Path) -> dict[str, str]:
    """Settings of the fleet, whose store trusts the fleet's certificate alone."""
    fleet = authority.issue("fleet")
    store = tmp_path / "store"
    store.mkdir()
    (store / "fleet.pem").write_bytes(fleet.certificate.read_bytes())
    return signing(fleet, store)


def send_as(site: Site, settings: dict[str, str], mark: str, run: str) -> str:
    command = [sys.executable, "-m", "tests.brokers.worker.signing", mark, run]
    environment = os.environ | site.environment | settings
    return subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True, timeout=60
    ).stdout


def test_signed_messages_are_executed_and_no_others(
    site: Site, trusted: dict[str, str], authority: Authority, tmp_path: Path
) -> None:
    worker = site.start(**trusted)
    worker.ready()
    site.send("leave_a_mark", "unsigned")
    wait_for(lambda: worker.said("untrusted content of type json"))
    own_store = tmp_path / "other-store"
    own_store.mkdir()
    stranger = authority.issue("stranger")
    (own_store / "stranger.pem").write_bytes(stranger.certificate.read_bytes())
    send_as(site, signing(stranger, own_store), "strangers", str(uuid4()))
    run = str(uuid4())
    # Among the stranger's messages was an order of remote control, which is refused without an answer to the broker.
    assert send_as(site, trusted, "ours", run) == "confirmed 1, pong 1\n"
    assert len(site.marked("ours")) == 1
    # The relay's message is accepted as well: it asks for the run's row, which the test's database has not.
    wait_for(lambda: worker.said(f"leave_a_mark[{run}] received"))
    assert site.marks("unsigned") == site.marks("strangers") == []
    assert worker.process.poll() is None


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"CELERY_SIGNING_KEY": ""}, "must be set together"),
        ({"CELERY_SIGNING_KEY": "/nowhere"}, "CELERY_SIGNING_KEY must be the absolute path of a file"),
        ({"CELERY_SIGNING_KEY": str(Path(__file__))}, "cannot be used"),
    ],
)
def test_unusable_signing_settings_stop_the_start_with_one_line(
    trusted: dict[str, str], changes: dict[str, str], fault: str
) -> None:
    command = [sys.executable, "-m", "celery", "-A", "backend.celery_app", "report"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | trusted | changes, check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("beatline: configuration: ")
    assert fault in line
