"""A fence whose plan nobody has any more is named by the journal, with the command that drops it."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from at_most_one.fence import write_fence
from at_most_one.findings import handed_over
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.postgres.fence_names import name_of
from at_most_one.runs import journal, left_fences
from at_most_one.runs.controllers import Controller

from tests.database.cleaning import run

RunModule = Callable[..., dict[str, Any]]
HERE = Controller(socket.gethostname(), os.getpid())


def stop_with_a_fence(login: Login, plan: Plan) -> str:
    """A run that has raised the fence and stopped."""
    with connect(login) as connection:
        run_id = journal.open_run(connection, journal.Opening(plan, "production", "minsu", HERE)).run_id
    with connect(login) as connection:
        write_fence.raise_fence(connection, plan)
        named = [one.name for one in left_fences.read(connection)]
        assert f"fence:aedpics.{name_of(plan.id)}" not in named, "a run is at work"
        journal.close_run(connection, run_id, "stopped")
    return run_id


def test_it_is_left_by_a_run_that_has_ended_and_goes_by_the_command_that_is_named(
    login: Login, connection: Connection, plan: Plan, example: Any
) -> None:
    run_id = stop_with_a_fence(login, plan)
    assert left_fences.read(connection, plan) == [], "its plan finds it itself"
    elsewhere = replace(plan, table="inspection_schedules")
    for other in (None, replace(plan, id="another-plan"), elsewhere):
        (left,) = left_fences.read(connection, other)
        assert left.name == f"fence:aedpics.{name_of(plan.id)}"
        assert f"on aedpics.inspection_sessions, and no run is at work behind it: it is of plan {plan.id}" in left.seen
        assert run_id in left.seen
        assert f"-e plan={plan.id}" in left.next_step
    drop = re.search(r"by hand: (DROP INDEX [^;]+);", left.next_step)
    assert drop
    connection.rollback()
    with connect(login, autocommit=True) as by_hand, by_hand.cursor() as cursor:
        cursor.execute(drop[1])
    assert left_fences.read(connection) == []
    connection.rollback()
    assert write_fence.query(connection, plan)[0].state == "lowered"


def test_one_that_the_journal_does_not_know_is_named_as_well(
    login: Login, connection: Connection, plan: Plan, example: Any
) -> None:
    write_fence.raise_fence(connection, plan)
    (left,) = left_fences.read(connection)
    assert "a plan that the journal does not know" in left.seen
    assert left.next_step.startswith("by hand: DROP INDEX CONCURRENTLY")
    stop_with_a_fence(login, replace(plan, id="another-plan"))
    connection.rollback()
    assert [name_of(plan.id) in one.name for one in left_fences.read(connection)].count(True) == 1
    run(connection, f"CREATE TEMPORARY TABLE t (id int); CREATE INDEX {name_of('of-a-test')} ON t (id)")
    assert len(left_fences.read(connection)) == 2, "without those of a temporary table"


def test_the_next_start_the_history_and_the_monitor_name_it(
    login: Login, plan: Plan, example: Any, plan_data: dict[str, Any], login_args: dict[str, Any], run_module: RunModule
) -> None:
    stop_with_a_fence(login, plan)
    fence = f"The write fence aedpics.{name_of(plan.id)} is up"
    other = {**plan_data, "id": "another-plan"}
    opening: dict[str, Any] = {"state": "opened", "environment": "local", "who": "minsu", "controller": HERE.host}
    opening |= {"controller_pid": HERE.pid, "login": login_args, "plan": other}
    for check in (True, False):
        assert fence in str(run_module("deploy_run", opening, check=check)["warnings"])
    (shown,) = run_module("deploy_run_info", {"login": login_args})["fences"]
    assert str(handed_over(shown)).startswith(fence)
    read = run_module("monitor_database_info", {"login": login_args, "plan": other, "keep_days": 90})
    assert [one["name"] for one in read["journal"]["fences"]] == [f"fence:aedpics.{name_of(plan.id)}"]
    read = run_module("monitor_database_info", {"login": login_args, "plan": plan_data, "keep_days": 90})
    assert read["journal"]["fences"] == []
