"""A duplicate that comes back after the deployment is found in the round in which it is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from at_most_one.plan import Plan
from at_most_one.postgres.connection import Login, connect

from tests.database.index_tools import RULE, open_session
from tests.database.index_tools import build as build  # fixtures

RunModule = Callable[..., dict[str, Any]]
NOBODY = "http://127.0.0.1:1"  # its health is bad, which counts in a second round only


def watch(run_module: RunModule, login_args: dict[str, Any], plan_data: dict[str, Any], *suspects: str) -> list[str]:
    arguments = {"base_url": NOBODY, "paths": {}, "seconds": 0, "round_s": 0.1, "suspects": [*suspects]}
    result = run_module("service_watch", {**arguments, "login": login_args, "plan": plan_data})
    assert len(result["rounds"]) == 1
    return [one["name"] for one in result["findings"]]


def test_the_index_is_dropped_by_hand_and_a_duplicate_comes(
    login: Login,
    login_args: dict[str, Any],
    plan: Plan,
    plan_data: dict[str, Any],
    build: Callable[..., None],
    run_module: RunModule,
) -> None:
    build()
    assert watch(run_module, login_args, plan_data) == []

    with connect(login) as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP INDEX aedpics.{RULE}")
    assert watch(run_module, login_args, plan_data) == ["indexes"]

    with connect(login) as connection:
        for _ in range(2):
            open_session(connection, "11-0000009")
    assert watch(run_module, login_args, plan_data) == ["duplicates", "indexes"]


def test_a_database_that_does_not_answer_counts_in_the_second_round(
    login_args: dict[str, Any], plan_data: dict[str, Any], run_module: RunModule
) -> None:
    gone = {**login_args, "port": 1}
    assert watch(run_module, gone, plan_data) == []
    assert watch(run_module, gone, plan_data, "database") == ["database"]
