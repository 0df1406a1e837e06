"""A product with people and recordings in it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backend.config import load
from backend.core.db import Database
from backend.core.keyspace import opened_redis
from backend.recordings.models import Recording
from devstack.servers import ValkeyServer
from tests.factories.recordings import add_recording
from tests.fixtures.people import People, Person


@dataclass
class Library:
    """Recordings of `owner` and of others, their files in the product's storage."""

    people: People
    owner: Person

    @property
    def db(self) -> Database:
        return self.people.product.db

    @property
    def folder(self) -> Path:
        return self.people.product.config.recordings.storage.folder

    async def note(self, **given: Any) -> Recording:
        """A ready note of the owner's, unless `given` says otherwise."""
        defaults: dict[str, Any] = {"owner_id": self.owner.id, "storage": self.folder}
        return await add_recording(self.db, **(defaults | given))

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]


@pytest.fixture(autouse=True)
async def _unspent(valkey: ValkeyServer) -> None:
    """No test is turned away for the requests of another."""
    async with opened_redis(load(os.environ)) as redis:
        await redis.flushdb()


@pytest.fixture
async def library(people: People) -> Library:
    return Library(people, await people.viewer("olga"))
