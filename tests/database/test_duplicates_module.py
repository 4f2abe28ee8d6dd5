"""The module of surplus rows: report, check, remove, again, restore; by a list, by a file."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from at_most_one.indexes import definitions
from at_most_one.plan import Plan, parse
from at_most_one.postgres.connection import Connection, Login, connect
from at_most_one.runs import journal, requests
from at_most_one.runs.controllers import Controller
from at_most_one.runs.journal import Opening

from tests.database.cleaning import INSPECTOR, ids, run

Module = Callable[..., dict[str, Any]]


@pytest.fixture
def held(login: Login, plan: Plan) -> str:
    """An open run, which holds the plan."""
    with connect(login) as opening:
        return journal.open_run(opening, Opening(plan, "production", "minsu", Controller("gateway", 1))).run_id


@pytest.fixture
def duplicate_rows(
    run_module: Module, login_args: dict[str, Any], plan_data: dict[str, Any], held: str
) -> Callable[..., dict[str, Any]]:
    """The module, for that run."""

    def call(state: str, *, check: bool = False, **options: Any) -> dict[str, Any]:
        known = {"login": login_args, "plan": plan_data, "run_id": held, "state": state}
        return run_module("duplicate_rows", {**known, **options}, check=check)

    return call


class TestModule:
    def test_a_clean_up_that_is_to_end_removes_nothing_and_says_so(
        self, login: Login, held: str, connection: Connection, example: Any, duplicate_rows: Module
    ) -> None:
        before = ids(connection)
        with connect(login) as other:
            requests.write(other, held, "abort", "hana", "laptop")
        assert duplicate_rows("cleaned", check=True)["removed"] == 25
        stopped = duplicate_rows("cleaned", phase="cleanup")
        assert f"Run {held} was asked to end by hana from laptop at" in stopped["msg"]
        assert (stopped["details"]["cause"], stopped["removed"], stopped["fence_raised"]) == ("aborted", 0, True)
        assert ids(connection) == before

    def test_report_check_remove_again_restore(
        self,
        held: str,
        connection: Connection,
        example: Any,
        duplicate_rows: Module,
    ) -> None:
        before = ids(connection)
        found = duplicate_rows("reported")
        assert (found["changed"], found["group_count"], found["row_count"]) == (False, 10, 25)
        removal = {"rows": found["rows"], "digest": found["digest"]}

        predicted = duplicate_rows("removed", check=True, **removal)
        assert (predicted["changed"], predicted["removed"]) == (True, 25)
        assert ids(connection) == before
        gone = set(predicted["diff"]["before"].splitlines()) - set(predicted["diff"]["after"].splitlines())
        assert len(gone) == 25
        assert all(any(surplus in line for line in gone) for surplus in example.surplus)

        done = duplicate_rows("removed", **removal)
        assert (done["changed"], done["removed"], done["archived"], done["rows_left"]) == (True, 25, 25, 0)
        assert done["diff"] == predicted["diff"]
        assert ids(connection) == before - example.surplus

        again = duplicate_rows("removed", **removal)
        assert (again["changed"], again["removed"], again["gone_meanwhile"]) == (False, 0, 25)

        assert duplicate_rows("restored", archived_by=held, check=True)["restored"] == 25
        assert ids(connection) == before - example.surplus
        assert duplicate_rows("restored", archived_by=held)["restored"] == 25
        assert ids(connection) == before
        assert duplicate_rows("restored", archived_by=held)["changed"] is False

    def test_what_cannot_return_refuses_all_or_is_left(
        self,
        held: str,
        connection: Connection,
        example: Any,
        duplicate_rows: Module,
    ) -> None:
        found = duplicate_rows("reported")
        duplicate_rows("removed", rows=found["rows"], digest=found["digest"])
        taken = min(example.surplus)
        run(
            connection,
            "INSERT INTO aedpics.inspection_sessions (id, equipment_serial, inspector_id, status)"
            " VALUES (%s, 'X', %s, 'completed')",
            *(taken, INSPECTOR),
        )
        refused = duplicate_rows("restored", archived_by=held)
        assert (refused["failed"], refused["details"]["refused"]) == (True, [[taken]])
        for check in (True, False):
            possible = duplicate_rows("restored", archived_by=held, restore="possible", check=check)
            assert (possible["changed"], possible["restored"], possible["left_count"]) == (True, 24, 1)
            assert [(left["reason"], left["rows"]) for left in possible["left"]] == [("taken", [[taken]])]

    def test_by_a_file_report_check_remove(
        self,
        connection: Connection,
        example: Any,
        duplicate_rows: Module,
        tmp_path: Path,
    ) -> None:
        path = tmp_path / "cleanup_plan.json"
        found = duplicate_rows("reported", path=str(path), header={"run_id": "run-1"}, check=True)
        document = json.loads(path.read_text())
        assert list(document) == ["run_id", "groups", "group_count", "row_count", "digest", "rows"]
        assert {key for key, _ in document["rows"]} == example.surplus
        assert {name: found[name] for name in ("groups", "digest", "row_count")}.items() <= document.items()
        assert "rows" not in found, "the controller never holds all rows"

        assert duplicate_rows("removed", path=str(path), check=True)["removed"] == 25
        one_row_less = path.read_text().splitlines(keepends=True)
        del one_row_less[-4]
        path.write_text("".join(one_row_less))
        assert "exactly the rows that were reviewed" in duplicate_rows("removed", path=str(path))["msg"]
        path.write_text("{")
        assert "is no clean-up plan" in duplicate_rows("removed", path=str(path))["msg"]
        assert len(ids(connection)) == 69
        duplicate_rows("reported", path=str(path))
        done = duplicate_rows("removed", path=str(path))
        assert (done["removed"], done["rows_left"], done["batches"]) == (25, 0, 1)

    def test_a_stop_says_seen_expected_next(
        self,
        plan_data: dict[str, Any],
        example: Any,
        duplicate_rows: Module,
    ) -> None:
        smaller = copy.deepcopy(plan_data)
        smaller["expected"] = {"groups": 9, "rows": 24}
        found = duplicate_rows("reported", plan=smaller)
        stop = duplicate_rows("removed", plan=smaller, rows=found["rows"], digest=found["digest"])
        assert stop["failed"]
        assert "10 groups found, 9 expected" in stop["msg"]
        assert stop["details"]["found"] == {"groups": 10, "rows": 25}
        assert parse(smaller).expected.rows == 24

    def test_the_preview_says_whether_the_removal_would_be_refused(
        self,
        connection: Connection,
        example: Any,
        duplicate_rows: Module,
        tmp_path: Path,
    ) -> None:
        options = {"path": str(tmp_path / "plan.json"), "preview": True, "phase": "cleanup"}
        found = duplicate_rows("reported", **options)
        assert (found["exact"], found["refusal"]) == (False, "")
        assert (found["preview"]["removed"], found["preview"]["rows_left"]) == (25, 0)
        refused = duplicate_rows("reported", **options, max_rows=24)
        assert (refused["row_count"], refused["preview"]) == (25, {})
        assert refused["refusal"].startswith("25 rows are to leave aedpics.inspection_sessions, the ceiling is 24.")
        older = tmp_path / "reviewed.json"
        older.write_bytes((tmp_path / "plan.json").read_bytes())
        changed = min(example.surplus)
        run(connection, "UPDATE aedpics.inspection_sessions SET notes = 'written since' WHERE id = %s", changed)
        reviewed = duplicate_rows("reported", **options, reviewed=str(older))["preview"]
        assert (reviewed["removed"], reviewed["rows_left"]) == (24, 1)
        assert reviewed["unarchived"] == [{"row": [changed], "why": "changed"}]
        assert len(ids(connection)) == 69

    def test_a_clean_up_says_what_it_has_done_also_when_it_stops(
        self,
        held: str,
        connection: Connection,
        example: Any,
        duplicate_rows: Module,
    ) -> None:
        stopped = duplicate_rows("cleaned", phase="cleanup", max_rows=24)
        assert (stopped["failed"], stopped["details"]["ceiling"]) == (True, 24)
        assert (stopped["changed"], stopped["fence_raised"]) == (True, True), "the fence was raised before"
        assert [stopped["sum"][name] for name in ("groups", "planned", "removed")] == [10, 25, 0]
        predicted = duplicate_rows("cleaned", phase="cleanup", check=True)
        assert len(ids(connection)) == 69
        done = duplicate_rows("cleaned", phase="cleanup")
        for answer in (predicted, done):
            assert (answer["changed"], answer["fence_raised"], answer["removed"]) == (True, False, 25)
            assert [answer["sum"][name] for name in ("groups", "planned", "removed", "archived")] == [10, 25, 25, 25]
        (kept,) = journal.read(connection, run_id=held)
        connection.rollback()
        assert [(phase["name"], phase["status"]) for phase in kept["phases"]] == [("cleanup", "ok")]
        assert kept["phases"][0]["details"] == done["sum"]
        assert len(ids(connection)) == 44
        again = duplicate_rows("cleaned", phase="cleanup")
        assert (again["changed"], again["sum"]["planned"], again["sum"]["removed"]) == (False, 25, 25), "of this run"
        assert "path, rows" in duplicate_rows("removed")["msg"]

    def test_an_index_that_holds_needs_no_fence(
        self, connection: Connection, plan: Plan, duplicate_rows: Module
    ) -> None:
        connection.autocommit = True
        for index in plan.indexes:
            with connection.cursor() as cursor:
                cursor.execute(definitions.create_statement(index, plan.schema))
        done = duplicate_rows("cleaned", phase="cleanup")
        assert (done["changed"], done["fence_raised"], done["statements"]) == (False, False, [])
