from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from livekit import api
from numpy.typing import NDArray

from backend.simulator.phones import load_clips
from tests.simulator.conftest import Rig, eventually

STATUS = api.EgressStatus


def decode(path: Path) -> NDArray[np.float32]:
    """Channels by samples, 48 kHz."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    return np.concatenate(frames, axis=1)


def energies(path: Path) -> list[float]:
    return [float(np.sqrt((channel**2).mean())) for channel in decode(path)]


async def record_call(rig: Rig, suffix: str, room: str = "call-1", **fields: object) -> api.EgressInfo:
    await rig.open_room(room, departure_timeout=500)
    await rig.dial(suffix, room)
    started = await rig.record(room, str(rig.folder / "egress" / "calls" / f"{room}.ogg"), **fields)
    assert started.status == STATUS.EGRESS_STARTING
    await eventually(lambda: rig.receiver.of("participant_left", room))
    with suppress(api.ServerError):
        await rig.lk.room.delete_room(api.DeleteRoomRequest(room=room))
    return await rig.recorded(started.egress_id)


async def test_a_recording_holds_the_whole_clip_in_two_separate_channels(rig: Rig) -> None:
    info = await record_call(rig, "345")
    clip = load_clips()[(await rig.last_dial())["clip"]]
    assert info.status == STATUS.EGRESS_COMPLETE
    file = info.file_results[0]
    path = rig.folder / "egress" / "calls" / "call-1.ogg"
    assert (file.filename, file.location, file.size) == (str(path), str(path), path.stat().st_size)
    assert abs(file.duration / 1e9 - clip.seconds) < 0.1
    assert file.ended_at - file.started_at == file.duration
    sound = decode(path)
    assert sound.shape[0] == 2
    assert abs(sound.shape[1] / 48_000 - clip.seconds) < 0.1
    assert min(energies(path)) > 0.01
    assert abs(float(np.corrcoef(sound[0], sound[1]).min())) < 0.05


async def test_the_stages_of_a_recording_are_told_in_order(rig: Rig) -> None:
    info = await record_call(rig, "200")
    told = [event for event in rig.receiver.webhooks if event.egress_info.egress_id == info.egress_id]
    assert [(event.event, event.egress_info.status) for event in told] == [
        ("egress_started", STATUS.EGRESS_STARTING),
        ("egress_updated", STATUS.EGRESS_ACTIVE),
        ("egress_ended", STATUS.EGRESS_COMPLETE),
    ]
    assert {event.room.name for event in told} == {"call-1"}


async def test_a_voicemail_recording_has_a_silent_agent(rig: Rig) -> None:
    await record_call(rig, "777")
    agent, customer = energies(rig.folder / "egress/calls/call-1.ogg")
    assert agent < 0.001
    assert customer > 0.01


async def test_a_call_that_was_cut_short_has_a_short_recording(rig: Rig) -> None:
    info = await record_call(rig, "111")
    assert abs(info.file_results[0].duration / 1e9 - 1.0) < 0.1
    assert decode(rig.folder / "egress/calls/call-1.ogg").shape[0] == 2


async def test_a_recording_can_be_stopped_while_the_call_goes_on(slow: Rig) -> None:
    await slow.dial("777", "call-1")  # nobody deletes this room, for it has no agent
    started = await slow.record("call-1", "stopped.ogg")
    await eventually(lambda: [e for e in slow.receiver.webhooks if e.event == "egress_updated"])
    stopped = await slow.lk.egress.stop_egress(api.StopEgressRequest(egress_id=started.egress_id))
    assert stopped.status == STATUS.EGRESS_ENDING
    info = await slow.recorded(started.egress_id)
    assert info.status == STATUS.EGRESS_COMPLETE
    assert (slow.folder / "egress" / "stopped.ogg").exists()
    with pytest.raises(api.ServerError) as again:
        await slow.lk.egress.stop_egress(api.StopEgressRequest(egress_id=started.egress_id))
    assert again.value.code == "failed_precondition"
    assert again.value.message == "egress with status EGRESS_COMPLETE cannot be stopped"


@pytest.mark.parametrize("suffix", ["345", "111"])
async def test_a_layout_turns_the_channels_into_one(rig: Rig, suffix: str) -> None:
    info = await record_call(rig, suffix, layout="speaker")
    sound = decode(rig.folder / "egress/calls/call-1.ogg")
    assert sound.shape[0] == 1
    assert abs(sound.shape[1] / 48_000 - info.file_results[0].duration / 1e9) < 0.1


async def test_recordings_are_listed_by_room_by_id_and_by_being_active(rig: Rig) -> None:
    info = await record_call(rig, "200")
    await rig.lk.room.create_room(api.CreateRoomRequest(name="call-2", departure_timeout=500))
    await rig.dial("777", "call-2")
    running = await rig.record("call-2", "{room_name}-{time}")

    async def ids(**query: Any) -> list[str]:
        found = await rig.lk.egress.list_egress(api.ListEgressRequest(**query))
        return [item.egress_id for item in found.items]

    assert await ids() == [info.egress_id, running.egress_id]
    assert await ids(room_name="call-1") == [info.egress_id]
    assert await ids(egress_id=running.egress_id) == [running.egress_id]
    assert await ids(active=True) == [running.egress_id]
    await rig.lk.room.delete_room(api.DeleteRoomRequest(room="call-2"))
    done = await rig.recorded(running.egress_id)
    assert Path(done.file_results[0].filename).name.startswith("call-2-")


async def test_a_room_in_which_nobody_spoke_leaves_no_file(rig: Rig) -> None:
    await rig.open_room("call-1")
    started = await rig.record("call-1", "empty.ogg", file_outputs=[], file=api.EncodedFileOutput(filepath="empty"))
    await rig.lk.room.delete_room(api.DeleteRoomRequest(room="call-1"))
    info = await rig.recorded(started.egress_id)
    assert (info.status, list(info.file_results)) == (STATUS.EGRESS_ABORTED, [])
    assert not (rig.folder / "egress" / "empty.ogg").exists()


async def test_a_folder_that_cannot_be_written_fails_the_recording(rig: Rig) -> None:
    (rig.folder / "egress").write_text("not a folder")
    info = await record_call(rig, "200")
    assert info.status == STATUS.EGRESS_FAILED
    assert "calls" in info.error


_OGG = api.EncodedFileType.OGG


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"path": "/etc/beatline.ogg"}, "invalid_argument"),
        ({"path": "../outside.ogg"}, "invalid_argument"),
        ({"room": "nowhere"}, "not_found"),
        ({"file_outputs": []}, "invalid_argument"),
        ({"file_outputs": [api.EncodedFileOutput(file_type=api.EncodedFileType.MP4)]}, "invalid_argument"),
        ({"file_outputs": [api.EncodedFileOutput(file_type=_OGG, s3=api.S3Upload(bucket="b"))]}, "invalid_argument"),
    ],
)
async def test_a_recording_that_cannot_be_made_is_refused(rig: Rig, fields: dict[str, object], code: str) -> None:
    await rig.open_room("call-1")
    room, path = str(fields.pop("room", "call-1")), str(fields.pop("path", "x.ogg"))
    with pytest.raises(api.ServerError) as refused:
        await rig.record(room, path, **fields)
    assert refused.value.code == code
    with pytest.raises(api.ServerError, match="not_found"):
        await rig.lk.egress.stop_egress(api.StopEgressRequest(egress_id="EG_none"))


def test_the_clips_are_short_small_stereo_and_have_their_words() -> None:
    clips = load_clips()
    assert 6 <= len(clips) <= 8
    assert sum(clip.path.stat().st_size for clip in clips.values()) < 1_200_000
    for clip in clips.values():
        agent, customer = energies(clip.path)
        assert abs(decode(clip.path).shape[1] / 48_000 - clip.seconds) < 0.1
        assert 6 <= clip.seconds <= 21
        assert customer > 0.01
        assert (agent > 0.01) == bool(clip.agent_text)
        assert sorted(clip.text.split()) == sorted(f"{clip.agent_text} {clip.customer_text}".split())
        assert clip.source
        assert clip.licence
