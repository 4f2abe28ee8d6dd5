"""The module of surplus rows: report, check, remove, again, restore; by a list, by a file."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from at_most_one.plan import Plan, parse
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.runs import journal
from at_most_one.runs.controllers import Controller
from at_most_one.runs.journal import Opening

from tests.database.cleaning import INSPECTOR, ids, run


@pytest.fixture
def held(login: Login, plan: Plan) -> str:
    """An open run, which holds the plan."""
    with connect(login) as opening:
        return journal.open_run(opening, Opening(plan, "production", "minsu", Controller("gateway", 1))).run_id


class TestModule:
    def test_report_check_remove_again_restore(
        self,
        connection: Connection,
        plan_data: dict[str, Any],
        example: Any,
        login_args: dict[str, Any],
        run_module: Callable[..., dict[str, Any]],
        held: str,
    ) -> None:
        before = ids(connection)
        base = {"login": login_args, "plan": plan_data}
        found = run_module("duplicate_rows", {**base, "state": "reported"})
        assert (found["changed"], found["group_count"], found["row_count"]) == (False, 10, 25)
        removal = {**base, "state": "removed", "rows": found["rows"], "digest": found["digest"], "run_id": held}

        predicted = run_module("duplicate_rows", removal, check=True, diff=True)
        assert (predicted["changed"], predicted["removed"]) == (True, 25)
        assert ids(connection) == before
        gone = set(predicted["diff"]["before"].splitlines()) - set(predicted["diff"]["after"].splitlines())
        assert len(gone) == 25
        assert all(any(surplus in line for line in gone) for surplus in example.surplus)

        done = run_module("duplicate_rows", removal, diff=True)
        assert (done["changed"], done["removed"], done["archived"], done["rows_left"]) == (True, 25, 25, 0)
        assert done["diff"] == predicted["diff"]
        assert ids(connection) == before - example.surplus

        again = run_module("duplicate_rows", removal)
        assert (again["changed"], again["removed"], again["gone_meanwhile"]) == (False, 0, 25)

        restoration = {**base, "state": "restored", "run_id": held, "archived_by": held}
        assert run_module("duplicate_rows", restoration, check=True)["restored"] == 25
        assert ids(connection) == before - example.surplus
        assert run_module("duplicate_rows", restoration)["restored"] == 25
        assert ids(connection) == before
        assert run_module("duplicate_rows", restoration)["changed"] is False

    def test_what_cannot_return_refuses_all_or_is_left(
        self,
        connection: Connection,
        plan_data: dict[str, Any],
        example: Any,
        login_args: dict[str, Any],
        run_module: Callable[..., dict[str, Any]],
        held: str,
    ) -> None:
        base = {"login": login_args, "plan": plan_data, "run_id": held}
        found = run_module("duplicate_rows", {**base, "state": "reported"})
        run_module("duplicate_rows", {**base, "state": "removed", "rows": found["rows"], "digest": found["digest"]})
        taken = min(example.surplus)
        run(
            connection,
            "INSERT INTO aedpics.inspection_sessions (id, equipment_serial, inspector_id, status)"
            " VALUES (%s, 'X', %s, 'completed')",
            *(taken, INSPECTOR),
        )
        restoration = {**base, "state": "restored", "archived_by": held}
        refused = run_module("duplicate_rows", restoration)
        assert (refused["failed"], refused["details"]["refused"]) == (True, [[taken]])
        for check in (True, False):
            possible = run_module("duplicate_rows", {**restoration, "restore": "possible"}, check=check)
            assert (possible["changed"], possible["restored"], possible["left_count"]) == (True, 24, 1)
            assert [(left["reason"], left["rows"]) for left in possible["left"]] == [("taken", [[taken]])]

    def test_by_a_file_report_check_remove(
        self,
        connection: Connection,
        plan_data: dict[str, Any],
        example: Any,
        login_args: dict[str, Any],
        run_module: Callable[..., dict[str, Any]],
        held: str,
        tmp_path: Path,
    ) -> None:
        path = tmp_path / "cleanup_plan.json"
        base = {"login": login_args, "plan": plan_data, "path": str(path)}
        found = run_module("duplicate_rows", {**base, "state": "reported", "header": {"run_id": "run-1"}}, check=True)
        document = json.loads(path.read_text())
        assert list(document) == ["run_id", "groups", "group_count", "row_count", "digest", "rows"]
        assert {key for key, _ in document["rows"]} == example.surplus
        assert {name: found[name] for name in ("groups", "digest", "row_count")}.items() <= document.items()
        assert "rows" not in found, "the controller never holds all rows"

        removal = {**base, "state": "removed", "run_id": held}
        assert run_module("duplicate_rows", removal, check=True)["removed"] == 25
        document["rows"].pop()
        path.write_text(json.dumps(document))
        assert "exactly the rows that were reviewed" in run_module("duplicate_rows", removal)["msg"]
        path.write_text("{")
        assert "is no clean-up plan" in run_module("duplicate_rows", removal)["msg"]
        assert len(ids(connection)) == 69
        run_module("duplicate_rows", {**base, "state": "reported"})
        done = run_module("duplicate_rows", removal)
        assert (done["removed"], done["rows_left"], done["batches"]) == (25, 0, 1)

    def test_a_stop_says_seen_expected_next(
        self,
        plan_data: dict[str, Any],
        example: Any,
        login_args: dict[str, Any],
        run_module: Callable[..., dict[str, Any]],
        held: str,
    ) -> None:
        smaller = copy.deepcopy(plan_data)
        smaller["expected"] = {"groups": 9, "rows": 24}
        base = {"login": login_args, "plan": smaller}
        found = run_module("duplicate_rows", {**base, "state": "reported"})
        stop = run_module(
            "duplicate_rows",
            {**base, "state": "removed", "rows": found["rows"], "digest": found["digest"], "run_id": held},
        )
        assert stop["failed"]
        assert "10 groups found, 9 expected" in stop["msg"]
        assert stop["details"]["found"] == {"groups": 10, "rows": 25}
        assert parse(smaller).expected.rows == 24

    def test_the_preview_says_whether_the_removal_would_be_refused(
        self,
        connection: Connection,
        plan_data: dict[str, Any],
        example: Any,
        login_args: dict[str, Any],
        run_module: Callable[..., dict[str, Any]],
        held: str,
        tmp_path: Path,
    ) -> None:
        base = {"login": login_args, "plan": plan_data, "path": str(tmp_path / "plan.json"), "run_id": held}
        base |= {"state": "reported", "preview": True, "phase": "cleanup"}
        found = run_module("duplicate_rows", base)
        assert (found["exact"], found["recorded"], found["refusal"]) == (False, False, "")
        assert (found["preview"]["removed"], found["preview"]["rows_left"]) == (25, 0)
        refused = run_module("duplicate_rows", {**base, "max_rows": 24})
        assert (refused["row_count"], refused["preview"]) == (25, {})
        assert refused["refusal"].startswith("25 rows are to leave aedpics.inspection_sessions, the ceiling is 24.")
        older = tmp_path / "reviewed.json"
        older.write_bytes((tmp_path / "plan.json").read_bytes())
        changed = min(example.surplus)
        run(connection, "UPDATE aedpics.inspection_sessions SET notes = 'written since' WHERE id = %s", changed)
        reviewed = run_module("duplicate_rows", {**base, "reviewed": str(older)})["preview"]
        assert (reviewed["removed"], reviewed["rows_left"]) == (24, 1)
        assert reviewed["unarchived"] == [{"row": [changed], "why": "changed"}]
        assert len(ids(connection)) == 69

    def test_a_removal_that_reports_first_has_the_counts_also_when_it_stops(
        self,
        connection: Connection,
        plan_data: dict[str, Any],
        example: Any,
        login_args: dict[str, Any],
        run_module: Callable[..., dict[str, Any]],
        held: str,
    ) -> None:
        removal = {"login": login_args, "plan": plan_data, "state": "removed", "run_id": held}
        assert "report_first" in run_module("duplicate_rows", removal)["msg"]
        assert "report_first" in run_module("duplicate_rows", {**removal, "report_first": False})["msg"]
        removal |= {
            "report_first": True,
            "phase": "cleanup",
            "earlier": {"planned": 2, "removed": 1, "kept_meanwhile": 1},
        }
        stopped = run_module("duplicate_rows", {**removal, "max_rows": 24})
        assert (stopped["details"]["group_count"], stopped["details"]["row_count"]) == (10, 25)
        assert stopped["details"]["ceiling"] == 24
        assert [stopped["details"]["sum"][name] for name in ("groups", "planned", "removed")] == [10, 27, 1]
        predicted = run_module("duplicate_rows", removal, check=True)
        assert len(ids(connection)) == 69
        done = run_module("duplicate_rows", removal)
        for answer in (predicted, done):
            assert [answer[name] for name in ("group_count", "row_count", "removed", "rows_left")] == [10, 25, 25, 0]
            sums = [answer["sum"][name] for name in ("groups", "planned", "removed", "archived", "kept_meanwhile")]
            assert sums == [10, 27, 26, 25, 1]
        assert (predicted["recorded"], done["recorded"]) == (False, True)
        (kept,) = journal.read(connection, run_id=held)
        assert [(phase["name"], phase["status"]) for phase in kept["phases"]] == [("cleanup", "ok")]
        assert kept["phases"][0]["details"] == done["sum"]
        assert len(ids(connection)) == 44
        again = run_module("duplicate_rows", {**removal, "earlier": {}})
        assert (again["changed"], again["row_count"], again["removed"], again["recorded"]) == (False, 0, 0, False)
