"""What a rollback has to give back, as one picture before and one after: the journal and the archive apart."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tests.deploy.conftest import SESSIONS, Lab


@dataclass(frozen=True)
class Picture:
    """Everything as text or digest; two pictures of the same state are equal."""

    schema: str  # pg_dump --schema-only of the service's schema
    content: dict[str, str]  # each table's digest over its rows
    migrations: list[tuple[str, bool]]  # which migrations Prisma would count as applied, and which as failed
    directory: tuple[int, int]  # the very directory that the application's path leads to, whatever it is called now
    head: str  # and the commit that is checked out in it
    served: set[str]  # the commits that answer


def take(lab: Lab) -> Picture:
    path = lab.values["app_path"]
    there = os.stat(path)
    head = ["git", "-C", path, "rev-parse", "HEAD"]
    return Picture(
        schema=_schema(lab),
        content=content_of(lab),
        migrations=lab.rows(
            "SELECT migration_name, finished_at IS NOT NULL FROM aedpics._prisma_migrations"
            " WHERE rolled_back_at IS NULL ORDER BY 1, 2"
        ),
        directory=(there.st_dev, there.st_ino),
        head=subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip(),
        served=lab.served(20),
    )


def assert_as_before(before: Picture, after: Picture) -> None:
    """Name every part that differs, not only the first."""
    differing = {field.name: _difference(field.name, before, after) for field in fields(Picture)}
    assert {name: found for name, found in differing.items() if found} == {}


def _difference(name: str, before: Picture, after: Picture) -> Any:
    old, new = getattr(before, name), getattr(after, name)
    if old == new:
        return None
    if isinstance(old, str):
        lines = set(old.splitlines()) ^ set(new.splitlines())
        return sorted(lines) or "the order of its lines"
    if isinstance(old, dict):
        return sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    return old, new


def _schema(lab: Lab) -> str:
    v = lab.values
    where = [f"--host={v['database_host']}", f"--port={v['database_port']}", f"--username={v['database_user']}"]
    dumped = subprocess.run(
        [Path(v["postgres_bin"]) / "pg_dump", *where, "--schema-only", "--schema=aedpics", v["database_name"]],
        env={"PATH": v["path"], "PGPASSWORD": v["database_password"]},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    # Its \restrict carries a key that is new each time; comments and settings say which program wrote it.
    return "\n".join(
        line for line in dumped.splitlines() if line and not re.match(r"\\|--|SET |SELECT pg_catalog", line)
    )


def content_of(lab: Lab) -> dict[str, str]:
    """The service's own rows, without what the health check opens and cancels on the canary."""
    tables = lab.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'aedpics' ORDER BY 1")
    found = {}
    for (table,) in tables:
        if table == "_prisma_migrations":
            continue
        others = f" WHERE equipment_serial <> '{lab.values['canary_serial']}'" if SESSIONS.endswith(f".{table}") else ""
        digest = hashlib.sha256()
        for (row,) in lab.rows(f'SELECT t::text FROM aedpics."{table}" t{others} ORDER BY 1'):
            digest.update(f"{row}\n".encode())
        found[table] = digest.hexdigest()
    return found
