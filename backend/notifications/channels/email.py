"""E-mail by SMTP."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from email.policy import SMTP as MAIL_POLICY
from email.utils import format_datetime, parseaddr

import aiosmtplib

from backend.config import Smtp
from backend.core.clock import utc_now
from backend.core.errors import PermanentError, TransientError
from backend.core.redaction import storable
from backend.environment import email
from backend.notifications.channels.base import Message

# Of each of the dialogue's steps.
STEP_SECONDS = 20.0
_ANSWER_CHARACTERS = 300


class EmailChannel:
    """The mail server of the configuration. `step_seconds` bounds each step of the dialogue."""

    def __init__(self, smtp: Smtp, sender: str, *, step_seconds: float = STEP_SECONDS) -> None:
        self._smtp, self._sender, self._step = smtp, sender, step_seconds
        self._tls = ssl.create_default_context(cafile=smtp.ca) if smtp.tls != "off" else None

    @asynccontextmanager
    async def open(self) -> AsyncIterator["MailLine"]:
        line = MailLine(self._client(), self._sender)
        try:
            yield line
        finally:
            await line.close()

    def _client(self) -> aiosmtplib.SMTP:
        return aiosmtplib.SMTP(
            hostname=self._smtp.host,
            port=self._smtp.port,
            username=self._smtp.username or None,
            password=self._smtp.password or None,
            use_tls=self._smtp.tls == "tls",
            # None would take STARTTLS where it is offered, and go on in the clear where somebody has taken the offer out.
            start_tls=self._smtp.tls == "starttls",
            tls_context=self._tls,
            timeout=self._step,
        )


class MailLine:
    """One connection, made for the first message and kept for the next ones."""

    def __init__(self, client: aiosmtplib.SMTP, sender: str) -> None:
        self._client, self._sender = client, sender

    async def send(self, message: Message) -> str:
        try:
            mail = compose(message, self._sender)
        except ValueError as fault:
            raise PermanentError(f"e-mail: {fault}") from fault
        in_step = False
        try:
            if not self._client.is_connected:
                await self._client.connect()
            _, answer = await self._client.send_message(mail)
            in_step = True
        except aiosmtplib.SMTPException as fault:
            in_step = isinstance(fault, aiosmtplib.SMTPResponseException | aiosmtplib.SMTPRecipientsRefused)
            raise _sorted(fault) from fault
        except OSError as fault:
            raise TransientError(f"mail server: {fault or type(fault).__name__}") from fault
        finally:
            # Given up in the middle of the dialogue: the server's late answer would be taken for that to the next mail.
            if not in_step:
                self._client.close()
        return _short(answer)

    async def close(self) -> None:
        if not self._client.is_connected:
            return
        try:
            await self._client.quit()
        except (aiosmtplib.SMTPException, OSError):
            # What was to be sent has been; a server that hangs at good-bye has nothing to say about it.
            self._client.close()


def compose(message: Message, sender: str) -> EmailMessage:
    """The mail. Its Message-ID is that of every other try.

    ValueError for an address that is none, or a header that would break its line.
    """
    mail = EmailMessage(policy=MAIL_POLICY)
    mail["From"] = sender
    # One address: a comma would make it two.
    mail["To"] = email(message.address)
    mail["Subject"] = message.subject
    mail["Date"] = format_datetime(utc_now())
    mail["Message-ID"] = f"<{message.id}@{parseaddr(sender)[1].rpartition('@')[2]}>"
    # RFC 3834: nobody's out-of-office answers this.
    mail["Auto-Submitted"] = "auto-generated"
    if message.bulk:
        mail["Precedence"] = "bulk"
    mail.set_content(message.text + "\n")
    if message.html is not None:
        mail.add_alternative(message.html, subtype="html")
    return mail


def _sorted(fault: aiosmtplib.SMTPException) -> Exception:
    """RFC 5321: 4yz may succeed later, 5yz will not.

    A login, a connection or a sender that is refused says something about us, not about the message: it is tried again, until
    somebody has mended the settings or the tries are used up.
    """
    if isinstance(fault, aiosmtplib.SMTPRecipientsRefused):
        fault = fault.recipients[0]
    if not isinstance(fault, aiosmtplib.SMTPResponseException):
        return TransientError(f"mail server: {_short(str(fault)) or type(fault).__name__}")
    text = f"mail server: {fault.code} {_short(fault.message)}"
    return TransientError(text) if _is_ours(fault) or not 500 <= fault.code <= 599 else PermanentError(text)


def _is_ours(fault: aiosmtplib.SMTPResponseException) -> bool:
    if isinstance(fault, aiosmtplib.SMTPSenderRefused):
        # 552: the mail is larger than the server takes.
        return fault.code != 552
    kinds = (aiosmtplib.SMTPAuthenticationError, aiosmtplib.SMTPHeloError, aiosmtplib.SMTPConnectResponseError)
    # RFC 4954 and RFC 3207: log in first, in another way, or over TLS.
    return isinstance(fault, kinds) or fault.code in {530, 534, 535, 538}


def _short(answer: str) -> str:
    return storable(" ".join(answer.split()))[:_ANSWER_CHARACTERS]
