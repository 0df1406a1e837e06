"""One question to a text model, asked in the way that its service knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from backend.recordings.openai_refused import Refused
from backend.recordings.summaries.drafts import SCHEMA, Unusable
from backend.recordings.summaries.replies import Reply, Way, read_reply

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from backend.recordings.openai_service import Ask, OpenAIService

_UNKNOWN_WAY, _NO_SUCH_WAY = {400, 415, 422}, {404, 405, 501}
# Of these no other way of asking would help.
_FINAL_CODES = {"model_not_found", "invalid_model", "context_length_exceeded", "content_policy_violation"}
_NAME = "summary"


class TextModel:
    """Remembers the way that worked."""

    def __init__(self, service: OpenAIService) -> None:
        self._service = service
        self._ways = list(Way)

    def write(self, instructions: str, text: str, watch: Callable[[], None]) -> tuple[Reply, Unusable | None]:
        """Raises Refused, where no way worked, and TransientError."""
        refused: Refused | None = None
        for way in list(self._ways):
            try:
                body = self._service.ask(self._asking(way, instructions, text), watch)
            except Refused as refusal:
                if refusal.status not in _UNKNOWN_WAY | _NO_SUCH_WAY or refusal.code in _FINAL_CODES:
                    raise
                # The simplest way tells best what is wrong; that another does not exist tells least.
                refused = refusal if refused is None or refusal.status not in _NO_SUCH_WAY else refused
                continue
            self._ways = [way]
            return read_reply(way, body)
        assert refused is not None, "there is a way at least"  # noqa: S101
        raise refused

    def _asking(self, way: Way, instructions: str, text: str) -> Ask:
        model = self._service.settings.text_model

        async def responses(client: AsyncOpenAI) -> Any:
            form: Any = {"format": {"type": "json_schema", "name": _NAME, "schema": SCHEMA, "strict": True}}
            return await client.responses.with_raw_response.create(
                model=model, instructions=instructions, input=text, text=form, store=False
            )

        async def chat(client: AsyncOpenAI) -> Any:
            messages: Any = [{"role": "system", "content": instructions}, {"role": "user", "content": text}]
            return await client.chat.completions.with_raw_response.create(model=model, messages=messages, **_form(way))

        return responses if way is Way.RESPONSES else chat


def _form(way: Way) -> dict[str, Any]:
    if way is Way.CHAT_SCHEMA:
        schema = {"name": _NAME, "schema": SCHEMA, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    return {"response_format": {"type": "json_object"}} if way is Way.CHAT_JSON else {}
