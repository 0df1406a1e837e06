"""The settings of recordings: where they are kept, what may be uploaded, and who turns them into words."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import backend.environment as env
from backend.environment import Reader


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """An S3-compatible service; `endpoint` is empty for Amazon's own."""

    bucket: str
    prefix: str
    endpoint: str
    region: str
    access_key: str
    secret_key: str


@dataclass(frozen=True, slots=True)
class Storage:
    """Blobs lie in `folder`, or in the object store where there is one. `work` holds what is in progress on this machine."""

    folder: Path
    objects: ObjectStore | None
    work: Path


@dataclass(frozen=True, slots=True)
class Uploads:
    """Bounds of what people upload; `unfinished_hours` is how long an upload may pause."""

    max_bytes: int
    max_seconds: float
    unfinished_hours: int
    retention_days: int


@dataclass(frozen=True, slots=True)
class OpenAI:
    """An OpenAI-compatible service. `api_key` is empty where there is none; prices are US dollars."""

    api_key: str = field(repr=False)
    base_url: str
    transcription_model: str
    text_model: str
    timeout_seconds: float
    price_per_minute: float | None
    price_per_million_input: float | None
    price_per_million_output: float | None


@dataclass(frozen=True, slots=True)
class Speech:
    """`backend` is local or openai. `model_dir` is a faster-whisper model's folder, None for the packaged one."""

    backend: str
    language: str
    threads: int
    model_dir: Path | None
    device: str


@dataclass(frozen=True, slots=True)
class Recordings:
    storage: Storage
    uploads: Uploads
    speech: Speech
    openai: OpenAI


def read_recordings(read: Reader) -> Recordings:
    return Recordings(_storage(read), _uploads(read), _speech(read), _openai(read))


def _storage(read: Reader) -> Storage:
    folder = read.value("RECORDINGS_DIR", env.folder, "/var/lib/beatline/recordings")
    work = read.value("RECORDINGS_WORK_DIR", env.optional_folder, "")
    return Storage(folder, _objects(read), work or folder / ".work")


def _objects(read: Reader) -> ObjectStore | None:
    store = ObjectStore(
        bucket=read.value("S3_BUCKET", env.text, ""),
        prefix=read.value("S3_PREFIX", env.text, ""),
        endpoint=read.value("S3_ENDPOINT_URL", env.url("http", "https"), ""),
        region=read.value("S3_REGION", env.text, "us-east-1"),
        access_key=read.value("S3_ACCESS_KEY_ID", env.text, ""),
        secret_key=read.value("S3_SECRET_ACCESS_KEY", env.text, ""),
    )
    if read.value("RECORDINGS_STORAGE", env.choice("folder", "s3"), "folder") == "folder":
        return None
    if not (store.bucket and store.access_key and store.secret_key):
        read.problems.append("RECORDINGS_STORAGE=s3 needs S3_BUCKET, S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY")
    return store


def _uploads(read: Reader) -> Uploads:
    return Uploads(
        max_bytes=read.value("UPLOAD_MAX_MB", env.whole(1, 100_000), "2048") * 1_000_000,
        max_seconds=read.value("UPLOAD_MAX_MINUTES", env.whole(1, 1440), "240") * 60.0,
        unfinished_hours=read.value("UPLOAD_UNFINISHED_HOURS", env.whole(1, 720), "24"),
        retention_days=read.value("NOTES_RETENTION_DAYS", env.whole(0, 3650), "0"),
    )


def _price(value: str) -> float | None:
    return env.number(0, 1_000_000)(value) if value else None


def _key(value: str) -> str:
    # It goes into an HTTP header.
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("must be one word of printable ASCII characters")
    return value


def _openai(read: Reader) -> OpenAI:
    return OpenAI(
        api_key=read.value("OPENAI_API_KEY", _key, ""),
        base_url=read.value("OPENAI_BASE_URL", env.url("http", "https"), ""),
        transcription_model=read.value("OPENAI_TRANSCRIPTION_MODEL", env.text, "gpt-transcribe"),
        text_model=read.value("OPENAI_TEXT_MODEL", env.text, ""),
        timeout_seconds=read.value("OPENAI_TIMEOUT_SECONDS", env.number(1, 3600), "300"),
        price_per_minute=read.value("OPENAI_PRICE_PER_MINUTE", _price, ""),
        price_per_million_input=read.value("OPENAI_PRICE_PER_MILLION_INPUT_TOKENS", _price, ""),
        price_per_million_output=read.value("OPENAI_PRICE_PER_MILLION_OUTPUT_TOKENS", _price, ""),
    )


def _speech(read: Reader) -> Speech:
    return Speech(
        backend=read.value("TRANSCRIPTION_BACKEND", env.choice("local", "openai"), "local"),
        language=read.value("TRANSCRIPTION_LANGUAGE", env.text, ""),
        threads=read.value("TRANSCRIPTION_THREADS", env.whole(0, 256), "0"),
        model_dir=read.value("TRANSCRIPTION_MODEL_DIR", env.optional_folder, ""),
        device=read.value("TRANSCRIPTION_DEVICE", env.choice("auto", "cpu", "cuda"), "auto"),
    )
