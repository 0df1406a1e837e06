"""`python -m devstack.migration "what changes"`: a new revision from the difference between the tables and the revisions."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from alembic import command
from rich.console import Console

from backend.migrations.running import alembic_config, newest_revision, upgrade
from devstack.servers import embedded_postgres


def write_migration(message: str) -> None:
    """Write the revision beside the others. It is a draft: read it before you use it."""
    number = int(newest_revision() or 0) + 1
    with tempfile.TemporaryDirectory() as folder, embedded_postgres(Path(folder) / "data", fast=True) as server:
        upgrade(server.url)
        command.revision(alembic_config(server.url), message, autogenerate=True, rev_id=f"{number:04d}")


if __name__ == "__main__":
    write_migration(sys.argv[1])
    Console().print("Read it before you use it: what Alembic finds is a draft.", highlight=False)
