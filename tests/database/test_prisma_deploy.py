"""``prisma migrate deploy``: bounded, retried when a lock was not obtained, judged by exit code and catalog."""

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
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.prisma import migration_history
from at_most_one.prisma.cli import connection_url

from tests.database.index_tools import in_thread, query, traces, wait_for
from tests.database.prisma_release import behave, calls, open_session, rows
from tests.database.prisma_release import history as history  # fixtures
from tests.database.prisma_release import present as present
from tests.database.prisma_release import release as release
from tests.support.prisma_stand_in import OURS


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
    """One that is at work; :func:`test_a_leaked_lock_is_told_from_a_migration` has the other kind."""
    query(login, "INSERT INTO aedpics._prisma_migrations (id, checksum, migration_name) VALUES ('x', 'y', %s)", OURS)
    with connect(login, autocommit=True, statement_timeout_ms=0) as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (migration_history.ADVISORY_LOCK,))
        with in_thread(lambda: cursor.execute("SELECT pg_sleep(600)")):
            before = traces(login)
            stopped = present(deadline_s=1)
            assert stopped["details"]["cause"] == "migration_lock"
            assert stopped["details"]["holder"]["pid"] == other.info.backend_pid
            marking = history("rolled_back")
            assert f"pid {other.info.backend_pid}" in marking["seen"]
            assert "Another `prisma migrate` is running" in marking["seen"]
            assert history()["verdict"] == "failed"
            assert (calls(release), traces(login)) == (0, before)
            other.cancel()
        cursor.execute("SELECT pg_advisory_unlock_all()")
    assert history("rolled_back")["changed"]
    assert present()["changed"]


@pytest.mark.parametrize("strategy", ["prisma", "concurrent"])
def test_a_leaked_lock_is_told_from_a_migration(
    login: Login, release: Path, present: Callable[..., dict[str, Any]], strategy: str
) -> None:
    """A session that holds it and does nothing, as a pooler keeps one whose client was killed."""
    with connect(login, autocommit=True) as forgotten, forgotten.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (migration_history.ADVISORY_LOCK,))
        pid = forgotten.info.backend_pid
        before = traces(login)
        stopped = present(deadline_s=2, strategy=strategy)
        assert stopped["details"]["cause"] == "leaked_lock"
        assert f"has leaked: pid {pid} (aedpics_admin from 127.0.0.1, at-most-one) holds it" in stopped["seen"]
        assert stopped["details"]["holder"]["idle_since"] in stopped["seen"]
        way_out = f"SELECT pg_terminate_backend({pid});"
        assert way_out in stopped["next_step"]
        assert (calls(release), traces(login)) == (0, before)
        query(login, way_out)
    assert present(strategy=strategy)["changed"]


def test_a_prisma_that_is_ended_takes_its_sessions_along(
    login: Login,
    release: Path,
    history: Callable[..., dict[str, Any]],
    present: Callable[..., dict[str, Any]],
) -> None:
    """A statement that waits in the server goes on without its client, unless its session is ended as well."""
    sleeping = "SELECT application_name FROM pg_catalog.pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'"
    behave(release, "hangs in the server")
    with in_thread(lambda: present(prisma_timeout_s=3)) as results:
        ((name,),) = wait_for(lambda: query(login, sleeping))
        assert name.startswith("at-most-one-prisma-")
    (stopped,) = results
    assert stopped["details"]["cause"] == "timeout"
    assert query(login, sleeping) == []
    assert history()["verdict"] == "failed"
    behave(release, "applies")
    assert present()["repaired"]


@pytest.mark.parametrize("schema", ["aedpics", 'we"ird na\\me'])
def test_the_connection_url_reaches_the_schema_with_the_timeout(login: Login, schema: str) -> None:
    url = connection_url(login, schema, 1234)
    libpq_url = url.replace("schema=", "fallback_application_name=")  # libpq does not know Prisma's own parameter
    with contextlib.closing(psycopg2.connect(libpq_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('lock_timeout'), current_setting('search_path')")
        assert cursor.fetchone() == ("1234ms", '"' + schema.replace('"', '""') + '"')


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
