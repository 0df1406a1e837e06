"""E-mail, against a server that speaks SMTP."""

import asyncio
import ssl
from typing import Any
from uuid import UUID, uuid4

import pytest

from backend.config import Smtp
from backend.core.clock import utc_now
from backend.core.errors import PermanentError, TransientError
from backend.notifications.channels.base import Message
from backend.notifications.channels.email import EmailChannel
from devstack.readiness import free_port
from tests.brokers.certificates import Authority
from tests.notifications.mail import DROP, HANG, Mailbox, running_mailbox

SENDER = "Beatline <beatline@example.net>"
ID = UUID("6f2c1f8e-0d57-4d35-9a52-0c8f2b1f0001")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("mail"), "authority")


def server_context(authority: Authority, name: str) -> ssl.SSLContext:
    issued = authority.issue(name)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(issued.certificate, issued.key)
    return context


def channel(port: int, *, seconds: float = 5, **fields: Any) -> EmailChannel:
    wanted: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "username": "",
        "password": "",
        "tls": "off",
        "ca": None,
        **fields,
    }
    return EmailChannel(Smtp(**wanted), SENDER, step_seconds=seconds)


def message(address: str = "asha@example.net", **fields: Any) -> Message:
    wanted: dict[str, Any] = {
        "id": ID,
        "notification_id": uuid4(),
        "address": address,
        "subject": "Straße – ₹",
        "text": "línea 1\n.dot\nlínea 3",
        "html": "<p>línea</p>",
        "payload": None,
        "created_at": utc_now(),
        **fields,
    }
    return Message(**wanted)


async def send(found: EmailChannel, *messages: Message) -> list[str]:
    async with found.open() as line:
        return [await line.send(one) for one in messages]


async def test_a_mail_arrives_with_both_its_bodies_and_an_id_that_stays(box: Mailbox) -> None:
    assert await send(channel(box.port), message()) == ["taken"]
    await send(channel(box.port), message())
    mail = box.taken[0]
    assert (mail["From"], mail["To"], mail["Subject"]) == (SENDER, "asha@example.net", "Straße – ₹")
    assert box.ids() == [f"<{ID}@example.net>"] * 2
    assert (mail["Auto-Submitted"], mail["Precedence"]) == ("auto-generated", None)
    plain, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert plain is not None
    assert html is not None
    assert plain.get_content().splitlines() == ["línea 1", ".dot", "línea 3"]
    assert html.get_content().strip() == "<p>línea</p>"


async def test_several_mails_take_one_connection(box: Mailbox) -> None:
    await send(channel(box.port), *(message(f"u{number}@example.net", bulk=True) for number in range(5)))
    assert (len(box.taken), box.connections) == (5, 1)
    assert box.taken[0]["Precedence"] == "bulk"


async def test_a_server_that_closed_the_connection_is_connected_to_again(box: Mailbox) -> None:
    box.answers = [DROP]
    async with channel(box.port).open() as line:
        with pytest.raises(TransientError):
            await line.send(message())
        await line.send(message())
    # The first was taken, too, though nobody said so: the same id twice.
    assert box.ids() == [f"<{ID}@example.net>"] * 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [("451 4.3.0 greylisted", TransientError), ("552 5.2.2 full", PermanentError), ("550 5.7.1 spam", PermanentError)],
)
async def test_a_refusal_of_the_content_is_sorted_by_its_code(
    box: Mailbox, answer: str, error: type[Exception]
) -> None:
    box.answers = [answer]
    with pytest.raises(error, match=answer[4:]):
        await send(channel(box.port), message())
    assert box.taken == []


async def test_a_refusal_of_the_recipient_is_sorted_by_its_code(box: Mailbox) -> None:
    box.refused = {"gone@example.net": "550 no such user", "busy@example.net": "450 try later"}
    with pytest.raises(PermanentError, match="550 no such user"):
        await send(channel(box.port), message("gone@example.net"))
    with pytest.raises(TransientError, match="450 try later"):
        await send(channel(box.port), message("busy@example.net"))
    # The same connection serves the next recipient.
    async with channel(box.port).open() as line:
        with pytest.raises(PermanentError):
            await line.send(message("gone@example.net"))
        await line.send(message())
    assert box.addresses() == ["asha@example.net"]


async def test_a_server_that_hangs_is_given_up(box: Mailbox) -> None:
    box.answers = [HANG]
    with pytest.raises(TransientError, match="mail server"):
        await send(channel(box.port, seconds=0.3), message())


async def test_a_late_answer_is_not_taken_for_that_to_the_next_mail(box: Mailbox) -> None:
    box.answers = [HANG, "550 this one is refused"]
    async with channel(box.port).open() as line:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await line.send(message("first@example.net"))
        with pytest.raises(PermanentError, match="this one is refused"):
            await line.send(message("second@example.net"))
        await line.send(message("third@example.net"))
    assert (box.addresses(), box.connections) == (["third@example.net"], 2)


async def test_a_server_that_hangs_at_good_bye_has_taken_the_mail(box: Mailbox) -> None:
    box.hangs_at_quit = True
    assert await send(channel(box.port, seconds=0.2), message()) == ["taken"]


async def test_an_address_is_one_address(box: Mailbox) -> None:
    with pytest.raises(PermanentError, match="e-mail address"):
        await send(channel(box.port), message("a@example.net, b@example.net"))
    assert box.connections == 0


async def test_a_server_that_is_away_is_tried_again() -> None:
    with pytest.raises(TransientError):
        await send(channel(free_port()), message())


async def test_starttls_and_a_login(authority: Authority) -> None:
    wanted: dict[str, Any] = {"tls": "starttls", "ca": authority.file, "username": "beatline"}
    async with running_mailbox(tls=server_context(authority, "starttls"), require_starttls=True) as box:
        await send(channel(box.port, tls="starttls", ca=authority.file), message())
        assert box.encrypted == [True]
    async with running_mailbox(tls=server_context(authority, "login"), login=True) as box:
        await send(channel(box.port, password="right", **wanted), message())
        assert (box.encrypted, box.logins[0]) == ([True], ("beatline", "right"))
        # A password that is wrong says nothing about the message.
        with pytest.raises(TransientError, match="535"):
            await send(channel(box.port, password="wrong", **wanted), message())
        with pytest.raises(TransientError, match="530"):
            await send(channel(box.port, tls="starttls", ca=authority.file), message())


async def test_tls_from_the_first_byte(authority: Authority) -> None:
    async with running_mailbox(tls=server_context(authority, "implicit"), implicit=True) as box:
        await send(channel(box.port, tls="tls", ca=authority.file), message())
        assert len(box.taken) == 1


async def test_nothing_is_sent_in_the_clear_where_starttls_is_not_offered(box: Mailbox) -> None:
    with pytest.raises(TransientError, match="STARTTLS"):
        await send(channel(box.port, tls="starttls"), message())
    assert box.taken == []


async def test_a_certificate_that_nobody_vouches_for_is_refused(authority: Authority) -> None:
    async with running_mailbox(tls=server_context(authority, "unknown")) as box:
        with pytest.raises(TransientError, match="certificate"):
            await send(channel(box.port, tls="starttls"), message())
        assert box.taken == []


@pytest.mark.parametrize(
    ("field", "value"), [("subject", "a\nBcc: b@c.example"), ("address", "a@b.example\nBcc: b@c.d")]
)
async def test_a_line_break_never_makes_a_header(box: Mailbox, field: str, value: str) -> None:
    with pytest.raises(PermanentError, match="e-mail"):
        await send(channel(box.port), message(**{field: value}))
    assert box.taken == []
