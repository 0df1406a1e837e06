"""Beat holds the schedule and nothing else."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path

from devstack.servers import ValkeyServer

ROOT = Path(__file__).parents[2]
BEAT_FILES = ("__init__.py", "config.py", "celery_app.py")
ALLOWED = {"celery", "kombu", "backend"}


def test_the_application_imports_the_standard_library_celery_and_kombu_alone() -> None:
    code = (
        "import json, sys; before = set(sys.modules); import backend.celery_app;"
        "files = {m: getattr(sys.modules[m], '__file__', '') or '' for m in set(sys.modules) - before};"
        "print(json.dumps(files))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    loaded = json.loads(done.stdout)
    ours = {name for name in loaded if name.startswith("backend.")}
    assert ours == {"backend.config", "backend.celery_app"}
    foreign = {
        name.partition(".")[0]
        for name, file in loaded.items()
        if "site-packages" in file and name.partition(".")[0] not in ALLOWED
    }
    # What celery and kombu bring along themselves, as their own metadata says.
    brought = {
        "amqp",
        "billiard",
        "vine",
        "click",
        "click_didyoumean",
        "click_plugins",
        "click_repl",
        "dateutil",
        "six",
    }
    brought |= {
        "packaging",
        "prompt_toolkit",
        "wcwidth",
        "tzlocal",
        "tzdata",
        "redis",
        "async_timeout",
        "typing_extensions",
    }
    brought |= {"_distutils_hack", "exceptiongroup", "jwt", "dotenv", "yaml", "coverage"}
    assert foreign <= brought
    heavy = {"fastapi", "sqlalchemy", "sqlmodel", "asyncpg", "httpx", "livekit", "torch", "pydantic", "numpy"}
    assert not heavy & {name.partition(".")[0] for name in loaded}


def test_the_source_of_beats_files_imports_only_what_its_image_has() -> None:
    for name in BEAT_FILES:
        source = (ROOT / "backend" / name).read_text()
        imported = set(re.findall(r"^(?:from|import) ([a-z_]+)", source, re.MULTILINE))
        assert imported <= set(sys.stdlib_module_names) | ALLOWED


def test_beat_starts_from_its_own_requirements_and_files_alone(tmp_path: Path, valkey: ValkeyServer) -> None:
    home = tmp_path / "beat"
    (home / "backend").mkdir(parents=True)
    for name in BEAT_FILES:
        shutil.copy(ROOT / "backend" / name, home / "backend" / name)
    for name in ("requirements-beat.txt", "constraints.txt"):
        shutil.copy(ROOT / name, home / name)
    venv.create(home / "venv", with_pip=True)
    python = home / "venv" / "bin" / "python"
    install: list[str | Path] = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
        home / "requirements-beat.txt",
    ]
    subprocess.run(install, check=True, timeout=300)
    environ = {"PATH": os.defpath, "REDIS_PORT": str(valkey.port), "CALLS_ADVANCE_SECONDS": "1"}
    before = {path for path in home.rglob("*") if "__pycache__" not in path.parts}

    beat = subprocess.Popen(
        [home / "venv" / "bin" / "celery", "-A", "backend.celery_app", "beat", "--loglevel=info"],
        cwd=home,
        env=environ,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert beat.stderr is not None
        seen = []
        for line in beat.stderr:
            seen.append(line)
            if "Sending due task advance-calls (advance_calls)" in line:
                break
        assert any("beat: Starting..." in line for line in seen)
    finally:
        beat.send_signal(signal.SIGTERM)
        beat.wait(timeout=20)
        if beat.stderr is not None:
            beat.stderr.close()

    assert beat.returncode == 0
    installed = {path.name.partition("-")[0].lower() for path in (home / "venv").rglob("*.dist-info")}
    assert not installed & {"fastapi", "sqlalchemy", "sqlmodel", "torch", "numpy", "openai", "pydub", "livekit_api"}
    after = {path for path in home.rglob("*") if "__pycache__" not in path.parts}
    assert after == before, "Beat keeps no state file"
