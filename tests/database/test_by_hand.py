"""The SQL of the documents, as somebody in the night would type it: afterwards everything is as before."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from at_most_one.duplicates import surplus_rows
from at_most_one.fence import write_fence
from at_most_one.plan import Plan
from at_most_one.postgres import own_schema
from at_most_one.postgres.connection import Login, connect

from tests.database.index_tools import build as build  # fixtures
from tests.database.index_tools import query
from tests.support.postgres import find_binaries

ROOT = Path(__file__).parents[2]
TABLE = "aedpics.inspection_sessions"
MIGRATION = "20251110_add_partial_unique_indexes"


def type_in(login: Login, page: str, before: str = "", **filled: str) -> subprocess.CompletedProcess[str]:
    """All of a page's SQL, in its order, into psql; ``filled``: what stands in it as <name>."""
    psql = shutil.which("psql", path=f"{find_binaries()}:{os.environ['PATH']}")
    assert psql, "psql is among PostgreSQL's programs"
    text = (ROOT / page).read_text(encoding="utf-8")
    typed = f"\\set ON_ERROR_STOP on\n{before}\n" + "".join(re.findall(r"```sql\n(.*?)```", text, re.DOTALL))
    for name, value in filled.items():
        typed = typed.replace(f"<{name}>", value)
    place = {"PGHOST": login.host, "PGPORT": str(login.port), "PGDATABASE": login.dbname, "PGUSER": login.user}
    environment = {"PATH": os.environ["PATH"], "PGPASSWORD": login.password, **place}
    return subprocess.run([psql, "-X", "-q"], input=typed, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def deployed(login: Login, plan: Plan, example: Any, build: Callable[..., None]) -> list[tuple[Any, ...]]:
    """A deployment that was killed at its end; the rows as they were before it."""
    before = query(login, f"SELECT t::text FROM {TABLE} AS t ORDER BY 1")
    with connect(login) as connection:
        found = surplus_rows.report(connection, plan)
        write_fence.raise_fence(connection, plan)
        surplus_rows.remove(connection, plan, rows=found.rows, digest=found.digest, run_id="killed")
    build()
    with connect(login) as connection:
        own_schema.ensure(connection)
    query(
        login,
        "INSERT INTO at_most_one.run (run_id, plan_id, plan_sha256, environment, who, controller, controller_pid,"
        " lease, lease_until) VALUES ('killed', %s, 'x', 'production', 'somebody', 'gone', 1, '1 h', now())",
        plan.id,
    )
    query(
        login,
        "CREATE TABLE IF NOT EXISTS aedpics._prisma_migrations (id text, migration_name text, finished_at timestamptz,"
        " rolled_back_at timestamptz)",
    )
    query(
        login,
        f"INSERT INTO aedpics._prisma_migrations VALUES ('1', '{MIGRATION}', now(), NULL), ('2', 'init', now(), NULL)",
    )
    return before


def test_the_page_brings_everything_back_and_may_be_typed_twice(
    login: Login, plan: Plan, deployed: list[tuple[Any, ...]]
) -> None:
    rows = f"SELECT t::text FROM {TABLE} AS t ORDER BY 1"
    assert len(query(login, rows)) == len(deployed) - 25

    for _ in range(2):
        done = type_in(login, "docs/recover-by-hand.md")
        assert done.returncode == 0, done.stderr
        assert query(login, rows) == deployed
        assert query(login, "SELECT count(*) FROM at_most_one.archived_row WHERE restored_at IS NULL") == [(0,)]
        assert query(login, "SELECT count(*) FROM pg_class WHERE relname ~ 'fence'") == [(0,)]
        assert query(
            login, "SELECT count(*) FROM pg_indexes WHERE indexname = ANY (%s)", [i.name for i in plan.indexes]
        ) == [(0,)]
        marked = "SELECT migration_name FROM aedpics._prisma_migrations WHERE rolled_back_at IS NOT NULL"
        assert query(login, marked) == [(MIGRATION,)]
        assert query(login, "SELECT outcome FROM at_most_one.run") == [("abandoned",)]


def test_a_migration_is_marked_by_hand(login: Login, deployed: list[tuple[Any, ...]]) -> None:
    """As docs/prisma-history.md says it, in the plan's schema; the migrations before it stay applied."""
    done = type_in(login, "docs/prisma-history.md", "SET search_path = aedpics;", name=MIGRATION)
    assert done.returncode == 0, done.stderr
    marked = "SELECT migration_name FROM aedpics._prisma_migrations WHERE rolled_back_at IS NOT NULL"
    assert query(login, marked) == [(MIGRATION,)]


def test_a_row_that_is_there_again_stops_all_of_them(login: Login, deployed: list[tuple[Any, ...]]) -> None:
    query(login, f"UPDATE {TABLE} SET status = 'completed' WHERE id = (SELECT id FROM {TABLE} LIMIT 1)")
    again = "(SELECT (a.primary_key ->> 'id')::uuid FROM at_most_one.archived_row AS a LIMIT 1)"
    query(
        login, f"UPDATE {TABLE} SET id = {again} WHERE id = (SELECT id FROM {TABLE} WHERE status = 'completed' LIMIT 1)"
    )
    left = len(query(login, f"SELECT FROM {TABLE}"))

    done = type_in(login, "docs/recover-by-hand.md")
    assert done.returncode == 3
    assert "duplicate key value" in done.stderr
    assert len(query(login, f"SELECT FROM {TABLE}")) == left
