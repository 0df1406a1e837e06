"""Beat holds the scheduling engine and nothing else."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path

from backend.core.db import Database
from devstack.servers import PostgresServer, ValkeyServer

ROOT = Path(__file__).parents[2]
SHARED_FILES = tuple(
    Path(name) for name in ("__init__.py", "config.py", "environment.py", "recording_settings.py", "celery_app.py")
)
ENGINE_FILES = (
    Path("beat.py"),
    *sorted(path.relative_to(ROOT / "backend") for path in ROOT.glob("backend/scheduling/*.py")),
)
SHARED = {"celery", "kombu", "backend"}
ALLOWED = SHARED | {"asyncpg", "cronsim", "tzdata", "redis", "amqp"}
AUDIO = {"pydub", "soundfile", "librosa", "av"}
MODELS = {"torch", "torchaudio", "pyannote", "faster_whisper", "ctranslate2", "onnxruntime", "numpy"}
SERVICES = {"openai", "livekit", "httpx"}
HEAVY = {"fastapi", "sqlalchemy", "sqlmodel", "pydantic"} | AUDIO | MODELS | SERVICES


def loaded_by(module: str) -> dict[str, str]:
    """The modules that an import brings in, with their files."""
    code = (
        f"import json, sys; before = set(sys.modules); import {module};"
        "files = {m: getattr(sys.modules[m], '__file__', '') or '' for m in set(sys.modules) - before};"
        "print(json.dumps(files))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    loaded: dict[str, str] = json.loads(done.stdout)
    return loaded


def test_the_application_imports_the_standard_library_celery_and_kombu_alone() -> None:
    loaded = loaded_by("backend.celery_app")
    ours = {name for name in loaded if name.startswith("backend.")}
    assert ours == {"backend.config", "backend.environment", "backend.recording_settings", "backend.celery_app"}
    foreign = {
        name.partition(".")[0]
        for name, file in loaded.items()
        if "site-packages" in file and name.partition(".")[0] not in SHARED
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
    brought |= {"_distutils_hack", "exceptiongroup", "jwt", "dotenv", "yaml", "coverage", "greenlet"}
    # jwt looks for these, and uses them where something else has brought them.
    brought |= {"cryptography", "cffi", "_cffi_backend", "pycparser"}
    assert foreign <= brought
    assert not (HEAVY | {"asyncpg", "cronsim"}) & {name.partition(".")[0] for name in loaded}


def test_beat_imports_the_engine_and_none_of_the_product() -> None:
    loaded = loaded_by("backend.beat")
    ours = {name for name in loaded if name.startswith("backend.") and not name.startswith("backend.scheduling")}
    shared = {"backend.config", "backend.environment", "backend.recording_settings", "backend.celery_app"}
    assert ours == shared | {"backend.beat"}
    assert not HEAVY & {name.partition(".")[0] for name in loaded}


def test_the_api_does_without_what_hears_and_speaks_to_models() -> None:
    loaded = {name.partition(".")[0] for name in loaded_by("backend.main")}
    assert "fastapi" in loaded
    assert not (AUDIO | MODELS | {"openai"}) & loaded


def imported_by(source: str) -> set[str]:
    """The modules that a source file names in its imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def test_the_source_of_beats_files_imports_only_what_its_image_has() -> None:
    for files, allowed in ((SHARED_FILES, SHARED), (ENGINE_FILES, ALLOWED)):
        for name in files:
            imported = imported_by((ROOT / "backend" / name).read_text())
            assert {module.partition(".")[0] for module in imported} <= set(sys.stdlib_module_names) | allowed, name
            ours = {module for module in imported if module.partition(".")[0] == "backend"}
            assert all(
                re.match(r"backend\.(config|environment|recording_settings|celery_app|scheduling)\b", module)
                for module in ours
            ), name


def test_the_image_copies_the_files_of_beat_and_no_others() -> None:
    containerfile = (ROOT / "Containerfile.celery-beat").read_text()
    copied = {
        word for line in re.findall(r"^COPY (backend/.*) /app/", containerfile, re.MULTILINE) for word in line.split()
    }
    assert copied == {f"backend/{name}" for name in (*SHARED_FILES, Path("beat.py"))} | {"backend/scheduling/"}


def test_beat_starts_from_its_own_requirements_and_files_alone(
    tmp_path: Path, valkey: ValkeyServer, postgres: PostgresServer, db: Database
) -> None:
    home = tmp_path / "beat"
    (home / "backend" / "scheduling").mkdir(parents=True)
    for name in (*SHARED_FILES, *ENGINE_FILES):
        shutil.copy(ROOT / "backend" / name, home / "backend" / name)
    for requirements in ("requirements-beat.txt", "constraints.txt"):
        shutil.copy(ROOT / requirements, home / requirements)
    # By our own pip: one of its own would be half of the work.
    venv.create(home / "venv")
    install: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        home / "venv" / "bin" / "python",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
        home / "requirements-beat.txt",
    ]
    subprocess.run(install, check=True, timeout=300)
    environ = {
        "PATH": os.defpath,
        "REDIS_PORT": str(valkey.port),
        "CALLS_ADVANCE_SECONDS": "1",
        "DATABASE_URL": postgres.url,
    }
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
    assert not installed & (HEAVY | {"livekit_api", "pyannote_audio", "faster_whisper"})
    after = {path for path in home.rglob("*") if "__pycache__" not in path.parts}
    assert after == before, "Beat keeps no state file"
