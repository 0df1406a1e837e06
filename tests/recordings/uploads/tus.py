"""A client that speaks tus, for tests."""

import base64

import httpx

from tests.fixtures.people import Person

URL = "/api/recordings"
TUS = {"Tus-Resumable": "1.0.0"}
PART = TUS | {"Content-Type": "application/offset+octet-stream"}


def metadata(**fields: str) -> dict[str, str]:
    return {
        "Upload-Metadata": ",".join(
            f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in fields.items()
        )
    }


async def begin(person: Person, size: int, **fields: str) -> str:
    answer = await person.client.post(
        URL, headers=TUS | {"Upload-Length": str(size)} | (metadata(**fields) if fields else {})
    )
    assert answer.status_code == 201, answer.text
    return answer.headers["Location"]


async def send(person: Person, where: str, offset: int, content: bytes, **more: str) -> httpx.Response:
    headers = PART | {"Upload-Offset": str(offset)} | more
    return await person.client.patch(where, content=content, headers=headers)


async def offset(person: Person, where: str) -> int:
    answer = await person.client.head(where, headers=TUS)
    assert answer.status_code == 200, answer.headers
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    return int(answer.headers["Upload-Offset"])
