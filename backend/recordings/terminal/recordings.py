"""`beatline recordings …`: what is in the database. People's notes are their own: here, too, an admin sees no word of them."""

import textwrap
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import typer
from pydantic import ValidationError

from backend.config import Config
from backend.core.changing import Changing
from backend.core.console import configuration, fail, in_transaction, say, say_table, warn, with_database
from backend.core.db import Database, Session
from backend.core.errors import AppError
from backend.core.object_storage import open_storage
from backend.core.principal import Principal, Role
from backend.recordings.keeping import removing
from backend.recordings.library import exporting, managing, reading
from backend.recordings.models import RecordingKind, RecordingState
from backend.recordings.options import MOST_SPEAKERS
from backend.recordings.schemas import ExportFormat, RecordingDetail, RecordingRead, TranscribeWish

T = TypeVar("T")

app = typer.Typer(
    help="Recordings: list, show, export, transcribe again, delete.", no_args_is_help=True, add_completion=False
)

# A table of them stays readable.
_LONGEST_TITLE = 60
_CLI = Principal("service", "cli", Role.ADMIN)

Id = Annotated[UUID, typer.Argument(metavar="ID", help="A recording's id.")]


@app.command("list")
def list_recordings(
    state: Annotated[RecordingState | None, typer.Option(help="In this state alone.")] = None,
    kind: Annotated[RecordingKind | None, typer.Option(help="Of this kind alone.")] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=500, help="How many.")] = 20,
) -> None:
    """The latest recordings, newest first; times are local to DATETIME_TIMEZONE."""
    config = configuration("DATABASE_URL")
    states = {state} if state is not None else None
    found = in_transaction(
        config, lambda session: reading.list_recordings(session, _CLI, states=states, kind=kind, limit=limit)
    )
    if not found.items:
        say("no recordings")
        return
    say_table(
        ("made", "kind", "state", "length", "owner", "title", "id"), [_cells(each, config) for each in found.items]
    )
    if found.next_cursor:
        say("there are more: -n shows up to 500")


def _cells(recording: RecordingRead, config: Config) -> tuple[object, ...]:
    length = "" if recording.duration_seconds is None else f"{recording.duration_seconds:.0f} s"
    title = textwrap.shorten(recording.title or recording.filename or "", _LONGEST_TITLE, placeholder="…")
    made = _local(recording.created_at, config)
    return made, recording.kind, _state(recording), length, recording.owner or "", title, recording.id


def _state(recording: RecordingRead) -> str:
    if recording.state == RecordingState.TRANSCRIBING:
        return f"{recording.stage or 'starting'} {recording.percent or 0} %"
    return recording.state.value


def _local(at: datetime, config: Config) -> str:
    return f"{at.astimezone(ZoneInfo(config.timezone)):%Y-%m-%d %H:%M:%S}"


@app.command("show")
def show_recording(recording_id: Id) -> None:
    """One recording: how far it is, how it was made, who speaks, what it is about."""
    config = configuration("DATABASE_URL")

    async def work(session: Session) -> RecordingDetail:
        return await reading.read_recording(session, recording_id, _CLI, config=config)

    recording = _refusals(lambda: in_transaction(config, work))
    for name, value in _facts(recording, config):
        if value not in {None, ""}:
            say(f"{name + ':':12}{value}")


def _facts(recording: RecordingDetail, config: Config) -> list[tuple[str, object]]:
    made, summary, said = recording.transcript, recording.summary, recording.duration_seconds
    facts: list[tuple[str, object]] = [
        ("id", recording.id),
        ("title", recording.title or recording.filename),
        ("kind", recording.kind),
        ("owner", recording.owner),
        ("made", _local(recording.created_at, config)),
        ("state", _state(recording)),
        ("error", recording.error),
        ("length", "" if said is None else f"{said:.1f} s"),
        ("kept until", _local(recording.kept_until, config) if recording.kept_until else ""),
    ]
    if made is not None:
        by = f"{made.backend} {made.model}" + (f", speakers by {made.diarizer}" if made.diarizer else "")
        facts += [("language", made.language), ("written by", by)]
    facts += [("speaker", f"{each.name}, {each.spoken_seconds:.0f} s") for each in recording.speakers]
    if summary is not None:
        facts.append(("in short", f"{summary.summary} ({summary.backend})"))
        facts += [("to do", item) for item in summary.action_items]
    return facts


@app.command("export")
def export_recording(
    recording_id: Id,
    form: Annotated[ExportFormat, typer.Option("-f", "--format", help="What to write.")] = ExportFormat.TXT,
) -> None:
    """Write what was said to standard output. Not for people's notes, which they share by themselves."""
    config = configuration("DATABASE_URL")
    document = _refusals(
        lambda: in_transaction(config, lambda session: reading.read_document(session, recording_id, _CLI))
    )
    typer.echo(exporting.export(document, form), nl=False)


@app.command("transcribe", cls=Changing)
def transcribe_recording(
    recording_id: Id,
    language: Annotated[str | None, typer.Option(metavar="CODE", help="ISO 639 code; left out: detected.")] = None,
    speakers: Annotated[int | None, typer.Option(min=1, max=MOST_SPEAKERS, help="How many talk.")] = None,
    backend: Annotated[str | None, typer.Option(metavar="local|openai", help="Left out: the setting's.")] = None,
    discard_edits: Annotated[bool, typer.Option("--discard-edits", help="Give up what people have changed.")] = False,
) -> None:
    """Have a recording of the team's transcribed again; what is there stays until the new transcript takes its place."""
    config = configuration("DATABASE_URL")
    given = {"language": language, "speakers": speakers, "backend": backend, "discard_edits": discard_edits}
    try:
        wish = TranscribeWish.model_validate(given)
    except ValidationError as fault:
        fail("; ".join(f"{each['loc'][0]}: {each['msg']}" for each in fault.errors()), 2)
    _refusals(lambda: with_database(config, lambda db: _transcribe(db, config, recording_id, wish)))
    say(f"{recording_id} is transcribed again")


async def _transcribe(db: Database, config: Config, recording_id: UUID, wish: TranscribeWish) -> RecordingRead:
    return await managing.transcribe(db, open_storage(config), recording_id, wish, _CLI)


@app.command("delete", cls=Changing)
def delete_recordings(
    ids: Annotated[list[UUID], typer.Argument(metavar="ID...", help="Recordings' ids.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete recordings for good: sound, words, edits, speakers, summary, links, and what the search knows."""
    config = configuration("DATABASE_URL")
    if not yes and not typer.confirm(f"Delete {len(ids)} for good?"):
        raise typer.Exit(2)
    if with_database(config, lambda db: _delete(db, config, ids)):
        raise typer.Exit(2)


async def _delete(db: Database, config: Config, ids: list[UUID]) -> int:
    """How many could not be."""
    storage, refused = open_storage(config), 0
    for recording_id in dict.fromkeys(ids):
        try:
            gone = await removing.remove(db, storage, recording_id, _CLI, config=config)
        except AppError as fault:
            warn(f"beatline: {fault.detail}")
            refused += 1
        else:
            later = f", {gone.files_pending} follow" if gone.files_pending else ""
            segments = "1 segment" if gone.segments == 1 else f"{gone.segments} segments"
            files = "1 file" if gone.files_deleted == 1 else f"{gone.files_deleted} files"
            say(f"{recording_id} is deleted: {segments}, {files}{later}")
    return refused


def _refusals(work: Callable[[], T]) -> T:
    try:
        return work()
    except AppError as fault:
        fail(fault.detail, 2)
