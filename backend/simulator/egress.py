"""Egress: records a room's call into an Ogg/Opus file, the agent left and the phone right."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from livekit.protocol import egress as proto
from livekit.protocol.models import Room as RoomInfo
from livekit.protocol.webhook import WebhookEvent

from backend.simulator.clock import Clock, Tasks, settle
from backend.simulator.config import SimConfig
from backend.simulator.recording import duration_of, write_recording
from backend.simulator.state import Room, new_id, new_signal
from backend.simulator.webhooks import Webhooks
from backend.simulator.wire import Caller, TwirpError
from backend.simulator.world import World

_START_SECONDS = 0.3
_KEPT = 1000


@dataclass(eq=False, slots=True)
class Job:
    """One recording; `stop` is settled by StopEgress."""

    info: proto.EgressInfo
    room: Room
    target: Path
    two_channels: bool
    stop: asyncio.Future[None] = field(default_factory=new_signal)


class Egress:
    """What was recorded is remembered up to a bound."""

    def __init__(
        self,
        config: SimConfig,
        world: World,
        webhooks: Webhooks,
        clock: Clock,
        tasks: Tasks,
    ) -> None:
        self._config, self._world, self._webhooks = config, world, webhooks
        self._clock, self._tasks = clock, tasks
        self._jobs: dict[str, Job] = {}
        self._finished: dict[str, proto.EgressInfo] = {}

    async def start_room_composite_egress(
        self, request: proto.RoomCompositeEgressRequest, _caller: Caller
    ) -> proto.EgressInfo:
        room = self._world.rooms.get(request.room_name)
        if room is None:
            raise TwirpError("not_found", "requested room does not exist")
        target = self._target(request)
        now = time.time_ns()
        info = proto.EgressInfo(
            egress_id=new_id("EG"),
            room_id=room.info.sid,
            room_name=room.name,
            status=proto.EgressStatus.EGRESS_STARTING,
            started_at=now,
            updated_at=now,
            room_composite=request,
        )
        # As on the real server: a layout turns the channels into a mix, and nobody is told.
        two_channels = request.audio_mixing == proto.AudioMixing.DUAL_CHANNEL_AGENT and not (
            request.layout or request.custom_base_url
        )
        job = self._jobs[info.egress_id] = Job(info, room, target, two_channels)
        self._tell(job, "egress_started")
        self._tasks.spawn(self._run(job))
        return info

    def _target(self, request: proto.RoomCompositeEgressRequest) -> Path:
        outputs = list(request.file_outputs)
        if not outputs and request.HasField("file"):
            outputs = [request.file]
        if len(outputs) != 1 or outputs[0].file_type not in {
            proto.EncodedFileType.DEFAULT_FILETYPE,
            proto.EncodedFileType.OGG,
        }:
            raise TwirpError("invalid_argument", "the simulator records into exactly one OGG file")
        if outputs[0].WhichOneof("output") is not None:
            raise TwirpError("invalid_argument", "the simulator has no object storage, only local files")
        name = outputs[0].filepath or "{room_name}-{time}"
        name = name.replace("{room_name}", request.room_name)
        name = name.replace("{time}", datetime.now(UTC).strftime("%Y-%m-%dT%H%M%S"))
        folder = self._config.egress_dir.resolve()
        target = (folder / (name if name.endswith(".ogg") else f"{name}.ogg")).resolve()
        if not target.is_relative_to(folder):
            raise TwirpError("invalid_argument", f"filepath must lie under {folder}")
        return target

    async def stop_egress(self, request: proto.StopEgressRequest, _caller: Caller) -> proto.EgressInfo:
        if (finished := self._finished.get(request.egress_id)) is not None:
            status = proto.EgressStatus.Name(finished.status)
            raise TwirpError("failed_precondition", f"egress with status {status} cannot be stopped")
        job = self._jobs.get(request.egress_id)
        if job is None:
            raise TwirpError("not_found", "egress does not exist")
        self._move(job, proto.EgressStatus.EGRESS_ENDING)
        settle(job.stop, None)
        return job.info

    async def list_egress(self, request: proto.ListEgressRequest, _caller: Caller) -> proto.ListEgressResponse:
        finished = [] if request.active else list(self._finished.values())
        items = [
            info
            for info in (*finished, *(job.info for job in self._jobs.values()))
            if request.room_name in {"", info.room_name} and request.egress_id in {"", info.egress_id}
        ]
        return proto.ListEgressResponse(items=items)

    async def _run(self, job: Job) -> None:
        if not await self._clock.wait(_START_SECONDS, job.room.closed, job.stop):
            self._move(job, proto.EgressStatus.EGRESS_ACTIVE)
            job.room.info.active_recording = True
            self._tell(job, "egress_updated")
            await asyncio.wait([job.room.closed, job.stop], return_when=asyncio.FIRST_COMPLETED)
        self._move(job, proto.EgressStatus.EGRESS_ENDING)
        job.room.info.active_recording = False
        await self._finish(job)
        job.info.ended_at = time.time_ns()
        del self._jobs[job.info.egress_id]
        self._finished[job.info.egress_id] = job.info
        if len(self._finished) > _KEPT:
            del self._finished[next(iter(self._finished))]
        self._tell(job, "egress_ended")

    async def _finish(self, job: Job) -> None:
        leg = job.room.leg
        if leg is None or leg.clip is None or leg.answered_at is None:
            job.info.error = "Start signal not received"
            self._move(job, proto.EgressStatus.EGRESS_ABORTED)
            return
        spoken = leg.spoken_seconds(self._clock)
        length = None if spoken >= leg.clip.seconds else spoken
        try:
            await asyncio.to_thread(write_recording, leg.clip.path, job.target, length, two_channels=job.two_channels)
        except OSError as fault:
            job.info.error = f"{fault.strerror or fault}: {job.target}"
            self._move(job, proto.EgressStatus.EGRESS_FAILED)
            return
        self._report_file(job)
        self._move(job, proto.EgressStatus.EGRESS_COMPLETE)

    def _report_file(self, job: Job) -> None:
        duration = int(duration_of(job.target) * 1_000_000_000)
        file = proto.FileInfo(
            filename=str(job.target),
            location=str(job.target),
            size=job.target.stat().st_size,
            started_at=job.info.started_at,
            ended_at=job.info.started_at + duration,
            duration=duration,
        )
        job.info.file_results.append(file)
        job.info.file.CopyFrom(file)

    @staticmethod
    def _move(job: Job, status: proto.EgressStatus) -> None:
        job.info.status, job.info.updated_at = status, time.time_ns()

    def _tell(self, job: Job, event: str) -> None:
        copy = proto.EgressInfo()
        copy.CopyFrom(job.info)
        room = RoomInfo(sid=job.room.info.sid, name=job.room.name)
        self._webhooks.send(copy.egress_id, WebhookEvent(event=event, egress_info=copy, room=room))
