"""What is true of a small whole: its catalog, its rows, its process table, its link and its answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psycopg2
import psycopg2.extensions

MIGRATION = "20251110_add_partial_unique_indexes"


class Truths:
    """Read by nothing that is under test."""

    directory: Path
    path: Path
    releases: Path
    password: str
    database_port: int
    app_port: int

    @contextlib.contextmanager
    def cursor(self, database: str = "aedpics") -> Iterator[Any]:
        connection = psycopg2.connect(self.dsn(database))
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute("SET timezone = 'UTC'")
                yield cursor
        finally:
            connection.close()

    def dsn(self, database: str = "postgres") -> str:
        """For whoever is to connect by himself."""
        return psycopg2.extensions.make_dsn(
            host="127.0.0.1", port=self.database_port, dbname=database, user="aedpics_admin", password=self.password
        )

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.cursor() as cursor:
            cursor.execute(query, values or None)
            return list(cursor.fetchall())

    def images(self) -> dict[str, dict[str, str | None]]:
        """Every session, by id, each column as its own text: what an archive must hold byte for byte."""
        columns = self.rows(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'aedpics.inspection_sessions'::regclass"
            " AND attnum > 0 AND NOT attisdropped"
        )
        pairs = ", ".join(f"'{name}', {name}::text" for (name,) in columns)
        return dict(self.rows(f"SELECT id::text, jsonb_build_object({pairs}) FROM aedpics.inspection_sessions"))

    def archived(self) -> dict[str, dict[str, str | None]]:
        """The archived rows that are not back, by id."""
        if self.rows("SELECT to_regclass('at_most_one.archived_row') IS NULL") == [(True,)]:
            return {}
        found = self.rows("SELECT primary_key ->> 'id', row FROM at_most_one.archived_row WHERE restored_at IS NULL")
        assert len(dict(found)) == len(found), "a row is in the archive twice"
        return dict(found)

    def indexes(self) -> set[tuple[str, bool]]:
        return set(
            self.rows(
                "SELECT c.relname, i.indisvalid AND i.indisready AND i.indislive FROM pg_index i"
                " JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE n.nspname = 'aedpics' AND c.relname <> 'idx_inspection_schedules_equipment'"
                " AND c.relname ~ '^idx_inspection_(sessions_active|schedules_equipment|schedules_active)'"
            )
        )

    def fences(self) -> int:
        return int(self.rows("SELECT count(*) FROM pg_class WHERE relname LIKE 'at_most_one_fence_%'")[0][0])

    def migration(self) -> list[bool]:
        """Of each attempt at the plan's migration that was not rolled back, whether it is applied."""
        found = self.rows(
            "SELECT finished_at IS NOT NULL FROM aedpics._prisma_migrations"
            " WHERE migration_name = %s AND rolled_back_at IS NULL",
            MIGRATION,
        )
        return [applied for (applied,) in found]

    def outcomes(self) -> list[str | None]:
        """The journal's runs, newest first."""
        if self.rows("SELECT to_regclass('at_most_one.run') IS NULL") == [(True,)]:
            return []
        return [outcome for (outcome,) in self.rows("SELECT outcome FROM at_most_one.run ORDER BY started_at DESC")]

    def served(self) -> set[str]:
        commits = set()
        for _ in range(6):
            with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{self.app_port}/", timeout=5) as answer:
                commits.add(answer.headers["x-app-commit"])
        return commits

    def workers(self) -> list[Path]:
        """The directory of each process of the application."""
        return sorted(self.processes().values())

    def processes(self) -> dict[int, Path]:
        """The same by pid, by the process table: PM2's list may lie."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                environment = (process / "environ").read_bytes()
                if f'pm2_env={{"name":"aedpics","cwd":"{self.path}"'.encode() in environment:
                    found[int(process.name)] = (process / "cwd").resolve()
        return found

    def link(self) -> str:
        return self.path.readlink().name if self.path.is_symlink() else "in place"

    def picture(self) -> dict[str, Any]:
        """Everything that a run may write, but its report: two are equal if nothing was written in between."""
        runs = "SELECT run_id, outcome, taken_over_by, finished_at::text, lease_until::text FROM at_most_one.run"
        files = (self.releases / ".run.json", self.directory / "pm2/dump.pm2")
        return {
            "rows": self.images(),
            "archive": self.archived(),
            "planned indexes": self.indexes(),
            "indexes of the fence": self.fences(),
            "the migration's attempts": self.migration(),
            "runs": self.rows(f"{runs} ORDER BY 1"),
            "phases": self.rows("SELECT run_id, position, phase, status FROM at_most_one.step ORDER BY 1, 2"),
            "the link": self.link(),
            "releases": sorted(path.name for path in self.releases.iterdir()),
            "processes": self.processes(),
            "files": [path.read_bytes() if path.exists() else b"" for path in files],
        }
