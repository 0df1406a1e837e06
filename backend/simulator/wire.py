"""Twirp: routes from the protobuf service descriptors, both encodings, errors with LiveKit's HTTP statuses."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from google.protobuf.json_format import MessageToJson, Parse, ParseError
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from livekit.protocol import agent_dispatch, egress, room, sip

_STATUS = {
    "invalid_argument": 400,
    "out_of_range": 400,
    "malformed": 400,
    "unauthenticated": 401,
    "permission_denied": 403,
    "not_found": 404,
    "bad_route": 404,
    "canceled": 408,
    "deadline_exceeded": 408,
    "aborted": 409,
    "already_exists": 409,
    "failed_precondition": 412,
    "resource_exhausted": 429,
    "internal": 500,
    "unimplemented": 501,
    "unavailable": 503,
}
_PROTOBUF, _JSON = "application/protobuf", "application/json"


class TwirpError(Exception):
    """What a method answers instead of its response."""

    def __init__(self, code: str, message: str, **meta: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.meta = code, message, meta

    def response(self) -> web.Response:
        body: dict[str, Any] = {"code": self.code, "msg": self.message}
        if self.meta:
            body["meta"] = self.meta
        return web.json_response(body, status=_STATUS[self.code])


@dataclass(frozen=True, slots=True)
class Caller:
    """Who waits for the answer."""

    request: web.Request

    def has_left(self) -> bool:
        transport = self.request.transport
        return transport is None or transport.is_closing()


Handler = Callable[[Any, Caller], Awaitable[Message]]


@dataclass(frozen=True, slots=True)
class Method:
    service: str
    name: str
    request_class: type[Message]
    handler: Handler | None

    @property
    def path(self) -> str:
        return f"/twirp/{self.service}/{self.name}"


def methods(handlers: dict[str, Handler]) -> Iterator[Method]:
    """Every method that LiveKit has; one without a handler in `handlers` ("SIP/CreateSIPParticipant") is unimplemented."""
    for module in (room, egress, sip, agent_dispatch):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                handler = handlers.get(f"{service.name}/{method.name}")
                yield Method(service.full_name, method.name, GetMessageClass(method.input_type), handler)


async def read_message(request: web.Request, message_class: type[Message]) -> Message:
    body = await request.read()
    try:
        if request.content_type == _PROTOBUF:
            return message_class.FromString(body)
        if request.content_type == _JSON:
            return Parse(body.decode(), message_class(), ignore_unknown_fields=True)
    except (DecodeError, ParseError, UnicodeDecodeError) as fault:
        raise TwirpError("malformed", f"the request could not be decoded: {fault}") from fault
    raise TwirpError("bad_route", f"unexpected Content-Type: {request.content_type!r}")


def write_message(request: web.Request, message: Message) -> web.Response:
    if request.content_type == _PROTOBUF:
        return web.Response(body=message.SerializeToString(), content_type=_PROTOBUF)
    text = MessageToJson(
        message, indent=None, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return web.Response(text=text, content_type=_JSON)


def room_of(message: Any) -> str:
    """The room that a request names, whatever its field is called; empty for those that name none."""
    return str(getattr(message, "room", "") or getattr(message, "room_name", ""))
