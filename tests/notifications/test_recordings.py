"""The tasks of recordings and the mail that comes of them, with a real mail server."""

from pathlib import Path
from uuid import uuid4

from backend.core.object_storage import open_storage
from backend.notifications import tasks
from backend.recordings.models import Recording, RecordingState
from backend.recordings.tasks import probe_recording
from tests.fixtures.product import Start
from tests.notifications.mail import running_mailbox
from tests.notifications.people import add_user


async def test_a_recording_that_cannot_be_transcribed_is_told_by_mail_with_a_link(start: Start, tmp_path: Path) -> None:
    async with running_mailbox() as box:
        product = await start(
            SMTP_HOST="127.0.0.1",
            SMTP_PORT=str(box.port),
            SMTP_TLS="off",
            NOTIFY_FROM="Beatline <beatline@example.net>",
            BEATLINE_PUBLIC_URL="https://beatline.example.net/",
        )
        key = uuid4()
        (tmp_path / "monday.wav").write_bytes(b"no sound at all")
        blob = await open_storage(product.config).put(f"notes/{key}.wav", tmp_path / "monday.wav")
        note = Recording(
            id=key,
            kind="note",
            subject_id=key,
            owner_id=await add_user(product.db),
            filename="Monday.wav",
            state=RecordingState.FETCHED,
            source_path="",
            blob_key=blob.key,
        )
        async with product.db.transaction() as session:
            session.add(note)
        assert await probe_recording(product.runtime, str(key)) == "failed"
        await tasks.deliver_notifications(product.runtime)
        (mail,) = box.taken
        assert mail["Subject"] == "Not transcribed: Monday.wav"
        body = mail.get_body(("plain",))
        assert body is not None
        assert f"https://beatline.example.net/ops/recordings/{key}" in body.get_content().splitlines()
