"""A mail server that speaks the real protocol (aiosmtpd) and behaves as a test tells it."""

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

DROP, HANG = "drop", "hang"


@dataclass
class Mailbox:
    """What the server has taken, and what it answers.

    `answers` are those to the next mails, one each, then all are taken; DROP takes a mail and closes the connection before it says
    so, HANG says nothing. `refused` are answers to recipients. `logins` are what clients have shown.
    """

    port: int = 0
    taken: list[EmailMessage] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    logins: list[tuple[str, str]] = field(default_factory=list)
    connections: int = 0
    encrypted: list[bool] = field(default_factory=list)
    hangs_at_quit: bool = False

    def ids(self) -> list[str]:
        return [str(mail["Message-ID"]) for mail in self.taken]

    def addresses(self) -> list[str]:
        return [str(mail["To"]) for mail in self.taken]

    async def handle_EHLO(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        self.connections += 1
        return responses

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        answer = self.answers.pop(0) if self.answers else "250 taken"
        if answer.startswith(("4", "5")):
            return answer
        if answer == HANG:
            await asyncio.sleep(60)
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        self.taken.append(email.message_from_bytes(content, policy=email.policy.default))
        self.encrypted.append(session.ssl is not None)
        if answer == DROP and server.transport is not None:
            server.transport.abort()  # type: ignore[attr-defined]  # asyncio's have it
        return answer

    async def handle_QUIT(self, _server: SMTP, _session: Session, _envelope: Envelope) -> str:  # noqa: N802
        if self.hangs_at_quit:
            await asyncio.sleep(60)
        return "221 Bye"

    def check(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        login = (data.login.decode(), data.password.decode())
        self.logins.append(login)
        return AuthResult(success=login == ("beatline", "right"), handled=False)


@asynccontextmanager
async def running_mailbox(
    *, port: int = 0, tls: Any = None, implicit: bool = False, login: bool = False, **options: Any
) -> AsyncIterator[Mailbox]:
    """On 127.0.0.1, any free port; `tls` is a server's context: for STARTTLS, or, `implicit`, from the first byte."""
    box = Mailbox()
    if login:
        options |= {"auth_required": True, "authenticator": box.check}
    loop = asyncio.get_running_loop()
    connections: list[SMTP] = []

    def serve() -> SMTP:
        made = SMTP(box, loop=loop, hostname="mail.test", tls_context=None if implicit else tls, **options)
        connections.append(made)
        return made

    server = await loop.create_server(serve, "127.0.0.1", port, ssl=tls if implicit else None)
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.close()
        for connection in connections:
            if connection.transport is not None:
                connection.transport.close()
            if connection._handler_coroutine is not None:
                connection._handler_coroutine.cancel()
        await asyncio.sleep(0)
