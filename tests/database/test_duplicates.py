"""Which rows are surplus, and that exactly the reviewed ones leave: against a real server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from at_most_one.duplicates import groups, surplus_rows
from at_most_one.errors import OperatorError
from at_most_one.plan import Plan
from at_most_one.postgres.connection import Connection, Login, connect

from tests.database.cleaning import TABLE, ids, keys, remove, run


class TestReport:
    def test_finds_the_guides_25_surplus_rows_in_10_groups(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        found = surplus_rows.report(connection, plan)
        assert (found.group_count, found.row_count, found.open_total) == (10, 25, 36)
        assert keys(found.rows) == example.surplus
        assert {g.key["equipment_serial"]: g.keep["id"] for g in found.groups} == {
            serial: kept for serial, kept in example.keep.items() if serial != example.control
        }
        assert not found.truncated

    def test_a_row_that_never_started_is_the_last_to_be_kept(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        group = surplus_rows.report(connection, plan).groups[0]
        assert group.surplus[-1]["id"] == example.never_started
        assert group.surplus[-1]["started_at"] is None

    def test_equal_starts_are_decided_by_the_primary_key(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        run(connection, f"UPDATE {TABLE} SET started_at = '2025-11-07 00:00+00' WHERE equipment_serial = 'AED-0003'")
        group = surplus_rows.report(connection, plan).groups[2]
        listed = [group.keep["id"], *(row["id"] for row in group.surplus)]
        assert listed == sorted(map(str, listed))

    def test_the_limit_cuts_the_groups_and_nothing_else(self, connection: Connection, plan: Plan, example: Any) -> None:
        whole, cut = surplus_rows.report(connection, plan), surplus_rows.report(connection, plan, limit=3)
        assert cut.truncated
        assert cut.groups == whole.groups[:3]
        assert (cut.rows, cut.digest, cut.row_count) == (whole.rows, whole.digest, whole.row_count)

    def test_a_report_describes_so_many_rows_and_so_much_of_a_text(
        self, connection: Connection, plan: Plan, example: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        noted = replace(plan, show=("notes",))
        whole = surplus_rows.report(connection, noted).groups[0]
        for row, length in ((whole.keep, 1_000), (whole.surplus[0], 1_001)):
            run(connection, f"UPDATE {TABLE} SET notes = repeat('x', %s) WHERE id = %s", length, row["id"])
        monkeypatch.setattr(surplus_rows, "SHOWN_ROWS", 4)  # the rows of the first group
        cut = surplus_rows.report(connection, noted)
        (group,) = cut.groups
        assert (cut.truncated, cut.group_count, cut.row_count) == (True, 10, 25)
        assert [group.keep["notes"], group.surplus[0]["notes"]] == ["x" * 1_000, f"{'x' * 1_000}…"]
        assert (group.surplus[1:], group.surplus_count) == (whole.surplus[1:], 3)

    def test_what_others_remove_while_it_is_described_is_left_out_of_a_removal_and_not_of_a_report(
        self, connection: Connection, login: Login, plan: Plan, example: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A report is of one moment. Of a removal a group is described by the row that it keeps, if that is there."""
        before = surplus_rows.report(connection, plan)
        kept, left = before.groups[0].keep["id"], before.groups[1].surplus[0]["id"]

        def described(*asked: Any) -> list[Any]:
            with connect(login, autocommit=True) as other:
                run(other, f"DELETE FROM {TABLE} WHERE id IN (%s, %s)", kept, left)
            return groups.described(*asked)

        with monkeypatch.context() as patched:
            patched.setattr(surplus_rows, "described", described)
            assert surplus_rows.report(connection, plan) == before
        assert surplus_rows.report(connection, plan).row_count == 23, "the next one in order is kept instead"

        first = surplus_rows.report(connection, plan)
        kept, left = first.groups[0].keep["id"], first.groups[1].surplus[0]["id"]
        monkeypatch.setattr(surplus_rows, "described", described)
        shown = remove(connection, plan, first, check=True, describe=True).groups
        assert [group.keep for group in shown] == [group.keep for group in first.groups[1:]]
        assert shown[0].surplus == first.groups[1].surplus[1:]
        assert shown[1:] == first.groups[2:]

    def test_an_empty_table_has_none(self, connection: Connection, plan: Plan) -> None:
        found = surplus_rows.report(connection, plan)
        assert (found.groups, found.rows, found.open_total, found.truncated) == ([], [], 0, False)

    def test_a_role_that_row_security_blinds_gets_an_error_and_no_zero(
        self, connection: Connection, login: Login, plan: Plan, example: Any
    ) -> None:
        run(connection, f"ALTER TABLE {TABLE} ENABLE ROW LEVEL SECURITY")
        run(connection, "CREATE ROLE reader LOGIN PASSWORD 'reader'")
        run(connection, f"GRANT USAGE ON SCHEMA aedpics TO reader; GRANT SELECT ON {TABLE} TO reader")
        try:
            with (
                connect(replace(login, user="reader", password="reader")) as blind,
                pytest.raises(OperatorError, match="row-level security") as stop,
            ):
                surplus_rows.report(blind, plan)
            assert stop.value.details["sqlstate"] == "42501"
        finally:
            run(connection, "DROP OWNED BY reader; DROP ROLE reader")

    def test_a_predicate_may_hold_a_percent_sign_and_a_comment(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        odd = replace(plan, predicate="status IN ('active', 'paused') AND notes LIKE '%100\\%%' -- all of them")
        assert surplus_rows.report(connection, odd).row_count == 25

    @pytest.mark.parametrize(
        ("change", "seen"),
        [
            ({"table": "no_such_table"}, "there is no such table"),
            ({"key": ("equipment",)}, "it has no column equipment"),
            ({"primary_key": ("equipment_serial",)}, "does not identify a row"),
            ({"predicate": "status = 'opened'"}, "invalid input value for enum"),
            ({"predicate": "state = 'active'"}, "does not exist"),
        ],
    )
    def test_a_plan_that_does_not_fit_is_named(
        self, connection: Connection, plan: Plan, change: dict[str, Any], seen: str
    ) -> None:
        with pytest.raises(OperatorError, match=seen):
            surplus_rows.report(connection, replace(plan, **change))

    def test_a_table_that_is_partitioned_by_another_column_is_refused(self, connection: Connection, plan: Plan) -> None:
        run(connection, "CREATE TABLE aedpics.parted (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)")
        parted = replace(plan, table="parted", key=("id",), primary_key=("id", "at"), keep=(), show=())
        with pytest.raises(OperatorError, match="parted is partitioned by at, and rows of different partitions"):
            surplus_rows.report(connection, parted)


class TestRemoval:
    @pytest.mark.versions
    def test_removes_exactly_the_surplus_and_a_second_time_nothing(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        before = ids(connection)
        found = surplus_rows.report(connection, plan)
        done = remove(connection, plan, found)
        assert (done.removed, keys(done.removed_examples)) == (25, example.surplus)
        assert (done.archived, done.groups_left, done.rows_left, done.gone_meanwhile) == (25, 0, 0, 0)
        assert (done.groups, done.longest_batch_ms > 0) == ([], True)
        assert ids(connection) == before - example.surplus
        assert ids(connection) >= example.history
        again = remove(connection, plan, found)
        assert (again.removed, again.statements, again.gone_meanwhile) == (0, [], 25)

    def test_check_mode_predicts_and_writes_nothing(self, connection: Connection, plan: Plan, example: Any) -> None:
        before = ids(connection)
        predicted = remove(connection, plan, surplus_rows.report(connection, plan), check=True)
        assert keys(predicted.removed_examples) == example.surplus
        assert predicted.statements[-1].count(" FOR UPDATE OF ") == 1, "the keepers alone are locked beforehand"
        assert (predicted.groups_left, predicted.rows_left) == (0, 0)
        assert ids(connection) == before
        assert run(connection, "SELECT to_regnamespace('at_most_one')") == [(None,)]
        assert remove(connection, plan, surplus_rows.report(connection, plan)).statements == predicted.statements

    def test_nothing_to_remove_creates_nothing(self, connection: Connection, plan: Plan) -> None:
        done = remove(connection, plan, surplus_rows.report(connection, plan))
        assert (done.removed, done.statements) == (0, [])
        assert run(connection, "SELECT to_regnamespace('at_most_one')") == [(None,)]

    def test_only_reviewed_rows_leave(self, connection: Connection, plan: Plan, example: Any) -> None:
        first = surplus_rows.report(connection, plan).rows[:4]
        done = surplus_rows.remove(connection, plan, rows=first, digest=surplus_rows.digest(first), run_id="run-1")
        assert sorted(done.removed_examples) == first
        assert done.rows_left == 21

    def test_a_keeper_or_history_among_the_rows_stays_and_is_named(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        rows = [[example.keep["AED-0001"]], [next(iter(example.history))]]
        done = surplus_rows.remove(connection, plan, rows=rows, digest=surplus_rows.digest(rows), run_id="run-1")
        assert (done.removed, done.kept_meanwhile) == (0, 2)
        assert done.kept_examples == sorted(rows)

    def test_a_digest_that_does_not_match_stops(self, connection: Connection, plan: Plan, example: Any) -> None:
        found = surplus_rows.report(connection, plan)
        with pytest.raises(OperatorError, match="exactly the rows that were reviewed"):
            surplus_rows.remove(connection, plan, rows=found.rows[1:], digest=found.digest, run_id="run-1")

    def test_a_row_that_is_named_twice_stops(self, connection: Connection, plan: Plan, example: Any) -> None:
        rows = surplus_rows.report(connection, plan).rows[:1] * 2
        with pytest.raises(OperatorError, match="is named twice among the 2 given ones"):
            surplus_rows.remove(connection, plan, rows=rows, digest=surplus_rows.digest(rows), run_id="run-1")

    def test_above_the_ceiling_stops(self, connection: Connection, plan: Plan, example: Any) -> None:
        with pytest.raises(OperatorError, match=r"25 rows are to leave .* the ceiling is 24"):
            remove(connection, plan, surplus_rows.report(connection, plan), max_rows=24)

    @pytest.mark.parametrize(
        ("expected", "seen"),
        [({"expected_rows": 24}, "25 surplus rows found, 24"), ({"expected_groups": 9}, "10 groups found, 9")],
    )
    def test_more_than_expected_stops_before_anything_is_written(
        self, connection: Connection, plan: Plan, example: Any, expected: dict[str, int], seen: str
    ) -> None:
        before = ids(connection)
        with pytest.raises(OperatorError, match=seen):
            remove(connection, plan, surplus_rows.report(connection, plan), **expected)
        assert ids(connection) == before

    def test_a_referenced_row_stops_even_where_the_database_would_cascade(
        self, connection: Connection, plan: Plan, example: Any
    ) -> None:
        surplus = min(example.surplus)
        run(
            connection,
            "CREATE TABLE aedpics.photos (id int PRIMARY KEY, session_id uuid REFERENCES"
            f" {TABLE} (id) ON DELETE CASCADE)",
        )
        run(connection, "INSERT INTO aedpics.photos VALUES (1, %s), (2, %s)", surplus, example.keep["AED-0001"])
        found = surplus_rows.report(connection, plan)
        assert [(r.table, r.columns, r.on_delete, r.rows) for r in found.referenced] == [
            ("aedpics.photos", ["session_id"], "CASCADE", 1)
        ]
        for check in (True, False):
            with pytest.raises(OperatorError, match=r"1 of aedpics\.photos by photos_session_id_fkey"):
                remove(connection, plan, found, check=check)
        assert run(connection, "SELECT count(*) FROM aedpics.photos") == [(2,)]
        run(connection, "DELETE FROM aedpics.photos WHERE id = 1")
        done = remove(connection, plan, found)
        assert (keys(done.removed_examples), done.repointed) == (example.surplus, 0)
