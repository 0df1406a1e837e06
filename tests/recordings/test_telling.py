"""Who is told that a recording is ready, or will not be, on real PostgreSQL."""

from datetime import time, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlmodel import col, select, update

from backend.accounts.models import User
from backend.core.clock import utc_now
from backend.notifications.models import Notification, NotificationDelivery, NotificationPreferences
from backend.recordings import service
from backend.recordings.models import Recording, RecordingState
from backend.recordings.work import probing, running
from backend.recordings.work.running import Place
from tests.fixtures.people import add_user
from tests.recordings.desk import Desk
from tests.recordings.notes import scripted_note

LONG_AGO = timedelta(minutes=2)


async def _noras(desk: Desk, source: Path, *, age: timedelta = LONG_AGO, **values: Any) -> tuple[Recording, UUID]:
    """A note of Nora's that she uploaded `age` ago."""
    nora = await add_user(desk.db, "nora", email="nora@example.net")
    given: dict[str, Any] = {"filename": "Monday.wav", "created_at": utc_now() - age, "owner": nora.id}
    return await desk.note(source, **(given | values)), nora.id


async def _told(desk: Desk) -> list[Notification]:
    async with desk.db.transaction() as session:
        return list((await session.exec(select(Notification).order_by(col(Notification.created_at)))).all())


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.wav"
    path.write_bytes(b"no sound at all")
    return path


async def test_the_owner_is_told_once_that_a_recording_is_ready_and_no_word_of_it(desk: Desk, note: Path) -> None:
    recording, nora = await _noras(desk, note)
    place = Place(desk.storage, desk.egress, desk.work, "https://beatline.example.net")
    for _ in range(2):
        await running.transcribe(desk.db, scripted_note().tools(), place, recording_id=recording.id)
    (told,) = await _told(desk)
    assert (told.user_id, told.subject, told.urgent) == (nora, "Ready: Monday.wav", False)
    link = f"https://beatline.example.net/ops/recordings/{recording.id}"
    assert told.text.split("\n\n") == ["Your recording “Monday.wav” (0:08) is transcribed.", link]
    assert f'<a href="{link}">' in (told.html or "")
    # The machine's title is made of what was said.
    assert (await desk.now()).title == "A greeting"
    assert "greeting" not in told.text + (told.html or "")
    assert desk.sent.named("deliver_notification") == [{"notification_id": str(told.id)}]


async def test_whoever_has_just_uploaded_it_is_not_told_that_it_is_ready(desk: Desk, note: Path) -> None:
    recording, _ = await _noras(desk, note, age=timedelta(seconds=30))
    assert await desk.transcribe(recording, scripted_note()) == RecordingState.READY
    assert await _told(desk) == []


async def test_a_title_that_the_owner_gave_is_the_name(desk: Desk, note: Path) -> None:
    recording, _ = await _noras(desk, note, title="Visit to Ms Rao")
    await desk.transcribe(recording, scripted_note())
    assert [told.subject for told in await _told(desk)] == ["Ready: Visit to Ms Rao"]


@pytest.mark.parametrize(
    ("title", "subject"),
    [
        ("a\nBcc: b@example.net", "Ready: a Bcc: b@example.net"),
        ("\U0001f469\u200d\U0001f467 family", "Ready: \U0001f469 \U0001f467 family"),
        ("x" * 300, f"Ready: {'x' * 119}…"),
    ],
)
async def test_any_title_fits_into_a_subject(desk: Desk, note: Path, title: str, subject: str) -> None:
    recording, _ = await _noras(desk, note, title=title)
    assert await desk.transcribe(recording, scripted_note()) == RecordingState.READY
    assert [told.subject for told in await _told(desk)] == [subject]


async def test_one_without_a_name_is_told_by_its_day(desk: Desk, note: Path) -> None:
    recording, _ = await _noras(desk, note, filename=None)
    await desk.transcribe(recording, scripted_note())
    assert [told.subject for told in await _told(desk)] == [f"Ready: recording of {recording.created_at:%Y-%m-%d}"]


async def test_a_failure_is_told_at_once_with_its_reason(desk: Desk, broken: Path) -> None:
    recording, nora = await _noras(desk, broken, age=timedelta())
    for _ in range(2):
        await probing.probe(
            desk.db, desk.storage, recording_id=recording.id, work=desk.work, max_seconds=60.0, then=service.TASK
        )
    (told,) = await _told(desk)
    error = (await desk.now()).error or ""
    assert error
    assert (told.user_id, told.subject) == (nora, "Not transcribed: Monday.wav")
    assert told.text == (
        f"Your recording “Monday.wav” could not be transcribed: {error.rstrip('.')}. "
        f"It takes nothing off your quota.\n\n/ops/recordings/{recording.id}"
    )


async def test_each_end_of_one_that_is_tried_again_is_told(desk: Desk, broken: Path) -> None:
    recording, _ = await _noras(desk, broken)
    assert await desk.transcribe(recording) == RecordingState.FAILED
    async with desk.db.transaction() as session:
        await service.retry(session, recording.id)
    assert await desk.transcribe(recording) == RecordingState.FAILED
    assert [told.subject for told in await _told(desk)] == ["Not transcribed: Monday.wav"] * 2


async def test_nobody_is_told_of_what_was_cancelled_or_is_the_teams(desk: Desk, note: Path, broken: Path) -> None:
    recording, _ = await _noras(desk, note)
    await desk.cancel(recording)
    assert (await desk.now()).state == RecordingState.CANCELLED
    await desk.transcribe(await desk.note(broken, created_at=utc_now() - LONG_AGO))
    assert (await desk.now()).state == RecordingState.FAILED
    assert await _told(desk) == []


async def test_an_account_that_was_closed_meanwhile_is_told_nothing_and_costs_no_result(desk: Desk, note: Path) -> None:
    recording, nora = await _noras(desk, note)
    async with desk.db.transaction() as session:
        await session.exec(update(User).where(col(User.id) == nora).values(is_active=False))
    assert await desk.transcribe(recording, scripted_note()) == RecordingState.READY
    assert await desk.transcript() is not None
    assert await _told(desk) == []


async def test_a_result_that_is_not_recorded_is_not_told(desk: Desk, note: Path) -> None:
    recording, _ = await _noras(desk, note)

    def stumble(_: Any) -> None:
        raise LookupError("a fault of ours")

    with pytest.raises(LookupError):
        await desk.transcribe(recording, scripted_note("summary", stumble))
    assert (await desk.now()).state == RecordingState.TRANSCRIBING
    assert await _told(desk) == []


@pytest.mark.parametrize(
    ("wishes", "state"),
    [
        ({"digest": "daily"}, "held"),
        ({"quiet_start": time(0), "quiet_end": time(23, 59, 59)}, "pending"),
    ],
)
async def test_what_the_owner_prefers_is_kept_to(desk: Desk, note: Path, wishes: dict[str, Any], state: str) -> None:
    recording, nora = await _noras(desk, note)
    async with desk.db.transaction() as session:
        session.add(NotificationPreferences(user_id=nora, timezone="UTC", **wishes))
    await desk.transcribe(recording, scripted_note())
    (delivery,) = await desk.rows(NotificationDelivery)
    assert (delivery.channel, delivery.address, delivery.state) == ("email", "nora@example.net", state)
    assert delivery.due_at > utc_now()
    assert desk.sent.named("deliver_notification") == []
