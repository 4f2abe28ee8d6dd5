"""How indexes are used, from a real server's statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from at_most_one.indexes import usage_stats
from at_most_one.monitoring import findings
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Login, connect

from tests.database.index_tools import RULE, open_session
from tests.database.index_tools import build as build  # fixtures

ROW: dict[str, Any] = {
    **{"name": "i", "table": "t", "is_unique": False, "method": "btree", "scans": 5, "bytes": 50 * 1024 * 1024},
    **{"hit": 9_990, "read": 10, "rows": 1_000_000, "pages": 2_700, "block": 8192, "width": 8, "days": 40.0},
}


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({}, "fine"),
        ({"scans": 0}, "unused"),
        ({"scans": 0, "days": 29.9}, "wait"),
        ({"scans": 0, "is_unique": True}, "rule"),
        ({"read": 9_990}, "cold"),
        ({"hit": 10, "read": 90}, "fine"),
        ({"pages": 6_400}, "reindex"),
        ({"pages": 6_400, "is_unique": True}, "reindex"),
        ({"pages": 6_400, "bytes": 1024}, "fine"),
    ],
)
def test_advice(change: dict[str, Any], advice: str) -> None:
    assert usage_stats.judge({**ROW, **change}, set(), usage_stats.Thresholds()).advice == advice


@pytest.mark.parametrize("change", [{"method": "gin"}, {"rows": -1}, {"pages": 9}])
def test_no_estimate_without_a_basis(change: dict[str, Any]) -> None:
    assert usage_stats.estimate_bloat({**ROW, **change}) is None


def test_the_estimate_knows_a_bloated_index_from_a_fresh_one(login: Login) -> None:
    measure = (
        "SELECT 'btree' AS method, reltuples AS rows, relpages AS pages, 8192 AS block, 8 AS width"
        " FROM pg_class WHERE relname = 'numbers_n'"
    )
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE aedpics.numbers AS SELECT n::bigint FROM generate_series(1, 100000) AS n")
        cursor.execute("CREATE INDEX numbers_n ON aedpics.numbers (n)")
        cursor.execute(measure)
        fresh = dict(zip(("method", "rows", "pages", "block", "width"), cursor.fetchone() or (), strict=True))
    assert (usage_stats.estimate_bloat(fresh) or 0) <= 5

    with connect(login, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM aedpics.numbers WHERE n % 10 <> 0")
        cursor.execute("VACUUM aedpics.numbers")
        cursor.execute(measure)
        bloated = dict(zip(("method", "rows", "pages", "block", "width"), cursor.fetchone() or (), strict=True))
    assert (usage_stats.estimate_bloat(bloated) or 0) >= 80


def test_module_reads_scans_and_knows_the_planned_ones(
    login: Login,
    login_args: dict[str, Any],
    plan: Plan,
    plan_data: dict[str, Any],
    build: Callable[..., None],
    run_module: Callable[..., dict[str, Any]],
) -> None:
    build()
    with connect(login) as connection, connection.cursor() as cursor:
        open_session(connection, "11-0000009")
        cursor.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
        cursor.execute(
            "SELECT * FROM aedpics.inspection_sessions WHERE equipment_serial = '11-0000009'"
            " AND status IN ('active', 'paused')"
        )
        used = str(cursor.fetchall())
    assert "11-0000009" in used

    arguments = {"plan": plan_data, "release_path": "/nowhere", "keep_days": 90}
    result = run_module("monitor_database_info", {**arguments, "login": login_args})

    found = {one["name"]: one for one in result["use"]["indexes"]}
    assert {name for name, one in found.items() if one["planned"]} == {index.name for index in plan.indexes}
    assert found[RULE]["scans"] >= 1
    assert found[RULE]["bytes"] > 0
    assert found[RULE]["advice"] == "rule"
    assert not result["changed"]
    # What the monitor reads beside it: a part that cannot be read leaves the others.
    assert result["verified"]["exact"]
    assert result["verified"]["duplicates_left"] == 0
    assert result["fence"] == {"state": "lowered", "indexes": [], "statements": []}
    assert result["journal"] == {"runs": [], "archive": None, "fences": []}
    assert "/nowhere" in result["history"]["msg"]
    gone = run_module("monitor_database_info", {**arguments, "login": {**login_args, "port": 1}})
    parts = ("verified", "fence", "history", "use", "journal")
    assert all("expected" in gone[part] for part in parts), "each is an error, and the module has not failed"
    facts = {"environment": "e", "plan": plan.id, "service": {"checks": []}, "hosts": {}, "database": gone}
    found_wrong = [one.name for one in findings.findings({**facts, "min_instances": 1})]
    assert found_wrong == ["database:verified+fence+use+journal", "database:history"], "one finding for each reason"
