"""The systemd units: as systemd reads them, and what they start."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from configparser import ConfigParser
from pathlib import Path

import pytest

from backend.core.db import Database
from devstack.readiness import free_port
from devstack.servers import PostgresServer, ValkeyServer

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
HOME = "/opt/beatline"
STARTED = {
    "beatline-api": "Application startup complete",
    "beatline-beat": "beat: Starting...",
    "beatline-flower": "Visit me at http://127.0.0.1:",
    "beatline-worker": " ready.",
    "beatline-worker-audio": " ready.",
    "beatline-worker-scheduled": " ready.",
}


def setting(unit: Path, name: str) -> str:
    parser = ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # as configparser's documentation does
    parser.read(unit)
    return parser["Service"][name]


def started(unit: Path, port: int) -> list[str]:
    """The unit's command, in this checkout and at a free port."""
    program, *arguments = shlex.split(setting(unit, "ExecStart").replace("%%", "%"))
    assert program.startswith(f"{HOME}/.venv/bin/")
    return [str(Path(sys.executable).with_name(Path(program).name))] + [
        argument.replace("8000", str(port)).replace("8555", str(port)) for argument in arguments
    ]


def test_there_is_a_unit_for_each_process() -> None:
    assert {unit.stem for unit in UNITS} == set(STARTED)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_accepts_the_unit(unit: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    assert analyze, "apt-get install -y --no-install-recommends systemd"
    # It looks whether the programs are there.
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text(encoding="utf-8").replace(f"{HOME}/.venv/bin", str(Path(sys.executable).parent)))
    done = subprocess.run([analyze, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False)
    own = [line for line in done.stderr.splitlines() if unit.stem in line]
    assert (done.returncode, own) == (0, [])


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_units_command_starts(
    unit: Path, valkey: ValkeyServer, postgres: PostgresServer, db: Database, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    environment = {"DATABASE_URL": postgres.url, "FLOWER_BASIC_AUTH": "admin:long-enough-for-a-test"}
    with log.open("w") as output:
        process = subprocess.Popen(
            started(unit, free_port()), cwd=ROOT, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        end = time.monotonic() + 60
        while STARTED[unit.stem] not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_confined_and_keeps_no_secret(unit: Path) -> None:
    text = unit.read_text(encoding="utf-8")
    for line in (
        "User=beatline",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "CapabilityBoundingSet=",
        "Restart=always",
    ):
        assert line in text.splitlines()
    assert "EnvironmentFile=/etc/beatline/beatline.env" in text
    assert not {"PASSWORD=", "SECRET=", "KEY="} & {word for word in ("PASSWORD=", "SECRET=", "KEY=") if word in text}
