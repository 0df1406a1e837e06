"""What a text model's service answers, in either form, checked; its text and what it cost."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backend.core.errors import TransientError
from backend.recordings.summaries.drafts import Unusable


class Way(StrEnum):
    """How to ask, the best first: OpenAI's own, then what compatible servers know."""

    RESPONSES = "responses"
    CHAT_SCHEMA = "chat with a schema"
    CHAT_JSON = "chat with JSON"
    CHAT_PLAIN = "chat"


@dataclass(frozen=True, slots=True)
class Reply:
    """`usage`: requests, and tokens where the service counts them."""

    text: str
    usage: dict[str, float]


class _Answered(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Usage(_Answered):
    input_tokens: int | None = Field(default=None, ge=0)
    output_tokens: int | None = Field(default=None, ge=0)
    prompt_tokens: int | None = Field(default=None, ge=0)
    completion_tokens: int | None = Field(default=None, ge=0)


class _Content(_Answered):
    type: str
    text: str | None = None
    refusal: str | None = None


class _Output(_Answered):
    type: str
    content: list[_Content] | None = None


class _Response(_Answered):
    status: str | None = None
    incomplete_details: dict[str, Any] | None = None
    output: list[_Output]
    usage: _Usage | None = None


class _Message(_Answered):
    content: str | None = None
    refusal: str | None = None


class _Choice(_Answered):
    finish_reason: str | None = None
    message: _Message


class _Completion(_Answered):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def read_reply(way: Way, body: str) -> tuple[Reply, Unusable | None]:
    """The text, and why it cannot be used, if so: what was paid counts all the same.

    TransientError for what is no answer of that form, such as a proxy's page.
    """
    try:
        return _response(body) if way is Way.RESPONSES else _completion(body)
    except ValidationError as fault:
        raise TransientError("the OpenAI service answered what is no answer of a text model") from fault


def _response(body: str) -> tuple[Reply, Unusable | None]:
    answer = _Response.model_validate_json(body)
    contents = [content for output in answer.output if output.type == "message" for content in output.content or ()]
    reply = Reply("".join(content.text or "" for content in contents), _usage(answer.usage))
    if any(content.type == "refusal" or content.refusal for content in contents):
        return reply, Unusable("the model refused to write a summary")
    if answer.status not in {None, "completed"}:
        reason = (answer.incomplete_details or {}).get("reason")
        return reply, Unusable(
            f"the model's answer is {answer.status}" + (f" ({reason})" if isinstance(reason, str) else "")
        )
    return reply, None


def _completion(body: str) -> tuple[Reply, Unusable | None]:
    answer = _Completion.model_validate_json(body)
    choice = answer.choices[0]
    reply = Reply(choice.message.content or "", _usage(answer.usage))
    if choice.message.refusal or choice.finish_reason == "content_filter":
        return reply, Unusable("the model refused to write a summary")
    if choice.finish_reason == "length":
        return reply, Unusable("the model's answer is incomplete (length)")
    return reply, None


def _usage(usage: _Usage | None) -> dict[str, float]:
    counted = {"requests": 1.0}
    if usage is None:
        return counted
    read = usage.input_tokens if usage.input_tokens is not None else usage.prompt_tokens
    written = usage.output_tokens if usage.output_tokens is not None else usage.completion_tokens
    if read is not None and written is not None:
        counted |= {"input_tokens": float(read), "output_tokens": float(written)}
    return counted
