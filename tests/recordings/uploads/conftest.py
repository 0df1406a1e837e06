"""A desk for uploads: files to send, and what is left of them."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import update
from sqlmodel import col, select

from backend.core.object_storage import open_storage
from backend.recordings.models import Recording, Upload
from backend.recordings.uploads.accepting import Intake
from tests.fixtures.people import People
from tests.fixtures.product import Product
from tests.recordings.uploads.files import wav


@dataclass
class Bench:
    """What the tests of uploads ask of a product."""

    product: Product
    people: People

    @property
    def intake(self) -> Intake:
        return Intake(self.product.db, open_storage(self.product.config), self.product.config.recordings.uploads)

    def files(self) -> list[str]:
        """What lies in the storage, half files too."""
        folder = self.product.config.recordings.storage.folder
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

    def content(self, key: str | None) -> bytes:
        assert key is not None
        return (Path(self.product.config.recordings.storage.folder) / key).read_bytes()

    async def recordings(self) -> list[Recording]:
        async with self.product.db.transaction() as session:
            return list((await session.exec(select(Recording).order_by(col(Recording.created_at)))).all())

    async def uploads(self) -> list[Upload]:
        async with self.product.db.transaction() as session:
            return list((await session.exec(select(Upload).order_by(col(Upload.created_at)))).all())

    async def change(self, recording_id: UUID, **values: object) -> None:
        async with self.product.db.transaction() as session:
            await session.exec(update(Recording).where(col(Recording.id) == recording_id).values(**values))

    async def change_upload(self, upload_id: UUID, **values: object) -> None:
        async with self.product.db.transaction() as session:
            await session.exec(update(Upload).where(col(Upload.id) == upload_id).values(**values))

    async def pass_time(self, span: timedelta) -> None:
        """As if every upload had been touched `span` earlier."""
        async with self.product.db.transaction() as session:
            await session.exec(update(Upload).values(expires_at=col(Upload.expires_at) - span))


@pytest.fixture
async def bench(product: Product, people: People) -> Bench:
    return Bench(product, people)


@pytest.fixture
def sound() -> bytes:
    return wav(seconds=3)
