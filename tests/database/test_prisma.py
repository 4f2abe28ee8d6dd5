"""Prisma's history in a real database, and `migrate deploy` judged by exit code and catalog.

The executable in node_modules/.bin stands for Prisma's CLI: it takes the same lock, writes the same rows and runs the
same file, or fails in a way that the real CLI cannot be brought into. What is judged is the catalog, which is real.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from at_most_one import indexes, prisma
from at_most_one.database import Connection, Login, connect
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan
from at_most_one.prisma_cli import connection_url

RULE = "idx_inspection_sessions_active_session_per_equipment"
EARLIER = "20251001_init"
OURS = "20251110_add_partial_unique_indexes"

HISTORY = """
CREATE TABLE aedpics._prisma_migrations (
    id varchar(36) PRIMARY KEY, checksum varchar(64) NOT NULL, finished_at timestamptz,
    migration_name varchar(255) NOT NULL, logs text, rolled_back_at timestamptz,
    started_at timestamptz NOT NULL DEFAULT now(), applied_steps_count integer NOT NULL DEFAULT 0)
"""

# The names are unqualified, as Prisma writes them: the connection's search_path must lead to the schema.
MIGRATION = f"""
CREATE UNIQUE INDEX "{RULE}" ON "inspection_sessions" ("equipment_serial") WHERE "status" IN ('active', 'paused');
CREATE INDEX "idx_inspection_schedules_equipment_date" ON "inspection_schedules" ("aed_data_id", "scheduled_for");
CREATE INDEX "idx_inspection_schedules_active" ON "inspection_schedules" ("aed_data_id", "scheduled_for")
    WHERE "status" NOT IN ('cancelled');
"""

STAND_IN = """#!{python}
import hashlib, os, pathlib, subprocess, sys, time, urllib.parse, uuid
import psycopg2
assert sys.argv[1:] == ["migrate", "deploy"] and os.environ["CHECKPOINT_DISABLE"] == "1"
pathlib.Path("calls").open("a").write("x")
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
if mode == "dies":
    os.kill(os.getpid(), 9)
if mode == "late duplicate":
    cursor.execute("INSERT INTO inspection_sessions (equipment_serial, inspector_id)"
                   " SELECT 'AED-late', id FROM user_profiles, generate_series(1, 2)")
try:
    if mode != "lies":
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
    return len((release / "calls").read_text()) if (release / "calls").exists() else 0


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

    def run(state: str = "read", *, check: bool = False) -> dict[str, Any]:
        args = {"login": login_args, "plan": plan_data, "state": state}
        if state == "read":
            args["release_path"] = str(release)
        return run_module("prisma_history", args, check=check, diff=True)

    return run


def rows(login: Login, plan: Plan) -> list[prisma.Row]:
    with connect(login) as connection:
        return [row for row in prisma.read_history(connection, plan.schema) or () if row.migration_name == OURS]


def existing(login: Login, plan: Plan) -> tuple[str, ...]:
    with connect(login) as connection:
        return indexes.inspect(connection, plan).existing


def test_forward_back_forward(
    login: Login,
    plan: Plan,
    plan_data: dict[str, Any],
    login_args: dict[str, Any],
    release: Path,
    present: Callable[..., dict[str, Any]],
    history: Callable[..., dict[str, Any]],
    run_module: Callable[..., dict[str, Any]],
) -> None:
    absent = {"login": login_args, "plan": plan_data, "state": "absent"}
    assert history()["verdict"] == "pending"

    predicted = present(check=True)
    assert (predicted["changed"], predicted["pending"], calls(release)) == (True, [OURS], 0)
    assert predicted["diff"]["before"] == ""
    assert predicted["diff"]["after"].count("CREATE ") == len(predicted["statements"]) == 3
    assert existing(login, plan) == ()

    built = present()
    assert (built["changed"], built["history"], built["attempts"], calls(release)) == (True, "applied", 1, 1)
    assert built["exact"]
    assert built["diff"]["after"].count("CREATE ") == 3

    again = present()
    assert (again["changed"], again["attempts"], calls(release)) == (False, 0, 1)

    refused = history("rolled_back")
    assert refused["failed"]
    assert RULE in refused["seen"]
    assert history("rolled_back", check=True)["existing"] == list(existing(login, plan))

    assert run_module("index_set", absent)["changed"]
    lost = history()
    assert (lost["verdict"], lost["indexes_exact"]) == ("applied_without_indexes", False)
    stopped = present()
    assert stopped["failed"]
    assert "applied_without_indexes" in stopped["seen"]

    assert history("rolled_back", check=True)["marked"] == 1
    assert rows(login, plan)[0].rolled_back_at is None
    marked = history("rolled_back")
    assert (marked["changed"], marked["marked"]) == (True, 1)
    assert marked["diff"]["before"].endswith("applied\n")
    assert rows(login, plan)[0].rolled_back_at is not None
    assert not history("rolled_back")["changed"]
    assert history()["verdict"] == "rolled_back"

    assert present()["changed"]
    assert history()["verdict"] == "applied"
    assert [row.applied for row in rows(login, plan)] == [False, True]


def test_the_history_reads_what_it_is_given(
    login: Login, release: Path, history: Callable[..., dict[str, Any]], present: Callable[..., dict[str, Any]]
) -> None:
    present()
    (release / "prisma/migrations" / OURS / "migration.sql").write_text(MIGRATION + "-- edited later\n")
    assert history()["verdict"] == "edited"
    assert present()["details"]["history"] == "edited"
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE aedpics._prisma_migrations")
    assert history()["verdict"] == "absent_table"
    assert history("rolled_back")["changed"] is False


def test_earlier_migrations_stop_it_before_prisma_is_called(
    login: Login, release: Path, history: Callable[..., dict[str, Any]], present: Callable[..., dict[str, Any]]
) -> None:
    for statement, expected in (
        ("UPDATE aedpics._prisma_migrations SET finished_at = NULL", "earlier_failed"),
        ("DELETE FROM aedpics._prisma_migrations", "earlier_pending"),
    ):
        with connect(login) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
        read = history()
        assert (read["verdict"], read["blocking"]) == (expected, [EARLIER] if expected == "earlier_failed" else [])
        for check in (True, False):
            stopped = present(check=check)
            assert expected in stopped["seen"]
            assert stopped["next_step"] == read["repair"]
    assert calls(release) == 0


def test_duplicates_stop_it_before_prisma_is_called(
    login: Login, release: Path, present: Callable[..., dict[str, Any]]
) -> None:
    with connect(login) as connection:
        open_session(connection, "AED-1")
        open_session(connection, "AED-1")
    assert present()["details"]["cause"] == "duplicates"
    assert calls(release) == 0
    assert present(check=True)["changed"]  # in check mode the clean-up before has removed nothing either


def test_a_duplicate_born_before_the_index_is_named_and_the_next_run_repairs(
    login: Login,
    plan: Plan,
    release: Path,
    history: Callable[..., dict[str, Any]],
    present: Callable[..., dict[str, Any]],
) -> None:
    behave(release, "late duplicate")
    stopped = present()
    assert stopped["details"]["cause"] == "duplicates"
    assert stopped["details"]["code"] == "P3018"
    assert "23505" in str(stopped["details"]["output"])
    assert "AED-late" not in str(stopped)
    read = history()
    assert read["verdict"] == "failed"
    assert read["row"]["logs"][0] == "Database error code: 23505"
    assert "AED-late" not in str(read)
    assert existing(login, plan) == ()

    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM aedpics.inspection_sessions")
    behave(release, "applies")
    assert present(check=True)["repaired"]
    assert history()["verdict"] == "failed"
    done = present()
    assert (done["repaired"], done["attempts"], done["history"]) == (True, 1, "applied")


def test_a_prisma_that_was_killed_leaves_a_row_that_the_next_run_repairs(
    release: Path, history: Callable[..., dict[str, Any]], present: Callable[..., dict[str, Any]]
) -> None:
    behave(release, "dies")
    stopped = present()
    assert (stopped["details"]["returncode"], stopped["details"]["history"]) == (-9, "failed")
    behave(release, "applies")
    assert present()["repaired"]
    assert history()["verdict"] == "applied"


def test_indexes_that_are_there_already_stop_it(
    login: Login,
    plan: Plan,
    release: Path,
    history: Callable[..., dict[str, Any]],
    present: Callable[..., dict[str, Any]],
) -> None:
    with connect(login) as connection, connection.cursor() as cursor:
        for index in plan.indexes:
            cursor.execute(indexes.create_statement(index, plan.schema))
    assert "are there already" in history()["repair"]
    assert "is there already" in present()["seen"]

    behave(release, "dies")
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO aedpics._prisma_migrations (id, checksum, migration_name) VALUES ('x', 'y', %s)", (OURS,)
        )
    assert history()["verdict"] == "failed_with_indexes"
    assert "failed_with_indexes" in present()["seen"]
    assert calls(release) == 0


@pytest.mark.parametrize(("mode", "verdict"), [("says yes", "pending"), ("lies", "applied_without_indexes")])
def test_a_good_exit_code_without_indexes_is_a_failure(
    release: Path, present: Callable[..., dict[str, Any]], mode: str, verdict: str
) -> None:
    behave(release, mode)
    stopped = present()
    assert stopped["failed"]
    assert (stopped["details"]["returncode"], stopped["details"]["history"]) == (0, verdict)
    assert calls(release) == 1


def test_no_secret_in_what_is_shown(login: Login, release: Path, present: Callable[..., dict[str, Any]]) -> None:
    behave(release, "leaks")
    stopped = present()
    assert stopped["details"]["code"] == "P1000"
    assert "Authentication failed" in stopped["seen"]
    shown = {key: value for key, value in stopped.items() if key != "invocation"}
    assert login.password not in str(shown)
    assert "p%40ss" not in str(shown)


def test_a_hanging_prisma_is_ended_with_its_children(release: Path, present: Callable[..., dict[str, Any]]) -> None:
    behave(release, "hangs")
    started = time.monotonic()
    stopped = present(prisma_timeout_s=1)
    assert (stopped["details"]["cause"], stopped["details"]["returncode"]) == ("timeout", None)
    assert time.monotonic() - started < 10
    child = int((release / "child").read_text())
    with contextlib.suppress(FileNotFoundError):
        assert Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_release_without_prisma_is_named(release: Path, present: Callable[..., dict[str, Any]]) -> None:
    shutil.rmtree(release / "node_modules")
    assert "npm ci" in present()["expected"]


@pytest.fixture
def held(login: Login, release: Path) -> Iterator[Connection]:
    """A transaction that has written to the rule's table and is still open."""
    with connect(login) as writer:
        open_session(writer, "AED-1")
        yield writer
        if not writer.closed:
            writer.rollback()


def test_a_lock_that_is_never_free_is_given_up_and_the_holder_is_named(
    login: Login,
    plan: Plan,
    release: Path,
    held: Connection,
    history: Callable[..., dict[str, Any]],
    present: Callable[..., dict[str, Any]],
) -> None:
    stopped = present(attempts=2, lock_timeout_ms=300)

    assert stopped["details"]["cause"] == "lock_timeout"
    assert [holder["pid"] for holder in stopped["details"]["holders"]] == [held.info.backend_pid]
    assert f"pid {held.info.backend_pid} (aedpics_admin, idle in transaction" in stopped["seen"]
    assert "AED-1" not in str(stopped)
    assert calls(release) == 2
    assert history()["verdict"] == "rolled_back"
    assert [row.failed for row in rows(login, plan)] == [False, False]

    held.rollback()
    assert present()["changed"]


def test_a_lock_that_becomes_free_is_obtained_and_the_writers_pause_is_measured(
    login: Login, plan: Plan, release: Path, held: Connection, present: Callable[..., dict[str, Any]]
) -> None:
    def write() -> None:
        """As soon as the build waits for its lock, another writer queues behind it."""
        with connect(login, lock_timeout_ms=0) as writer, writer.cursor() as cursor:
            while not cursor.rowcount > 0:
                cursor.execute("SELECT 1 FROM pg_catalog.pg_locks WHERE NOT granted AND mode = 'ShareLock'")
                time.sleep(0.01)
            open_session(writer, "AED-2")

    def let_go() -> None:
        while calls(release) < 2:
            time.sleep(0.05)
        held.rollback()

    threads = [threading.Thread(target=write), threading.Thread(target=let_go)]
    for thread in threads:
        thread.start()
    done = present(attempts=10, lock_timeout_ms=500)
    for thread in threads:
        thread.join(20)

    assert done["changed"], done
    assert done["attempts"] >= 2
    assert 250 <= done["write_pause_ms"] <= 1_000  # the writer waited for one lock_timeout, and was sampled on the way
    assert sum(row.applied for row in rows(login, plan)) == 1


def test_another_migration_is_waited_for_and_its_holder_named(
    login: Login, release: Path, history: Callable[..., dict[str, Any]], present: Callable[..., dict[str, Any]]
) -> None:
    with connect(login, autocommit=True) as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (prisma.ADVISORY_LOCK,))
        stopped = present(deadline_s=1)
        assert stopped["details"]["cause"] == "migration_lock"
        assert stopped["details"]["holder"]["pid"] == other.info.backend_pid
        assert calls(release) == 0

        cursor.execute(
            "INSERT INTO aedpics._prisma_migrations (id, checksum, migration_name) VALUES ('x', 'y', %s)", (OURS,)
        )
        marking = history("rolled_back")
        assert f"pid {other.info.backend_pid}" in marking["seen"]
        assert history()["verdict"] == "failed"
        timer = threading.Timer(0.5, cursor.execute, ("SELECT pg_advisory_unlock_all()",))
        timer.start()
        timer.join()
    assert history("rolled_back")["changed"]
    assert present()["changed"]


@pytest.mark.parametrize("schema", ["aedpics", 'we"ird na\\me'])
def test_the_connection_url_reaches_the_schema_with_the_timeout(login: Login, schema: str) -> None:
    url = connection_url(login, schema, 1234)
    libpq_url = url.replace("schema=", "fallback_application_name=")  # libpq does not know Prisma's own parameter
    with contextlib.closing(psycopg2.connect(libpq_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('lock_timeout'), current_setting('search_path')")
        assert cursor.fetchone() == ("1234ms", '"' + schema.replace('"', '""') + '"')


def test_marking_needs_the_indexes_gone(login: Login, plan: Plan, release: Path) -> None:
    with connect(login) as connection, pytest.raises(OperatorError, match=RULE):
        prisma.mark_rolled_back(connection, plan.schema, OURS, (RULE,))


def test_the_environment_path_comes_first(release: Path, present: Callable[..., dict[str, Any]]) -> None:
    """`#!/usr/bin/env node` must find the service's node, not the one of the login shell."""
    executable = release / "node_modules/.bin/prisma"
    executable.write_text(executable.read_text().replace(f"#!{sys.executable}", "#!/usr/bin/env at-most-one-node"))
    node = release / "bin/at-most-one-node"
    node.parent.mkdir()
    node.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    node.chmod(0o755)
    assert present()["details"]["returncode"] == 127
    assert present(environment_path=str(node.parent))["changed"]
