import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import aiohttp
import pytest
from livekit import api

from backend.simulator.config import ConfigError, load, load_or_exit
from devstack.readiness import free_port
from tests.simulator.conftest import KEY, PREFIX, SECRET, environment

GOOD = {"LIVEKIT_API_KEY": KEY, "LIVEKIT_API_SECRET": SECRET}


def test_a_key_and_a_secret_are_enough() -> None:
    config = load(GOOD)
    assert (config.host, config.port, config.speed, config.agents) == ("127.0.0.1", 7880, 1.0, True)
    assert config.webhook_url == "http://127.0.0.1:8000/api/webhooks/livekit"
    assert config.egress_dir == Path("/var/lib/beatline/egress")
    assert config.state_dir is None


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"LIVEKIT_API_KEY": ""}, "LIVEKIT_API_KEY is missing"),
        ({"LIVEKIT_API_SECRET": "short"}, "at least 32 characters"),
        ({"SIM_PORT": "http"}, "SIM_PORT='http' is not a port"),
        ({"SIM_PORT": "70000"}, "not a port"),
        ({"SIM_SPEED": "fast"}, "SIM_SPEED='fast'"),
        ({"SIM_SPEED": "0"}, "SIM_SPEED='0'"),
        ({"SIM_SPEED": "nan"}, "SIM_SPEED='nan'"),
        ({"SIM_AGENTS": "some"}, "neither auto nor none"),
        ({"SIM_WEBHOOK_URL": "localhost/hook"}, "SIM_WEBHOOK_URL='localhost/hook' is not an http"),
        ({"BEATLINE_API_URL": "ftp://x"}, "BEATLINE_API_URL"),
        ({"EGRESS_DIR": "egress"}, "EGRESS_DIR='egress' is not an absolute path"),
        ({"SIM_STATE_DIR": "state"}, "SIM_STATE_DIR='state' is not an absolute path"),
        ({"SIM_HOST": "0.0.0.0"}, "set SIM_ALLOW_NETWORK=yes"),
        ({"SIM_HOST": "example.net"}, "not a loopback address"),
        ({"SIM_ALLOW_NETWORK": "maybe"}, "neither yes nor no"),
        ({"SIM_SPEEED": "1"}, "SIM_SPEEED is unknown"),
    ],
)
def test_a_wrong_value_is_named_with_its_fix(setting: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load({**GOOD, **setting})
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_needs_no_leave(host: str) -> None:
    assert load({**GOOD, "SIM_HOST": host}).host == host


def test_the_network_is_served_only_when_told_so() -> None:
    assert load({**GOOD, "SIM_HOST": "0.0.0.0", "SIM_ALLOW_NETWORK": "yes"}).host == "0.0.0.0"


def test_a_wrong_environment_is_one_line_on_stderr_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIM_PORT", "x")
    with pytest.raises(SystemExit) as ended:
        load_or_exit()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "simulator: SIM_PORT='x' is not a port (0-65535)\n"


async def start(env: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "backend.simulator", env={**os.environ, **env}, stderr=asyncio.subprocess.PIPE
    )


async def test_the_process_says_that_no_phone_rings_and_ends_at_once_when_told(tmp_path: Path) -> None:
    port = free_port()
    env = environment(tmp_path, port, "http://127.0.0.1:9", SIM_SPEED="1")
    running = await start(env)
    assert running.stderr is not None
    banner = (await asyncio.wait_for(running.stderr.readline(), 20)).decode()
    assert "LiveKit simulator: no real phone rings" in banner
    assert f"http://127.0.0.1:{port}" in banner
    second = await start(env)
    _, problem = await asyncio.wait_for(second.communicate(), 20)
    assert (second.returncode, problem.decode().count("\n")) == (1, 1)
    async with api.LiveKitAPI(f"http://127.0.0.1:{port}", KEY, SECRET, failover=False) as lk:
        trunk = api.SIPOutboundTrunkInfo(address="sip.example.net", numbers=["+911600000001"])
        made = await lk.sip.create_outbound_trunk(api.CreateSIPOutboundTrunkRequest(trunk=trunk))
        request = api.CreateSIPParticipantRequest(
            sip_trunk_id=made.sip_trunk_id, sip_call_to=f"{PREFIX}000", room_name="call-1", wait_until_answered=True
        )
        dialing = asyncio.create_task(lk.sip.create_sip_participant(request))
        await asyncio.sleep(0.3)
        started = time.monotonic()
        running.send_signal(signal.SIGTERM)
        with pytest.raises((api.ServerError, aiohttp.ClientError)):
            await dialing
    _, log = await asyncio.wait_for(running.communicate(), 10)
    assert time.monotonic() - started < 3
    assert running.returncode == 0, log.decode()
    assert "Traceback" not in log.decode()
