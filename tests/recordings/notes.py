"""A note of eight seconds, its owner, and what she has left of her allowance."""

from uuid import UUID

from backend.quotas import service as quotas
from backend.recordings.speech.base import Turn, Word, said
from tests.fixtures.people import add_user
from tests.recordings.desk import Act, Desk, Scripted

# A note in which one person speaks for four parts.
NOTE = [[said([Word(at, at + 0.5, f" Part {at}.", 0.9)]) for at in range(8)]]
TOLD = (Turn(0.0, 4.0, 0), Turn(4.0, 8.0, 1))


def scripted_note(stage: str | None = None, act: Act | None = None) -> Scripted:
    scripted = Scripted(script=NOTE, told=TOLD, length=2.0)
    return scripted if stage is None or act is None else scripted.acting(stage, act)


async def owner_of(desk: Desk, seconds: float, key: UUID) -> UUID:
    user = await add_user(desk.db, "nora")
    async with desk.db.transaction() as session:
        await quotas.reserve(session, user_id=user.id, key=key, seconds=seconds)
    return user.id


async def standing_of(desk: Desk, owner: UUID) -> tuple[float, float, int]:
    """Milliseconds used and reserved, and files used."""
    async with desk.db.transaction() as session:
        now = await quotas.standing(session, owner)
    return now.used_ms, now.reserved_ms, now.used_files
