"""What Prisma knows of the seeded service: a release's migrations, and a history in which all but the plan's ran."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from pathlib import Path

from at_most_one.postgres.connection import Login

from tests.support.prisma_stand_in import HISTORY

from .seed import PLAN
from .server import ROOT, superuser

_APPLIED = """
INSERT INTO aedpics._prisma_migrations (id, checksum, migration_name, finished_at, applied_steps_count)
VALUES (gen_random_uuid(), %s, %s, now(), 1)"""


def lay_out(directory: Path) -> Path:
    """A release in ``directory``: the lab application's migrations and the plan's."""
    migrations = directory / "prisma" / "migrations"
    shutil.copytree(ROOT / "lab/app/prisma/migrations", migrations)
    shutil.copytree(ROOT / f"lab/app-after/prisma/migrations/{PLAN.migration}", migrations / PLAN.migration)
    return directory


def record(login: Login, release: Path) -> None:
    """Write the history."""
    with contextlib.closing(superuser(login)) as connection, connection.cursor() as cursor:
        cursor.execute(HISTORY)
        for file in sorted(release.glob("prisma/migrations/*/migration.sql")):
            if file.parent.name != PLAN.migration:
                cursor.execute(_APPLIED, (hashlib.sha256(file.read_bytes()).hexdigest(), file.parent.name))
