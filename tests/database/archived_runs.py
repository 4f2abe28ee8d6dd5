"""Deployments of any age whose rows are in the archive, and what they left in files."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Login, connect
from at_most_one.runs import journal, purge
from at_most_one.runs.controllers import Controller

from tests.database.cleaning import run

HERE = Controller(socket.gethostname(), os.getpid())
LIMITS = {"lock_timeout_ms": 3_000, "statement_timeout_ms": 60_000}
# What a clean-up archives, without its table: a purge reads nothing else of it.
_ARCHIVED = """
INSERT INTO at_most_one.archived_row
    (run_id, plan_id, table_schema, table_name, primary_key, keeper, row, row_sha256, action)
SELECT %s, %s, 'aedpics', 'inspection_sessions', image, image, image, repeat('0', 64), 'delete'
FROM generate_series(1, 25) AS n, jsonb_build_object('id', gen_random_uuid(), 'notes', repeat('x', 100)) AS image"""
WHOLE = ("cleanup", "migrate", "verify", "pm2_reload", "healthcheck")


class Service:
    """A service's database with deployments whose rows are as old as a test wants."""

    def __init__(self, login: Login, plan: Plan) -> None:
        self.login, self.plan = login, plan

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with connect(self.login) as connection:
            return run(connection, statement, *values)

    def opening(self, commit: str = "b" * 40, environment: str = "production") -> journal.Opening:
        return journal.Opening(self.plan, environment, "minsu", HERE, "a" * 40, commit)

    def deploy(
        self,
        commit: str,
        *,
        days: float = 0,
        rows: bool = True,
        outcome: str | None = "deployed",
        environment: str = "production",
    ) -> str:
        """A deployment that archived 25 rows, ``days`` ago; without an outcome it is still open."""
        with connect(self.login) as connection:
            run_id = journal.open_run(connection, self.opening(commit, environment)).run_id
        with connect(self.login) as connection:
            if rows:
                run(connection, _ARCHIVED, run_id, self.plan.id)
            for phase in WHOLE:
                journal.record(connection, run_id, phase, "ok" if rows or phase == "pm2_reload" else "unchanged", {})
            if outcome:
                journal.close_run(connection, run_id, outcome)
        self.age(run_id, days)
        return run_id

    def age(self, run_id: str, days: float) -> None:
        ago = "clock_timestamp() - %s * interval '1 day'"
        self.sql(f"UPDATE at_most_one.archived_row SET archived_at = {ago} WHERE run_id = %s", days, run_id)
        self.sql(f"UPDATE at_most_one.repointed_row SET repointed_at = {ago} WHERE run_id = %s", days, run_id)
        self.sql(
            f"UPDATE at_most_one.run SET started_at = {ago}, finished_at = finished_at - %s * interval '1 day'"
            " WHERE run_id = %s",
            *(days, days, run_id),
        )

    def take_back(self, *runs: str) -> None:
        with connect(self.login) as connection:
            back = journal.open_run(connection, self.opening("a" * 40)).run_id
            journal.record(connection, back, "rollback", "ok", {"runs": list(runs)})
            journal.close_run(connection, back, "rolled_back")

    def rows(self) -> dict[str, int]:
        return dict(self.sql("SELECT run_id, count(*) FROM at_most_one.archived_row GROUP BY 1"))

    def look(self, keep_days: int = 90) -> dict[str, str]:
        """Why the rows of each run stay, by run."""
        with connect(self.login) as connection:
            return {
                one.run_id: one.why
                for one in purge.look(connection, self.plan.id, "production", keep_days).runs
                if one.rows
            }

    def purge(self, keep_days: int = 90, **options: Any) -> purge.Purged:
        given = {"takeover": False, "check": False, "timeouts": LIMITS, **options}
        return purge.purge(self.login, self.opening("", "production"), keep_days, **given)

    def journal(self) -> dict[str, dict[str, Any]]:
        with connect(self.login) as connection:
            return {one["run_id"]: one for one in journal.read(connection)}


@pytest.fixture
def service(login: Login, plan: Plan) -> Service:
    return Service(login, plan)


def with_backup(service: Service, run_id: str, directory: Path, **recorded: Any) -> Path:
    """A backup as table_backup leaves it, recorded by its run."""
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / f"{service.plan.id}-{run_id}.dump"
    path.write_bytes(b"rows of people")
    path.chmod(0o600)
    made = {"path": str(path), "bytes": path.stat().st_size, "sha256": hashlib.sha256(b"rows of people").hexdigest()}
    service.sql(
        "INSERT INTO at_most_one.step SELECT run_id, 99, 'prepare', 'ok', started_at, started_at, %s"
        " FROM at_most_one.run WHERE run_id = %s",
        *(json.dumps({"backup": {**made, **recorded}}), run_id),
    )
    return path
