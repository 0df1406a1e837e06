"""What somebody may ask for when a recording is transcribed."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_SPEAKERS = 20
_Count = Annotated[int, Field(ge=1, le=MOST_SPEAKERS)]


class TranscribeOptions(BaseModel):
    """`language` is an ISO 639-1 code, None to detect it; `speakers` is exact, the others bound what is found.

    `backend` None is the setting's. `hints` are names and words to expect.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$")] | None = None
    diarization: bool = True
    speakers: _Count | None = None
    min_speakers: _Count | None = None
    max_speakers: _Count | None = None
    backend: Literal["local", "openai"] | None = None
    summary: bool = True
    hints: Annotated[str, Field(max_length=500)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.speakers is not None and (self.min_speakers is not None or self.max_speakers is not None):
            raise ValueError("speakers is exact: leave out min_speakers and max_speakers")
        if (self.min_speakers or 1) > (self.max_speakers or 20):
            raise ValueError("min_speakers is more than max_speakers")
        return self
