"""A release whose ``node_modules/.bin/prisma`` stands in for Prisma's CLI, and the modules over it.

The stand-in takes the same lock, writes the same rows and runs the same file, or fails in a way that the real CLI
cannot be brought into. What is judged is the catalog, which is real.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from at_most_one.indexes import verification
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.prisma import migration_history

ROOT = Path(__file__).parents[2]
RULE = "idx_inspection_sessions_active_session_per_equipment"
EARLIER = "20251001_init"
OURS = "20251110_add_partial_unique_indexes"

HISTORY = """
CREATE TABLE aedpics._prisma_migrations (
    id varchar(36) PRIMARY KEY, checksum varchar(64) NOT NULL, finished_at timestamptz,
    migration_name varchar(255) NOT NULL, logs text, rolled_back_at timestamptz,
    started_at timestamptz NOT NULL DEFAULT now(), applied_steps_count integer NOT NULL DEFAULT 0)
"""

# In the service's own shape. The names are unqualified: the script's search_path leads to the schema.
SHAPED = (ROOT / f"lab/app-after/prisma/migrations/{OURS}/migration.sql").read_text()

# As Prisma writes one: the connection's search_path must lead to the schema.
MIGRATION = f"""
CREATE UNIQUE INDEX "{RULE}" ON "inspection_sessions" ("equipment_serial") WHERE "status" IN ('active', 'paused');
CREATE INDEX "idx_inspection_schedules_equipment_date" ON "inspection_schedules" ("aed_data_id", "scheduled_for");
CREATE INDEX "idx_inspection_schedules_active" ON "inspection_schedules" ("aed_data_id", "scheduled_for")
    WHERE "status" NOT IN ('cancelled');
"""

STAND_IN = """#!{python}
import hashlib, os, pathlib, re, subprocess, sys, time, urllib.parse, uuid
import psycopg2
assert sys.argv[1] == "migrate" and sys.argv[2] in ("deploy", "status") and os.environ["CHECKPOINT_DISABLE"] == "1"
pathlib.Path("calls").open("a").write("x" if sys.argv[2] == "deploy" else "s")
mode, name = pathlib.Path("mode").read_text(), "{ours}"
url = urllib.parse.urlsplit(os.environ["DATABASE_URL"])
if mode == "leaks":
    print("Error: P1000: Authentication failed", os.environ["DATABASE_URL"], urllib.parse.unquote(url.password))
    sys.exit(1)
if mode == "says yes":
    print("All migrations have been successfully applied.")
    sys.exit(0)
if mode == "hangs":
    child = subprocess.Popen(["sleep", "60"])
    pathlib.Path("child").write_text(str(child.pid))
    child.wait()
query = urllib.parse.urlencode([(k, v) for k, v in urllib.parse.parse_qsl(url.query) if k != "schema"],
                               quote_via=urllib.parse.quote)
connection = psycopg2.connect(url._replace(query=query).geturl())
connection.autocommit = True
cursor = connection.cursor()
if sys.argv[2] == "status":
    cursor.execute("SELECT count(*) FROM _prisma_migrations WHERE migration_name = %s AND finished_at IS NOT NULL"
                   " AND rolled_back_at IS NULL", (name,))
    sys.exit(0 if cursor.fetchone()[0] else 1)
cursor.execute("SELECT pg_advisory_lock(72707369)")
migration = pathlib.Path("prisma/migrations", name, "migration.sql")
row = str(uuid.uuid4())
cursor.execute("SELECT count(*) FILTER (WHERE finished_at IS NULL AND rolled_back_at IS NULL),"
               " count(*) FILTER (WHERE finished_at IS NOT NULL AND rolled_back_at IS NULL AND migration_name = %s)"
               " FROM _prisma_migrations", (name,))
failed, applied = cursor.fetchone()
if failed:
    print("Error: P3009\\nmigrate found failed migrations in the target database")
    sys.exit(1)
if applied:
    print("No pending migrations to apply.")
    sys.exit(0)
cursor.execute("INSERT INTO _prisma_migrations (id, checksum, migration_name) VALUES (%s, %s, %s)",
               (row, hashlib.sha256(migration.read_bytes()).hexdigest(), name))
if mode == "hangs in the server":
    cursor.execute("SELECT pg_sleep(60)")
if mode == "dies":
    os.kill(os.getpid(), 9)
if mode == "late duplicate":
    cursor.execute("INSERT INTO inspection_sessions (equipment_serial, inspector_id)"
                   " SELECT 'AED-late', id FROM user_profiles, generate_series(1, 2)")
try:
    if mode == "statement by statement":  # as Prisma's JavaScript adapters send it
        for part in migration.read_text().split(";"):
            if re.sub("--.*", "", part).strip():
                cursor.execute(part)
    elif mode != "lies":
        cursor.execute(migration.read_text())
except psycopg2.Error as failure:
    logs = f"Database error code: {{failure.pgcode}}\\n\\nDatabase error:\\n{{failure}}"
    cursor.execute("UPDATE _prisma_migrations SET logs = %s WHERE id = %s", (logs, row))
    print(f"Error: P3018\\n\\nA migration failed to apply.\\n\\nMigration name: {{name}}\\n\\n{{logs}}")
    sys.exit(1)
cursor.execute("UPDATE _prisma_migrations SET finished_at = now(), applied_steps_count = 1 WHERE id = %s", (row,))
"""


@pytest.fixture
def release(login: Login, tmp_path: Path) -> Path:
    """A release with two migrations, the first of which the database's history has as applied."""
    for name, content in ((EARLIER, "-- the schema"), (OURS, MIGRATION)):
        (tmp_path / "prisma/migrations" / name).mkdir(parents=True)
        (tmp_path / "prisma/migrations" / name / "migration.sql").write_text(content)
    binaries = tmp_path / "node_modules/.bin"
    binaries.mkdir(parents=True)
    (binaries / "prisma").write_text(STAND_IN.format(python=sys.executable, ours=OURS))
    (binaries / "prisma").chmod(0o755)
    behave(tmp_path, "applies")
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute(HISTORY)
        cursor.execute(
            "INSERT INTO aedpics._prisma_migrations (id, checksum, migration_name, finished_at, applied_steps_count)"
            " VALUES ('earlier', 'sha', %s, now(), 1)",
            (EARLIER,),
        )
        cursor.execute(
            "INSERT INTO aedpics.user_profiles VALUES ('00000000-0000-4000-a000-000000000001', 'a@example.test', 'A')"
        )
    return tmp_path


def behave(release: Path, mode: str) -> None:
    (release / "mode").write_text(mode)


def calls(release: Path) -> int:
    """How often Prisma was asked to deploy."""
    return (release / "calls").read_text().count("x") if (release / "calls").exists() else 0


def open_session(connection: Connection, serial: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO aedpics.inspection_sessions (equipment_serial, inspector_id)"
            " VALUES (%s, '00000000-0000-4000-a000-000000000001')",
            (serial,),
        )


@pytest.fixture
def present(
    run_module: Callable[..., dict[str, Any]], login_args: dict[str, Any], plan_data: dict[str, Any], release: Path
) -> Callable[..., dict[str, Any]]:
    """Runs index_set with state=present over the release."""

    def run(*, check: bool = False, **options: Any) -> dict[str, Any]:
        args = {"login": login_args, "plan": plan_data, "state": "present", "release_path": str(release)}
        return run_module("index_set", {**args, **options}, check=check, diff=True)

    return run


@pytest.fixture
def history(
    run_module: Callable[..., dict[str, Any]], login_args: dict[str, Any], plan_data: dict[str, Any], release: Path
) -> Callable[..., dict[str, Any]]:
    """Runs prisma_history, with the release unless it marks."""

    def run(state: str = "read", *, check: bool = False, **options: Any) -> dict[str, Any]:
        args = {"login": login_args, "plan": plan_data, "state": state, **options}
        if state == "read":
            args["release_path"] = str(release)
        return run_module("prisma_history", args, check=check, diff=True)

    return run


def rows(login: Login, plan: Plan) -> list[migration_history.Row]:
    with connect(login) as connection:
        return [
            row for row in migration_history.read_history(connection, plan.schema) or () if row.migration_name == OURS
        ]


def existing(login: Login, plan: Plan) -> tuple[str, ...]:
    with connect(login) as connection:
        return verification.inspect(connection, plan).existing
