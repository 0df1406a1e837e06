"""What can go wrong between the product and the service, and what the product makes of it."""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from backend.core.errors import PermanentError, TransientError
from backend.recordings.openai_refused import Refused
from backend.recordings.openai_service import OpenAIService, Patience
from backend.recordings.speech.base import Cancelled
from devstack.readiness import free_port
from tests.recordings.openai.service import KEY, QUICK, Says, Service, error

OK = Says({"text": "hello"})
FULL = error(429, "Rate limit reached for requests", "rate_limit_exceeded")


def nobody() -> None:
    """Watches and never cancels."""


async def asked(opened: OpenAIService, watch: Callable[[], None] = nobody) -> str:
    """One request, away from the loop that runs the service."""

    async def ask(client: Any) -> Any:
        file = ("speech.mp3", b"sound", "audio/mpeg")
        return await client.audio.transcriptions.with_raw_response.create(file=file, model="whisper-1")

    return await asyncio.to_thread(opened.ask, ask, watch)


async def refusal(service: Service, answer: Says, **changed: Any) -> Refused:
    service.always = answer
    with pytest.raises(Refused) as caught:
        await asked(service.opened(**changed))
    return caught.value


@pytest.mark.parametrize("status", [500, 502, 503, 529, 408, 409])
async def test_a_service_in_trouble_is_asked_again(service: Service, status: int) -> None:
    service.answers = [Says({}, status), Says(text="<html>oops</html>", status=status), OK]
    assert "hello" in await asked(service.opened())
    assert len(service.asked) == 3


async def test_trouble_that_lasts_is_a_transient_error(service: Service) -> None:
    service.always = error(500, "The server had an error")
    with pytest.raises(TransientError, match=r"in trouble \(500\): The server had an error"):
        await asked(service.opened())
    assert len(service.asked) == QUICK.tries


async def test_the_pause_that_a_rate_limit_names_is_kept(service: Service) -> None:
    service.answers = [error(429, "Slow down", "rate_limit_exceeded", retry_after="1"), OK]
    began = time.monotonic()
    await asked(service.opened())
    assert 1.0 <= time.monotonic() - began < 3.0


async def test_milliseconds_and_dates_name_pauses_too(service: Service) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)
    service.answers = [
        Says({}, 429, {"retry-after-ms": "120"}),
        Says({}, 503, {"retry-after": soon}),
        OK,
    ]
    began = time.monotonic()
    await asked(service.opened())
    assert time.monotonic() - began >= 0.12


async def test_a_pause_of_an_hour_is_left_to_the_queue(service: Service) -> None:
    service.always = error(429, "Rate limit reached", "rate_limit_exceeded", retry_after="3600")
    began = time.monotonic()
    with pytest.raises(TransientError, match="rate limit is reached") as caught:
        await asked(service.opened(Patience()))
    assert caught.value.after == 3600.0
    assert len(service.asked) == 1
    assert time.monotonic() - began < 2.0


@pytest.mark.parametrize("named", ["soon", "-5", "nan", "inf", "1e400", ""])
async def test_a_pause_that_is_no_number_is_ignored(service: Service, named: str) -> None:
    service.answers = [Says({}, 429, {"retry-after": named}), OK]
    began = time.monotonic()
    await asked(service.opened())
    assert time.monotonic() - began < 1.5


async def test_a_service_that_asks_not_to_be_asked_again_is_not(service: Service) -> None:
    service.always = Says({}, 500, {"x-should-retry": "false"})
    with pytest.raises(TransientError):
        await asked(service.opened())
    assert len(service.asked) == 1


@pytest.mark.parametrize("code", ["insufficient_quota", "billing_hard_limit_reached"])
async def test_credit_that_is_used_up_is_no_rate_limit(service: Service, code: str) -> None:
    fault = await refusal(service, error(429, "You exceeded your current quota", code))
    assert "credit at the OpenAI service is used up" in str(fault)
    assert len(service.asked) == 1


async def test_payment_required_is_credit_used_up(service: Service) -> None:
    assert "used up" in str(await refusal(service, error(402, "Insufficient credits")))


async def test_a_wrong_key_is_said_once_and_shown_nowhere(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    told = f"Incorrect API key provided: {KEY[:8]}******{KEY[-4:]}. You can find your API key at ..."
    fault = await refusal(service, error(401, told, "invalid_api_key"))
    assert str(fault) == (
        "the OpenAI service does not take the key (401): OPENAI_API_KEY is wrong, expired or another service's"
    )
    assert len(service.asked) == 1
    assert KEY not in caplog.text
    assert KEY[:8] not in str(fault)


async def test_the_key_is_cut_out_of_whatever_the_service_says(service: Service) -> None:
    fault = await refusal(service, error(403, f"project of {KEY}, sk-proj-abcdefg1234, may not\n\x1b[31muse this"))
    assert str(fault) == "the OpenAI service refused (403): project of ***, ***, may not [31muse this"


async def test_a_key_of_any_form_is_cut_out(service: Service) -> None:
    fault = await refusal(service, error(400, "who is 4f2c9a-our-server?"), api_key="4f2c9a-our-server")
    assert str(fault) == "the OpenAI service refused (400): who is ***?"


async def test_the_settings_do_not_show_the_key(service: Service) -> None:
    assert KEY not in repr(service.settings())


@pytest.mark.parametrize("status", [400, 403, 404, 422])
async def test_other_refusals_are_permanent_and_give_the_services_reason(service: Service, status: int) -> None:
    fault = await refusal(service, error(status, "No such model: whisper-9", "model_not_found"))
    assert str(fault) == f"the OpenAI service refused ({status}): No such model: whisper-9"
    assert (fault.status, fault.code) == (status, "model_not_found")
    assert len(service.asked) == 1


async def test_long_reasons_are_cut(service: Service) -> None:
    assert len(str(await refusal(service, error(400, "x" * 5000)))) < 400


async def test_a_connection_cut_in_the_middle_of_an_answer_is_tried_again(service: Service) -> None:
    service.answers = [Says({"text": "hello " * 100}, cut=True), OK]
    assert await asked(service.opened()) == '{"text": "hello"}'
    assert len(service.asked) == 2


async def test_connections_that_are_always_cut_are_a_transient_error(service: Service) -> None:
    service.always = Says({"text": "hello " * 100}, cut=True)
    with pytest.raises(TransientError, match="cannot be reached"):
        await asked(service.opened())


async def test_a_service_that_does_not_answer_is_asked_twice_and_no_more(service: Service) -> None:
    service.always = Says({"text": "late"}, after=30.0)
    began = time.monotonic()
    with pytest.raises(TransientError, match=r"did not answer within 0\.5 s"):
        await asked(service.opened(timeout_seconds=0.5))
    assert len(service.asked) == 2
    assert time.monotonic() - began < 5.0


async def test_a_slow_answer_is_waited_for(service: Service) -> None:
    service.always = Says({"text": "slow"}, after=1.2)
    assert "slow" in await asked(service.opened())


async def test_a_server_that_is_not_there_is_a_transient_error(service: Service) -> None:
    with pytest.raises(TransientError, match="cannot be reached"):
        await asked(service.opened(base_url=f"http://127.0.0.1:{free_port()}/v1"))


def stopping(after: float) -> Callable[[], None]:
    began = time.monotonic()

    def watch() -> None:
        if time.monotonic() - began > after:
            raise Cancelled

    return watch


async def test_cancelling_ends_a_hanging_request_within_a_second_and_closes_its_connection(service: Service) -> None:
    service.always = Says({"text": "never"}, after=60.0)
    began = time.monotonic()
    with pytest.raises(Cancelled):
        await asked(service.opened(timeout_seconds=300.0), stopping(0.7))
    assert time.monotonic() - began < 2.5
    async with asyncio.timeout(5):
        while not service.gone:
            await asyncio.sleep(0.05)


async def test_cancelling_ends_the_wait_for_a_rate_limit(service: Service) -> None:
    service.always = error(429, "Slow down", "rate_limit_exceeded", retry_after="60")
    began = time.monotonic()
    with pytest.raises(Cancelled):
        await asked(service.opened(Patience()), stopping(0.7))
    assert time.monotonic() - began < 2.5


async def test_without_a_key_only_a_server_of_ones_own_is_asked(service: Service) -> None:
    with pytest.raises(PermanentError, match="OPENAI_API_KEY is not set"):
        service.opened(api_key="", base_url="")
    service.always = OK
    assert "hello" in await asked(service.opened(api_key=""))


async def test_what_is_said_does_not_reach_the_log_at_its_finest(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    service.answers = [Says({}, 500), Says({"text": "my secret illness"})]
    await asked(service.opened())
    assert "illness" not in caplog.text
    assert KEY not in caplog.text
    assert "asking 127.0.0.1 again in" in caplog.text
