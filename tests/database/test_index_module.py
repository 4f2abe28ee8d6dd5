"""index_set as Ansible calls it: verified and absent; present is in test_prisma_deploy and test_building."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg2
import psycopg2.errors
import pytest
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Login, connect

from tests.database.index_tools import (
    ACTIVE,
    DATE,
    IN_RULE,
    RULE,
    inspect,
    open_session,
    verdict,
)
from tests.database.index_tools import build as build  # fixtures
from tests.database.index_tools import duplicates as duplicates
from tests.database.index_tools import run_sql as run_sql


@pytest.mark.usefixtures("duplicates")
def test_module_verified_fails_or_reports(
    login: Login,
    login_args: dict[str, Any],
    plan_data: dict[str, Any],
    build: Callable[..., None],
    run_module: Callable[..., dict[str, Any]],
) -> None:
    args = {"login": login_args, "plan": plan_data}
    build(without=(RULE,))

    for check in (True, False):
        refused = run_module("index_set", args, check=check)
        assert refused["failed"]
        assert f"{RULE} is missing; 2 duplicate group(s) are left" in refused["seen"]
        assert [found["verdict"] for found in refused["details"]["indexes"]] == ["missing", "present", "present"]

        reported = run_module("index_set", {**args, "fail": False}, check=check)
        assert not reported["changed"]
        assert (reported["exact"], reported["duplicates_left"]) == (False, 2)

    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM aedpics.inspection_sessions")
    build(without=(DATE, ACTIVE))
    verified = run_module("index_set", args)
    assert verified["exact"]
    assert [found["verdict"] for found in verified["indexes"]] == ["present"] * 3


def test_module_absent_checks_drops_and_rests(
    login: Login,
    login_args: dict[str, Any],
    plan: Plan,
    plan_data: dict[str, Any],
    build: Callable[..., None],
    run_module: Callable[..., dict[str, Any]],
    run_sql: Callable[..., None],
) -> None:
    args = {"login": login_args, "plan": plan_data, "state": "absent"}
    build(without=(RULE,))
    with connect(login) as connection:
        open_session(connection, "AED-1", 2)
    with pytest.raises(psycopg2.errors.UniqueViolation):  # an INVALID one must go as well
        run_sql(f"CREATE UNIQUE INDEX CONCURRENTLY {RULE} ON inspection_sessions (equipment_serial) {IN_RULE}")
    drops = [f'DROP INDEX CONCURRENTLY IF EXISTS "aedpics"."{name}"' for name in (RULE, DATE, ACTIVE)]

    predicted = run_module("index_set", args, check=True, diff=True)
    assert (predicted["changed"], predicted["statements"]) == (True, drops)
    assert predicted["diff"]["before"].count("INDEX") == 3
    assert predicted["diff"]["after"] == ""
    assert inspect(login, plan).existing == (RULE, DATE, ACTIVE)

    done = run_module("index_set", args)
    assert (done["changed"], done["statements"]) == (True, drops)
    assert inspect(login, plan).existing == ()

    again = run_module("index_set", args)
    assert (again["changed"], again["statements"]) == (False, [])
    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('aedpics.idx_inspection_schedules_equipment') IS NOT NULL")
        assert cursor.fetchone() == (True,)  # the neighbour is nobody's to drop


def test_module_absent_leaves_what_is_not_the_plans(
    login: Login,
    login_args: dict[str, Any],
    plan: Plan,
    plan_data: dict[str, Any],
    build: Callable[..., None],
    run_module: Callable[..., dict[str, Any]],
    run_sql: Callable[..., None],
) -> None:
    build(without=(RULE,))
    run_sql(f"CREATE UNIQUE INDEX {RULE} ON aed_data (equipment_serial)")
    refused = run_module("index_set", {"login": login_args, "plan": plan_data, "state": "absent"})
    assert "table: expected inspection_sessions, seen aed_data" in refused["seen"]
    assert inspect(login, plan).existing == (RULE, DATE, ACTIVE)


def test_module_absent_names_who_holds_it_up_and_the_next_run_ends_it(
    login: Login,
    login_args: dict[str, Any],
    plan: Plan,
    plan_data: dict[str, Any],
    build: Callable[..., None],
    run_module: Callable[..., dict[str, Any]],
) -> None:
    args = {"login": login_args, "plan": plan_data, "state": "absent"}
    build()
    with connect(login) as writer, writer.cursor() as cursor:
        open_session(writer, "AED-1")
        cursor.execute("UPDATE aedpics.inspection_sessions SET notes = 'a secret of a person'")
        held = run_module("index_set", {**args, "deadline_s": 1})
        assert held["failed"]
        assert f"pid {writer.info.backend_pid}" in held["seen"]
        assert "UPDATE aedpics.inspection_sessions SET notes = ?" in held["seen"]
        assert "secret" not in str(held)
        assert verdict(login, plan).verdict == "invalid"
        writer.rollback()
    assert run_module("index_set", args)["changed"]
    assert inspect(login, plan).existing == ()
